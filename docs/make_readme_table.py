"""Copy the figures of docs/results.md into the table of README.md: `python docs/make_readme_table.py`."""

from __future__ import annotations

from itertools import dropwhile, takewhile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README, RESULTS = ROOT / "README.md", ROOT / "docs" / "results.md"


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


if __name__ == "__main__":
    README.write_text(with_figures(README.read_text("utf-8"), RESULTS.read_text("utf-8")), "utf-8", newline="\n")
