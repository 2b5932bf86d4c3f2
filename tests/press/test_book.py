import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PARAMETERS, text_of

from zonb.press import chapters
from zonb.press.book import Book, RunnerError, write_atomic


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
        Book.find(tmp_path)


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    write_atomic(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "new, but" + "x" * 100_000 + "\ud800")  # fails when a part may have been written
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("text", ["01-a: [1", "- 01-a", "01-a: 3", "01-a:"])
def test_mistakes_in_a_profile_are_named(book, text):
    book.write("01-a")
    (book.root / "profiles").mkdir()
    (book.root / "profiles" / "paper.yml").write_text(text)
    done = book.zonb("run", "01", "--profile", "paper")
    assert done.returncode == 2 and "profiles/paper.yml" in done.stderr and "Traceback" not in done.stderr


def test_the_package_of_another_book_is_refused(book):
    book.own_package()
    book.write("01-a")
    command = [str(Path(sys.executable).parent / "zonb"), "list"]
    done = subprocess.run(command, cwd=book.root, capture_output=True, text=True)
    assert done.returncode == 2 and "this zonb is not that of" in done.stderr


def test_each_chapter_is_read_once_and_each_run_planned_once(book, monkeypatch):
    book.write("01-a", parameters=PARAMETERS)
    book.write("02-b", parameters=PARAMETERS)
    (book.root / "profiles").mkdir()
    (book.root / "profiles" / "paper.yml").write_text("01-a: {n: 7}\n")
    done = []
    for name in ("read", "ingredients"):
        real = getattr(chapters, name)
        monkeypatch.setattr(chapters, name, lambda *given, name=name, real=real: done.append(name) or real(*given))
    found = Book(book.root)
    for _ in range(2):
        first, second = found.runs
        assert found.plan(found.chapter("1"), {}) is first and found.plan(found.chapter("02-b"), {"n": 4}) is not second
        assert found.plan(first.chapter, {"n": 3}).path == first.path  # the default, given or not
    assert found.under("paper").runs[0].parts["parameters"]["n"] == 7
    assert done.count("read") == 2 and done.count("ingredients") == 2 + 2 + 2


def test_all_derived_files_are_in_the_build_folder_and_all_published_ones_in_the_records(tmp_path):
    book = Book(tmp_path, "paper")
    for path in (book.results, book.cache, book.site, book.receipt):
        assert path.is_relative_to(tmp_path / "_build")
    for path in (book.ledger, book.times, book.benchmarks):
        assert path.is_relative_to(tmp_path / "book" / "records")
