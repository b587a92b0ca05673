"""Runs notebooks from top to bottom, with short trainings, and reads what they show."""

from __future__ import annotations

import os
import re
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from autograder.assignment import load
from autograder.release.build import build
from autograder.release.programs import solved
from ebmcourse.checking.public import PublicChecks


def executed(folder: Path, name: str, seconds: int = 600) -> nbformat.NotebookNode:
    """The notebook in `folder` after it has run, on one thread; `seconds` is the time for one cell."""
    notebook = nbformat.read(folder / f"{name}.ipynb", 4)
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=seconds, kernel_name="python3", resources=resources)
    client.execute(env=os.environ | {"OMP_NUM_THREADS": "1", "EBM_PRESET": "small"})
    return notebook


def executed_solution(folder: Path, name: str) -> nbformat.NotebookNode:
    """The solved notebook after it has run in the folder of its release; an error in a cell fails the test."""
    assignment = load(name)
    build(assignment, folder)
    (folder / f"{name}.ipynb").write_text(solved(assignment), "utf-8")
    notebook = executed(folder, name)
    notebook.metadata.folder = str(folder)
    return notebook


def printed(notebook: nbformat.NotebookNode, stream: str) -> list[str]:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output.text for output in outputs if output.output_type == "stream" and output.name == stream]


def pictures_by_part(notebook: nbformat.NotebookNode) -> dict[int, int]:
    """The number of pictures in each part; parts begin with a heading such as `## 1 The loss`."""
    drawn: dict[int, int] = {}
    part = 0
    for cell in notebook.cells:
        if found := re.match(r"## (\d) ", cell.source):
            part = int(found[1])
            drawn[part] = 0
        if cell.cell_type == "code" and part:
            drawn[part] += sum("image/png" in output.get("data", {}) for output in cell.outputs)
    return drawn


def public_points(folder: Path) -> dict[str, float]:
    """The points of the public checks of the program in `folder`, by the cell that tests them."""
    public: dict[str, float] = {}
    for outcome in PublicChecks(folder).outcomes():
        cell = f"test-{outcome.part.replace('.', '-')}"
        public[cell] = public.get(cell, 0.0) + outcome.max_points
    return public
