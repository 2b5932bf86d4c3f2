"""Every chapter, found by globbing, has the form that the style page promises."""

import ast
import contextlib
import csv
import re
import shlex
import shutil
import statistics
from collections import Counter

import jupytext
import pytest
import torch
import yaml
from conftest import ROOT

from zonb import directions, kernels
from zonb.press import chapters, cli, commands, ledger
from zonb.press.book import Book

PATHS = sorted((ROOT / "notebooks").glob("*.md"))
TEMPLATE = ROOT / "tools" / "00-template.md"
CLAIMS = ledger.wording(Book(ROOT))
SECTIONS = ("Setting", "Where it breaks", "Exercises", "Summary")


@pytest.fixture(params=[*PATHS, TEMPLATE], ids=lambda path: path.stem)
def chapter(request):
    return chapters.read(request.param)


def code_of(chapter):
    return [cell for cell in chapter.notebook.cells if cell.cell_type == "code"]


def calls_of(chapter, function):
    nodes = [node for cell in code_of(chapter) for node in ast.walk(ast.parse(cell.source))]
    return [node for node in nodes if isinstance(node, ast.Call) and getattr(node.func, "id", "") == function]


def prose_of(chapter):
    return "\n\n".join(cell.source for cell in chapter.notebook.cells if cell.cell_type == "markdown")


def test_the_table_of_contents_lists_the_chapters_in_order():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    files = [entry["file"] for part in toc["parts"] for entry in part["chapters"]]
    assert [file for file in files if file.startswith("notebooks/")] == [f"notebooks/{path.stem}" for path in PATHS]
    made = {
        "book/errata",
        "book/ledger",
        "book/map",
        "book/reproducibility",
        "book/benchmarks",
        "book/notation",
        "book/faults",
    }
    written = {path.relative_to(ROOT).with_suffix("").as_posix() for path in (ROOT / "book").rglob("*.md")}
    assert {file for file in files if file.startswith("book/")} | {toc["root"]} == made | written


def test_header_and_outputs(chapter):
    assert re.fullmatch(r"\d\d-[a-z0-9-]+", chapter.slug)
    assert chapter.notebook.metadata["kernelspec"]["language"] == "python"
    assert not any(cell.get("outputs") for cell in code_of(chapter))
    assert jupytext.read(chapter.path).metadata["jupytext"]["text_representation"]["format_name"] == "myst"


def test_one_question_and_the_promised_sections(chapter):
    prose = prose_of(chapter)
    assert prose.count("**Question.**") == 1 and len(re.findall(r"^# ", prose, re.MULTILINE)) == 1
    headings = re.findall(r"^## (.+)$", prose, re.MULTILINE)
    assert [heading for heading in headings if heading in SECTIONS] == list(SECTIONS)
    assert "### By hand" in prose


def test_parameters_have_ranges_meanings_and_a_seed(chapter):
    assert "seed" in chapter.parameters
    for parameter in chapter.parameters.values():
        assert parameter.text, parameter.name
        assert parameter.check(parameter.default) == parameter.default


def test_profiles_fit_the_chapters():
    slugs = {path.stem: chapters.read(path) for path in PATHS}
    for profile in (ROOT / "profiles").glob("*.yml"):
        for slug, values in yaml.safe_load(profile.read_text()).items():
            slugs[slug].values(values)


def test_every_parameter_is_used(chapter):
    code = "\n".join(cell.source for cell in code_of(chapter) if "parameters" not in cell.metadata.get("tags", []))
    for name in chapter.parameters:
        assert re.search(rf"\b{name}\b", code), name


def test_every_figure_has_a_name_a_caption_and_alt_text(chapter):
    figures = 0
    for cell in code_of(chapter):
        if re.search(r"^(figure|ax|figure, .+) = ", cell.source, re.MULTILINE):
            figures += 1
            nb = cell.metadata["mystnb"]
            assert nb["figure"]["name"].startswith("fig-") and len(nb["figure"]["caption"]) > 40
            assert len(nb["image"]["alt"]) >= 40
            # A last expression would be shown beside the figure, and two outputs cannot share its name.
            assert not isinstance(ast.parse(cell.source).body[-1], ast.Expr), nb["figure"]["name"]
    assert figures >= 3
    assert "plt.show" not in prose_of(chapter)


def test_figure_names_are_unique_in_the_book():
    names = [
        cell.metadata["mystnb"]["figure"]["name"]
        for path in [*PATHS, TEMPLATE]
        for cell in code_of(chapters.read(path))
        if "figure" in cell.metadata.get("mystnb", {})
    ]
    assert not {name for name in names if names.count(name) > 1}


def test_every_statement_is_checked_and_every_glued_number_exists(chapter):
    ids = [call.args[0].value for call in calls_of(chapter, "claim")]
    assert len(ids) >= 3 and len(ids) == len(set(ids))
    known = {id + suffix for id in ids for suffix in ("", ".expected", ".sem", ".mean", ".spread", ".power")}
    known |= {keyword.arg for call in calls_of(chapter, "report") for keyword in call.keywords}
    used = set(re.findall(r"\{glue:text\}`([^:`]+)", prose_of(chapter)))
    assert used <= known, used - known
    assert {id for id in ids if not any(name == id or name.startswith(f"{id}.") for name in used)} == set()


def test_every_claim_has_its_wording_and_every_wording_its_claim():
    calls = {call.args[0].value: call for path in PATHS for call in calls_of(chapters.read(path), "claim")}
    assert calls.keys() == CLAIMS.keys()
    template = {call.args[0].value for call in calls_of(chapters.read(TEMPLATE), "claim")}
    assert template == yaml.safe_load(TEMPLATE.with_name("00-template-claims.yml").read_text()).keys()
    rejected = {
        id: {key.value for node in ast.walk(call) if isinstance(node, ast.Dict) for key in node.keys}
        for id, call in calls.items()
    }
    assert [id for id, entry in CLAIMS.items() if "paper" in entry and entry["paper"] not in rejected[id]] == []
    references = (ROOT / "book" / "references.bib").read_text()
    assert [id for id, entry in CLAIMS.items() if f"{{{entry.get('reference', '')}," not in references + "{,"] == []


def test_randomness_comes_from_seeded_streams_only(chapter):
    code = "\n".join(cell.source for cell in code_of(chapter))
    code = code.replace("torch.Generator().manual_seed(0)  # as published", "")  # a published run on its own stream
    for forbidden in ("manual_seed", "np.random", "random.seed", "torch.randn(", "torch.rand(", "import_module"):
        assert forbidden not in code
    streams = re.findall(r"directions\.generator\((.*?)\)", code)
    assert all(stream.startswith("seed") for stream in streams)


def arithmetic_on_seeds(code):
    """What is made of ``seed`` by operators: neighbouring seeds of two chapters may meet."""
    named = [node.right for node in ast.walk(code) if isinstance(node, ast.BinOp)]
    named += [node.left for node in ast.walk(code) if isinstance(node, ast.BinOp)]
    named += [node.target for node in ast.walk(code) if isinstance(node, ast.AugAssign)]
    return [node for node in named if getattr(node, "id", "") == "seed"]


def test_seeds_come_from_a_splittable_sequence_and_not_from_arithmetic(chapter):
    assert not any(arithmetic_on_seeds(ast.parse(cell.source)) for cell in code_of(chapter))


@pytest.mark.parametrize(
    "code",
    ["f(seed + 1)", "f(s=1000003 * seed + k)", "f(10**6 * (seed + 1) + n)", "g(k - seed)", "seed += 1"],
)
def test_arithmetic_on_a_seed_is_seen(code):
    assert arithmetic_on_seeds(ast.parse(code))
    assert not arithmetic_on_seeds(ast.parse("0.5 * g(subseed(seed, k + 1, 2 * n))"))


def test_solutions_follow_their_exercises(chapter):
    prose = prose_of(chapter)
    labels = re.findall(r"\{exercise\}\n:label: (\S+)", prose)
    answered = re.findall(r"\{solution(?:-start)?\} (\S+)\n:class: dropdown", prose)
    assert len(labels) >= 3 and labels == answered
    for kind in ("*(Derive)*", "*(Implement)*", "*(Break)*"):
        assert kind in prose


def test_no_magics_and_no_absolute_paths(chapter):
    text = chapter.path.read_text()
    assert not re.search(r"^[%!]", "\n".join(cell.source for cell in code_of(chapter)), re.MULTILINE)
    assert not re.search(r"(^|[\s\"'`(])/(home|root|tmp|usr|work)/", text)


def test_every_equation_and_figure_of_the_papers_has_a_claim():
    """All but paper B's Eq. 31, which has no number in its text."""
    found = {source for entry in CLAIMS.values() for source in entry["source"]}
    wanted = {f"A Eq. {n}" for n in range(1, 16)} | {f"A Fig. {n}" for n in range(1, 12)}
    wanted |= {f"B Eq. {n}" for n in range(1, 71) if n != 31} | {f"B Fig. {n}" for n in range(1, 19)}
    wanted |= {"A Lemma 1", "B Thm. 1", "B Cor. 2", "B Prop. 3", "B Property 4", "B Property 5", "B Lemma 6"}
    assert wanted <= found, sorted(wanted - found)


def test_the_template_is_a_chapter_that_runs_under_every_law_and_says_new_things_only(book):
    text = TEMPLATE.read_text()
    (book.root / "notebooks" / "17-my-question.md").write_text(text)
    done = book.zonb("sweep", "17", "-g", "law=gaussian,rademacher,sphere", "-p", "P=2")
    assert done.returncode == 0, done.stderr
    ((path),) = (book.root / "_build" / "quick").glob("sweep-*.csv")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9 and {row["claim"] for row in rows} == {"template.signs", "template.mean", "template.length"}
    expected = [float(row["expected"]) for row in rows if row["claim"] == "template.length"]
    assert expected == [1 + 11 / 2, 1 + 9 / 2, 1 + 9 / 2]
    broken = text.replace("theory.gradient_second_moment(d, P, chosen),\n    sem", "d / P,\n    sem")
    assert broken != text
    (book.root / "notebooks" / "17-my-question.md").write_text(broken)
    failed = book.zonb("run", "17")
    assert failed.returncode == 1 and "claim template.length failed" in failed.stderr


EXTEND = (ROOT / "book" / "extend.md").read_text()
PIECES = re.findall(r"^```python\n(.*?)^```", EXTEND, re.MULTILINE | re.DOTALL)


def test_what_the_page_on_extending_shows_is_short_and_runs():
    assert len(PIECES) == 2 and all(piece.count("\n") <= 30 for piece in PIECES)
    namespace = {}
    for piece in PIECES:
        exec(piece, namespace)
    law, model = namespace["triangular"], namespace["model"]
    u = law.sample(1, 200_000, generator=directions.generator(1), dtype=torch.float64)
    for power, expected, wrong in ((2, 1, 1.1), (4, law.kappa, 3.0)):
        moment = u**power
        sem = moment.std() / moment.numel() ** 0.5
        assert abs(moment.mean() - expected) < 5 * sem < abs(moment.mean() - wrong)
    assert not model.training and namespace["estimate"].shape == (3, 3)
    draws = []
    for k in range(400):
        u = law.sample(50, len(namespace["u"].T), generator=directions.generator(2, k))
        estimate = kernels.projected_entk(namespace["J_o"], namespace["J_u"], u)
        draws.append(kernels.relative_error(estimate, namespace["exact"]) ** 2)
    square, expected = torch.stack(draws), namespace["expected"] ** 2
    sem = square.std() / len(square) ** 0.5
    assert abs(square.mean() - expected) < 5 * sem < abs(square.mean() - 2 * expected)


COMMANDS = [
    line
    for path in (ROOT / "README.md", ROOT / "book" / "rerun.md", ROOT / "book" / "extend.md")
    for line in re.findall(r"^\.venv/bin/zonb ([^#>\n]+)", path.read_text(), re.MULTILINE)
]


@pytest.mark.parametrize("command", sorted(set(COMMANDS)))
def test_commands_on_pages_are_understood(command, tmp_path, monkeypatch):
    for name in ("notebooks", "profiles"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("_toc.yml", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copy(TEMPLATE, tmp_path / "notebooks" / "17-my-question.md")
    monkeypatch.chdir(tmp_path)

    def understood(*_):
        raise NotImplementedError("where it would begin to work")

    for module, name in ((commands, "_finish"), (ledger, "rows"), (ledger, "verify")):
        monkeypatch.setattr(module, name, understood)
    with contextlib.suppress(NotImplementedError):
        assert cli.main(shlex.split(command)) == 0


# What a page asks of its reader: lines of code of a cell, and of all cells that stand open.
GOALS = {"median": 10, "share over 25": 0.1, "longest": 50, "open": 120, "widest": 75}


def sizes_of(chapter):
    cells = [(cell.source, set(cell.metadata.get("tags", []))) for cell in code_of(chapter)]
    lines = [([line for line in source.split("\n") if line.strip()], tags) for source, tags in cells]
    counts = [len(cell) for cell, tags in lines if "parameters" not in tags]
    return {
        "median": statistics.median(counts),
        "share over 25": round(sum(count > 25 for count in counts) / len(counts), 2),
        "longest": max(counts),
        "open": sum(len(cell) for cell, tags in lines if not tags & {"hide-input", "hide-cell", "remove-input"}),
        "widest": max(len(line) for cell, tags in lines if "parameters" not in tags for line in cell),
    }


def test_cells_are_short_and_pages_are_read_without_their_code(chapter):
    over = {name: value for name, value in sizes_of(chapter).items() if value > GOALS[name]}
    assert over == {}, "split the cells, or fold those that no reader imitates"


def test_a_function_of_two_chapters_lives_in_the_package():
    defined = Counter(
        name
        for path in PATHS
        for name in {
            node.name
            for cell in code_of(chapters.read(path))
            for node in ast.parse(cell.source).body
            if isinstance(node, ast.FunctionDef)
        }
    )
    assert sorted(name for name, count in defined.items() if count > 1) == []
