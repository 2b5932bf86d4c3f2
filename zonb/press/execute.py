"""Execute chapters.

A chapter goes from MyST through jupytext to papermill, the only executor. Its result is stored under the key of
everything it follows from (`zonb.press.chapters.ingredients`), written under a temporary name and renamed when
complete: nothing runs twice, an interrupted build goes on where it stopped, and a failure never replaces a result.
"""

from __future__ import annotations

import concurrent.futures as futures
import contextlib
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbformat

from zonb.press import chapters
from zonb.press.book import Run, RunnerError, write_atomic

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
    here = _modules(job)
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


def _modules(job: Job) -> dict[str, str]:
    """The modules that the job imports, as they are on this machine now."""
    cells = nbformat.reads(job.notebook, as_version=4).cells
    return chapters.modules(cell.source for cell in cells if cell.cell_type == "code")


def _stopped(executed: nbformat.NotebookNode, job: Job) -> str | None:
    """What papermill lets pass: a cell that left by SystemExit, and modules edited while the cells ran."""
    for cell in executed.cells:
        if any(output.output_type == "error" for output in cell.get("outputs", [])):
            return f"{job.slug}: cell {cell.execution_count} ({_head(cell.source)!r}) left the notebook before its end"
    if _modules(job) != job.parts["modules"]:
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
