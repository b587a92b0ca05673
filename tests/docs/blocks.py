"""Fenced blocks of a Markdown page, and comments before them that tell the tests how to run them.

<!-- not run: reason -->        the block cannot be run here
<!-- ends with N: reason -->    the exit code of the block is N
<!-- before: command -->        the test runs this command first; readers do it in another way
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```[ ]*$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!-- (not run|ends with \d+|before): (.+?) -->")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the line of the page where it begins, and its comments."""

    language: str
    text: str
    line: int
    not_run: str = ""
    code: int = 0
    before: str = ""


def blocks(page: Path) -> list[Block]:
    """Return all fenced blocks of a page; comments belong to the block that follows them."""
    text = page.read_text("utf-8")
    found, last = [], 0
    for fence in _FENCE.finditer(text):
        about: dict[str, str | int] = {}
        for what, words in _COMMENT.findall(text[last : fence.start()]):
            if what.startswith("ends with"):
                about["code"] = int(what.split()[-1])
            else:
                about[what.replace(" ", "_")] = words
        line = text[: fence.start()].count("\n") + 1
        found.append(Block(fence[2], fence[3], line, **about))
        last = fence.end()
    return found
