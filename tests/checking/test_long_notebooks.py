"""A notebook of very many lines is refused at once: comparing it with the release would take a minute and gigabytes."""

from __future__ import annotations

import json

import pytest

from ebmcourse.checking.program import MAX_LINES, read_notebook


@pytest.mark.parametrize("end", ["\n", "\r", "\x85", "\u2028"])
def test_too_many_lines_are_refused(end: str) -> None:
    def notebook(lines: int) -> str:
        cell = {"cell_type": "markdown", "metadata": {}, "source": f"ab{end}" * lines}
        return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [cell]})

    assert len(read_notebook(notebook(MAX_LINES)).cells) == 1
    with pytest.raises(ValueError, match="lines"):
        read_notebook(notebook(MAX_LINES + 1))
