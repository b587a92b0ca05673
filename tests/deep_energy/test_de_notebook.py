"""The reference notebook, run from top to bottom with little training: that it works, and what it shows."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbgrader.utils import determine_grade
from notebook_runs import executed_solution, pictures_by_part, printed, public_points

FIGURES = {1: 0, 2: 1, 3: 3, 4: 0, 5: 0, 6: 5, 7: 5, 8: 3}  # the number of pictures in each part


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> nbformat.NotebookNode:
    return executed_solution(tmp_path_factory.mktemp("work") / "deep_energy", "deep_energy")


@pytest.mark.slow
def test_every_exercise_is_solved_and_there_are_no_warnings(notebook):
    assert "Not yet" not in "".join(printed(notebook, "stdout"))
    assert "Warning" not in "".join(printed(notebook, "stderr"))


@pytest.mark.slow
def test_tested_cells_return_all_points_of_their_public_checks(notebook):
    tested = [cell for cell in notebook.cells if cell.id.startswith("test-")]
    assert {cell.id: determine_grade(cell)[0] for cell in tested} == public_points(Path(notebook.metadata.folder))


@pytest.mark.slow
def test_all_figures_are_drawn(notebook):
    assert pictures_by_part(notebook) == FIGURES


@pytest.mark.slow
def test_training_writes_its_log_its_pictures_and_its_checkpoint(notebook):
    folder = Path(notebook.metadata.folder) / "runs" / "deep_energy"
    assert (folder / "last.ckpt").is_file() and list((folder / "tensorboard").glob("events.*"))
    assert {file.name for file in (folder / "pictures").iterdir()} == {"generation_000.png", "sampler_000.png"}


@pytest.mark.slow
def test_outlier_tests_and_diagnoses_are_printed(notebook):
    text = "".join(printed(notebook, "stdout"))
    names = re.findall(r"^(.+?) +mean E +-?[\d.]+   AUROC [\d.]+$", text, re.MULTILINE)
    assert names[:5] == ["uniform noise", "noise", "flipped", "shrunk", "letters"]
    assert re.search(r"^sampler lost: \d+ of 300 steps", text, re.MULTILINE)
