"""The documentation as a web site: it builds without warnings, and its pages make no requests to other servers."""

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
# Elements that make a browser load something when it opens the page.
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


def test_every_page_exists_and_is_in_the_navigation(site):
    start = (site / "index.html").read_text("utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert (site / f"{page.stem}.html").is_file()
        assert f"{page.stem}.html" in start, f"{page.name} is not in the navigation: add it to mkdocs.yml"


def test_nothing_is_loaded_from_other_servers(site):
    for path in [*site.rglob("*.html"), *site.rglob("*.css")]:
        for match in FETCHED.finditer(path.read_text("utf-8")):
            address = next(filter(None, match.groups()))
            assert not re.match(r"(https?:)?//", address), f"{path.relative_to(site)} fetches {address}"


def test_features_that_load_libraries_are_not_used(site):
    """The theme loads libraries for diagrams, and statistics of the repository, from other servers."""
    for path in site.rglob("*.html"):
        text = path.read_text("utf-8")
        assert 'class="mermaid"' not in text and 'data-md-component="source"' not in text


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.mark.parametrize("page", ["index", "instructor", "engine", "design"])
def test_pages_fit_a_phone_and_make_no_requests(site, browser, page):
    browser.look(width=390, phone=True)
    browser.open((site / f"{page}.html").as_uri())
    assert browser.value("document.documentElement.scrollWidth") <= 390
    requests = [event["params"]["request"]["url"] for event in browser.events if event["method"] == REQUEST]
    assert requests and all(url.startswith(("file:", "data:")) for url in requests), requests


def test_pages_are_dark_if_the_reader_prefers_it(site, tmp_path):
    with Browser(tmp_path) as browser:  # a new profile without a stored choice
        browser.look(width=1200, dark=True)
        browser.open((site / "index.html").as_uri())
        assert browser.value("document.body.dataset.mdColorScheme") == "slate"
