import doctest
from pathlib import Path


def test_the_examples_in_the_documentation_hold():
    page = Path(__file__).parents[2] / "docs" / "lattice.md"
    result = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
    assert result.attempted and not result.failed
