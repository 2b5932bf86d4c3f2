import pytest
from conftest import PARAMETERS

from zonb.press import chapters, cli, commands


def test_a_reader_that_has_seen_enough_is_no_error(book):
    book.write("01-a")
    process = book.start("list")
    process.stdout.close()  # long before anything is written
    assert process.stderr.read() == "" and process.wait() == 0


def test_list_names_every_parameter(book):
    book.write("01-a", parameters=PARAMETERS)
    shown = book.zonb("list").stdout
    assert "01-a: 01-a [to be executed]" in shown and "(0, 1]  rate" in shown


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


def test_a_chapter_goes_by_its_number_its_name_and_its_file(book):
    book.write("01-a")
    book.write("11-b")
    for name in ("01", "1", "01-a", "notebooks/01-a.md"):
        assert book.zonb("run", name).returncode == 0, name
    assert book.executed() == ["01-a"]


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
    monkeypatch.setattr(commands, "_finish", lambda book, runs, options: 0)
    monkeypatch.setattr(commands, "record", lambda book, item, name: names.append(name) or book.records / name)
    assert cli.main(["record", name[:2], *(part for pair in given for part in ("-p", pair))]) == 0
    assert names == [name]
