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

FIGURES = {1: 3, 2: 3, 3: 3, 4: 7, 5: 1, 6: 3, 7: 2}  # the number of pictures in each part


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> nbformat.NotebookNode:
    """The solved notebook after it has run in the folder of its release; an error in a cell fails the test."""
    assignment = load("graphical_models")
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


@pytest.mark.slow
def test_every_exercise_is_solved_and_there_are_no_warnings(notebook):
    assert "Not yet" not in streams(notebook, "stdout")
    assert streams(notebook, "stderr") == ""


@pytest.mark.slow
def test_tested_cells_return_all_points_of_their_public_checks(notebook):
    public: dict[str, float] = {}
    folder = Path(notebook.metadata.folder)
    (folder / "graphical_models.ipynb").write_text(solved(load("graphical_models")), "utf-8")
    for outcome in run_public_checks(folder):
        public[f"test-{outcome.part}"] = public.get(f"test-{outcome.part}", 0.0) + outcome.max_points
    tested = [cell for cell in notebook.cells if cell.id.startswith("test-")]
    assert {cell.id: determine_grade(cell)[0] for cell in tested} == public


@pytest.mark.slow
def test_all_figures_are_drawn(notebook):
    drawn, part = dict.fromkeys(FIGURES, 0), 0
    for cell in notebook.cells:
        if found := re.match(r"## (\d) ", cell.source):
            part = int(found[1])
        if cell.cell_type == "code" and part:
            drawn[part] += sum("image/png" in output.get("data", {}) for output in cell.outputs)
    assert drawn == FIGURES


@pytest.mark.slow
def test_known_numbers_are_printed(notebook):
    text = streams(notebook, "stdout")
    assert "1048576 paths, 40 arcs, 40 arcs read\n" in text
    free = re.findall(r"F = +(\S+)  engine +(\S+)\n", text)
    assert len(free) == 8 and all(ours == engine for ours, engine in free)
    assert all(float(gap) < 1e-6 for gap in re.findall(r"gap at the Gibbs distribution: (\S+)\n", text))
    differences = re.findall(r"largest difference from autograd (\S+)\n", text)
    assert len(differences) == 2 and all(float(difference) < 1e-6 for difference in differences)
