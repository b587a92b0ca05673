"""The documentation as a site: it builds without a warning, and its pages ask nobody else for anything."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "report"))

from browser import CHROMIUM, Browser  # noqa: E402

REQUEST = "Network.requestWillBeSent"
# What makes a browser fetch something as soon as the page opens.
FETCHED = re.compile(
    r"<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\bsrc=[\"']?(?P<src>[^\"' >]+)"
    r"|<link\b(?![^>]*rel=[\"']?(?:canonical|next|prev)\b)[^>]*\bhref=[\"']?(?P<href>[^\"' >]+)"
    r"|url\([\"']?(?P<url>[^\"')]+)|@import\s+[\"'](?P<sheet>[^\"']+)"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]  # --quiet would undo --strict
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_there_and_in_the_navigation(site):
    start = (site / "index.html").read_text("utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert (site / f"{page.stem}.html").is_file()
        assert f"{page.stem}.html" in start, f"{page.name} is not in the navigation: add it to mkdocs.yml"


def test_nothing_is_fetched_from_elsewhere(site):
    for path in [*site.rglob("*.html"), *site.rglob("*.css")]:
        for match in FETCHED.finditer(path.read_text("utf-8")):
            address = next(filter(None, match.groups()))
            assert not re.match(r"(https?:)?//", address), f"{path.relative_to(site)} fetches {address}"


def test_what_the_theme_would_fetch_a_library_for_is_not_used(site):
    """Diagrams and the numbers of a repository would come from other servers."""
    for path in site.rglob("*.html"):
        text = path.read_text("utf-8")
        assert 'class="mermaid"' not in text and 'data-md-component="source"' not in text


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed, so no page can be looked at")
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.mark.parametrize("page", ["index", "instructor", "engine", "design"])
def test_pages_fit_a_phone_and_ask_no_server(site, browser, page):
    browser.look(width=390, phone=True)
    browser.open((site / f"{page}.html").as_uri())
    assert browser.value("document.documentElement.scrollWidth") <= 390
    requests = [event["params"]["request"]["url"] for event in browser.events if event["method"] == REQUEST]
    assert requests and all(url.startswith(("file:", "data:")) for url in requests), requests


def test_pages_are_dark_where_the_reader_likes_it(site, tmp_path):
    with Browser(tmp_path) as browser:  # one that remembers no other choice
        browser.look(width=1200, dark=True)
        browser.open((site / "index.html").as_uri())
        assert browser.value("document.body.dataset.mdColorScheme") == "slate"
