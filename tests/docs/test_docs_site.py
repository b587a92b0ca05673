"""The documentation as a site: it builds without a warning, and its pages ask nobody else for anything."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
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


def test_no_code_that_runs_on_a_page_knows_another_server_but_for_what_is_not_used_here(site):
    """The theme can draw diagrams, show a repository and help browsers without ResizeObserver: none of it is used."""
    for path in site.rglob("*.html"):
        text = path.read_text("utf-8")
        assert 'class="mermaid"' not in text and "data-md-source" not in text.replace('data-md-component="source"', "")
        assert 'data-md-component="source"' not in text
