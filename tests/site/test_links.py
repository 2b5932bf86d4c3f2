import re
from functools import cache
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest
from conftest import ROOT

SITE = ROOT / "_build" / "html"


class Page(HTMLParser):
    """What a page links to and loads, and the places that it has."""

    def __init__(self, path):
        super().__init__()
        self.targets, self.places = [], set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        found = {name: value for name, value in attributes if value is not None}
        self.targets += [found[name] for name in ("href", "src", "data") if name in found]
        self.targets += re.findall("(?i)^0; url=(.*)", found.get("content", ""))
        self.places |= {found[name] for name in ("id", "name") if name in found}


def broken(site):
    """Links within the site that lead nowhere, a line each."""
    page, lines = cache(Page), []
    for path in sorted(site.rglob("*.html")):
        if path.relative_to(site).parts[0] == "_static":  # templates of the theme's
            continue
        for target in page(path).targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            other = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not other.is_file() or not other.is_relative_to(site.resolve()):
                lines.append(f"{path.relative_to(site)}: there is no file {target}")
            elif parts.fragment and other.suffix == ".html" and unquote(parts.fragment) not in page(other).places:
                lines.append(f"{path.relative_to(site)}: there is no place {target}")
    return lines


def test_every_link_within_the_site_leads_to_a_file_and_a_place():
    assert broken(SITE) == []


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ('<a href="#there">', None),
        ('<a href="">', None),
        ('<a href="sub/b.html#%C3%A4">', None),
        ('<a href="https://example.org/#nowhere">', None),
        ('<a href="mailto:a@example.org">', None),
        ('<img src="data:image/png;base64,AA">', None),
        ('<a href="sub/b.html?q=a">', None),
        ('<a href="#ther">', "there is no place #ther"),
        ('<a href="sub/b.html#there">', "there is no place sub/b.html#there"),
        ('<a href="b.html">', "there is no file b.html"),
        ('<a href="sub">', "there is no file sub"),
        ('<a href="../a.html">', "there is no file ../a.html"),
        ('<img src="c.png">', "there is no file c.png"),
        ('<script src="c.js?v=1">', "there is no file c.js?v=1"),
        ('<link rel="stylesheet" href="c.css">', "there is no file c.css"),
        ('<meta http-equiv="Refresh" content="0; url=c.html">', "there is no file c.html"),
    ],
)
def test_a_broken_link_is_named(tmp_path, link, said):
    site = tmp_path / "site"
    (site / "sub").mkdir(parents=True)
    (site / "a.html").write_text(f'<p id="there">{link}')
    (site / "sub" / "b.html").write_text('<p id="ä"><a href="../a.html#there">')
    (tmp_path / "a.html").touch()
    assert broken(site) == ([f"a.html: {said}"] if said else [])
