"""Execute chapters.

A chapter goes from MyST through jupytext to papermill, the only executor. Its result is stored under the key of
everything it follows from (`zonb.chapters.ingredients`), written under a temporary name and renamed when complete:
nothing runs twice, an interrupted build goes on where it stopped, and a failure never replaces a result.
"""

from __future__ import annotations

import concurrent.futures as futures
import contextlib
import csv
import hashlib
import io
import json
import multiprocessing
import os
import platform
import re
import sys
import sysconfig
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbformat

from zonb import chapters, claims
from zonb.chapters import Chapter

_VERSIONED = ("numpy", "torch", "torchvision", "transformers", "matplotlib", "papermill", "jupyter-book")
_MEASURE = """
import json, pathlib, re, sys
try:
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
except ImportError:
    peak = None
status = pathlib.Path("/proc/self/status")
found = re.search(r"VmHWM:\\s+([0-9]+)", status.read_text()) if status.exists() else None
if found:  # on Linux the account above begins at the size of the process that started this one
    peak = int(found[1]) / 2**10
print(json.dumps({"peak": peak, "files": getattr(sys.modules.get("zonb.data"), "files_read", {})}))
"""
_RECORD_BYTES = 2**20
OUTCOMES = ("same", "within tolerance", "new", "missing", "differs")
_COLUMNS = ("claim", "relation", "measured", "expected", "sem", "tolerance", "verdict")


class RunnerError(RuntimeError):
    """What was asked cannot be done; the message says why and what to do."""


@dataclass(frozen=True)
class Run:
    """A chapter with all its parameters fixed.

    Attributes:
        chapter: its source.
        parts: what the result follows from.
        key: their hash.
        path: where the executed notebook is, or will be.
    """

    chapter: Chapter
    parts: Mapping[str, Any]
    key: str
    path: Path

    @property
    def done(self) -> bool:
        """Whether the result is stored."""
        return self.path.exists()


@dataclass(frozen=True)
class Job:
    """What a worker needs to execute a run: text and numbers only, so that it can be on another machine."""

    slug: str
    key: str
    notebook: str
    given: Mapping[str, Any]
    parts: Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What a worker returns: the executed notebook, and the error if a cell failed."""

    notebook: str
    error: str | None


def find_root(start: Path) -> Path:
    """The book's folder: the nearest one at or above ``start`` with a ``_toc.yml`` and chapters in ``notebooks/``.

    Raises:
        RunnerError: there is none, or it has a zonb of its own that is not this one.
    """
    for folder in (start, *start.parents):
        if (folder / "_toc.yml").exists() and chapters.paths(folder):
            if (folder / "zonb").is_dir() and not (folder / "zonb").samefile(chapters.PACKAGE):
                raise RunnerError(f"this zonb is not that of {folder.name}; use .venv/bin/zonb there")
            return folder
    raise RunnerError("no book here: run zonb in the folder that holds _toc.yml and notebooks/*.md, or below it")


def plan(root: Path, chapter: Chapter, given: Mapping[str, Any], profile: str = "quick") -> Run:
    """The run of a chapter under a profile, with ``given`` replacing the profile's parameters.

    Raises:
        ParameterError: a parameter is unknown, ill-typed or out of range.
    """
    values = chapter.values({**_profile(root, profile).get(chapter.slug, {}), **given})
    parts = chapters.ingredients(chapter, values, root / "requirements.txt")
    key = chapters.key(parts)
    return Run(chapter, parts, key, root / "_build" / profile / f"{chapter.slug}-{key}.ipynb")


def run(runs: Sequence[Run], *, scheduler: str | None = None, workers: int | None = None) -> list[str]:
    """Execute what is not stored yet; return a message for every run that failed.

    Args:
        runs: what to execute; finished ones cost nothing.
        scheduler: address of a Dask scheduler; a pool of processes on this machine if not given.
        workers: size of that pool; one a core if not given.
    """
    mine, theirs = [], []
    failures: list[str] = []
    held: dict[Path, Any] = {}
    try:
        for path, item in {item.path: item for item in runs if not item.done}.items():
            lock = _lock(path)
            try:
                lock.acquire(timeout=0)
            except TimeoutError:
                theirs.append(item)
            else:
                held[path] = lock
                if not item.done:
                    mine.append(item)
        if mine:
            failures = _execute_all(mine, scheduler, workers, lambda item: held[item.path].release())
    finally:
        for lock in held.values():
            lock.release()
    for item in theirs:  # Another build has these in hand: wait for it, then do what it did not finish.
        if not item.done:
            print(f"waiting for {item.chapter.slug}, which another zonb is executing", file=sys.stderr, flush=True)
        with _lock(item.path):
            pass
        failures += run([item], scheduler=scheduler, workers=workers)
    return failures


def execute(job: Job) -> Outcome:
    """Execute one job in this process's environment; papermill does the work.

    Raises:
        RunnerError: this machine's zonb or its data differ from those the job was planned with.
    """
    here = chapters.modules(job.parts["code"])
    if here != job.parts["modules"] or chapters.data_checksums(here) != job.parts["data"]:
        raise RunnerError(f"{job.slug}: the worker {platform.node()} has another zonb; install this version there")
    import papermill
    from papermill.exceptions import PapermillExecutionError

    os.environ["PYTHONPATH"] = os.pathsep.join(
        dict.fromkeys([str(chapters.PACKAGE.parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    ).rstrip(os.pathsep)
    os.environ["PYTHONHASHSEED"] = "0"
    os.environ.pop("MPLBACKEND", None)  # the kernel's own shows figures; another would publish none, silently
    notebook = nbformat.reads(job.notebook, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(_MEASURE, metadata={"tags": ["zonb-measure"]}))
    error = None
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source.ipynb", Path(folder) / "executed.ipynb"
        nbformat.write(notebook, source)
        profile = Path(folder) / "ipython"  # empty: a user's own IPython start-up files stay out of the result
        profile.mkdir()
        try:
            papermill.execute_notebook(
                str(source),
                str(target),
                parameters=dict(job.given),
                kernel_name="python3",
                progress_bar=False,
                config=_kernel_config(folder),
                extra_arguments=["--log-level=CRITICAL", f"--ipython-dir={profile}"],
            )
        except PapermillExecutionError as failure:
            cell = f"cell {failure.exec_count} ({_head(failure.source)!r})"
            error = f"{job.slug}: {cell} failed: {failure.ename}: {failure.evalue}"
        except Exception as failure:
            error = f"{job.slug}: the kernel failed: {type(failure).__name__}: {failure}"
        executed = nbformat.read(target if target.exists() else source, as_version=4)
    error = error or _stopped(executed, job)
    seconds = time.perf_counter() - start
    return Outcome(nbformat.writes(_publishable(executed, job, seconds)), error)


def execute_alone(item: Run, threads: int) -> Outcome:
    """Execute a run in a process of its own with so many threads, whether or not its result is stored; store nothing.

    Raises:
        RunnerError: the package was edited since the run was planned.
    """
    with _executor(None, 1, threads) as executor:
        return executor.submit(execute, _job(item)).result()


def ledger(root: Path, profile: str) -> list[dict[str, Any]]:
    """Every claim of the executed book, in the order of the chapters.

    Raises:
        RunnerError: a chapter has no result for its present sources, or two claims share an id.
    """
    rows: list[dict[str, Any]] = []
    for item in _results(root, profile):
        rows += claims.collect(nbformat.read(item.path, as_version=4).cells, item.chapter.slug)
    ids = [row["id"] for row in rows]
    if twice := sorted({id for id in ids if ids.count(id) > 1}):
        raise RunnerError(f"claims share an id: {', '.join(twice)}; ids must be unique in the book")
    return rows


def compare(published: Sequence[Mapping[str, Any]], rerun: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each claim of two ledgers with both numbers and the outcome, in the order of `OUTCOMES`.

    ``same``: the numbers are identical; ``within tolerance``: they are not, but `zonb.claims.disagreements` accepts
    them; ``differs``: it does not; ``missing``: not in the rerun; ``new``: only there. ``apart`` is what that rule
    holds against the tolerances, the difference of the deviations from the formula.
    """
    old, new = ({row["id"]: row for row in rows} for rows in (published, rerun))
    compared = []
    for id in old | new:
        a, b = old.get(id), new.get(id)
        said = claims.disagreements([a] if a else [], [b] if b else [])
        numbers = [row and {name: row[name] for name in ("measured", "expected", "tolerance")} for row in (a, b)]
        apart = None
        if a is None or b is None:
            outcome = "new" if a is None else "missing"
        else:
            equal = all(a[name] == b[name] for name in ("measured", "expected"))
            outcome = "differs" if said else "same" if equal else "within tolerance"
            apart = abs(_deviation(a) - _deviation(b))
        row = {"id": id, "chapter": (new.get(id) or old[id])["chapter"], "outcome": outcome, "apart": apart}
        compared.append({**row, "published": numbers[0], "rerun": numbers[1], "reason": "".join(said) or None})
    return sorted(compared, key=lambda row: OUTCOMES.index(row["outcome"]))


def verify(root: Path, path: Path, profile: str) -> dict[str, Any]:
    """Compare the executed book's ledger with the published one in ``path``; the receipt.

    The receipt says when and by which ledger (SHA-256) it was judged, on what machines and with which versions the
    chapters ran, under which keys their results are stored, and the outcome for each claim.

    Raises:
        RunnerError: ``path`` is not a ledger, or this book has none yet.
    """
    if not path.is_file():
        raise RunnerError(f"there is no ledger {path.name}; give the file that 'zonb ledger --json' wrote")
    text, rerun = path.read_bytes(), ledger(root, profile)
    try:
        published = json.loads(text)
        if not isinstance(published, list):
            raise ValueError("it holds no list of claims")
        compared = compare(published, rerun)
    except (ValueError, TypeError, KeyError) as error:
        raise RunnerError(f"{path.name} is not a ledger: {error!r}") from None
    runs = [nbformat.read(item.path, as_version=4).metadata["zonb"] for item in _results(root, profile)]
    machines = [{"machine": facts["machine"], "versions": facts["versions"]} for facts in runs]
    counts = Counter(row["outcome"] for row in compared)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "profile": profile,
        "ledger": {"file": path.name, "sha256": hashlib.sha256(text).hexdigest()},
        "machines": [facts for k, facts in enumerate(machines) if facts not in machines[:k]],
        "keys": {facts["chapter"]: facts["key"] for facts in runs},
        "counts": {outcome: counts[outcome] for outcome in OUTCOMES},
        "claims": compared,
    }


def sweep_rows(points: Sequence[tuple[Mapping[str, Any], Run]]) -> list[dict[str, Any]]:
    """The claims at the points of a grid, a row each: the grid's parameters, then the claim's numbers and verdict.

    Args:
        points: the grid's parameters and the run of each point; one without a result has no rows.
    """
    return [
        {**point, "claim": row["id"], **{name: row[name] for name in _COLUMNS[1:]}}
        for point, item in points
        if item.done
        for row in claims.collect(nbformat.read(item.path, as_version=4).cells, item.chapter.slug)
    ]


def sweep_csv(grid: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of a sweep as a CSV table; numbers with all their digits."""
    text = io.StringIO()
    table = csv.DictWriter(text, [*grid, *_COLUMNS], lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def sweep_svg(grid: Sequence[str], rows: Sequence[Mapping[str, Any]], id: str) -> str:
    """A claim over a grid: measured with error bars against the first parameter, expected dashed.

    Points that agree in all other parameters share a colour. Bars are standard errors, or the tolerance of a claim
    that has none.

    Raises:
        RunnerError: no row is of this claim.
    """
    of_claim = [row for row in rows if row["claim"] == id]
    if not of_claim:
        known = ", ".join(dict.fromkeys(row["claim"] for row in rows))
        raise RunnerError(f"no claim {id!r} in this sweep; " + (f"choose one of {known}" if known else "it has none"))
    from matplotlib.figure import Figure

    from zonb import plots

    plots.style()
    figure = Figure(figsize=(6.4, 4))
    ax = figure.subplots()
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for row in of_claim:
        lines.setdefault(", ".join(f"{name} = {row[name]}" for name in grid[1:]), []).append(row)
    for k, (label, line) in enumerate(lines.items()):
        at = [row[grid[0]] if isinstance(row[grid[0]], int | float) else str(row[grid[0]]) for row in line]
        measured, expected = ([row[name] for row in line] for name in ("measured", "expected"))
        bars = [row["tolerance"] if row["sem"] is None else row["sem"] for row in line]
        colour = plots.COLOURS[k % len(plots.COLOURS)]
        marker = plots.MARKERS[(k + k // len(plots.COLOURS)) % len(plots.MARKERS)]
        ax.errorbar(at, measured, bars, fmt=marker, color=colour, capsize=3, label=label)
        ax.plot(at, expected, "--", color=colour, linewidth=1.2)
    ax.plot([], [], "--", color=plots.INK, label="expected")
    error = "tolerance" if of_claim[0]["sem"] is None else "standard error"
    ax.set(xlabel=grid[0], ylabel=f"{id} (bars: {error})")
    ax.legend()
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def record(root: Path, item: Run, name: str) -> Path:
    """Publish a finished run as ``book/records/NAME.ipynb``: its facts, its claims and its figures.

    Raises:
        RunnerError: the record would exceed 1 MiB.
    """
    executed = nbformat.read(item.path, as_version=4)
    kept = []
    for cell in executed.cells:
        figure = "figure" in cell.metadata.get("mystnb", {})
        outputs = [o for o in cell.get("outputs", []) if figure or claims.MIME in o.get("data", {})]
        if outputs:
            metadata = {"mystnb": cell.metadata["mystnb"]} if figure else {}
            kept.append(nbformat.v4.new_code_cell(cell.source, outputs=outputs, metadata=metadata, id=cell["id"]))
    executed.cells = kept
    text = nbformat.writes(executed)
    if len(text.encode()) > _RECORD_BYTES:
        size = len(text.encode()) / 2**20
        raise RunnerError(f"the record of {item.chapter.slug} has {size:.1f} MiB, 1 at most: draw smaller figures")
    path = root / "book" / "records" / f"{name}.ipynb"
    write_atomic(path, text + "\n")
    return path


def times(root: Path, profile: str) -> dict[str, dict[str, Any]]:
    """What each chapter took when it was last executed on this machine with the profile's parameters.

    Results of code that has changed since count, too: the key tells. Chapters that never ran are left out.
    """
    found: dict[str, dict[str, Any]] = {}
    for chapter in chapters.read_all(root):
        item = plan(root, chapter, {}, profile)
        results = item.path.parent.glob(f"{chapter.slug}-{'[0-9a-f]' * len(item.key)}.ipynb")
        for path in sorted(results, key=lambda path: path.stat().st_mtime):
            facts = nbformat.read(path, as_version=4).metadata["zonb"]
            if facts["parameters"] == item.parts["parameters"]:
                date = datetime.fromtimestamp(path.stat().st_mtime, UTC).date().isoformat()
                kept = {name: facts[name] for name in ("key", "seconds", "peak_mib", "threads", "machine")}
                found[chapter.slug] = {"date": date, **kept}
    return found


def write_atomic(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old or the new content and nothing between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".", delete=False, encoding="utf-8") as file:
        try:
            file.write(text)
            file.close()
            mask = os.umask(0)
            os.umask(mask)
            Path(file.name).chmod(0o666 & ~mask)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def _deviation(row: Mapping[str, Any]) -> float:
    gap = row["measured"] - row["expected"]
    return gap if row["relation"] == "==" else max(0.0, gap if row["relation"] == "<=" else -gap)


def _results(root: Path, profile: str) -> list[Run]:
    runs = [plan(root, chapter, {}, profile) for chapter in chapters.read_all(root)]
    for item in runs:
        if not item.done:
            raise RunnerError(f"{item.chapter.slug} has no result for its present sources; run 'zonb book' first")
    return runs


def _profile(root: Path, name: str) -> dict[str, dict[str, Any]]:
    if name == "quick":  # the notebooks' own defaults
        return {}
    path = root / "profiles" / f"{name}.yml"
    if not path.is_file():
        known = ["quick", *sorted(p.stem for p in (root / "profiles").glob("*.yml"))]
        raise RunnerError(f"no profile {name!r}; choose one of {', '.join(known)}")
    import yaml

    try:
        profile = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RunnerError(f"profiles/{path.name} is not YAML: {error}") from None
    if not isinstance(profile, dict) or not all(isinstance(values, dict) for values in profile.values()):
        raise RunnerError(f"profiles/{path.name} must read 'CHAPTER: {{PARAMETER: VALUE}}'")
    if unknown := sorted(map(str, profile.keys() - chapters.paths(root).keys())):
        raise RunnerError(f"profiles/{path.name} names {', '.join(unknown)}, which are not chapters")
    return profile


def _lock(path: Path) -> Any:
    from filelock import FileLock

    folder = path.parent / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / f"{path.stem}.lock")


def _execute_all(
    runs: Sequence[Run], scheduler: str | None, workers: int | None, finished: Callable[[Run], Any]
) -> list[str]:
    from tqdm import tqdm

    failures = []
    workers = min(workers or os.cpu_count() or 1, len(runs))
    with (
        _executor(scheduler, workers) as executor,
        tqdm(total=len(runs), unit="run", desc="executing", disable=None) as bar,
    ):
        pending = {executor.submit(execute, _job(item)): item for item in runs}
        for future in futures.as_completed(pending):
            item = pending[future]
            try:
                outcome = future.result()
            except RunnerError as error:  # a worker that refuses stops nobody else
                failures.append(str(error))
                continue
            except Exception as error:
                failures.append(f"{item.chapter.slug}: its worker died: {type(error).__name__}: {error}")
                continue
            failed = item.path.with_suffix(".failed.ipynb")
            write_atomic(failed if outcome.error else item.path, outcome.notebook)
            if outcome.error:
                failures.append(f"{outcome.error}\n  (kept aside: {os.path.relpath(failed)})")
            else:
                failed.unlink(missing_ok=True)
            finished(item)
            bar.update()
    return failures


@contextlib.contextmanager
def _executor(scheduler: str | None, workers: int, threads: int | None = None) -> Iterator[futures.Executor]:
    if scheduler:
        from distributed import Client

        try:
            client = Client(scheduler, timeout="5s")
        except (OSError, ValueError) as error:
            raise RunnerError(f"no Dask scheduler answers at {scheduler!r}: {error}") from error
        with client:
            yield client.get_executor(pure=False)
    else:
        threads = threads or max(1, (os.cpu_count() or 1) // workers)
        pool = futures.ProcessPoolExecutor(
            workers, multiprocessing.get_context("spawn"), initializer=_start_worker, initargs=(threads,)
        )
        try:
            yield pool
        except BaseException:  # Ctrl-C: give up at once; a kernel leaves with the worker that started it
            for process in list((pool._processes or {}).values()):
                process.kill()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _start_worker(threads: int) -> None:
    # Each kernel gets its share of the cores, so that two workers on two cores do not fight.
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    # On a busy machine threads that spin while they wait slow small matrix products down several times over.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    parent = multiprocessing.parent_process()

    def leave_with_parent() -> None:
        # A killed parent cannot stop its workers, and a kernel stops only with the worker that started it.
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()


def _kernel_config(folder: str) -> Any:
    from traitlets.config import Config

    # Sockets in this run's own folder rather than open TCP ports, where the system has them and takes the name.
    if sys.platform == "win32" or len(folder) > 80:
        return Config()
    return Config(KernelManager={"transport": "ipc", "ip": f"{folder}/kernel"})


def _job(item: Run) -> Job:
    values, parameters = item.parts["parameters"], item.chapter.parameters
    given = {name: value for name, value in values.items() if value != parameters[name].default}
    return Job(item.chapter.slug, item.key, nbformat.writes(_numbered(item.chapter.notebook)), given, item.parts)


def _numbered(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    for k, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{k}"
    return notebook


def _stopped(executed: nbformat.NotebookNode, job: Job) -> str | None:
    """What papermill lets pass: a cell that left by SystemExit, and modules edited while the cells ran."""
    for cell in executed.cells:
        if any(output.output_type == "error" for output in cell.get("outputs", [])):
            return f"{job.slug}: cell {cell.execution_count} ({_head(cell.source)!r}) left the notebook before its end"
    if chapters.modules(job.parts["code"]) != job.parts["modules"]:
        return f"{job.slug}: zonb was edited while the chapter ran; run it again"
    return None


def _head(source: str) -> str:
    return next((line for line in source.splitlines() if line.strip()), "")


def _publishable(notebook: nbformat.NotebookNode, job: Job, seconds: float) -> nbformat.NotebookNode:
    """The executed notebook without what belongs to this machine or this moment."""
    measured: dict[str, Any] = {"peak": None, "files": {}}
    kept = []
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if "zonb-measure" in tags:
            # One line may arrive in several pieces.
            text = "".join(output.text for output in cell.outputs if output.get("name") == "stdout")
            measured = json.loads(text) if text.strip() else measured
            continue
        if "injected-parameters" in tags:
            cell["id"] = "injected-parameters"
        if cell.cell_type == "code":
            for output in cell.outputs:
                if output.get("name") == "stderr":
                    print(f"{job.slug}, cell {cell.execution_count}: {output.text}", file=sys.stderr)
            cell.outputs = [_clean(output) for output in _merged(cell.outputs) if output.get("name") != "stderr"]
        kept.append(cell)
    notebook.cells = kept
    notebook.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
        "zonb": {
            "chapter": job.slug,
            "key": job.key,
            "parameters": job.parts["parameters"],
            "data": job.parts["data"] | measured["files"],
            "seconds": round(seconds, 1),
            "peak_mib": None if measured["peak"] is None else round(measured["peak"]),
            "threads": os.environ.get("OMP_NUM_THREADS"),
            "versions": {"python": platform.python_version()} | {name: version(name) for name in _VERSIONED},
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        },
    }
    return notebook


def _merged(outputs: Sequence[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Neighbouring pieces of one stream as one output: a progress bar arrives a frame at a time."""
    kept: list[nbformat.NotebookNode] = []
    for output in outputs:
        if kept and output.output_type == kept[-1].output_type == "stream" and output.name == kept[-1].name:
            kept[-1].text += output.text
        else:
            kept.append(output)
    return kept


def _clean(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """An output whose texts show no path of this machine and no overwritten progress frame; pictures are left alone."""
    named = {sys.prefix: "<environment>", sysconfig.get_path("stdlib"): "<python>", str(Path.home()): "~"}
    named |= {str(chapters.PACKAGE.parent): "<book>", tempfile.gettempdir(): "<temporary>"}
    named |= {os.environ.get("ZONB_DATA", ""): "<data>"}
    folders = sorted((folder for folder in named if folder and Path(folder) != Path(folder).parent), key=len)[::-1]

    def clean(value: Any) -> Any:
        if isinstance(value, list):
            return [clean(item) for item in value]
        if isinstance(value, str):
            for folder in folders:
                value = re.sub(rf"(?<![\w.~>-]){re.escape(folder)}(?![\w.-])", named[folder], value)
            return re.sub(r"[^\n]*\r(?!\n)", "", value)
        return value

    for key in output.keys() & {"text", "evalue", "traceback"}:
        output[key] = clean(output[key])
    for mime in output.get("data", {}):
        if mime.startswith("text/"):
            output.data[mime] = clean(output.data[mime])
    return output
