"""The site: executed notebooks, prose and pages derived from both, rendered by Jupyter Book with execution off."""

from __future__ import annotations

import hashlib
import html
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
import yaml
from bs4 import BeautifulSoup
from filelock import FileLock

from zonb.press import chapters
from zonb.press.book import Run, RunnerError
from zonb.press.chapter_page import chapter_page, download, record_page, times_under_profiles
from zonb.press.chapters import Chapter
from zonb.press.end_matter import (
    benchmarks_page,
    errata_page,
    ledger_page,
    map_page,
    notation_page,
    reproducibility_page,
)

_KEY = ".zonb-key"
_CARDS = "cards-data.js"
# Shipped by the theme and by MathJax, asked for by no page. What MathJax's menu can load at run time stays.
UNUSED = {
    "**/*.map": "source maps, for who debugs the theme",
    "_static/locales": "translations, used while rendering",
    "_static/vendor/fontawesome/webfonts/*.ttf": "browsers take the woff2 beside it",
    "_static/mathjax/[!t]*.js": "parts of the bundle tex-chtml.js, and other bundles",
    "_static/mathjax/tex-[!c]*.js": "other bundles",
    "_static/mathjax/tex-chtml-*.js": "other bundles",
    "_static/mathjax/adaptors": "for use without a browser",
    "_static/mathjax/input/asciimath.js": "no page writes AsciiMath",
    "_static/mathjax/input/tex*.js": "part of the bundle",
    "_static/mathjax/output/chtml.js": "part of the bundle",
    "_static/mathjax/output/chtml/fonts/tex.js": "part of the bundle",
    "_static/mathjax/ui": "its menu is part of the bundle",
}
REPOSITORY = "ZONB_REPOSITORY"  # names the environment variable with the public address, if there is one
_ADDRESS = re.compile(r"https://(?:github|gitlab)\.com/[\w.-]+/[\w.-]+")
_STRICT = ("-W", "-n", "--keep-going", "-q")


# Jupyter Book's command line, in a process that leaves when its parent is killed.
_JUPYTER_BOOK = """
import os, threading, time
from jupyter_book.cli.main import main
parent = os.getppid()
def leave_with_parent():
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
threading.Thread(target=leave_with_parent, daemon=True).start()
main()
"""


def build(root: Path, runs: Sequence[Run], rows: Sequence[Mapping[str, Any]]) -> int:
    """Build ``_build/html`` from executed runs and the ledger's rows; return the exit status.

    Strict: a Sphinx warning fails the build. Every build starts from an empty folder (Sphinx reports a warning
    only the first time), and the site is replaced only when complete. Nothing happens if nothing changed.
    """
    target = root / "_build" / "html"
    target.parent.mkdir(exist_ok=True)
    with FileLock(target.parent / ".html.lock"):  # the site that began last is the one that stays
        for left in target.parent.glob(".site-*"):  # by a build that was killed
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".site-") as folder:
            return _render(root, target, Path(folder), runs, rows)


def _render(root: Path, target: Path, folder: Path, runs: Sequence[Run], rows: Sequence[Mapping[str, Any]]) -> int:
    source = folder / "source"
    _assemble(root, source, runs, rows)
    key = _folder_key(source, root / "requirements.txt")
    index = target / "index.html"
    if index.is_file() and (target / _KEY).is_file() and (target / _KEY).read_text() == key:
        print(f"the site is up to date: {os.path.relpath(index)}")
        return 0
    done = subprocess.run(
        [sys.executable, "-c", _JUPYTER_BOOK, "build", str(source), "--path-output", str(folder), *_STRICT],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    built = folder / "_build" / "html"
    if done.returncode != 0 or not (built / "index.html").is_file():
        print(done.stdout + done.stderr, file=sys.stderr)
        print("zonb: the site was not built; the one in _build/html, if any, is left as it was", file=sys.stderr)
        return 1
    shutil.rmtree(built / ".doctrees", ignore_errors=True)
    notation = yaml.safe_load((root / "book" / "notation.yml").read_text())
    (built / "_static" / _CARDS).write_text(cards(built / "book") + symbol_cards(notation), encoding="utf-8")
    _slim(built, {item.chapter.slug: item.chapter for item in runs})
    (built / "ledger.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False), encoding="utf-8")
    (built / _KEY).write_text(key)
    if target.exists():
        target.rename(folder / "replaced")
    built.rename(target)
    print(f"the site is built: {os.path.relpath(index)}")
    return 0


def buttons(repository: str) -> dict[str, dict[str, Any]]:
    """Settings of Jupyter Book for buttons to the repository, Binder and (from GitHub) Colab; none without an address.

    Raises:
        RunnerError: it is not the address of a repository on GitHub or GitLab.
    """
    if not repository:
        return {}
    if not _ADDRESS.fullmatch(repository):
        raise RunnerError(f"{REPOSITORY}={repository} must read https://github.com/OWNER/NAME, or gitlab.com")
    launch = {"binderhub_url": "https://mybinder.org", "notebook_interface": "jupyterlab"}
    if repository.startswith("https://github.com/"):
        launch["colab_url"] = "https://colab.research.google.com"
    return {
        "repository": {"url": repository, "branch": "HEAD", "path_to_book": ""},
        "html": {"use_repository_button": True, "use_issues_button": True},
        "launch_buttons": launch,
    }


def cards(folder: Path) -> str:
    """A script with what links to the glossary and the bibliography lead to, for ``cards.js``: a page reads no file."""
    found = {}
    for name, selector, body in (("glossary", "dl.glossary dt", "dd"), ("bibliography", "div.citation", "p")):
        path = folder / f"{name}.html"
        page = BeautifulSoup(path.read_text(encoding="utf-8") if path.is_file() else "", "html.parser")
        for entry in page.select(selector):
            text = entry.find_next_sibling(body) if body == "dd" else entry.find(body)
            if text is None:
                raise RunnerError(f"book/{name}: the entry {entry['id']} has no text to show on a card")
            for link in text.select("a[href]"):
                link.unwrap()
            found[f"{name}#{entry['id']}"] = text.decode_contents().strip()
    return f"window.zonbCards = {json.dumps(found, ensure_ascii=False)};\n"


def symbol_cards(notation: Mapping[str, Any]) -> str:
    """A script with the meaning of each symbol, and the chapters where it has it, for ``cards.js``."""
    found = []
    for symbol in notation["symbols"]:
        text = html.escape(symbol["meaning"], quote=False)
        meaning = re.sub(r"\$(.+?)\$", r'<span class="math">\\(\1\\)</span>', text)
        kept = {name: symbol[name] for name in ("tex", "chapters") if name in symbol}
        found.append({**kept, "meaning": meaning})
    return f"window.zonbNotation = {json.dumps(found, ensure_ascii=False)};\n"


def glued(text: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Prose with the ledger's numbers: ``{ledger}`name:format``` is what a claim measured, or a count of claims.

    Raises:
        RunnerError: there is no such claim.
    """
    verdicts = Counter(row["verdict"] for row in rows)
    numbers = {"claims": len(rows), "refuted": verdicts["refuted"], "corrected": verdicts["holds with correction"]}
    numbers |= {row["id"]: row["measured"] for row in rows}

    def number(role: re.Match[str]) -> str:
        if role[1] not in numbers:
            raise RunnerError(f"the prose asks for the claim {role[1]}, which is not in the ledger")
        return format(numbers[role[1]], role[2] or "")

    return re.sub(r"\{ledger\}`([\w.-]+)(?::([^`]*))?`", number, text)


def _figure(name: str, runs: Sequence[Run]) -> str:
    """A chapter's figure as SVG, for a page that shows it again."""
    for item in runs:
        for cell in nbformat.read(item.path, as_version=4).cells:
            if cell.metadata.get("mystnb", {}).get("figure", {}).get("name") == name:
                return next(out.data["image/svg+xml"] for out in cell.outputs if "image/svg+xml" in out.get("data", {}))
    raise RunnerError(f"no chapter has the figure {name}")


def _assemble(root: Path, source: Path, runs: Sequence[Run], rows: Sequence[Mapping[str, Any]]) -> None:
    shutil.copytree(root / "book", source / "book", ignore=shutil.ignore_patterns("records", "_static", "__pycache__"))
    shutil.copytree(root / "book" / "_static", source / "_static")
    (source / "_static" / _CARDS).write_text("")  # so that pages load it; filled from the finished ones
    records = sorted((root / "book" / "records").glob("*.ipynb"))
    toc = yaml.safe_load((root / "_toc.yml").read_text())
    files = [{"file": f"records/{path.stem}"} for path in records]
    if records and "parts" in toc:
        toc["parts"].insert(-1, {"caption": "At full scale", "chapters": files})
    elif records:
        toc["chapters"] += files
    (source / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False))
    (source / "records").mkdir()
    for path in records:
        nbformat.write(record_page(root, path), source / "records" / path.name)
    notation = yaml.safe_load((root / "book" / "notation.yml").read_text())
    config = yaml.safe_load((root / "_config.yml").read_text())
    config["sphinx"]["config"]["mathjax3_config"] = {"tex": {"macros": notation["macros"]}}
    for name, settings in buttons(os.environ.get(REPOSITORY, "")).items():
        config[name] = {**config.get(name, {}), **settings}
    (source / "_config.yml").write_text(yaml.safe_dump(config, sort_keys=False))
    pages = {
        "notation": notation_page(notation),
        "ledger": ledger_page(rows, runs),
        "errata": errata_page(yaml.safe_load((root / "book" / "errata.yml").read_text()), rows),
        "map": map_page(rows),
        "benchmarks": benchmarks_page(root / "book" / "records" / "benchmarks"),
        "reproducibility": reproducibility_page(runs),
    }
    for name, text in pages.items():
        (source / "book" / f"{name}.md").write_text(text)
    for path in (root / "book" / "records" / "benchmarks").glob("*.svg"):
        target = source / "book" / "figures" / f"benchmark-{path.name}"
        target.parent.mkdir(exist_ok=True)
        shutil.copy(path, target)
    for path in sorted((root / "book").glob("*.md")):
        text = glued(path.read_text(), rows)
        (source / "book" / path.name).write_text(text)
        for name in re.findall(r"figures/(fig-[\w-]+)\.svg", text):
            target = source / "book" / "figures" / f"{name}.svg"
            target.parent.mkdir(exist_ok=True)
            target.write_text(_figure(name, runs))
    (source / "notebooks").mkdir()
    for item in runs:
        page = chapter_page(item, runs, records, times_under_profiles(root, item.chapter))
        nbformat.write(page, source / "notebooks" / f"{item.chapter.slug}.ipynb")


def _slim(built: Path, found: Mapping[str, Chapter]) -> None:
    for path in [path for pattern in UNUSED for path in built.glob(pattern)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in built.glob("_sources/*/*.ipynb"):
        facts = nbformat.read(path, as_version=4).metadata["zonb"]
        repository = os.environ.get(REPOSITORY, "")
        nbformat.write(download(found[facts["chapter"]], facts["parameters"], repository), path)


def _folder_key(folder: Path, lock: Path) -> str:
    digest = hashlib.sha256(lock.read_bytes())
    for path in sorted(chapters.PACKAGE.rglob("*.py")):  # this builder, and the docstrings that the reference shows
        digest.update(path.read_bytes())
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
