"""The reference notebook, run from top to bottom with little training: that it works, and what it shows."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbgrader.utils import determine_grade
from notebook_runs import executed_solution, printed, public_points

FIGURES = {  # the number of figures, by the text above the cell that draws them
    "### Windows": 1,
    "Before training, the energies mean nothing": 1,
    "The best path of the whole alphabet": 2,
    "What has changed?": 4,
    'The graphs of "cat"': 2,
    "The intersection for": 1,
    "All paths and the best one": 1,
    "Is the training on single letters needed?": 2,
    "How many new words": 1,
}


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> nbformat.NotebookNode:
    return executed_solution(tmp_path_factory.mktemp("work") / "structured_prediction", "structured_prediction")


def drawn_below(notebook: nbformat.NotebookNode, words: str) -> int:
    """The number of pictures between the text cell with these words and the next text cell."""
    [start] = [n for n, cell in enumerate(notebook.cells) if cell.cell_type == "markdown" and words in cell.source]
    count = 0
    for cell in notebook.cells[start + 1 :]:
        if cell.cell_type == "markdown":
            break
        count += sum("image/png" in output.get("data", {}) for output in cell.outputs)
    return count


@pytest.mark.slow
def test_every_exercise_is_solved_and_there_are_no_warnings(notebook):
    assert "Not yet" not in "".join(printed(notebook, "stdout"))
    assert "".join(printed(notebook, "stderr")) == ""


@pytest.mark.slow
def test_tested_cells_return_all_points_of_their_public_checks(notebook):
    tested = [cell for cell in notebook.cells if cell.id.startswith("test-")]
    assert {cell.id: determine_grade(cell)[0] for cell in tested} == public_points(Path(notebook.metadata.folder))


@pytest.mark.slow
def test_all_figures_are_drawn(notebook):
    assert {words: drawn_below(notebook, words) for words in FIGURES} == FIGURES


@pytest.mark.slow
def test_known_numbers_are_printed(notebook):
    """Strings of 8 labels that read as a given word of 3 different letters: 11 choose 6 = 462."""
    text = "".join(printed(notebook, "stdout"))
    assert "certain: 0.0000" in text and "read as cat: 462\n" in text
    ours, torchs = re.findall(r"ours (\S+), torch's (\S+)", text)[0]
    assert ours == torchs
