"""The site: executed notebooks, prose and pages derived from both, rendered by Jupyter Book with execution off."""

from __future__ import annotations

import hashlib
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

from zonb.press import chapters, end_matter, ledger
from zonb.press.book import Book, RunnerError
from zonb.press.chapter_page import chapter_page, download, inline, record_page
from zonb.press.records import times_under_profiles

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


def build(book: Book, rows: Sequence[Mapping[str, Any]]) -> int:
    """Build ``_build/html`` from executed runs and the ledger's rows; return the exit status.

    Strict: a Sphinx warning fails the build. Every build starts from an empty folder (Sphinx reports a warning
    only the first time), and the site is replaced only when complete. Nothing happens if nothing changed.
    """
    book.build.mkdir(exist_ok=True)
    with FileLock(book.build / ".html.lock"):  # the site that began last is the one that stays
        for left in book.build.glob(".site-*"):  # by a build that was killed
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=book.build, prefix=".site-") as folder:
            return _render(book, Path(folder), rows)


def _render(book: Book, folder: Path, rows: Sequence[Mapping[str, Any]]) -> int:
    source = folder / "source"
    _assemble(book, source, rows)
    key = _folder_key(source, book.lock)
    index, key_file = book.site / "index.html", book.site / _KEY
    if index.is_file() and key_file.is_file() and key_file.read_text() == key:
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
    (built / "_static" / _CARDS).write_text(
        cards(built / "book") + symbol_cards(_yaml(book.notation)), encoding="utf-8"
    )
    _slim(book, built)
    (built / "ledger.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False), encoding="utf-8")
    (built / _KEY).write_text(key)
    if book.site.exists():
        book.site.rename(folder / "replaced")
    built.rename(book.site)
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
    """The text of each entry of the glossary and the bibliography, as a script for ``cards.js``."""
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
    """The meaning of each symbol, and the chapters where it has it, as a script for ``cards.js``."""
    found = [
        {name: symbol[name] for name in ("tex", "chapters") if name in symbol} | {"meaning": inline(symbol["meaning"])}
        for symbol in notation["symbols"]
    ]
    return f"window.zonbNotation = {json.dumps(found, ensure_ascii=False)};\n"


def glued(text: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Prose with the ledger's numbers: ``{ledger}`name:format``` is what a claim measured, or a count of claims.

    Of several comparisons ``name`` is the worst and ``name.mean`` the mean.

    Raises:
        RunnerError: there is no such claim.
    """
    kinds = Counter(row["kind"] for row in rows)
    numbers = {"claims": len(rows), "refuted": kinds["refuted"], "corrected": kinds["holds with correction"]}
    numbers |= {row["id"]: row["measured"] for row in rows}
    numbers |= {f"{row['id']}.mean": row["mean"][0] for row in rows}

    def number(role: re.Match[str]) -> str:
        if role[1] not in numbers:
            raise RunnerError(f"the prose asks for the claim {role[1]}, which is not in the ledger")
        return format(numbers[role[1]], role[2] or "")

    return re.sub(r"\{ledger\}`([\w.-]+)(?::([^`]*))?`", number, text)


def _yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _figure(book: Book, name: str) -> str:
    """A chapter's figure as SVG, for a page that shows it again."""
    for item in book.runs:
        for cell in item.result().cells:
            if cell.metadata.get("mystnb", {}).get("figure", {}).get("name") == name:
                return next(out.data["image/svg+xml"] for out in cell.outputs if "image/svg+xml" in out.get("data", {}))
    raise RunnerError(f"no chapter has the figure {name}")


def _assemble(book: Book, source: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    made = (book.records, book.static, book.templates)
    left = shutil.ignore_patterns("__pycache__", *(path.name for path in made))
    shutil.copytree(book.prose, source / "book", ignore=left)
    shutil.copytree(book.static, source / "_static")
    (source / "_static" / _CARDS).write_text("")  # so that pages load it; filled from the finished ones
    _settings(book, source)
    prose, figures = source / "book", source / "book" / "figures"
    figures.mkdir()
    for name, text in end_matter.pages(book, rows).items():
        (prose / f"{name}.md").write_text(text)
    for path in book.benchmarks.glob("*.svg"):
        shutil.copy(path, figures / f"benchmark-{path.name}")
    for path in sorted(book.prose.glob("*.md")):
        text = glued(path.read_text(), rows)
        (prose / path.name).write_text(text)
        for name in re.findall(r"figures/(fig-[\w-]+)\.svg", text):
            (figures / f"{name}.svg").write_text(_figure(book, name))
    (source / "records").mkdir()
    entries = ledger.wording(book)
    for path in book.record_paths:
        nbformat.write(record_page(book, path, entries), source / "records" / path.name)
    (source / "notebooks").mkdir()
    by_id, took = {row["id"]: row for row in rows}, times_under_profiles(book)
    for item in book.runs:
        page = chapter_page(book, item, by_id, took[item.chapter.slug])
        nbformat.write(page, source / "notebooks" / f"{item.chapter.slug}.ipynb")


def _settings(book: Book, source: Path) -> None:
    """Contents with the records, and settings with the macros of the notation and the buttons."""
    toc, config = _yaml(book.toc), _yaml(book.config)
    files = [{"file": f"records/{path.stem}"} for path in book.record_paths]
    if files and "parts" in toc:
        toc["parts"].insert(-1, {"caption": "At full scale", "chapters": files})
    elif files:
        toc["chapters"] += files
    config["sphinx"]["config"]["mathjax3_config"] = {"tex": {"macros": _yaml(book.notation)["macros"]}}
    for name, settings in buttons(os.environ.get(REPOSITORY, "")).items():
        config[name] = {**config.get(name, {}), **settings}
    for path, content in ((book.toc, toc), (book.config, config)):
        (source / path.name).write_text(yaml.safe_dump(content, sort_keys=False))


def _slim(book: Book, built: Path) -> None:
    for path in [path for pattern in UNUSED for path in built.glob(pattern)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in built.glob("_sources/*/*.ipynb"):
        facts = nbformat.read(path, as_version=4).metadata["zonb"]
        repository = os.environ.get(REPOSITORY, "")
        nbformat.write(download(book.chapter(facts["chapter"]), facts["parameters"], repository), path)


def _folder_key(folder: Path, lock: Path) -> str:
    digest = hashlib.sha256(lock.read_bytes())
    for path in sorted(chapters.PACKAGE.rglob("*.py")):  # this builder, and the docstrings that the reference shows
        digest.update(path.read_bytes())
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
