import json
import re
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.container import BarContainer

from zonb import plots


class Parsed(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.script, self.cells, self.words, self.inside = [], "", [], "", ""
        self.feed(text)
        self.data = json.loads(self.script)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.inside = tag
        self.label = dict(attributes).get("aria-label", getattr(self, "label", None))

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        self.words += data if self.inside != "script" else ""
        if self.inside == "script":
            self.script += data
        if self.inside == "td":
            self.cells.append(data)


def explorer(name="Waves", label="sine", note="", missing=False):
    x = np.linspace(0, 1, 5)
    frames = {(k, s): {"lines": {label: k * x + len(s)}, "note": f"{k} {s} {note}"} for k in (1, 2, 3) for s in "ab"}
    if missing:
        del frames[2, "b"]
    return plots.explorer(
        name, {"k": [1, 2, 3], "s": "ab"}, frames, table={"k": [1, 2], label: [0.123456, 1]}, x=x
    ).data


def test_frames_stand_in_the_order_of_the_sliders():
    data = Parsed(explorer()).data
    assert data["sliders"] == [{"label": "k", "values": ["1", "2", "3"]}, {"label": "s", "values": ["a", "b"]}]
    assert [frame["note"].strip() for frame in data["frames"]] == ["1 a", "1 b", "2 a", "2 b", "3 a", "3 b"]


def test_numbers_have_four_digits_and_what_is_not_finite_is_a_gap():
    frames = {(0,): {"lines": {"y": np.array([1 / 3, np.nan, np.inf])}, "matrices": {"K": np.eye(2) / 7}}}
    parsed = Parsed(plots.explorer("n", {"one": [0]}, frames, table={"y": [1 / 3]}, x=[1, 2, 3]).data)
    assert parsed.data["frames"][0]["lines"]["y"] == [0.3333, None, None]
    assert parsed.data["frames"][0]["matrices"]["K"] == [[0.1429, 0.0], [0.0, 0.1429]]
    assert parsed.cells == ["0.3333"]


@pytest.mark.parametrize("hostile", ["</script><b>", '"><b>', "]]>&amp;"])
def test_no_label_breaks_out_of_its_place(hostile):
    tame = Parsed(explorer())
    parsed = Parsed(explorer(name=hostile, label=hostile, note=hostile))
    assert parsed.tags == tame.tags and parsed.label == hostile == parsed.data["name"]
    assert list(parsed.data["frames"][0]["lines"]) == [hostile]
    assert hostile in parsed.words and parsed.cells == tame.cells


def test_a_missing_frame_is_an_error():
    with pytest.raises(KeyError, match=re.escape("(2, 'b')")):
        explorer(missing=True)


def test_columns_of_unequal_length_are_an_error():
    with pytest.raises(ValueError):
        plots.explorer("n", {"one": [0]}, {(0,): {"lines": {}}}, table={"a": [1], "b": [1, 2]})


@pytest.fixture(autouse=True)
def _no_figure_is_left():
    yield
    plt.close("all")


KERNELS = np.array([[[[1.0, -2.0], [0.5, 0.0]], [[7.0, 1.0], [2.0, 3.0]]], [[[0.3, 0.1], [0.2, -0.1]], np.eye(2)]])


def heatmaps():
    titles = [["one", "two"], ["three", "four"]]
    figure = plots.heatmaps(KERNELS, titles=titles, rows=["above", "below"])
    figure.canvas.draw()
    panels, bars = figure.axes[:4], figure.axes[4:]
    return figure, np.array(panels).reshape(2, 2), bars


def test_a_row_of_heatmaps_has_the_scale_of_its_first_kernel_centred_at_zero():
    _, panels, bars = heatmaps()
    for row, limit in zip(panels, (2.0, 0.3), strict=True):
        assert [panel.images[0].get_clim() for panel in row] == [(-limit, limit)] * 2
    assert [bar.get_ylim() for bar in bars] == [(-2.0, 2.0), (-0.3, 0.3)]
    for bar, row in zip(bars, panels, strict=True):  # each beside its row
        bottom, top = (getattr(row[0].get_position(), edge) for edge in ("y0", "y1"))
        assert bottom < sum(bar.get_position().intervaly) / 2 < top
    red, _, blue, _ = panels[0, 0].images[0].to_rgba(np.array([1.0, -1.0])).ravel()[[0, 2, 4, 6]]
    assert red > 0.6 and blue < red  # what is positive is red


def test_a_heatmap_shows_its_own_kernel_under_its_own_title():
    _, panels, _ = heatmaps()
    for r in range(2):
        for c in range(2):
            np.testing.assert_array_equal(panels[r, c].images[0].get_array(), KERNELS[r, c])
    assert [[panel.get_title() for panel in row] for row in panels] == [["one", "two"], ["three", "four"]]
    assert [[panel.get_ylabel() for panel in row] for row in panels] == [["above", ""], ["below", ""]]


X = np.array([1.0, 2.0, 4.0])


def drawn(ax):
    """Lines by label, in the order they were drawn."""
    return {line.get_label(): line for line in ax.lines}


def test_curves_have_their_labels_title_and_scales_where_they_belong():
    ax = plots.curves(X, {"a": X}, xlabel="across", ylabel="up", title="head", xscale="linear", yscale="log")
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("across", "up", "head")
    assert (ax.get_xscale(), ax.get_yscale()) == ("linear", "log")
    assert plots.curves(X, {"a": X}, xlabel="", ylabel="", ax=ax) is ax and len(ax.lines) == 2


def test_curves_guides_points_and_dots_hold_what_they_are_given_and_look_different():
    ax = plots.curves(
        X,
        {"measured": X**2, "other": 1 / X},
        guides={"theory": 3 * X, "slope": X**3},
        points={"star": (2.0, 5.0)},
        dots={"cloud": ([1.5, 3.0], [7.0, 9.0])},
        xlabel="",
        ylabel="",
    )
    lines = drawn(ax)
    expected = {
        "measured": (X, X**2),
        "other": (X, 1 / X),
        "cloud": ([1.5, 3.0], [7.0, 9.0]),
        "theory": (X, 3 * X),
        "slope": (X, X**3),
        "star": ([2.0], [5.0]),
    }
    for label, (x, y) in expected.items():
        np.testing.assert_array_equal(lines[label].get_xdata(), x, label)
        np.testing.assert_array_equal(lines[label].get_ydata(), y, label)
    looks = {label: (line.get_color(), line.get_linestyle(), line.get_marker()) for label, line in lines.items()}
    assert looks == {
        "measured": (plots.COLOURS[0], "-", "o"),
        "other": (plots.COLOURS[1], "-", "s"),
        "cloud": (plots.COLOURS[2], "None", "^"),
        "theory": (plots.INK, "--", "None"),
        "slope": (plots.INK, ":", "None"),
        "star": (plots.INK, "None", "*"),
    }
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(expected)


def test_marks_legend_and_ramp_are_as_asked():
    many = {str(k): k * X for k in range(1, 8)}
    plain = plots.curves(X, many, xlabel="", ylabel="", marked=False, legend=False)
    assert plain.get_legend() is None and {line.get_marker() for line in plain.lines} == {"None"}
    looks = [(line.get_color(), line.get_linestyle()) for line in plain.lines]
    assert len(set(looks)) == 7 and looks[6] == (plots.COLOURS[0], ":")
    ramp = plots.curves(X, many, xlabel="", ylabel="", ramp=True)
    found = np.array([to_rgb(line.get_color()) for line in ramp.lines])
    blue, orange = (np.array(to_rgb(colour)) for colour in plots.COLOURS[:2])
    between = blue + np.linspace(0, 1, 7)[:, None] * (orange - blue)
    np.testing.assert_allclose(found, between, atol=0.01)
    assert {line.get_linestyle() for line in ramp.lines} == {"-"}


def test_bars_stand_side_by_side_over_their_group_with_their_errors():
    heights, error = {"a": [1.0, -2.0, 3.0], "b": [4.0, 5.0, 6.0]}, [0.1, 0.2, 0.3]
    series = {"a": (heights["a"], None), "b": (heights["b"], error)}
    ax = plots.paired_bars(["x", "y", "z"], series, xlabel="group", ylabel="size")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("group", "size")
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["x", "y", "z"]
    bars = {box.get_label(): box for box in ax.containers if isinstance(box, BarContainer)}
    assert list(bars) == ["a", "b"] == [text.get_text() for text in ax.get_legend().get_texts()]
    for k, (label, box) in enumerate(bars.items()):
        assert [bar.get_height() for bar in box] == heights[label]
        assert {bar.get_facecolor()[:3] for bar in box} == {to_rgb(plots.COLOURS[k])}
        np.testing.assert_allclose([bar.get_x() for bar in box], np.arange(3) - 0.4 + 0.4 * k, atol=1e-12)
        np.testing.assert_allclose([bar.get_width() for bar in box], 0.4)  # they touch and do not overlap
    assert bars["a"].errorbar is None
    ends = np.array(bars["b"].errorbar.lines[2][0].get_segments())[:, :, 1]
    np.testing.assert_allclose(ends, [[3.9, 4.1], [4.8, 5.2], [5.7, 6.3]])
    assert any(list(line.get_ydata()) == [0, 0] for line in ax.lines)


def test_a_histogram_counts_all_values_and_marks_where_it_is_told():
    values = np.array([[0.0, 0.1, 0.1], [0.9, 1.0, 1.0]])
    ax = plots.histogram(values, xlabel="value", marks={"mean": 0.5, "other": -0.25}, bins=2)
    assert [bar.get_height() for bar in ax.patches] == [3, 3]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("value", "number of pairs")
    assert {label: line.get_xdata() for label, line in drawn(ax).items()} == {"mean": [0.5] * 2, "other": [-0.25] * 2}
    assert [line.get_linestyle() for line in ax.lines] == ["-", "--"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["mean", "other"]


def test_images_are_shown_in_order_dark_on_light_and_without_axes():
    pictures = np.array([[[0, 255], [0, 0]], [[9, 0], [0, 1]]], np.uint8)
    axes = plots.images(pictures, ["first", "second"]).axes
    for ax, picture, title in zip(axes, pictures, ["first", "second"], strict=True):
        np.testing.assert_array_equal(ax.images[0].get_array(), picture)
        assert ax.get_title() == title and not ax.axison
        assert ax.images[0].cmap(0.0)[0] == 1 and ax.images[0].cmap(1.0)[0] == 0  # zero is white
    with pytest.raises(ValueError):
        plots.images(pictures, ["one title"])


def test_an_explorer_carries_its_axes_and_its_table():
    parsed = Parsed(
        plots.explorer(
            "n",
            {"one": [0]},
            {(0,): {"lines": {"y": [1, 2]}}},
            table={"left": [1, 2], "right": [0.123456, 4]},
            x=[5, 6],
            xlabel="across",
            ylabel="up",
            xscale="log",
        ).data
    )
    axes = {name: parsed.data[name] for name in ("x", "xlabel", "ylabel", "xscale", "yscale")}
    assert axes == {"x": [5, 6], "xlabel": "across", "ylabel": "up", "xscale": "log", "yscale": "linear"}
    assert parsed.cells == ["1", "0.1235", "2", "4"] and re.search("left.*right.*1.*0.1235", parsed.words)
