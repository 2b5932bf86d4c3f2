import contextlib
import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PARAMETERS, PATIENCE, text_of

POINT = (
    "from zonb.claims import claim\n"
    "claim('point', n + rate / 3, n, sem=0.1, rejects={'b': -9})\n"
    "claim('law', float(law == 'a'), 1, tol=1.5, rejects={'c': 9})"
)


def table(book):
    """The one table that sweeps left, as rows."""
    (path,) = (book.root / "_build" / "quick").glob("sweep-*.csv")
    with path.open() as file:
        return list(csv.DictReader(file))


def test_sweep_runs_every_point_of_the_grid_once(book):
    book.write("01-a", "print('point', n, law, many)", parameters=PARAMETERS)
    done = book.zonb("sweep", "01", "-g", "n=2", "-g", "law=a,b", "-g", "many=[1],[1,2]", "-p", "rate=1")
    assert done.returncode == 0 and book.executed() == ["01-a"] * 4
    shown = " ".join(text_of(path) for path in book.results("01-a"))
    for law in "ab":
        for many in ("[1]", "[1, 2]"):
            assert f"point 2 {law} {many}" in shown
    assert book.zonb("sweep", "01", "-g", "n=1,10").returncode == 2


def test_a_sweep_leaves_one_row_a_point_and_claim_and_is_drawn_or_says_which_claims_it_has(book):
    book.write("01-a", POINT, parameters=PARAMETERS)
    grid = ("sweep", "01", "-g", "n=1,2", "-g", "law=a,b", "-p", "rate=0.1")
    done = book.zonb(*grid)
    assert done.returncode == 0 and done.stdout.splitlines()[-1].startswith("_build/quick/sweep-01-a-")
    rows = table(book)
    assert list(rows[0]) == ["n", "law", "claim", "relation", "measured", "expected", "sem", "tolerance"]
    assert [(row["n"], row["law"], row["claim"]) for row in rows] == [
        (n, law, claim) for n in "12" for law in "ab" for claim in ("point", "law")
    ]
    first, second = rows[:2]
    assert float(first["measured"]) == 1 + 0.1 / 3 and first["expected"] == "1.0"
    assert float(first["sem"]) == pytest.approx(0.1) and second["sem"] == "" and second["tolerance"] == "1.5"

    grid = (*grid, "--plot")
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

    assert book.zonb("sweep", "01", "-g", "n=1,2", "-p", "rate=0.1").returncode == 0
    assert len(list((book.root / "_build" / "quick").glob("sweep-*.csv"))) == 2


def test_a_failed_point_is_absent_from_the_table_and_said(book):
    book.write("01-a", POINT, "assert (n, law) != (2, 'b')", parameters=PARAMETERS)
    done = book.zonb("sweep", "01", "-g", "n=2", "-g", "law=a,b")
    assert done.returncode == 1 and "the table lacks n=2, law=b, which failed" in done.stderr
    assert {(row["n"], row["law"]) for row in table(book)} == {("2", "a")}


@contextlib.contextmanager
def dask(*arguments, environment):
    """A Dask command in the background, in the words of the page on sweeps."""
    command = [str(Path(sys.executable).parent / "dask"), *arguments]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE)


def test_two_dask_workers_make_the_table_that_this_machine_makes(book, tmp_path_factory):
    from distributed import Client

    book.write("01-a", "import os\nprint('parent', os.getppid())", POINT, parameters=PARAMETERS)
    grid = ("sweep", "01", "-g", "n=1,2", "-g", "law=a,b")
    assert book.zonb(*grid).returncode == 0
    here = table(book)
    shutil.rmtree(book.root / "_build")
    book.executed()
    environment = book.environment()
    file = str(tmp_path_factory.mktemp("dask") / "scheduler.json")
    options = ("--no-dashboard", "--scheduler-file", file)
    with (
        dask("scheduler", "--host", "127.0.0.1", "--port", "0", *options, environment=environment),
        dask("worker", "--nworkers", "2", "--nthreads", "1", *options, environment=environment),
        Client(scheduler_file=file, timeout=PATIENCE) as client,
    ):
        client.wait_for_workers(2, timeout=PATIENCE)
        workers = set(client.run(os.getpid).values())
        done = book.zonb(*grid, "--scheduler", client.scheduler.address)
    assert done.returncode == 0, done.stderr
    assert table(book) == here and len(here) == 8 and book.executed() == ["01-a"] * 4
    shown = " ".join(text_of(path) for path in book.results("01-a"))
    assert len(workers) == 2 and {pid for pid in workers if f"parent {pid}" in shown} == workers
