"""Put figures into the page as inline SVG, so that their text and axes take the page's own colour."""

import re
from html import escape
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

from zonb.plots import INK


def _inline(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    if app.builder.format != "html":
        return
    for n, image in enumerate(list(doctree.findall(nodes.image))):
        path = Path(app.srcdir) / image["uri"].lstrip("/")
        if path.suffix != ".svg" or not path.is_file():
            continue
        svg = path.read_text(encoding="utf-8")
        svg = svg[svg.index("<svg") :]
        # Two figures of a page must not share an id.
        svg = re.sub(r'\bid="', rf'id="f{n}-', svg)
        svg = re.sub(r'(href="#|url\(#)', rf"\g<1>f{n}-", svg)
        svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
        svg = re.sub(re.escape(INK), "currentColor", svg, flags=re.IGNORECASE)
        width = float(re.search(r'width="([\d.]+)pt"', svg)[1]) * 4 / 3
        svg = re.sub(r'width="[\d.]+pt"', f'style="width:{width:.0f}px"', svg, count=1)
        svg = re.sub(r'height="[\d.]+pt" ', "", svg, count=1)
        label = escape(image.get("alt", ""), quote=True)
        html = f'<div class="zonb-figure" role="img" tabindex="0" aria-label="{label}">{svg}</div>'
        image.replace_self(nodes.raw("", html, format="html"))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("doctree-resolved", _inline)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
