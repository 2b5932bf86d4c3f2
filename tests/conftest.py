import concurrent.futures as futures
import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

import nbformat
import pytest
import torch
import yaml

from zonb.press import chapters, cli, execute

ROOT = Path(__file__).parent.parent
PATIENCE = 1800  # seconds until a test gives up; only a failure takes so long, on however busy a machine


@pytest.fixture(scope="session", autouse=True)
def _environment(tmp_path_factory):
    """Trained networks are shared by the tests of one session and by nothing else; no address of a repository.

    One thread a process, unless a test asks for more: the tests run side by side, one on each core.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # a folder of its own in that of the session
        folder = folder.parent
    os.environ.setdefault("ZONB_CACHE", str(folder / "cache"))
    os.environ.pop("ZONB_REPOSITORY", None)
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed():
    """Weights that a test leaves to chance are the same whichever tests ran before it."""
    torch.manual_seed(0)


@pytest.fixture
def set_threads():
    """Set how many threads torch uses, until the test ends."""
    threads = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(threads)


def extra_memory(setup: str, work: str) -> float:
    """MiB that ``work`` needs at its peak, the second time, in a process of its own."""
    # The process's own account: that of its resource usage begins at the size of the process that starts it.
    lines = ["import sys", f"sys.path.insert(0, {str(ROOT / 'benchmarks')!r})", "import harness", setup]
    code = "\n".join([*lines, f"print(harness.extra_memory(lambda: {work}))"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return float(done.stdout)


def until(condition: Callable[[], object], process: subprocess.Popen | None = None) -> None:
    """Wait for a condition, as long as the process runs that is to bring it about."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.05)


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads the kernel's account of peak memory")


PARAMETERS = 'n = 3  # [1, 9] size\nrate = 0.5  # (0, 1] rate\nlaw = "a"  # {a, b} law\nmany = [1, 2]  # [1, 5] counts'
CLAIM = "from zonb.claims import claim\nclaim('one', {}, 1, sem=0.1, rejects={{'two': 3}})"
FIGURE = "---\nmystnb:\n  figure:\n    name: fig-line\n    caption: A line that rises.\n---\n"
FIGURE += "import matplotlib.pyplot as plt\nfigure, ax = plt.subplots()\nlines = ax.plot([0, seed])"
ENTRY = {"name": "One", "kind": "holds", "source": ["A Eq. 1"], "statement": "One is $1$."}
REFUTED = {**ENTRY, "kind": "refuted", "says": "2", "paper": "two"}
ROW = {**ENTRY, "id": "one", "chapter": "01-a", "relation": "==", "measured": 1.25, "expected": 1.0, "sem": 0.1}
ROW |= {"tolerance": 0.5, "comparisons": 1, "mean": [1.25, 1.0], "spread": None, "power": {"relative": 0.75}}
ROW |= {"rejects": {"two": 2.0}, "against": {"two": 1.25}}
ERRATUM = {"where": "Eq. 1", "quote": "It is two.", "reading": "About two.", "wrong": "It is one."}
ERRATUM |= {"kind": "false", "claims": ["one"]}


class Here(futures.Executor):
    """In the place of a pool: this process does the work at once."""

    def submit(self, do, job):
        future = futures.Future()
        try:
            future.set_result(do(job))
        except Exception as error:
            future.set_exception(error)
        return future


_apart = execute._executor


@contextlib.contextmanager
def _here(scheduler, workers, threads=None):
    if scheduler:
        with _apart(scheduler, workers, threads) as executor:
            yield executor
    else:
        execute._start_worker(threads or max(1, (os.cpu_count() or 1) // workers))
        yield Here()


class SmallBook:
    """A small book in a folder of its own, driven through the command line."""

    def __init__(self, folder: Path):
        self.root = folder
        self.package = ROOT / "zonb"
        for name in ("_toc.yml", "requirements.txt"):
            shutil.copy(ROOT / name, folder)
        (folder / "notebooks").mkdir()
        (folder / "book").mkdir()
        self.word(one=ENTRY)
        self.log = folder / "log.txt"

    def own_package(self) -> None:
        """Give the book a copy of the package, to be edited."""
        self.package = self.root / "zonb"
        shutil.copytree(ROOT / "zonb", self.package, ignore=shutil.ignore_patterns("__pycache__"))

    def word(self, **entries: dict) -> None:
        """Write the wording of the claims."""
        (self.root / "book" / "claims.yml").write_text(yaml.safe_dump(entries))

    def write(self, slug: str, *cells: str, parameters: str = "seed = 0  # [0, 9] seed", prose: str = "Prose.") -> None:
        """Write a chapter; every execution of it adds its slug to the log."""
        mark = f"import os\nwith open(os.environ['BOOK_LOG'], 'a') as log:\n    print('{slug}', file=log)"
        text = "---\njupytext:\n  text_representation:\n    extension: .md\n    format_name: myst\n"
        text += "kernelspec:\n  display_name: Python 3\n  language: python\n  name: python3\n---\n\n"
        text += f"# {slug}\n\n{prose}\n\n```{{code-cell}}\n:tags: [parameters]\n\n{parameters}\n```\n"
        for cell in (mark, *cells):
            text += f"\n```{{code-cell}}\n{cell}\n```\n"
        (self.root / "notebooks" / f"{slug}.md").write_text(text)

    def environment(self, **settings: str) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.package.parent), "BOOK_LOG": str(self.log), **settings}

    def start(
        self, *arguments: str, program: Sequence[str] = ("-m", "zonb.press.cli"), **settings: str
    ) -> subprocess.Popen:
        """The command in a process of its own."""
        # A shell without job control has its background jobs ignore this signal, and what they start inherits that.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return subprocess.Popen(
                [sys.executable, *program, *arguments],
                cwd=self.root,
                env=self.environment(**settings),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        finally:
            signal.signal(signal.SIGINT, before)

    def apart(self, *arguments: str, **settings) -> subprocess.CompletedProcess:
        """The command in a process of its own, done."""
        process = self.start(*arguments, **settings)
        out, err = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def zonb(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess:
        """The command in this process, which is executing the chapters, too."""
        return self.within(lambda: cli.main(arguments), *arguments, **settings)

    def within(self, do: Callable[[], object], *arguments: str, **settings: str) -> subprocess.CompletedProcess:
        """What a program does in this process, as the process that it would otherwise have of its own."""
        out, err = io.StringIO(), io.StringIO()
        with (
            mock.patch.dict(os.environ, self.environment(**settings)),
            mock.patch.object(chapters, "PACKAGE", self.package),
            mock.patch.object(execute, "_executor", _here),
            mock.patch.object(sys, "argv", ["zonb", *arguments]),
            contextlib.chdir(self.root),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                status = do()
            except SystemExit as end:
                status = end.code
                if isinstance(status, str):
                    print(status, file=sys.stderr)
                    status = 1
        return subprocess.CompletedProcess(arguments, int(status or 0), out.getvalue(), err.getvalue())

    def executed(self) -> list[str]:
        """The chapters executed since the last call, sorted."""
        text = self.log.read_text() if self.log.exists() else ""
        self.log.unlink(missing_ok=True)
        return sorted(text.split())

    def results(self, slug: str) -> list[Path]:
        return sorted(set((self.root / "_build" / "quick").glob(f"{slug}-*.ipynb")) - set(self.failed()))

    def failed(self) -> list[Path]:
        return sorted((self.root / "_build" / "quick").glob("*.failed.ipynb"))


@pytest.fixture
def book(tmp_path):
    return SmallBook(tmp_path)


@pytest.fixture(scope="session")
def _result(tmp_path_factory):
    """The folder of results of a book with one chapter of one claim."""
    book = SmallBook(tmp_path_factory.mktemp("book"))
    book.write("01-a", CLAIM.format(1.1))
    assert book.zonb("run", "01").returncode == 0
    return book.root / "_build" / "quick"


@pytest.fixture
def told(book, _result):
    """A small book with a chapter of one claim, which has been executed."""
    book.write("01-a", CLAIM.format(1.1))
    shutil.copytree(_result, book.root / "_build" / "quick")
    return book


@pytest.fixture
def site(told):
    """A book with a chapter that has been executed, an introduction and the derived pages."""
    book = told
    shutil.copytree(ROOT / "book" / "_ext", book.root / "book" / "_ext", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("_static", "pages"):
        shutil.copytree(ROOT / "book" / name, book.root / "book" / name)
    for name in ("references.bib", "notation.yml", "bibliography.md"):
        shutil.copy(ROOT / "book" / name, book.root / "book")
    shutil.copy(ROOT / "_config.yml", book.root)
    made = [
        f"book/{name}"
        for name in ("errata", "map", "ledger", "reproducibility", "benchmarks", "notation", "bibliography", "extend")
    ]
    files = ["notebooks/01-a", *made]
    toc = {"format": "jb-book", "root": "book/intro", "chapters": [{"file": file} for file in files]}
    (book.root / "_toc.yml").write_text(yaml.safe_dump(toc))
    (book.root / "book" / "extend.md").write_text("# Extend\n")
    (book.root / "book" / "intro.md").write_text(
        "# Introduction\n\nSee {cite:t}`li2026zo` and {cite:t}`zhang2026nzk`.\n"
    )
    (book.root / "book" / "errata.yml").write_text(yaml.safe_dump({"A": [ERRATUM]}))
    book.word(one=REFUTED)
    book.write("01-a", CLAIM.format(1.1), prose="The value is {glue:text}`one:.2f`.")
    return book


def text_of(path):
    """All outputs of a published notebook, as one string."""
    cells = nbformat.read(path, as_version=4).cells
    return json.dumps([cell.get("outputs", []) for cell in cells], ensure_ascii=False)


def imported(done):
    """The modules that a command and its workers imported, if it ran with PYTHONPROFILEIMPORTTIME."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    assert lines
    return {line.rpartition("|")[2].strip() for line in lines}
