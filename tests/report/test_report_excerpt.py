"""The student's own lines next to a diagnosis."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autograder.report.excerpt import MAX_LINE, Excerpt, excerpt

FILE = "import torch\r\n\n\nclass Net:\n    def forward(self, x):\n        y = x\n        return y.shpae\n\n\nz = 1\n"
CRASH = "Your program stopped with AttributeError in ex_model.py, line 7: `return y.shpae`. Look again."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "s001" / "jem"
    folder.mkdir(parents=True)
    (folder / "ex_model.py").write_bytes(FILE.encode())
    cells = [
        {"metadata": {"nbgrader": {"grade_id": "net", "solution": True}}, "source": ["x = 1\n", "y = x +\n"]},
        {"metadata": {}, "source": "z"},
    ]
    notebook = {"nbformat": 4, "cells": [{"cell_type": "code"} | cell for cell in cells]}
    (folder / "jem.ipynb").write_text(json.dumps(notebook))
    return folder


def shown(found: Excerpt | None) -> tuple[str, dict[int, str], list[int]]:
    assert found
    return found.source, {line.number: line.text for line in found.lines}, [n.number for n in found.lines if n.here]


def test_two_lines_before_and_after_are_shown_without_the_common_indent(folder: Path) -> None:
    assert shown(excerpt(folder, CRASH)) == (
        "ex_model.py",
        {5: "def forward(self, x):", 6: "    y = x", 7: "    return y.shpae", 8: "", 9: ""},
        [7],
    )


def test_lines_of_a_cell_are_found_by_its_name(folder: Path) -> None:
    crash = "Your program is not valid Python: invalid syntax in cell net, line 2: `y = x +`."
    assert shown(excerpt(folder, crash)) == ("cell net", {1: "x = 1", 2: "y = x +", 3: ""}, [2])


def test_long_lines_are_cut(folder: Path) -> None:
    (folder / "ex_model.py").write_text("y = '" + "x" * 10_000)
    found = excerpt(folder, "stopped with NameError in ex_model.py, line 1: `y = 'xxx`.")
    assert found and len(found.lines[0].text) <= MAX_LINE + 2


@pytest.mark.parametrize(
    "diagnosis",
    [
        "The sign is wrong.",
        CRASH.replace("line 7", "line 6"),
        CRASH.replace("line 7", "line 70"),
        CRASH.replace("line 7", "line 0"),
        CRASH.replace("ex_model.py", "other.py"),
        CRASH.replace("ex_model.py", "../../s002/jem/ex_model.py"),
        CRASH.replace("ex_model.py", "cell other"),
        CRASH.replace("ex_model.py", "cell net"),
    ],
)
def test_without_this_text_at_this_place_nothing_is_shown(folder: Path, diagnosis: str) -> None:
    other = folder.parents[1] / "s002" / "jem"
    other.mkdir(parents=True)
    (other / "ex_model.py").write_text(FILE)
    assert excerpt(folder, diagnosis) is None


@pytest.mark.parametrize("content", ["{", "[]", '{"cells": [{"metadata": 1}]}', "[" * 100_000, "\x00"])
def test_damaged_files_are_ignored(folder: Path, content: str) -> None:
    (folder / "jem.ipynb").write_text(content)
    (folder / "ex_model.py").unlink()
    (folder / "ex_model.py").symlink_to(__file__)
    for diagnosis in (CRASH, "in cell net, line 1: `x = 1`", "in ex_model.py, line 1: `x`"):
        assert excerpt(folder, diagnosis) is None


def test_a_linked_submission_is_not_read(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "s003").mkdir()
    (tmp_path / "s003" / "jem").symlink_to(folder)
    (tmp_path / "s004").symlink_to(folder.parent)
    assert excerpt(tmp_path / "s003" / "jem", CRASH) is None and excerpt(tmp_path / "s004" / "jem", CRASH) is None
