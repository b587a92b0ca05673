"""Make the tables that are not typed by hand: `python docs/make_tables.py`.

* the figures of docs/results.md in README.md
* docs/contracts.md, from quality/contract.toml of every assignment
"""

from __future__ import annotations

from itertools import dropwhile, takewhile
from pathlib import Path

from autograder import assignment as assignments
from autograder.quality.contract import DIMENSIONS, table

ROOT = Path(__file__).resolve().parent.parent
README, RESULTS, CONTRACTS = ROOT / "README.md", ROOT / "docs" / "results.md", ROOT / "docs" / "contracts.md"

_ABOUT = """# What the checks vary

For every function that students write, this page lists what its text leaves open. Each column is one dimension:

{dimensions}

A name in a column is that of a case in the folder `quality` of the assignment: a program that is wrong in this
dimension only. Because the tests ask that every such case loses points, the checks vary the dimension. A number in
parentheses refers to the reason below the table why the dimension is not open. The page is made from
`quality/contract.toml` by `python docs/make_tables.py`.
"""


def first_table(page: str, heading: str) -> str:
    """Return the first table after a heading of a Markdown page."""
    lines = page[page.index(f"\n{heading}\n") :].splitlines()
    return "\n".join(takewhile(_is_row, dropwhile(lambda line: not _is_row(line), lines)))


def _is_row(line: str) -> bool:
    return line.startswith("|")


def with_figures(readme: str, results: str) -> str:
    """Return README.md with the table of docs/results.md."""
    old = first_table(readme, "## What the grader finds")
    return readme.replace(old, first_table(results, "## How many mistakes are found"))


def contracts() -> str:
    """Return docs/contracts.md."""
    dimensions = "\n".join(f"* **{name}**: {meaning}" for name, meaning in DIMENSIONS.items())
    known = [assignments.load(name) for name in assignments.names()]
    tables = (f"## `{each.name}`\n\n{table(each)}\n" for each in known)
    return "\n".join([_ABOUT.format(dimensions=dimensions), *tables])


def pages() -> dict[Path, str]:
    """Return the text of every page with such a table, with up-to-date tables."""
    readme = with_figures(README.read_text("utf-8"), RESULTS.read_text("utf-8"))
    return {README: readme, CONTRACTS: contracts()}


if __name__ == "__main__":
    for page, text in pages().items():
        page.write_text(text, "utf-8", newline="\n")
