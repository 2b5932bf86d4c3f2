import pytest
from conftest import CLAIM, PARAMETERS, imported, text_of

from zonb.press import chapters
from zonb.press.book import Book


def test_editing_a_helper_reruns_exactly_the_chapters_that_import_it(book):
    book.own_package()
    book.write("01-claims", "from zonb.claims import report")
    book.write("02-plain", "x = 1")
    book.write("03-plots", "import zonb.plots")
    assert book.zonb("run", "01", "02", "03").returncode == 0
    assert book.executed() == ["01-claims", "02-plain", "03-plots"]
    with (book.root / "zonb" / "claims.py").open("a") as file:
        file.write("\nEDITED = True\n")
    assert book.zonb("run", "01", "02", "03").returncode == 0
    assert book.executed() == ["01-claims"]


@pytest.fixture
def keys(book, monkeypatch):
    """The keys of three chapters of a small book, with its own copy of the package."""
    book.own_package()
    monkeypatch.setattr(chapters, "PACKAGE", book.package)
    book.write("01-directions", "from zonb import directions\n\n\ndef one():\n    return 1")
    book.write("02-theory", "from zonb.theory import error_law")
    book.write("03-plain", CLAIM.format(1.1))
    return lambda: {item.chapter.slug: item.key for item in Book(book.root).runs}


EDITS = {
    "a docstring of a module": ("zonb/directions.py", '"""', '"""More. '),
    "a docstring of a function": ("zonb/theory.py", ':\n    r"""', ':\n    r"""More. '),
    "a comment in a module": ("zonb/theory.py", "import torch\n", "import torch  # tensors\n\n\n# More.\n"),
    "a comment in a cell": ("notebooks/01-directions.md", "    return 1", "    # one\n    return (1)  # always"),
    "a docstring in a cell": ("notebooks/01-directions.md", "    return 1", '    """One."""\n    return 1'),
    "the wording of a claim": ("book/claims.yml", "name: One", "name: Another"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_docstrings_comments_and_wording_are_in_no_key(book, keys, edit):
    before, (name, old, new) = keys(), EDITS[edit]
    text = (book.root / name).read_text()
    assert old in text
    (book.root / name).write_text(text.replace(old, new, 1))
    assert keys() == before


@pytest.mark.parametrize(
    ("name", "code", "changed"),
    [
        ("zonb/directions.py", "EDITED = True", {"01-directions", "02-theory"}),
        ("zonb/theory.py", "def edited(): return 1", {"02-theory"}),
        ("zonb/__init__.py", "EDITED = True", {"01-directions", "02-theory", "03-plain"}),
    ],
)
def test_an_edited_function_changes_the_keys_of_those_who_import_its_module(book, keys, name, code, changed):
    before = keys()
    with (book.root / name).open("a") as file:
        file.write(f"\n\n{code}\n")
    after = keys()
    assert {slug for slug in before if before[slug] != after[slug]} == changed


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x = 2"),
        ("x = 1", "x = 1.0"),
        ("x = None", "x = 'None'"),
        ("x = [None]", "x = []"),
        ("f(**x)", "f(*x)"),
        ("x = 1", "x = 1\n'shown'"),
        ("'shown'", "pass"),
        ("x", "x;"),
        ("x; # quiet", "x # shown; not quiet"),
    ],
)
def test_cells_of_another_meaning_have_another_digest(one, other):
    assert chapters.cell_digest(one) != chapters.cell_digest(other)


def test_a_digest_is_the_same_under_every_version_of_python():
    """Written down, since a key must not change with the interpreter; f-strings and type parameters come and go."""
    code = "async def f(x: int = 1, *a, k=None, **o) -> str:\n    'Doc.'\n    return f'{x!r:>{k}} {a}' 'b'\n"
    code += "class C(B):\n    'Doc.'\n    y = {**o, 'é': [1j, b'x', ...]}\nmatch x:\n    case None | [1, *_]: pass"
    assert chapters.digest(code)[:16] == "4e8ba21a3bf835c2"


@pytest.mark.parametrize(
    "cell",
    [
        "import zonb.press.cli",
        "from zonb import press",
        "from zonb.press import book",
        "from zonb.press.book import Book",
    ],
)
def test_a_chapter_may_not_use_the_press(book, cell):
    book.write("01-a", cell)
    done = book.zonb("run", "01")
    assert done.returncode == 2 and "zonb.press prints the book; a chapter" in done.stderr


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


def test_other_versions_of_the_packages_make_another_run(book):
    book.write("01-a")
    assert book.zonb("run", "01").returncode == 0
    (book.root / "requirements.txt").write_text("torch==0.1\n")
    assert book.zonb("run", "01").returncode == 0 and book.executed() == ["01-a", "01-a"]


def test_relative_imports_are_followed(book):
    book.own_package()
    (book.root / "zonb" / "helper.py").write_text("x = 1\n")
    (book.root / "zonb" / "upper.py").write_text("from .helper import x\n")
    book.write("01-a", "from zonb.upper import x\nprint('helper', x)")
    for value in (1, 2):
        (book.root / "zonb" / "helper.py").write_text(f"x = {value}\n")
        assert book.zonb("run", "01").returncode == 0
    assert book.executed() == ["01-a", "01-a"]


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


def test_choices_that_look_like_numbers_are_text(book):
    book.write("01-a", "print('law is', repr(law))", parameters='law = "1"  # {1, 2, None} law')
    assert book.zonb("run", "01", "-p", "law=2").returncode == 0
    assert "law is '2'" in text_of(book.results("01-a")[0])


def test_a_choice_with_dots_takes_any_text():
    (parameter,) = chapters._parameters('model = "family"  # {family, opt-1m, ...} which', "here")
    for text in ("family", "opt-1m", "smollm2-135m", "facebook/opt-125m"):
        assert parameter.parse(text) == text
    for text in ("", " ", "..."):
        with pytest.raises(chapters.ParameterError, match="model="):
            parameter.parse(text)


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
    done = book.zonb("run", "01", "-p", given)
    assert done.returncode == 2 and complaint in done.stderr
    for row in ("n          3        [1, 9]  size", "rate       0.5      (0, 1]  rate", "{a, b}  law"):
        assert row in done.stderr
    assert book.executed() == []


def test_a_refusal_loads_nothing_that_executes(book):
    book.write("01-a", parameters=PARAMETERS)
    done = book.apart("run", "01", "-p", "n=10", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 2 and not {"papermill", "torch"} & imported(done)


def test_good_parameters_reach_the_notebook_and_its_key(book):
    book.write("01-a", "print(n, rate, law, many)", parameters=PARAMETERS)
    assert book.zonb("run", "01", "-p", "n=9", "-p", "rate=1", "-p", "law=b", "-p", "many=[5]").returncode == 0
    assert "9 1.0 b [5]" in text_of(book.results("01-a")[0])
    assert book.zonb("run", "01", "-p", "n=3").returncode == book.zonb("run", "01").returncode == 0
    assert book.executed() == ["01-a", "01-a"]  # the default, given or not, is one run
