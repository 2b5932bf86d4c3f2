"""Formulas, code, tables and figures are whole on every page, or scroll in their own box and show that they do."""

import io

import pytest
from PIL import Image, ImageChops
from test_site import PAGES

PARTS = "mjx-container, pre, table, figure, .zonb-figure, .zonb-explorer, .zonb-calculator, dt.sig"
OPEN = """
() => {
  document.querySelectorAll('details').forEach(details => { details.open = true; });
  document.querySelectorAll('.toggle-hidden').forEach(box => box.classList.remove('toggle-hidden'));
}
"""
# What is not whole, in words. From a part outwards: every box around it shows all of it, or scrolls to what it does
# not show, by keyboard too, and has a shadow there.
OFFENDERS = """
([parts, wide]) => {
  const found = [];
  for (const part of document.querySelectorAll(parts)) {
    if (!part.checkVisibility() || part.getBoundingClientRect().width <= 1) continue;
    const formula = part.matches('mjx-container');
    const about = part.closest('div.math')?.id || part.id || part.textContent.trim().slice(0, 60);
    const say = wrong => found.push(`${wrong}: ${part.tagName.toLowerCase()} ${about}`);
    let { left, right, top, bottom } = (formula ? part.querySelector('mjx-math') : part).getBoundingClientRect();
    for (let box = part; box !== document.body; box = box.parentElement) {
      const style = getComputedStyle(box);
      const rect = box.getBoundingClientRect();
      const [first, last] = [rect.left + box.clientLeft, rect.left + box.clientLeft + box.clientWidth];
      if (box === part && !formula) right = Math.max(right, first + box.scrollWidth);
      if (['hidden', 'clip'].includes(style.overflowY) && (top < rect.top - 1 || bottom > rect.bottom + 1))
        say('too high for its box');
      const inside = left >= first - 1 && right <= last + 1;
      if (inside || style.overflowX === 'visible' || style.display === 'inline') continue;
      const more = Math.ceil(Math.max(first - left, right - last));
      if (!['auto', 'scroll'].includes(style.overflowX) || left < first - 1) say(`${more} pixels cut off`);
      else if (wide && formula) say(`${more} pixels to scroll`);
      else if (!/rgb\\([^)]*\\) -[\\d.]+px [^,]*inset/.test(style.boxShadow)) say('scrolls and does not show it');
      else if (box.tabIndex !== 0 && !box.querySelector('mjx-container[tabindex="0"]')) say('no keyboard scrolls it');
      else if (!formula && !box.ariaLabel) say('scrolls and has no name');
      ({ left, right, top, bottom } = rect);
    }
    const column = document.querySelector('.bd-article-container').getBoundingClientRect();
    if (left < column.left - 1 || right > column.right + 1) say('wider than the column');
    const number = part.closest('div.math')?.querySelector('.eqno')?.getBoundingClientRect();
    if (number && right > number.left && bottom > number.top && top < number.bottom) say('stands on its number');
  }
  if (document.documentElement.scrollWidth > innerWidth) found.push('the page scrolls sideways');
  return found;
}
"""


def offenders(page, width, scrolls):
    """What is not whole at this width with everything opened; ``scrolls``: whether formulas may."""
    page.set_viewport_size({"width": width, "height": 900})
    page.evaluate(OPEN)
    page.wait_for_timeout(500)  # the theme and scroll.js look at what has a new size
    return page.evaluate(OFFENDERS, [PARTS, not scrolls])


@pytest.mark.parametrize("name", ["search.html", *PAGES])
def test_nothing_is_cut_off(visit, name):
    page = visit(name).page
    # On a wide screen a formula is broken rather than scrolled, except in a docstring, read as source, too.
    assert offenders(page, 1280, scrolls=name.startswith("book/api/")) == []
    assert offenders(page, 390, scrolls=True) == []


WIDE = "notebooks/04-error-law.html"
FORMULA = "#equation-eq-error-law mjx-container"


def shadow(box, side):
    """How much the shade of a box changes at one of its edges, on a scale of 255, by the shadow there."""
    page, frame = box.page, box.bounding_box()
    left = frame["x"] + (frame["width"] - 4 if side == "right" else 0)
    clip = {"x": left, "y": frame["y"], "width": 4, "height": frame["height"]}
    seen = []
    for colour in ("", "transparent"):
        box.evaluate("(e, colour) => { e.style.setProperty('--pst-color-text-muted', colour); }", colour)
        seen.append(Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("L"))
    box.evaluate("e => { e.style.removeProperty('--pst-color-text-muted'); }")
    return ImageChops.difference(*seen).getextrema()[1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("selector", [FORMULA, "div.highlight pre"])
def test_a_shadow_is_seen_where_there_is_more(visit, scheme, selector):
    page = visit(WIDE, width=390, scheme=scheme).page
    box = page.locator(selector).first
    box.scroll_into_view_if_needed()
    page.wait_for_function("e => e.dataset.more === 'right'", arg=box.element_handle())
    assert shadow(box, "right") > 40 and shadow(box, "left") < 10
    box.evaluate("e => { e.scrollLeft = 1e5; }")
    page.wait_for_function("e => e.dataset.more === 'left'", arg=box.element_handle())
    assert shadow(box, "left") > 40 and shadow(box, "right") < 10
    page.set_viewport_size({"width": 1280, "height": 900})
    page.wait_for_function("e => e.dataset.more === undefined", arg=page.locator(FORMULA).element_handle())


@pytest.mark.parametrize("selector", [FORMULA, "div.highlight pre"])
def test_the_keyboard_scrolls_what_is_wide(visit, selector):
    page = visit(WIDE, width=390).page
    box = page.locator(selector).first
    page.wait_for_function("e => e.dataset.more === 'right'", arg=box.element_handle())
    box.focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    page.wait_for_function("e => e.scrollLeft > 20", arg=box.element_handle())


def test_code_of_the_width_that_is_kept_fits_the_column(visit):
    page = visit(WIDE).page
    page.evaluate(OPEN)
    fits = page.evaluate(
        """() => [...document.querySelectorAll('.cell_input pre')].map(e => {
          e.textContent = 'x'.repeat(84);
          return e.scrollWidth <= e.clientWidth;
        })"""
    )
    assert len(fits) > 10 and all(fits)


def test_nothing_stands_in_the_margin(visit):
    page = visit(WIDE).page
    text, left, right = (
        page.locator(one).bounding_box()
        for one in ("article.bd-article", ".bd-sidebar-primary", ".bd-sidebar-secondary")
    )
    assert left["x"] + left["width"] <= text["x"] and text["x"] + text["width"] <= right["x"]
