"""The reference notebook, run from top to bottom with little training: that it works, and what it shows."""

from __future__ import annotations

import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbgrader.utils import determine_grade

from autograder.assignment import load
from autograder.release.build import build
from autograder.release.programs import solved
from ebmcourse.checking.public import run_public_checks

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
    """The solved notebook after it has run in the folder of its release; an error in a cell fails the test."""
    assignment = load("structured_prediction")
    folder = tmp_path_factory.mktemp("work") / assignment.name
    build(assignment, folder)
    notebook = nbformat.reads(solved(assignment), as_version=4)
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}})
    client.execute(env=os.environ | {"OMP_NUM_THREADS": "1", "EBM_PRESET": "small"})
    notebook.metadata.folder = str(folder)
    return notebook


def streams(notebook: nbformat.NotebookNode, name: str) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.text for output in outputs if output.output_type == "stream" and output.name == name)


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
    assert "Not yet" not in streams(notebook, "stdout")
    assert streams(notebook, "stderr") == ""


@pytest.mark.slow
def test_tested_cells_return_all_points_of_their_public_checks(notebook):
    public: dict[str, float] = {}
    folder = Path(notebook.metadata.folder)
    (folder / "structured_prediction.ipynb").write_text(solved(load("structured_prediction")), "utf-8")
    for outcome in run_public_checks(folder):
        public[f"test-{outcome.part}"] = public.get(f"test-{outcome.part}", 0.0) + outcome.max_points
    tested = [cell for cell in notebook.cells if cell.id.startswith("test-")]
    assert {cell.id: determine_grade(cell)[0] for cell in tested} == public


@pytest.mark.slow
def test_all_figures_are_drawn(notebook):
    assert {words: drawn_below(notebook, words) for words in FIGURES} == FIGURES


@pytest.mark.slow
def test_known_numbers_are_printed(notebook):
    """Strings of 8 labels that read as a given word of 3 different letters: 11 choose 6 = 462."""
    text = streams(notebook, "stdout")
    assert "certain: 0.0000" in text and "read as cat: 462\n" in text
    ours, torchs = re.findall(r"ours (\S+), torch's (\S+)", text)[0]
    assert ours == torchs
