"""The lint of the prose finds what it is for, and nothing in the book."""

import runpy

import pytest
from conftest import ROOT

LINT = runpy.run_path(str(ROOT / "tools" / "lint_prose.py"))


def words(text):
    return [said for _, said in LINT["complaints"](text)]


@pytest.mark.parametrize(
    "sentence",
    [
        "It takes 3.2 s.",
        "It takes 45 seconds.",
        "It takes about 300 steps.",
        "The table has 12 MiB.",
        "We find an error of 0.07.",
        "We find an error of 0.07, as expected.",
        "The estimate is 1.02 ± 0.01.",
        "The share is about 40 %.",
        "The share is 40\\% here.",
        "It is 12 times as large.",
        "It is a 12-fold gain.",
        "It is larger by a factor of 12.",
        "The residual is 3e-7.",
        "The error is $0.07$.",
        "The alignment is $\\rho\\approx0.34$.",
        "````{exercise}\n:label: ex-a\n\nWhy is it 0.07?\n````",
        "| law | error |\n|---|---|\n| Gaussian | 0.07 |",
    ],
)
def test_a_typed_measurement_is_reported(sentence):
    assert any("is typed" in said for said in words(sentence)), sentence


@pytest.mark.parametrize(
    "sentence",
    [
        "It takes {glue:text}`seconds:.1f` s, {glue:text}`share:.0f` % of {ledger}`A.akg`.",
        "With $\\mu=0.1$ and $\\rho\\approx1/\\sqrt d$ the step is `0.5`, twice the least.",
        "Eq. 9 of Section 3.1, Theorem 2, Fig. 11 and Appendix C.2 are of chapter 13.",
        "```python\nx = 0.07  # 12 times\n```",
        "```{code-cell} ipython3\nx = 0.07\n```",
        "````{solution-start} ex-a\n:class: dropdown\n````\n\n```{code-cell}\nx = 0.07\n```",
        'Of 3,000 digits, read [here](https://example.org/1.5 "x") in version 2.4.6.',
        "$$\nb_2\\approx0.6148\n$$ (eq-b)",
        "{% if size > 0.07 %}\nA row: {{ 12.5 | code }}.{# 0.07 #}\n{% endif %}",
    ],
)
def test_glue_formulas_code_and_references_are_no_measurements(sentence):
    assert words(sentence) == []


def test_an_exception_covers_its_own_phrase_only():
    assert words("The tolerance, 0.05, is set; CC BY 4.0.") == []
    assert len(words("The tolerance, 0.05, is set; the error is 0.06.")) == 1


def test_a_complaint_names_the_line_of_the_source():
    text = "---\na: 1.5\n---\n\n```python\nx = 0.5\n```\n\n$$\n0.5\n$$\n\nAn error of 0.07."
    assert [line for line, _ in LINT["complaints"](text)] == [text.count("\n") + 1]


WRONG = {
    "zeroth order": ("zero-order", "Zero order"),
    "zeroth-order step, first-order step": ("a zeroth order step", "First order methods"),
    "eNTK": ("the ENTK", "an entk", "E-NTK"),
    "NTK, NZK, SPSA, ZO-SGD": ("the Ntk", "ZO SGD", "Spsa"),
    "LoRA": ("Lora", "LORA"),
    "ReLU": ("relu", "Relu"),
    "LeNet": ("Lenet", "LENET"),
    "Johnson–Lindenstrauss, Gauss–Hermite": ("Johnson-Lindenstrauss", "Gauss Hermite"),
    "Rademacher": ("rademacher signs", "Rademaker"),
    "Gaussian, sub-Gaussian, Student-t": ("gaussian", "subgaussian", "sub-gaussian", "Student t", "student-t"),
    "finite difference, central difference": ("by finite-differences.", "a central-difference,"),
    "step size": ("stepsize", "the step-sizes"),
    "softmax": ("soft-max", "SoftMax"),
    "fine-tuning": ("finetuning", "fine tuned"),
    "minibatch": ("mini-batch", "Mini batches"),
    "data set": ("dataset", "data-sets"),
    "forward pass": ("forward-passes",),
    "behaviour, colour, neighbour": ("behavior", "colored", "neighborhood", "favor"),
    "centre, grey, labelled, modelling": ("center", "gray", "labeled", "modeling"),
    "optimise, linearisation, analyse": ("optimizer", "linearization", "analyzed"),
}


def test_every_term_is_on_the_page_of_style_and_has_a_wrong_form_here():
    style = " ".join((ROOT / "book" / "style.md").read_text().split())
    assert WRONG.keys() == LINT["SPELLING"].keys()
    for terms in WRONG:
        assert all(term in style for term in terms.split(", ")), terms


@pytest.mark.parametrize(("right", "wrong"), [(right, wrong) for right in WRONG for wrong in WRONG[right]])
def test_a_wrong_spelling_is_reported_with_the_right_one(right, wrong):
    (said,) = words(f"Here is {wrong}")
    assert said.endswith(f"is written {right!r}")
    assert words(f'Here is {right} and `{wrong}`, as they write "{wrong}".') == []


@pytest.mark.parametrize(
    "sentence",
    [
        "At zeroth order and first order alike, resized prizes.",
        "The finite-difference estimate has exercises, promises.",
    ],
)
def test_right_words_are_left_alone(sentence):
    assert words(sentence) == []


def test_the_book_has_nothing_to_report(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert LINT["main"]() == 0, capsys.readouterr().out


def test_templates_are_prose_too(tmp_path, monkeypatch, capsys):
    for name in ("book/errata.yml", "tools/00-template.md", "book/pages/page.md.j2"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{% if rows %}\nAn error of 0.07.\n" if name.endswith("j2") else "")
    monkeypatch.chdir(tmp_path)
    LINT["main"]()
    assert "book/pages/page.md.j2:2: '0.07' is typed" in capsys.readouterr().out
