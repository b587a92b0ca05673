"""The page about the engine: its examples run, and its pictures can be drawn."""

import doctest
import re
import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def page() -> str:
    return (DOCS / "engine.md").read_text(encoding="utf-8")


def test_examples_run_as_shown(page):
    examples = doctest.DocTestParser().get_doctest(page, {}, "engine.md", "engine.md", 0)
    complaints: list[str] = []
    result = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS).run(examples, out=complaints.append)
    assert not complaints, "".join(complaints)
    assert result.attempted > 20


def test_pictures_are_those_of_the_page(page, tmp_path):
    runpy.run_path(str(DOCS / "make_engine_pictures.py"))["main"](tmp_path)
    drawn = {file.name for file in tmp_path.iterdir()}
    assert drawn == {file.name for file in (DOCS / "images" / "engine").iterdir()}
    assert drawn == set(re.findall(r"\(images/engine/(.*?)\)", page))
