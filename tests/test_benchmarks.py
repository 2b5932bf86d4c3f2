"""The harness of the benchmarks, and the ways they compare, on sizes too small to time."""

import importlib
import json
import re
import sys

import pytest
import torch
from conftest import ROOT, linux_only

from zonb.press import end_matter
from zonb.press.book import Book

sys.path.insert(0, str(ROOT / "benchmarks"))
import entk
import harness
import nzk
import zo_lenet

PUBLISHED = ROOT / "book" / "records" / "benchmarks"


@pytest.mark.parametrize("script", ["entk", "nzk", "scaling", "zo_lenet", "zo_step"])
def test_every_benchmark_tells_its_options(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit, match="0"):
        importlib.import_module(script).main()
    assert "--repeats" in capsys.readouterr().out


def test_turns_alternate_and_short_work_is_repeated_within_one(monkeypatch):
    clock, order = [0.0], []

    def work(name, seconds):
        def do():
            order.append(name)
            clock[0] += seconds

        return do

    monkeypatch.setattr(harness.time, "perf_counter", lambda: clock[0])
    seconds = harness.alternate({"short": work("short", 0.04), "long": work("long", 2.0)}, 3)
    assert {name: pytest.approx(times) for name, times in seconds.items()} == {"short": [0.04] * 3, "long": [2.0] * 3}
    assert "".join(name[0] for name in order) == "sl" * 2 + "ssl" * 3


def test_a_ratio_is_taken_within_a_round_so_that_a_slow_one_counts_once():
    assert harness.ratio([2.0, 20.0, 2.0], [1.0, 10.0, 1.0]) == 2
    assert harness.spread([0.002, 0.001, 0.004]) == "2 ms (1 to 4)"


@linux_only
def test_memory_is_what_a_call_needs_and_no_more():
    size = 64 * 2**20
    assert 60 < harness.extra_memory(lambda: torch.ones(size // 4)) < 70
    assert harness.extra_memory(lambda: None) < 4


def test_ways_to_the_kernel_agree():
    x = entk.images(3)
    expected = entk.loops(x)
    for way in (entk.contraction, entk.vector_products):
        torch.testing.assert_close(way(x), expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(entk.contraction(x).transpose(2, 3), expected, rtol=1e-4, atol=1e-5)  # o and u told apart


def test_the_floor_of_the_convolutions_is_their_kernel():
    rows = entk.exact_ways(40)[entk.CONVOLUTIONS]()  # in two blocks
    entk.assert_of_the_convolutions(rows, entk.images(40))
    rows[-1][0, 0] *= 1.01
    with pytest.raises(AssertionError, match="convolutions"):
        entk.assert_of_the_convolutions(rows, entk.images(40))


def test_ways_to_projections_have_the_error_of_the_law(monkeypatch):
    monkeypatch.setattr(entk, "P", 200)
    entk.agree(entk.projected_ways())
    with pytest.raises(AssertionError, match="half as many"):
        entk.agree({"half as many": lambda: entk.projected_ways()["zonb, Gaussian"]()[:40]})


def test_ways_to_a_step_agree(monkeypatch):
    monkeypatch.setattr(zo_lenet, "P", 5)
    zo_lenet.agree()


def test_ways_to_the_losses_agree_and_the_images_are_the_papers():
    quick, slow, _ = (do() for do in nzk.curves().values())
    torch.testing.assert_close(quick, slow, rtol=1e-10, atol=0)
    assert nzk.setting(torch.float32)[0].shape == (200, 711)


def test_published_tables_are_those_that_the_page_shows():
    assert {path.stem for path in PUBLISHED.glob("*.json")} == set(end_matter.BENCHMARKS)
    text = end_matter.render(Book(ROOT), "benchmarks", benchmarks=end_matter.benchmarks(PUBLISHED))
    for name in end_matter.BENCHMARKS:
        found = json.loads((PUBLISHED / f"{name}.json").read_text())
        assert f"## {found['title']}" in text and found["date"] in text
        section = text.split(f"## {found['title']}\n")[1].split("\n## ")[0]
        cells = [list(found["rows"][0]), *(row.values() for row in found["rows"])]
        shown = re.findall(r"^[* ] -(.*)$", section, re.M)
        assert [cell.strip() for cell in shown] == [str(cell or "") for row in cells for cell in row]
