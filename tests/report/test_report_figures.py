"""A student's own figures: PNGs are used, and everything else is ignored."""

from __future__ import annotations

import base64
import json
import os
import struct
from pathlib import Path

import pytest

from autograder.report.figures import MAX_FIGURE_BYTES, MAX_FIGURES, figures_of


def png(width: int = 4, height: int = 3, padding: int = 0) -> bytes:
    """The beginning of a PNG, which is all that is checked."""
    return b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">II", width, height) + b"\0" * (9 + padding)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "s001" / "jem"
    made.mkdir(parents=True)
    return made


def test_png_files_come_in_the_order_of_their_names(folder: Path) -> None:
    (folder / "b.png").write_bytes(png(7, 5))
    (folder / "a.PNG").write_bytes(png())
    found = figures_of(folder)
    assert [(figure.source, figure.width, figure.height) for figure in found] == [
        ("a.PNG", 4, 3),
        ("b.png", 7, 5),
    ]
    assert base64.b64decode(found[0].base64) == png()


def test_outputs_of_a_notebook_are_figures(folder: Path) -> None:
    image = base64.b64encode(png()).decode()
    outputs = [
        {"data": {"image/png": image}},
        {"data": {"image/png": [image[:8], image[8:]]}},
        {"data": {"image/png": "no base64!"}},
        {"data": {"image/png": {"a": 1}}},
        {"data": {"text/html": "<script>"}},
        {"name": "stdout"},
    ]
    notebook = {"cells": [{"cell_type": "markdown"}, {"outputs": outputs}]}
    (folder / "jem.ipynb").write_text(json.dumps(notebook))
    assert [figure.source for figure in figures_of(folder)] == ["jem.ipynb, cell 2"] * 2


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<svg onload='alert(1)'/>",
        b"\x89PNG\r\n\x1a\n",
        png(0, 3),
        png(100_000, 100_000),
        png(padding=MAX_FIGURE_BYTES),
    ],
    ids=["empty", "svg", "cut", "no width", "bomb", "large"],
)
def test_anything_but_a_png_of_reasonable_size_is_ignored(folder: Path, content: bytes) -> None:
    (folder / "a.png").write_bytes(content)
    assert figures_of(folder) == []


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"cells": 1}', '{"cells": [1]}', '{"cells": [{"outputs": [[]]}]}', "[" * 100_000],
    ids=len,
)
def test_a_damaged_notebook_is_ignored(folder: Path, content: str) -> None:
    (folder / "jem.ipynb").write_text(content)
    assert figures_of(folder) == []


def test_links_and_fifos_are_ignored(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png())
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    os.mkfifo(folder / "fifo.png")
    (folder / "folder.png").mkdir()
    assert figures_of(folder) == []


def test_a_linked_submission_is_ignored(folder: Path, tmp_path: Path) -> None:
    (folder / "a.png").write_bytes(png())
    (tmp_path / "s002").symlink_to(tmp_path / "s001")
    (tmp_path / "s001" / "deep").symlink_to(folder)
    assert figures_of(tmp_path / "s002" / "jem") == []
    assert figures_of(tmp_path / "s001" / "deep") == []


def test_the_number_of_figures_is_limited(folder: Path) -> None:
    for n in range(MAX_FIGURES + 5):
        (folder / f"{n:02}.png").write_bytes(png())
    assert len(figures_of(folder)) == MAX_FIGURES


def test_a_missing_submission_has_no_figures(tmp_path: Path) -> None:
    assert figures_of(tmp_path / "nobody" / "jem") == []
