"""The site of docs/: it builds without a warning, from every page, and loads nothing from elsewhere."""

import os
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.shipping.files import BIN, ROOT

DOCS = ROOT / "docs"
LOADED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}
NOTHING_LOADED = {"canonical", "next", "prev", "alternate"}


class Page(HTMLParser):
    """What a page loads, and where it links to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.linked: list[str] = []
        self.names: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.names.add(given.get("id") or "")
        if tag in LOADED and given.get("rel") not in NOTHING_LOADED:
            self.loaded.append(given.get(LOADED[tag]) or "")
        if tag == "a" and (target := given.get("href")):
            self.linked.append(target)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built where every warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [str(BIN / "mkdocs"), "build", "--strict", "--site-dir", str(folder)]
    # mkdocs-material announces its successor.
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    told = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100)
    assert told.returncode == 0, told.stdout + told.stderr
    return folder


def test_every_page_is_there(site: Path) -> None:
    built = {str(path.relative_to(site).with_suffix("")) for path in site.rglob("*.html")} - {"404"}
    assert built == {str(path.relative_to(DOCS).with_suffix("")) for path in DOCS.rglob("*.md")}


def test_no_link_leads_nowhere(site: Path) -> None:
    pages = {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}
    checked = 0
    for path, page in pages.items():
        for link in page.linked:
            if not re.match(r"[a-z]+:", link):
                target, _, name = link.partition("#")
                found = (path.parent / target).resolve() if target else path
                assert found.is_file(), f"{path.name}: {link}"
                if name and found in pages:
                    assert name in pages[found].names | {"__top"}, f"{path.name}: {link}"
                checked += 1
    assert checked > 100


def test_nothing_is_loaded_from_other_hosts(site: Path) -> None:
    for path in site.rglob("*.html"):
        assert [source for source in Page(path).loaded if re.match(r"(https?:)?//", source)] == [], path.name
