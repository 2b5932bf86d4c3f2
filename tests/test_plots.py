import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

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
