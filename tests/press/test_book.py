import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PARAMETERS, text_of

from zonb.press import book as books
from zonb.press.book import RunnerError


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


def test_outside_a_book_the_command_says_where_to_go(tmp_path):
    with pytest.raises(RunnerError, match="no book here"):
        books.find_root(tmp_path)


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    books.write_atomic(path, "old")
    with pytest.raises(UnicodeEncodeError):
        books.write_atomic(path, "new, but" + "x" * 100_000 + "\ud800")  # fails when a part may have been written
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("text", ["01-a: [1", "- 01-a", "01-a: 3", "01-a:"])
def test_mistakes_in_a_profile_are_named(book, text):
    book.write("01-a")
    (book.root / "profiles").mkdir()
    (book.root / "profiles" / "paper.yml").write_text(text)
    done = book.zonb("run", "01", "--profile", "paper")
    assert done.returncode == 2 and "profiles/paper.yml" in done.stderr and "Traceback" not in done.stderr


def test_the_package_of_another_book_is_refused(book):
    book.write("01-a")
    command = [str(Path(sys.executable).parent / "zonb"), "list"]
    done = subprocess.run(command, cwd=book.root, capture_output=True, text=True)
    assert done.returncode == 2 and "this zonb is not that of" in done.stderr
