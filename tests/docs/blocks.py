"""Fenced blocks of a Markdown page, and the comments before them that say how a test treats them.

<!-- not run: reason -->        the block cannot be run here
<!-- ends with N: reason -->    it ends with this exit code
<!-- before: command -->        the test runs this first; readers have done it by other means
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```[ ]*$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!-- (not run|ends with \d+|before): (.+?) -->")


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, its text, the line of the page where it begins, and what comments say."""

    language: str
    text: str
    line: int
    not_run: str = ""
    code: int = 0
    before: str = ""


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page; the comments between one block and the next belong to the next."""
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
