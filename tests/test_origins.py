"""The equalities on the page that says where this comes from."""

import re

import pytest
from conftest import ROOT

PAGE = (ROOT / "book" / "origins.md").read_text()
PIECES = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_a_zeroth_order_step_is_a_step_of_the_filter_and_of_kaczmarz():
    assert len(PIECES) == 2
    exec("\n".join(PIECES), {})


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("v - eta * x", "v - 2 * eta * x"),
        ("/ len(X) ** 0.5", ""),
        ("(1 - 2 * mu * values)", "(1 - mu * values)"),
        ("share = X.square()", "share = X.abs()"),
        ("X @ u / 6**0.5", "X @ u"),
    ],
)
def test_the_equalities_can_fail(right, wrong):
    text = "\n".join(PIECES)
    assert text.count(right) == 1
    with pytest.raises(AssertionError):
        exec(text.replace(right, wrong), {})
