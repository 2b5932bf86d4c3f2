import contextlib
import csv
import hashlib
import json
import math
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nbformat
import pytest
from conftest import linux_only

from zonb import chapters, claims, cli, data, runner


def text_of(path):
    """All outputs of a published notebook, as one string."""
    cells = nbformat.read(path, as_version=4).cells
    return json.dumps([cell.get("outputs", []) for cell in cells], ensure_ascii=False)


def imported(done):
    """The modules that a command and its workers imported, if it ran with PYTHONPROFILEIMPORTTIME."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    assert lines
    return {line.rpartition("|")[2].strip() for line in lines}


def test_editing_a_helper_reruns_exactly_the_chapters_that_import_it(book):
    book.write("01-claims", "from zonb.claims import report")
    book.write("02-plain", "x = 1")
    book.write("03-chapters", "import zonb.chapters")
    assert book.zonb("run", "01", "02", "03").returncode == 0
    assert book.executed() == ["01-claims", "02-plain", "03-chapters"]
    with (book.root / "zonb" / "claims.py").open("a") as file:
        file.write("\nEDITED = True\n")
    assert book.zonb("run", "01", "02", "03").returncode == 0
    assert book.executed() == ["01-claims"]


def test_a_helper_of_a_helper_is_in_the_key():
    assert {"kernels", "directions", "__init__"} <= chapters.modules(["from zonb import theory"]).keys()
    assert "theory" not in chapters.modules(["from zonb import kernels"])


def test_editing_prose_or_tags_reruns_nothing(book):
    book.write("01-a", "x = 1", prose="Old prose.")
    book.zonb("run", "01")
    book.executed()
    book.write("01-a", ":tags: [hide-input]\n\nx = 1", prose="New prose.")
    done = book.zonb("run", "01")
    assert done.returncode == 0 and "1 up to date" in done.stdout
    assert book.executed() == []


def test_reverting_code_finds_the_old_result(book):
    for cell, ran in (("x = 1", True), ("x = 2", True), ("x = 1", False)):
        book.write("01-a", cell)
        assert book.zonb("run", "01").returncode == 0
        assert bool(book.executed()) is ran
    assert len(book.results("01-a")) == 2


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
    deadline = time.time() + 300
    while not (book.results("01-quick") and "02-slow" in book.log.read_text()) and time.time() < deadline:
        time.sleep(0.05)
    children = descendants(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(book.results("01-quick")) == 1 and book.results("02-slow") == []
    assert sorted(book.executed()) == ["01-quick", "02-slow"]
    while any(alive(child) for child in children) and time.time() < deadline:
        time.sleep(0.1)
    assert not any(alive(child) for child in children), "a killed build leaves no worker or kernel behind"
    assert book.zonb("run", "01", "02", NAP="0").returncode == 0
    assert book.executed() == ["02-slow"]
    nbformat.validate(nbformat.read(book.results("02-slow")[0], as_version=4))


def test_two_builds_at_once_share_the_work_and_corrupt_nothing(book):
    book.write("01-a", "import time\ntime.sleep(1)")
    book.write("02-b", "import time\ntime.sleep(1)")
    both = [book.start("run", "01", "02") for _ in range(2)]
    for process in both:
        out, err = process.communicate(timeout=600)
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
    while not (book.log.exists() and "01-a" in book.log.read_text()):
        time.sleep(0.05)
    waits = book.start("run", "01")
    assert waits.stderr.readline() == "waiting for 01-a, which another zonb is executing\n"
    go[0].touch()
    waits.communicate(timeout=300)
    assert waits.returncode == 0 and build.poll() is None
    go[1].touch()
    build.communicate(timeout=300)
    assert build.returncode == 0 and book.executed() == ["01-a", "02-b"]


def test_a_reader_that_has_seen_enough_is_no_error(book):
    book.write("01-a")
    process = book.start("list")
    process.stdout.close()  # long before anything is written
    assert process.stderr.read() == "" and process.wait() == 0


PARAMETERS = 'n = 3  # [1, 9] size\nrate = 0.5  # (0, 1] rate\nlaw = "a"  # {a, b} law\nmany = [1, 2]  # [1, 5] counts'


@pytest.mark.parametrize(
    "given, complaint",
    [
        ("m=1", "no parameter 'm'"),
        ("n=10", r"n=10 is outside [1, 9]"),
        ("n=1.5", "n=1.5 must be of type int"),
        ("n=x", "n='x' must be of type int"),
        ("rate=0", "rate=0.0 is outside (0, 1]"),
        ("rate=nan", "rate='nan' must be of type float"),
        ("law=c", "law='c' is outside {a, b}"),
        ("many=[]", "many=[] must be a list"),
        ("many=[1,7]", "many=7 is outside [1, 5]"),
        ("n", "'n' must read NAME=VALUE"),
    ],
)
def test_bad_parameters_are_refused_before_a_kernel_starts(book, given, complaint):
    book.write("01-a", parameters=PARAMETERS)
    done = book.zonb("run", "01", "-p", given, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 2 and complaint in done.stderr
    assert not {"papermill", "torch"} & imported(done)
    for row in ("n          3        [1, 9]  size", "rate       0.5      (0, 1]  rate", "{a, b}  law"):
        assert row in done.stderr
    assert book.executed() == []


def test_good_parameters_reach_the_notebook_and_its_key(book):
    book.write("01-a", "print(n, rate, law, many)", parameters=PARAMETERS)
    assert book.zonb("run", "01", "-p", "n=9", "-p", "rate=1", "-p", "law=b", "-p", "many=[5]").returncode == 0
    assert "9 1.0 b [5]" in text_of(book.results("01-a")[0])
    assert book.zonb("run", "01", "-p", "n=3").returncode == book.zonb("run", "01").returncode == 0
    assert book.executed() == ["01-a", "01-a"]  # the default, given or not, is one run


def test_sweep_runs_every_point_of_the_grid_once(book):
    book.write("01-a", "print('point', n, law, many)", parameters=PARAMETERS)
    done = book.zonb("sweep", "01", "-g", "n=1,2", "-g", "law=a,b", "-g", "many=[1],[1,2]", "-p", "rate=1")
    assert done.returncode == 0 and book.executed() == ["01-a"] * 8
    shown = " ".join(text_of(path) for path in book.results("01-a"))
    for n in (1, 2):
        for law in "ab":
            for many in ("[1]", "[1, 2]"):
                assert f"point {n} {law} {many}" in shown
    assert book.zonb("sweep", "01", "-g", "n=1,10").returncode == 2


def test_published_notebooks_show_no_path_progress_or_stderr(book):
    book.write(
        "01-a",
        "import os, pathlib, sys, tempfile, warnings\nprint(os.getcwd(), sys.prefix, tempfile.gettempdir())",
        "print('1 %\\r 50 %\\r100 %')\nwarnings.warn('a warning')\nprint('to stderr', file=sys.stderr)",
        "pathlib.Path(sys.executable)",
    )
    done = book.zonb("run", "01")
    shown = text_of(book.results("01-a")[0])
    for path in (str(book.root), "/usr/", os.path.realpath(book.root)):
        assert path not in shown
    assert '"/' not in shown and "'/" not in shown
    assert "50 %" not in shown and "100 %" in shown
    assert "a warning" not in shown and "to stderr" not in shown
    assert "a warning" in done.stderr  # but the terminal shows it


def test_nothing_changed_starts_no_kernel(book):
    book.write("01-a", "import torch")
    first, second = (book.zonb("run", "01", PYTHONPROFILEIMPORTTIME="1") for _ in range(2))
    assert book.executed() == ["01-a"]
    assert "1 executed" in first.stdout and {"papermill", "torch"} <= imported(first)
    assert "0 executed, 1 up to date" in second.stdout and not {"papermill", "torch"} & imported(second)


def test_workers_share_the_cores(book):
    cell = "import os\nprint('threads', os.environ['OMP_NUM_THREADS'])"
    book.write("01-a", cell)
    book.write("02-b", cell)
    book.write("03-c", cell)
    book.zonb("run", "01", "02", "--workers", "2")
    book.zonb("run", "03", "--workers", "1")
    for slug, workers in {"01-a": 2, "02-b": 2, "03-c": 1}.items():
        assert f"threads {max(1, (os.cpu_count() or 1) // workers)}\\n" in text_of(book.results(slug)[0])


POINT = (
    "from zonb.claims import claim\n"
    "claim('point', n + rate / 3, n, sem=0.1, source='new', statement='A.', rejects={'b': -9}, verdict='new')\n"
    "claim('law', float(law == 'a'), 1, tol=1.5, source='new', statement='B.', rejects={'c': 9}, verdict='new')"
)


def table(book):
    """The one table that sweeps left, as rows."""
    (path,) = (book.root / "_build" / "quick").glob("sweep-*.csv")
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_sweep_leaves_one_row_a_point_and_claim(book):
    book.write("01-a", POINT, parameters=PARAMETERS)
    done = book.zonb("sweep", "01", "-g", "n=1,2", "-g", "law=a,b", "-p", "rate=0.1")
    assert done.returncode == 0 and done.stdout.splitlines()[-1].startswith("_build/quick/sweep-01-a-")
    rows = table(book)
    assert list(rows[0]) == ["n", "law", "claim", "relation", "measured", "expected", "sem", "tolerance", "verdict"]
    assert [(row["n"], row["law"], row["claim"]) for row in rows] == [
        (n, law, claim) for n in "12" for law in "ab" for claim in ("point", "law")
    ]
    first, second = rows[:2]
    assert float(first["measured"]) == 1 + 0.1 / 3 and first["expected"] == "1.0" and first["verdict"] == "new"
    assert float(first["sem"]) == pytest.approx(0.1) and second["sem"] == "" and second["tolerance"] == "1.5"
    assert book.zonb("sweep", "01", "-g", "n=1,2", "-p", "rate=0.1").returncode == 0
    assert len(list((book.root / "_build" / "quick").glob("sweep-*.csv"))) == 2


def test_a_failed_point_is_absent_from_the_table_and_said(book):
    book.write("01-a", POINT, "assert (n, law) != (2, 'b')", parameters=PARAMETERS)
    done = book.zonb("sweep", "01", "-g", "n=1,2", "-g", "law=a,b")
    assert done.returncode == 1 and "the table lacks n=2, law=b, which failed" in done.stderr
    assert {(row["n"], row["law"]) for row in table(book)} == {("1", "a"), ("1", "b"), ("2", "a")}


def test_a_sweep_is_drawn_or_says_which_claims_it_has(book):
    book.write("01-a", POINT, parameters=PARAMETERS)
    grid = ("sweep", "01", "-g", "n=1,2", "-g", "law=a,b", "--plot")
    unknown = book.zonb(*grid, "pint")
    assert unknown.returncode == 2 and "no claim 'pint' in this sweep; choose one of point, law" in unknown.stderr
    assert len(table(book)) == 8
    done = book.zonb(*grid, "point")
    assert done.returncode == 0, done.stderr
    picture = (book.root / done.stdout.splitlines()[-1]).read_text()
    for text in ("law = a", "law = b", "expected", "point (bars: standard error)"):
        assert f"<!-- {text} -->" in picture
    book.zonb(*grid, "point")
    assert (book.root / done.stdout.splitlines()[-1]).read_text() == picture


@contextlib.contextmanager
def dask(*arguments, environment):
    """A Dask command in the background, in the words of the page on sweeps."""
    command = [str(Path(sys.executable).parent / "dask"), *arguments]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_two_dask_workers_make_the_table_that_this_machine_makes(book, tmp_path_factory):
    from distributed import Client

    book.write("01-a", "import os\nprint('parent', os.getppid())", POINT, parameters=PARAMETERS)
    grid = ("sweep", "01", "-g", "n=1,2,3", "-g", "law=a,b")
    assert book.zonb(*grid).returncode == 0
    here = table(book)
    shutil.rmtree(book.root / "_build")
    book.executed()
    environment = {**os.environ, "PYTHONPATH": str(book.root), "BOOK_LOG": str(book.log)}
    file = str(tmp_path_factory.mktemp("dask") / "scheduler.json")
    options = ("--no-dashboard", "--scheduler-file", file)
    with (
        dask("scheduler", "--host", "127.0.0.1", "--port", "0", *options, environment=environment),
        dask("worker", "--nworkers", "2", "--nthreads", "1", *options, environment=environment),
        Client(scheduler_file=file, timeout=30) as client,
    ):
        client.wait_for_workers(2, timeout=60)
        workers = set(client.run(os.getpid).values())
        done = book.zonb(*grid, "--scheduler", client.scheduler.address)
    assert done.returncode == 0, done.stderr
    assert table(book) == here and len(here) == 12 and book.executed() == ["01-a"] * 6
    shown = " ".join(text_of(path) for path in book.results("01-a"))
    assert len(workers) == 2 and {pid for pid in workers if f"parent {pid}" in shown} == workers


def test_a_scheduler_that_does_not_answer_is_said(book):
    book.write("01-a")
    done = book.zonb("run", "01", "--scheduler", "tcp://127.0.0.1:1")
    assert done.returncode == 2 and "no Dask scheduler answers at 'tcp://127.0.0.1:1'" in done.stderr


def test_a_worker_with_another_version_of_the_package_refuses(book):
    parts = {"code": ["import zonb.claims"], "modules": {"claims": "0" * 64}, "data": {}, "parameters": {}}
    job = runner.Job("01-a", "key", nbformat.writes(nbformat.v4.new_notebook()), {}, parts)
    with pytest.raises(runner.RunnerError, match="has another zonb"):
        runner.execute(job)
    used = chapters.modules(["import zonb.data"])
    for modules, samples in ((used | {"data": "0" * 64}, data.checksums()), (used, {"mnist.npz": "0" * 64})):
        parts |= {"code": ["import zonb.data"], "modules": modules, "data": samples}
        with pytest.raises(runner.RunnerError, match="has another zonb"):
            runner.execute(job)


def test_other_versions_of_the_packages_make_another_run(book):
    book.write("01-a")
    assert book.zonb("run", "01").returncode == 0
    (book.root / "requirements.txt").write_text("torch==0.1\n")
    assert book.zonb("run", "01").returncode == 0 and book.executed() == ["01-a", "01-a"]


CLAIM = (
    "from zonb.claims import claim\n"
    "claim('one', {}, 1, sem=0.1, source='new', statement='One.', rejects={{'two': 3}}, verdict='new')"
)


def test_verify_compares_claim_by_claim_and_leaves_a_receipt(book):
    book.write("01-a", CLAIM.format(1.1))
    assert book.zonb("run", "01").returncode == 0
    published = book.zonb("ledger", "--json").stdout
    (row,) = json.loads(published)
    assert row["chapter"] == "01-a" and row["measured"] == 1.1 and row["sem"] == pytest.approx(0.1)

    def verified(*rows, options=()):
        (book.root / "ledger.json").write_text(json.dumps(rows))
        done = book.zonb("verify", "ledger.json", *options)
        receipt = json.loads((book.root / "_build" / "verify-receipt.json").read_text())
        digest = hashlib.sha256((book.root / "ledger.json").read_bytes()).hexdigest()
        assert receipt["ledger"] == {"file": "ledger.json", "sha256": digest}
        assert done.stdout.splitlines()[-1] == "_build/verify-receipt.json"
        return done, receipt

    same, receipt = verified(row)
    assert same.returncode == 0
    assert same.stdout.startswith("1 claims compared: 1 same, 0 within tolerance, 0 new, 0 missing, 0 differs\n")
    (result,) = book.results("01-a")
    assert result.stem == f"01-a-{receipt['keys']['01-a']}" and receipt["profile"] == "quick"
    assert receipt["machines"][0]["versions"]["python"] == platform.python_version()
    assert datetime.now(UTC) - datetime.fromisoformat(receipt["date"]) < timedelta(minutes=1)
    shown, _ = verified(row, options=["--all"])
    assert "same: one: published 1.1 for 1, rerun 1.1 for 1, apart 0\n" in shown.stdout

    close, receipt = verified({**row, "measured": 1.2})
    assert (
        close.returncode == 0
        and "within tolerance: one: published 1.2 for 1, rerun 1.1 for 1, apart 0.1\n" in close.stdout
    )
    (outcome,) = receipt["claims"]
    assert outcome["published"]["measured"] == 1.2 and outcome["rerun"]["measured"] == 1.1

    other, receipt = verified({**row, "measured": 2.0}, {**row, "id": "two"})
    assert other.returncode == 1 and "differs: one: published 2 for 1, rerun 1.1 for 1, further apart" in other.stdout
    assert "missing: two: only in the published ledger" in other.stdout
    assert [(claim["id"], claim["outcome"]) for claim in receipt["claims"]] == [("two", "missing"), ("one", "differs")]
    assert receipt["counts"] == {"same": 0, "within tolerance": 0, "new": 0, "missing": 1, "differs": 1}
    extra, _ = verified()
    assert extra.returncode == 1 and "new: one: only in the rerun" in extra.stdout


ROW = {"id": "c", "chapter": "01-a", "verdict": "holds", "relation": "==", "measured": 1.0, "expected": 1.0}
ROW["tolerance"] = 0.3


@pytest.mark.parametrize(
    ("changed", "outcome"),
    [
        ({}, "same"),
        ({"tolerance": 0.2}, "same"),
        ({"measured": 1.0 + 2**-52}, "within tolerance"),
        ({"measured": 1.4}, "within tolerance"),
        ({"measured": 1.5}, "differs"),
        ({"expected": 1.1, "measured": 1.1}, "within tolerance"),
        ({"measured": 0.2, "relation": "<="}, "within tolerance"),
        ({"measured": 1.6, "relation": "<="}, "differs"),
        ({"measured": float("nan")}, "differs"),
    ],
)
def test_an_outcome_is_the_rule_of_disagreements_and_same_means_identical(changed, outcome):
    row = {**ROW, "relation": changed.get("relation", "==")}
    changed = {**row, **changed}
    (compared,) = runner.compare([row], [changed])
    assert compared["outcome"] == outcome
    assert bool(claims.disagreements([row], [changed])) is (outcome == "differs")
    assert (compared["apart"] <= math.hypot(row["tolerance"], changed["tolerance"])) is (outcome != "differs")


def test_another_verdict_differs_whatever_the_numbers():
    assert [row["outcome"] for row in runner.compare([ROW], [{**ROW, "verdict": "refuted"}])] == ["differs"]


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"id": "one"}]'])
def test_a_file_that_is_no_ledger_is_said(book, text):
    book.write("01-a", CLAIM.format(1.1))
    book.zonb("run", "01")
    (book.root / "ledger.json").write_text(text)
    done = book.zonb("verify", "ledger.json")
    assert done.returncode == 2 and "ledger.json is not a ledger" in done.stderr


def test_a_ledger_needs_results_and_unique_ids(book):
    book.write("01-a", CLAIM.format(1.1))
    missing = book.zonb("ledger")
    assert missing.returncode == 2 and "01-a has no result" in missing.stderr
    book.write("02-b", CLAIM.format(1.1))
    book.zonb("run", "01", "02")
    twice = book.zonb("ledger")
    assert twice.returncode == 2 and "claims share an id: one" in twice.stderr


def test_profiles_set_parameters_and_are_checked(book):
    book.write("01-a", "print('n is', n)", parameters=PARAMETERS)
    (book.root / "profiles").mkdir()
    (book.root / "profiles" / "paper.yml").write_text("01-a: {n: 7}\n")
    assert book.zonb("run", "01", "--profile", "paper").returncode == 0
    (result,) = (book.root / "_build" / "paper").glob("01-a-*.ipynb")
    assert "n is 7" in text_of(result)
    assert "choose one of quick, paper" in book.zonb("run", "01", "--profile", "other").stderr
    (book.root / "profiles" / "paper.yml").write_text("02-b: {n: 7}\n")
    assert "02-b, which are not chapters" in book.zonb("run", "01", "--profile", "paper").stderr


def test_list_names_every_parameter(book):
    book.write("01-a", parameters=PARAMETERS)
    shown = book.zonb("list").stdout
    assert "01-a: 01-a [to be executed]" in shown and "(0, 1]  rate" in shown


def test_outside_a_book_the_command_says_where_to_go(tmp_path):
    with pytest.raises(runner.RunnerError, match="no book here"):
        runner.find_root(tmp_path)


@pytest.mark.parametrize(
    "parameters, complaint",
    [
        ("n = 3", "needs its range"),
        ("n = 3  # size", "needs its range"),
        ("n = 30  # [1, 9] size", "outside"),
        ("print(3)", "may hold assignments"),
    ],
)
def test_parameter_cells_without_a_range_are_refused(book, parameters, complaint):
    book.write("01-a", parameters=parameters)
    done = book.zonb("list")
    assert done.returncode == 2 and complaint in done.stderr


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    runner.write_atomic(path, "old")
    with pytest.raises(UnicodeEncodeError):
        runner.write_atomic(path, "new, but" + "x" * 100_000 + "\ud800")  # fails when a part may have been written
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["file.txt"]


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
        [sys.executable, "-m", "zonb.cli", "sweep", "01", "-g", "n=1,2,3"],
        cwd=book.root,
        env={**os.environ, "PYTHONPATH": str(book.root), "BOOK_LOG": str(book.log)},
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):
        while part := os.read(ours, 4096):
            shown += part
    assert process.wait() == 0
    assert re.search(rb"executing: +100%.*3/3 \[\d\d:\d\d<\d\d:\d\d,.*(run/s|s/run)", shown)
    quiet = book.zonb("sweep", "01", "-g", "n=4,5")
    assert "executing" not in quiet.stderr


def test_editing_a_helper_while_its_chapter_runs_is_a_failure(book):
    (book.root / "zonb" / "helper.py").write_text("x = 1\n")
    wait = "import os, pathlib, time, zonb\nhelper = pathlib.Path(zonb.__file__).with_name('helper.py')\n"
    wait += "while os.environ.get('WAIT') and 'x = 2' not in helper.read_text():\n    time.sleep(0.05)"
    book.write("01-a", wait, "from zonb.helper import x\nprint('helper', x)")
    process = book.start("run", "01", WAIT="1")
    while not book.log.exists():
        time.sleep(0.05)
    (book.root / "zonb" / "helper.py").write_text("x = 2\n")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1 and "zonb was edited while the chapter ran" in err
    (book.root / "zonb" / "helper.py").write_text("x = 1\n")
    assert book.zonb("run", "01").returncode == 0
    assert "helper 1" in text_of(book.results("01-a")[0])


def test_relative_imports_are_followed(book):
    (book.root / "zonb" / "helper.py").write_text("x = 1\n")
    (book.root / "zonb" / "upper.py").write_text("from .helper import x\n")
    book.write("01-a", "from zonb.upper import x\nprint('helper', x)")
    for value in (1, 2):
        (book.root / "zonb" / "helper.py").write_text(f"x = {value}\n")
        assert book.zonb("run", "01").returncode == 0
    assert book.executed() == ["01-a", "01-a"]


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
    deadline = time.time() + 300
    while not (book.results("01-quick") and "02-slow" in book.log.read_text()) and time.time() < deadline:
        time.sleep(0.05)
    children = descendants(process.pid)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130 and "interrupted; what had finished is kept" in err and "Traceback" not in err
    assert len(book.results("01-quick")) == 1 and book.results("02-slow") == []
    while any(alive(child) for child in children) and time.time() < deadline:
        time.sleep(0.1)
    assert not any(alive(child) for child in children)


@pytest.mark.parametrize(
    "cells, parameters, complaint",
    [
        (["x = ("], "n = 3  # [1, 9] n", "01-a.md: '(' was never closed"),
        (["%matplotlib inline"], "n = 3  # [1, 9] n", "01-a.md: invalid syntax in '%matplotlib inline'"),
        (["import zonb.nosuch"], "n = 3  # [1, 9] n", "there is no module zonb.nosuch"),
        ([], "n = 2**10  # [1, 9] n", "01-a.md, parameters cell"),
        ([], "n = 3  # [a, b] n", "01-a.md, parameters cell"),
        ([], "n = 'a'  # [1, 2] n", "01-a.md, parameters cell"),
        ([], "a = b = 3  # [1, 9] n", "may hold assignments"),
        ([], "", "the parameters cell is empty"),
    ],
)
def test_mistakes_in_a_source_are_named_without_a_traceback(book, cells, parameters, complaint):
    book.write("01-a", *cells, parameters=parameters)
    done = book.zonb("run", "01")
    assert done.returncode == 2 and complaint in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("text", ["01-a: [1", "- 01-a", "01-a: 3", "01-a:"])
def test_mistakes_in_a_profile_are_named(book, text):
    book.write("01-a")
    (book.root / "profiles").mkdir()
    (book.root / "profiles" / "paper.yml").write_text(text)
    done = book.zonb("run", "01", "--profile", "paper")
    assert done.returncode == 2 and "profiles/paper.yml" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["run", "01", "-p", "n=4", "-p", "n=5"], "n is given twice"),
        (["sweep", "01", "-g", "n=1", "-g", "n=2"], "n is given twice"),
        (["sweep", "01", "-g", "n=1,2", "-p", "n=5"], "n is given both as a grid and as a value"),
        (["sweep", "01", "-g", "rate=1,0.5,1.0"], "rate=1,0.5,1.0 has a value twice"),
        (["run", "01", "-p", "n={[1]:2}"], "must be of type int"),
        (["run", "01", "-p", "rate=1" + "0" * 400], "rate="),
        (["verify", "nowhere.json"], "there is no ledger nowhere.json"),
        (["run", "07"], "no chapter '07'; choose one of 01-a"),
    ],
)
def test_contradictory_requests_are_refused(book, arguments, complaint):
    book.write("01-a", parameters=PARAMETERS)
    done = book.zonb(*arguments)
    assert done.returncode == 2 and complaint in done.stderr and "Traceback" not in done.stderr
    assert book.executed() == []


@pytest.mark.parametrize("name", ["01", "1", "01-a", "notebooks/01-a.md"])
def test_a_chapter_goes_by_its_number_its_name_and_its_file(book, name):
    book.write("01-a")
    book.write("11-b")
    assert book.zonb("run", name).returncode == 0
    assert book.executed() == ["01-a"]


def test_choices_that_look_like_numbers_are_text(book):
    book.write("01-a", "print('law is', repr(law))", parameters='law = "1"  # {1, 2, None} law')
    assert book.zonb("run", "01", "-p", "law=2").returncode == 0
    assert "law is '2'" in text_of(book.results("01-a")[0])


def test_the_package_of_another_book_is_refused(book):
    book.write("01-a")
    command = [str(Path(sys.executable).parent / "zonb"), "list"]
    done = subprocess.run(command, cwd=book.root, capture_output=True, text=True)
    assert done.returncode == 2 and "this zonb is not that of" in done.stderr


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
    assert runner._clean(output).text == shown


@pytest.mark.parametrize(
    "pieces",
    [['{"peak": 12.4, "files": {"a.npz": "1f"}}', "\n"], ['{"peak": 12.4, ', '"files": {"a.npz": "1f"}}\n'], []],
)
def test_the_measurement_may_arrive_in_pieces_or_not_at_all(pieces):
    cell = nbformat.v4.new_code_cell("", metadata={"tags": ["zonb-measure"]})
    cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=piece) for piece in pieces]
    job = runner.Job("01-a", "key", "", {}, {"parameters": {}, "data": {"b.npz": "2e"}})
    notebook = runner._publishable(nbformat.v4.new_notebook(cells=[cell]), job, 1.0)
    facts = notebook.metadata["zonb"]
    assert notebook.cells == [] and facts["peak_mib"] == (12 if pieces else None)
    assert facts["data"] == {"b.npz": "2e"} | ({"a.npz": "1f"} if pieces else {})


@linux_only
def test_the_peak_is_that_of_the_chapter_and_not_of_the_worker(book):
    book.write("01-a", "x = bytearray(300 * 2**20)\nx[::4096] = bytes(len(x[::4096]))\ndel x")
    book.write("02-b")
    code = (
        "import nbformat; from pathlib import Path; from zonb import chapters, runner\n"
        "x = bytearray(800 * 2**20); x[::4096] = bytes(len(x[::4096]))\n"
        "for path in chapters.paths(Path()).values():\n"
        "    job = runner._job(runner.plan(Path(), chapters.read(path), {}))\n"
        "    print(nbformat.reads(runner.execute(job).notebook, 4).metadata['zonb']['peak_mib'])"
    )
    large, small = map(float, book.zonb(program=("-c", code)).stdout.split())
    assert 20 < small < 300 <= large < small + 320


def test_a_choice_with_dots_takes_any_text():
    (parameter,) = chapters._parameters('model = "family"  # {family, opt-1m, ...} which', "here")
    for text in ("family", "opt-1m", "smollm2-135m", "facebook/opt-125m"):
        assert parameter.parse(text) == text
    for text in ("", " ", "..."):
        with pytest.raises(chapters.ParameterError, match="model="):
            parameter.parse(text)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (["source=full", "n_runs=40", "seed=1"], "10-images-source-full"),
        (["n_runs=40", "seed=1"], "10-images-n-runs-40-seed-1"),
        (["perturbations=[1, 5]"], "02-projected-kernel-perturbations-1-5"),
    ],
)
def test_words_name_a_record_and_numbers_only_where_there_are_none(monkeypatch, given, name):
    names = []
    monkeypatch.chdir(chapters.PACKAGE.parent)
    monkeypatch.setattr(cli, "_finish", lambda runs, options: 0)
    monkeypatch.setattr(cli, "record", lambda root, item, name: names.append(name) or root / name)
    assert cli.main(["record", name[:2], *(part for pair in given for part in ("-p", pair))]) == 0
    assert names == [name]


def again(book, *arguments):
    return book.zonb("--seed", "7", *arguments, program=[str(chapters.PACKAGE.parent / "tools" / "check_again.py")])


MEASURED = (
    "from zonb.claims import claim\n"
    "claim('{0}', {1}, 1.5, tol=0.6, source='new', statement='A.', rejects={{'far': 9}}, verdict='new')"
)


def test_chapters_executed_again_are_held_against_their_stored_results(book):
    book.write("01-steady", MEASURED.format("steady", "1.1"))
    book.write("02-threads", MEASURED.format("threads", "min(2, int(os.environ['OMP_NUM_THREADS']))"))
    book.write("03-counted", MEASURED.format("counted", "1 + 1e-9 * open(os.environ['BOOK_LOG']).read().count('03')"))
    assert "no result to compare with" in again(book, "01").stderr
    assert book.zonb("run", "01", "02", "03").returncode == 0
    stored = {path: path.read_bytes() for path in (book.root / "_build").rglob("*.ipynb")}

    done = again(book, "01")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "seed 7" and lines[-1] == "as stored" and len(lines) == 5
    assert all(line.split()[0] == "01-steady" and line.split()[2:] == list("110000") for line in lines[2:4])
    assert len({line.split()[1] for line in lines[2:4]}) == 2

    done = again(book)
    assert done.returncode == 1 and len(done.stdout.splitlines()) == 2 + 6 + 2
    first, second = sorted(done.stdout.splitlines()[-2:])
    assert re.match(r"02-threads, \d+ threads: threads: published \d for 1.5, rerun \d for 1.5, further apart", first)
    assert re.match(r"03-counted, \d+ threads: counted: within tolerance, but not identical", second)
    assert {path: path.read_bytes() for path in (book.root / "_build").rglob("*.ipynb")} == stored


def test_a_chapter_that_fails_when_it_is_executed_again_is_named(book):
    book.write("01-once", CLAIM.format(1.1), "assert open(os.environ['BOOK_LOG']).read().count('01') == 1")
    assert book.zonb("run", "01").returncode == 0
    done = again(book)
    assert done.returncode == 1 and "01-once: cell 4" in done.stdout and "AssertionError" in done.stdout
