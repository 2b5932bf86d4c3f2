"""The built site in a real browser. Chromium is found on the PATH, or named by CHROMIUM."""

import os
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parent.parent.parent
SITE = ROOT / "_build" / "html"


def pytest_sessionstart(session):
    if not (SITE / "index.html").is_file():
        pytest.exit("there is no site in _build/html; run 'make book' first", returncode=2)


@pytest.fixture(scope="session")
def chromium():
    named = [os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome"]
    path = next((found for name in named if name and (found := shutil.which(name))), None)
    if path is None:
        pytest.exit("no Chromium found; install one (Debian: apt install chromium) or set CHROMIUM", returncode=2)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visit:
    """One page opened from file://, with everything it complained about or asked for."""

    def __init__(self, browser, name, width=1280, scheme="light"):
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.complaints, self.outside = [], []
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("requestfailed", lambda request: self.complaints.append(f"failed: {request.url}"))
        self.page.on("request", self._note)
        self.page.goto((SITE / name).as_uri())
        self.page.wait_for_load_state("load")
        self.page.wait_for_function("!window.MathJax || MathJax.startup?.promise")
        self.page.evaluate("window.MathJax?.startup?.promise")

    def _note(self, request):
        if not request.url.startswith(("file:", "data:", "blob:")):
            self.outside.append(request.url)


@pytest.fixture
def visit(chromium):
    opened = []

    def open_page(name, **settings):
        opened.append(Visit(chromium, name, **settings))
        return opened[-1]

    yield open_page
    for item in opened:
        item.context.close()
