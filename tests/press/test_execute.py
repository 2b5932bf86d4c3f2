import contextlib
import os
import re
import signal
import subprocess
import sys

import nbformat
import pytest
from conftest import PARAMETERS, PATIENCE, imported, linux_only, text_of, until

from zonb import data
from zonb.press import chapters, execute
from zonb.press.book import RunnerError


def test_a_failing_cell_is_named_and_never_replaces_a_result(book):
    book.write("01-a", "limit = 1\nprint('kept')", "assert 2 < limit, 'two is too much'")
    book.write("02-b", "print('fine')")
    done = book.zonb("run", "01", "02")
    assert done.returncode == 1
    assert "01-a: cell 4" in done.stderr and "assert 2 < limit" in done.stderr and "two is too much" in done.stderr
    assert book.results("01-a") == [] and len(book.results("02-b")) == 1
    (aside,) = book.failed()
    assert "kept" in text_of(aside) and "AssertionError" in text_of(aside)
    assert os.path.relpath(aside, book.root) in done.stderr
    book.write("01-a", "limit = 3\nprint('kept')", "assert 2 < limit, 'two is too much'")
    assert book.zonb("run", "01", "02").returncode == 0


def test_a_failure_that_comes_and_goes_leaves_the_good_result_and_no_failed_one(book):
    book.write("01-a", "import os\nassert not os.environ.get('TROUBLE')")
    assert book.zonb("run", "01", TROUBLE="1").returncode == 1
    assert len(book.failed()) == 1 and book.results("01-a") == []
    assert book.zonb("run", "01").returncode == 0
    assert book.failed() == [] and len(book.results("01-a")) == 1


def test_a_kernel_that_dies_is_a_failure_and_not_a_wait(book):
    book.write("01-a", "import os\nos._exit(9)")
    done = book.zonb("run", "01")
    assert done.returncode == 1 and "kernel" in done.stderr.lower()


def test_kill_loses_nothing_finished_and_the_next_build_goes_on(book):
    book.write("01-quick", "x = 1")
    book.write(
        "02-slow", "import os, time\nprint('pid', os.getpid(), flush=True)", "time.sleep(float(os.environ['NAP']))"
    )
    process = book.start("run", "01", "02", NAP="3600")
    until(lambda: book.results("01-quick") and "02-slow" in book.log.read_text(), process)
    children = descendants(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(book.results("01-quick")) == 1 and book.results("02-slow") == []
    assert sorted(book.executed()) == ["01-quick", "02-slow"]
    until(lambda: not any(alive(child) for child in children))  # a killed build leaves no worker or kernel behind
    assert book.zonb("run", "01", "02", NAP="0").returncode == 0
    assert book.executed() == ["02-slow"]
    nbformat.validate(nbformat.read(book.results("02-slow")[0], as_version=4))


def test_two_builds_at_once_share_the_work_and_corrupt_nothing(book):
    book.write("01-a", "import time\ntime.sleep(1)")
    book.write("02-b", "import time\ntime.sleep(1)")
    both = [book.start("run", "01", "02") for _ in range(2)]
    for process in both:
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, out + err
    assert book.executed() == ["01-a", "02-b"]
    for slug in ("01-a", "02-b"):
        (result,) = book.results(slug)
        nbformat.validate(nbformat.read(result, as_version=4))
    leftovers = [path.name for path in (book.root / "_build" / "quick").iterdir() if path.name.startswith(".")]
    assert leftovers == [".locks"]


def test_what_another_build_has_finished_is_not_waited_for(book, tmp_path):
    go = [tmp_path / "first", tmp_path / "second"]
    for slug, path in zip(("01-a", "02-b"), go, strict=True):
        book.write(slug, f"import os, time\nwhile not os.path.exists({str(path)!r}):\n    time.sleep(0.05)")
    build = book.start("run", "01", "02")
    until(lambda: book.log.exists() and "01-a" in book.log.read_text(), build)
    waits = book.start("run", "01")
    assert waits.stderr.readline() == "waiting for 01-a, which another zonb is executing\n"
    go[0].touch()
    waits.communicate(timeout=PATIENCE)
    assert waits.returncode == 0 and build.poll() is None
    go[1].touch()
    build.communicate(timeout=PATIENCE)
    assert build.returncode == 0 and book.executed() == ["01-a", "02-b"]


def test_published_notebooks_show_no_path_progress_or_stderr(book):
    book.own_package()
    book.write(
        "01-a",
        "import os, pathlib, sys, tempfile, warnings\nprint(os.getcwd(), sys.prefix, tempfile.gettempdir())",
        "print('1 %\\r 50 %\\r100 %')\nwarnings.warn('a warning')\nprint('to stderr', file=sys.stderr)",
        "pathlib.Path(sys.executable)",
    )
    done = book.apart("run", "01")
    shown = text_of(book.results("01-a")[0])
    for path in (str(book.root), "/usr/", os.path.realpath(book.root)):
        assert path not in shown
    assert '"/' not in shown and "'/" not in shown
    assert "50 %" not in shown and "100 %" in shown
    assert "a warning" not in shown and "to stderr" not in shown
    assert "a warning" in done.stderr  # but the terminal shows it


def test_nothing_changed_starts_no_kernel(book):
    book.write("01-a", "import torch")
    first, second = (book.apart("run", "01", PYTHONPROFILEIMPORTTIME="1") for _ in range(2))
    assert book.executed() == ["01-a"]
    assert "1 executed" in first.stdout and {"papermill", "torch"} <= imported(first)
    assert "0 executed, 1 up to date" in second.stdout and not {"papermill", "torch"} & imported(second)


def test_workers_share_the_cores(book):
    cell = "import os\nprint('threads', os.environ['OMP_NUM_THREADS'])"
    book.write("01-a", cell)
    book.write("02-b", cell)
    book.write("03-c", cell)
    book.apart("run", "01", "02", "--workers", "2")
    book.apart("run", "03", "--workers", "1")
    for slug, workers in {"01-a": 2, "02-b": 2, "03-c": 1}.items():
        assert f"threads {max(1, (os.cpu_count() or 1) // workers)}\\n" in text_of(book.results(slug)[0])


def test_a_scheduler_that_does_not_answer_is_said(book):
    book.write("01-a")
    done = book.zonb("run", "01", "--scheduler", "tcp://127.0.0.1:1")
    assert done.returncode == 2 and "no Dask scheduler answers at 'tcp://127.0.0.1:1'" in done.stderr


def test_a_worker_with_another_version_of_the_package_refuses():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import zonb.data")])
    used = chapters.modules(["import zonb.data"])
    for modules, samples in (
        ({"data": "0" * 64}, data.checksums()),
        (used | {"data": "0" * 64}, data.checksums()),
        (used, {"mnist.npz": "0" * 64}),
    ):
        parts = {"code": [], "modules": modules, "data": samples, "parameters": {}}
        with pytest.raises(RunnerError, match="has another zonb"):
            execute.execute(execute.Job("01-a", "key", nbformat.writes(notebook), {}, parts))


def descendants(pid):
    import psutil

    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def alive(pid):
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_shows_progress_with_rate_and_remaining_time(book):
    import pty
    import termios

    book.write("01-a", parameters=PARAMETERS)
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    process = subprocess.Popen(
        [sys.executable, "-m", "zonb.press.cli", "sweep", "01", "-g", "n=1,2"],
        cwd=book.root,
        env=book.environment(),
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):
        while part := os.read(ours, 4096):
            shown += part
    assert process.wait() == 0
    assert re.search(rb"executing: +100%.*2/2 \[\d\d:\d\d<\d\d:\d\d,.*(run/s|s/run)", shown)
    quiet = book.apart("sweep", "01", "-g", "n=4")
    assert "executing" not in quiet.stderr


def test_editing_a_helper_while_its_chapter_runs_is_a_failure(book):
    book.own_package()
    (book.root / "zonb" / "helper.py").write_text("x = 1\n")
    wait = "import os, pathlib, time, zonb\nhelper = pathlib.Path(zonb.__file__).with_name('helper.py')\n"
    wait += "while os.environ.get('WAIT') and 'x = 2' not in helper.read_text():\n    time.sleep(0.05)"
    book.write("01-a", wait, "from zonb.helper import x\nprint('helper', x)")
    process = book.start("run", "01", WAIT="1")
    until(book.log.exists, process)
    (book.root / "zonb" / "helper.py").write_text("x = 2\n")
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1 and "zonb was edited while the chapter ran" in err
    (book.root / "zonb" / "helper.py").write_text("x = 1\n")
    assert book.zonb("run", "01").returncode == 0
    assert "helper 1" in text_of(book.results("01-a")[0])


def test_leaving_a_notebook_early_is_a_failure(book):
    book.write("01-a", "import sys\nsys.exit()", "assert False")
    done = book.zonb("run", "01")
    assert done.returncode == 1 and "left the notebook before its end" in done.stderr and book.results("01-a") == []


def test_frames_that_arrive_one_by_one_are_dropped(book):
    loop = "import time\nfor i in range(4):\n    print(f'\\r{i * 25} %', end='', flush=True)\n    time.sleep(0.3)"
    book.write("01-a", loop)
    assert book.zonb("run", "01").returncode == 0
    shown = text_of(book.results("01-a")[0])
    assert "75 %" in shown and "25 %" not in shown and "50 %" not in shown


def test_figures_do_not_depend_on_the_callers_backend(book):
    book.write("01-a", "import matplotlib.pyplot as plt\nfigure, ax = plt.subplots()")
    assert book.zonb("run", "01", MPLBACKEND="Agg").returncode == 0
    assert "image/png" in text_of(book.results("01-a")[0])


def test_an_interrupt_does_not_wait_for_chapters_and_keeps_what_had_finished(book):
    book.write("01-quick")
    book.write("02-slow", "import time\ntime.sleep(3600)")
    process = book.start("run", "01", "02")
    until(lambda: book.results("01-quick") and "02-slow" in book.log.read_text(), process)
    children = descendants(process.pid)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and "interrupted; what had finished is kept" in err and "Traceback" not in err
    assert len(book.results("01-quick")) == 1 and book.results("02-slow") == []
    until(lambda: not any(alive(child) for child in children))


@pytest.mark.parametrize(
    "text, shown",
    [
        ("a / b, x /= y, base64+/scratch", "a / b, x /= y, base64+<temporary>"),
        ("in /scratch/x/y.py", "in <temporary>/x/y.py"),
        ("x/scratch/y", "x/scratch/y"),
        ("/scratchfile", "/scratchfile"),
    ],
)
def test_paths_are_replaced_where_they_stand_alone(text, shown, monkeypatch):
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/scratch")
    monkeypatch.setenv("HOME", "/")
    output = nbformat.v4.new_output("stream", text=text)
    assert execute._clean(output).text == shown


@pytest.mark.parametrize(
    "pieces",
    [['{"peak": 12.4, "files": {"a.npz": "1f"}}', "\n"], ['{"peak": 12.4, ', '"files": {"a.npz": "1f"}}\n'], []],
)
def test_the_measurement_may_arrive_in_pieces_or_not_at_all(pieces):
    cell = nbformat.v4.new_code_cell("", metadata={"tags": ["zonb-measure"]})
    cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=piece) for piece in pieces]
    job = execute.Job("01-a", "key", "", {}, {"parameters": {}, "data": {"b.npz": "2e"}})
    notebook = execute._publishable(nbformat.v4.new_notebook(cells=[cell]), job, 1.0)
    facts = notebook.metadata["zonb"]
    assert notebook.cells == [] and facts["peak_mib"] == (12 if pieces else None)
    assert facts["data"] == {"b.npz": "2e"} | ({"a.npz": "1f"} if pieces else {})


@linux_only
def test_the_peak_is_that_of_the_chapter_and_not_of_the_worker(book):
    book.write("01-a", "x = bytearray(300 * 2**20)\nx[::4096] = bytes(len(x[::4096]))\ndel x")
    book.write("02-b")
    code = (
        "import nbformat; from pathlib import Path; from zonb.press import execute; from zonb.press.book import Book\n"
        "x = bytearray(800 * 2**20); x[::4096] = bytes(len(x[::4096]))\n"
        "for item in Book(Path()).runs:\n"
        "    job = execute._job(item)\n"
        "    print(nbformat.reads(execute.execute(job).notebook, 4).metadata['zonb']['peak_mib'])"
    )
    large, small = map(float, book.apart(program=("-c", code)).stdout.split())
    assert 20 < small < 300 <= large < small + 320
