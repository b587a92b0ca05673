"""The run of a released notebook with the reference."""

from __future__ import annotations

from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from autograder.release.notebook_run import first_error


@pytest.mark.slow
def test_the_progress_counts_the_cells_that_run_and_reaches_their_number(tmp_path):
    cells = [new_markdown_cell("# Title"), new_code_cell("x = 1"), new_code_cell(" \n"), new_code_cell("x + 1")]
    nbformat.write(new_notebook(cells=[*cells, new_markdown_cell("The end")]), tmp_path / "note.ipynb")
    note = SimpleNamespace(name="note", scripts=(), hands_in_notebook=False)
    shown = []
    assert first_error(note, tmp_path, lambda *counts: shown.append(counts)) is None
    assert shown == [(0, 2), (1, 2), (2, 2)]
