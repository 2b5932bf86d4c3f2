import re
import runpy

from conftest import CLAIM, ENTRY, ROOT


def again(book, *arguments):
    tool = str(ROOT / "tools" / "check_again.py")
    return book.within(lambda: runpy.run_path(tool, run_name="__main__"), "--seed", "7", *arguments)


MEASURED = "from zonb.claims import claim\nclaim('{0}', {1}, 1.5, tol=0.6, rejects={{'far': 9}})"


def test_chapters_executed_again_are_held_against_their_stored_results(book):
    book.word(steady=ENTRY, threads=ENTRY, counted=ENTRY)
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
    assert re.match(
        r"02-threads, \d+ threads: differs: threads: published \d for 1.5, rerun \d for 1.5: 1 apart", first
    )
    assert re.match(r"03-counted, \d+ threads: within tolerance: counted: .* allowed, but not identical", second)
    assert {path: path.read_bytes() for path in (book.root / "_build").rglob("*.ipynb")} == stored


def test_a_chapter_that_fails_when_it_is_executed_again_is_named(book):
    book.write("01-once", CLAIM.format(1.1), "assert open(os.environ['BOOK_LOG']).read().count('01') == 1")
    assert book.zonb("run", "01").returncode == 0
    done = again(book)
    assert done.returncode == 1 and "01-once: cell 4" in done.stdout and "AssertionError" in done.stdout
