"""Pictures with sliders: they move, say what they show, and leave a table where there is no JavaScript."""

import json
import re
from pathlib import Path

import pytest
from test_site import CONTRAST, PAGES, SITE

EXPLORERS = [page for page in PAGES if '<div class="zonb-explorer"' in (SITE / page).read_text()]
SUPERSCRIPTS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


class Explorer:
    """The explorer of an open page."""

    def __init__(self, page):
        self.page, self.box = page, page.locator(".zonb-explorer")
        self.data = json.loads(self.box.locator("script").text_content())
        self.sliders = self.box.get_by_role("slider").all()
        self.picture = self.box.locator(".picture svg")

    def outputs(self):
        return self.box.locator("output").all_inner_texts()

    def frame(self):
        """What the page's numbers say about the sliders' places."""
        index = 0
        for slider, asked in zip(self.sliders, self.data["sliders"], strict=False):
            index = index * len(asked["values"]) + int(slider.input_value())
        return self.data["frames"][index]

    def told(self):
        self.page.wait_for_timeout(600)
        return self.box.locator("p[role=status]").text_content()


@pytest.fixture
def explorer(visit):
    def open_explorer(name, **settings):
        opened = visit(name, **settings)
        opened.page.locator(".zonb-explorer .picture svg").wait_for()
        found = Explorer(opened.page)
        found.opened = opened
        return found

    return open_explorer


def test_the_page_of_explorers_links_to_every_one():
    links = re.findall(
        r'href="\.\./(notebooks/[^"#]+\.html)"', (SITE / "book/explore.html").read_text().split("<h1>")[-1]
    )
    assert len(EXPLORERS) >= 4 and set(EXPLORERS) <= set(links)


@pytest.mark.parametrize("name", EXPLORERS)
def test_arrow_keys_change_picture_value_and_what_a_screen_reader_is_told(explorer, name):
    seen = explorer(name)
    for k, slider in enumerate(seen.sliders):
        before, told, value = seen.picture.inner_html(), seen.told(), seen.outputs()[k]
        slider.focus()
        seen.page.keyboard.press("ArrowLeft" if slider.input_value() == slider.get_attribute("max") else "ArrowRight")
        assert seen.outputs()[k] != value and slider.get_attribute("aria-valuetext") == seen.outputs()[k]
        assert seen.picture.inner_html() != before
        now = seen.told()
        assert now != told and seen.outputs()[k] in now
    assert seen.opened.complaints == [] and seen.opened.outside == []


@pytest.mark.parametrize("name", EXPLORERS)
def test_a_click_and_a_drag_move_the_sliders(explorer, name):
    seen = explorer(name, width=390)
    for slider in seen.sliders:
        slider.scroll_into_view_if_needed()
        box = slider.bounding_box()
        assert box["height"] >= 44
        y = box["y"] + 6  # near the edge of what a finger may touch
        seen.page.mouse.click(box["x"] + 2, y)
        assert slider.input_value() == "0"
        before = seen.picture.inner_html()
        seen.page.mouse.move(box["x"] + 8, box["y"] + box["height"] / 2)
        seen.page.mouse.down()
        seen.page.mouse.move(box["x"] + box["width"] - 2, box["y"] + box["height"] / 2, steps=5)
        seen.page.mouse.up()
        assert slider.input_value() == slider.get_attribute("max")
        assert seen.picture.inner_html() != before


def number(text):
    digits, _, power = text.replace("−", "-").partition(" × 10")
    return float(digits) * 10 ** int(power.translate(SUPERSCRIPTS) or 0)


@pytest.mark.parametrize("name", EXPLORERS)
def test_what_is_shown_is_the_frame_of_the_sliders(explorer, name):
    seen = explorer(name)
    for k, slider in enumerate(seen.sliders[: len(seen.data["sliders"])]):
        slider.focus()
        for _ in range(k + 1):
            seen.page.keyboard.press("ArrowRight")
        frame = seen.frame()
        assert seen.box.locator(".note").inner_text() == frame.get("note", "")
        if "lines" in frame:
            lines = frame["lines"] | frame.get("guides", {})
            at = int(seen.sliders[-1].input_value())
            shown = [number(text) for text in seen.box.locator("li b").all_inner_texts() if text]
            assert shown == pytest.approx([line[at] for line in lines.values()], rel=6e-3)
            assert seen.picture.locator("path[fill=none]").count() == len(lines) + len(frame.get("runs", []))
        else:
            titles = seen.picture.locator("text").all_text_contents()
            assert titles[: len(frame["matrices"])] == list(frame["matrices"])
            cells = [value for matrix in frame["matrices"].values() for row in matrix for value in row]
            colours = seen.picture.locator("rect").evaluate_all("all => all.map(e => e.getAttribute('fill'))")
            for value, colour in zip(cells, colours, strict=False):
                red, _, blue = map(int, re.findall(r"\d+", colour))
                assert (red > blue) == (value > 0) or abs(red - blue) < 3


@pytest.mark.parametrize("name", EXPLORERS)
def test_the_scales_stay_while_the_last_slider_moves(explorer, name):
    seen = explorer(name)
    last = seen.sliders[len(seen.data["sliders"]) - 1]
    places = []
    for _ in range(int(last.get_attribute("max")) + 1):
        places.append(seen.picture.locator("text").all_text_contents())
        last.focus()
        seen.page.keyboard.press("ArrowRight")
    titles = len(seen.frame().get("matrices", []))
    assert all(labels[titles:] == places[0][titles:] for labels in places)
    assert len(places) >= 3 and len(places[0]) >= 4


@pytest.mark.parametrize("name", EXPLORERS)
def test_everything_has_a_name(explorer, name):
    seen = explorer(name)
    assert seen.page.get_by_role("group", name=seen.data["name"]).count() == 1
    assert seen.picture.get_attribute("role") == "img" and seen.picture.get_attribute("aria-label")
    labels = [slider.evaluate("e => e.labels[0].textContent") for slider in seen.sliders]
    assert all(labels) and len(set(labels)) == len(labels)
    assert labels[: len(seen.data["sliders"])] == [slider["label"] for slider in seen.data["sliders"]]
    assert len(labels) == len(seen.data["sliders"]) + ("lines" in seen.frame())
    ids = seen.page.evaluate("[...document.querySelectorAll('.zonb-explorer [id]')].map(e => e.id)")
    assert len(ids) == len(set(ids)) == len(labels)


@pytest.mark.parametrize("name", EXPLORERS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_legibly_and_does_not_scroll_sideways(explorer, name, scheme):
    seen = explorer(name, width=390, scheme=scheme)
    seen.box.locator("summary").click()
    seen.sliders[0].press("End")
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert seen.box.evaluate("e => e.scrollWidth <= e.clientWidth")
    for selector in ("label", "output", ".title", ".note", "li", ".picture text", "summary", "th", "td"):
        found = seen.box.locator(selector)
        assert found.count() == 0 or found.first.evaluate(CONTRAST) >= 4.5, selector
    frame = seen.picture.bounding_box()
    for word in seen.picture.locator("text").all():
        box = word.bounding_box()
        assert box["height"] >= 12 and word.evaluate("e => getComputedStyle(e).fill === getComputedStyle(e).color")
        assert frame["x"] - 1 <= box["x"] and box["x"] + box["width"] <= frame["x"] + frame["width"] + 1


@pytest.mark.parametrize("name", EXPLORERS)
def test_without_javascript_there_is_the_table(chromium, name):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(Path(SITE / name).as_uri())
    box = page.locator(".zonb-explorer")
    assert box.get_by_role("slider").count() == 0
    # Chromium shows it to readers without JavaScript, but not where a test has switched it off.
    assert "need JavaScript" in box.locator("noscript").text_content()
    box.locator("summary").click()
    assert box.locator("tbody tr").count() >= 5 and box.locator("tbody td").first.is_visible()
    context.close()


@pytest.mark.parametrize("name", EXPLORERS)
def test_the_numbers_are_a_small_part_of_the_page(name):
    (numbers,) = re.findall(r'<script type="application/json">(.*?)</script>', (SITE / name).read_text(), re.DOTALL)
    assert len(numbers.encode()) < 80_000
