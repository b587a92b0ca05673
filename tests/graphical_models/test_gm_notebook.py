"""The reference notebook, run from top to bottom with little training: that it works, and what it shows."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbgrader.utils import determine_grade
from notebook_runs import executed_solution, pictures_by_part, printed, public_points

FIGURES = {1: 3, 2: 3, 3: 3, 4: 7, 5: 1, 6: 3, 7: 2}  # the number of pictures in each part


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> nbformat.NotebookNode:
    return executed_solution(tmp_path_factory.mktemp("work") / "graphical_models", "graphical_models")


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
    assert pictures_by_part(notebook) == FIGURES


@pytest.mark.slow
def test_known_numbers_are_printed(notebook):
    text = "".join(printed(notebook, "stdout"))
    assert "1048576 paths, 40 arcs, 40 arcs read\n" in text
    free = re.findall(r"F = +(\S+)  engine +(\S+)\n", text)
    assert len(free) == 8 and all(ours == engine for ours, engine in free)
    assert all(float(gap) < 1e-6 for gap in re.findall(r"gap at the Gibbs distribution: (\S+)\n", text))
    differences = re.findall(r"largest difference from autograd (\S+)\n", text)
    assert len(differences) == 2 and all(float(difference) < 1e-6 for difference in differences)
