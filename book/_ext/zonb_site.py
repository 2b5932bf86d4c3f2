"""What Jupyter Book leaves to do: figures in the colour of the page, links of docstrings, and each script once."""

import re
from html import escape
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

_COLAB = "colab"  # the branch in which a published book keeps the notebooks of its download buttons
_FEW = 3  # columns of a table that tell what they are without a head
_PHONE = 680  # pixels; a wider figure, shrunk to a phone, would be too small to read


def _inline(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    if app.builder.format != "html":
        return
    for n, image in enumerate(list(doctree.findall(nodes.image))):
        path = Path(app.srcdir) / image["uri"].lstrip("/")
        if path.suffix != ".svg" or not path.is_file():
            continue
        from zonb.plots import INK  # with all that draws, which a site without figures does not need

        svg = path.read_text(encoding="utf-8")
        svg = svg[svg.index("<svg") :]
        # Equal pictures get equal ids, and two figures of a page must not share one.
        svg = re.sub(r'(<image\b[^>]*?) id="[^"]*"', r"\1", svg)
        svg = re.sub(r'\bid="', rf'id="f{n}-', svg)
        svg = re.sub(r'(href="#|url\(#)', rf"\g<1>f{n}-", svg)
        svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
        svg = re.sub(re.escape(INK), "currentColor", svg, flags=re.IGNORECASE)
        width = float(re.search(r'width="([\d.]+)pt"', svg)[1]) * 4 / 3
        svg = re.sub(r'width="[\d.]+pt"', f'style="width:{width:.0f}px"', svg, count=1)
        svg = re.sub(r'height="[\d.]+pt" ', "", svg, count=1)
        label = escape(image.get("alt", ""), quote=True)
        shape = "zonb-figure wide" if width > _PHONE else "zonb-figure"
        html = f'<div class="{shape}" role="img" tabindex="0" aria-label="{label}">{svg}</div>'
        image.replace_self(nodes.raw("", html, format="html"))


def _name_cells(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    # On a phone the cells of a row stand under each other, and what heads their column is not seen.
    for table in doctree.findall(lambda node: isinstance(node, nodes.table) and "zonb-table" in node["classes"]):
        head, *rows = table.findall(nodes.row)
        names = [entry.astext() for entry in head]
        for entries in rows if len(names) > _FEW else []:
            for name, entry in zip(names, entries, strict=True):
                if entry.children:
                    entry.insert(0, nodes.paragraph("", name, classes=["zonb-label"]))


def _each_script_once(app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document) -> None:
    # sphinx_thebe adds its constants each time documents are read, and a second declaration is an error in the page.
    scripts: dict[tuple, object] = {}
    for script in context["script_files"]:
        scripts.setdefault((script.filename or "", script.attributes.get("body")), script)
    context["script_files"] = list(scripts.values())


def _launch_what_can_run(app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document) -> None:
    # A record is claims and figures of a chapter, and no notebook of the repository to open.
    if page.startswith("records/"):
        kept = [button for button in context["header_buttons"] if button.get("label") != "launch-buttons"]
        context["header_buttons"] = kept
    # Colab opens only .ipynb files, and the branch that Binder makes them from has none.
    for button in context["header_buttons"]:
        for launch in button.get("buttons", []):
            if launch["text"] == "Colab":
                launch["url"] = launch["url"].replace("/blob/HEAD/", f"/blob/{_COLAB}/")


def _by_its_end(app: Sphinx, env: BuildEnvironment, node: nodes.Element, content: nodes.Node) -> nodes.Node | None:
    # A docstring may name an object of another module without the package, as in `kernels.alignment`.
    if node["reftype"] != "obj":
        return None
    node["refspecific"] = True
    return env.get_domain("py").resolve_xref(env, node["refdoc"], app.builder, "obj", node["reftarget"], node, content)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("doctree-resolved", _inline)
    app.connect("doctree-resolved", _name_cells)
    app.connect("missing-reference", _by_its_end)
    app.connect("html-page-context", _each_script_once, priority=900)
    app.connect("html-page-context", _launch_what_can_run, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
