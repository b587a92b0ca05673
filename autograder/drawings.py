"""Drawings for the feedback pages, made during grading and stored with the results.

Layout: ``RESULTS_DIR/<assignment>/drawings/<student>.json``, a list of drawings; no file if there are none::

    [{"part": "4b", "caption": "…", "panels": [{"title": "…", "width": 9, "height": 4, "png": "<base64>",
                                               "path": [[0.5, 0.5], …]}]}]

`path` holds points (x, y) in pixels of the picture. Inputs come from the public seed or from the drawing itself, never
from the seed of grading (`ebmcourse.checking.drawings`). Drawings do not affect marks.
"""

import base64
import itertools
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from autograder.results import encode_json, result_path, write_atomically


@dataclass(frozen=True, slots=True)
class Picture:
    """A stored panel: a PNG of `width` × `height` in base64, and points (x, y) in its pixels."""

    title: str
    width: int
    height: int
    png: str
    path: list[list[float]]


@dataclass(frozen=True, slots=True)
class Drawn:
    """A stored drawing."""

    part: str
    caption: str
    panels: list[Picture]


def drawings_path(results_dir: Path, assignment: str, student: str) -> Path:
    """Return the path of the drawings of a result."""
    path = result_path(results_dir, assignment, student)
    return path.parent / "drawings" / path.name


def write_drawings(results_dir: Path, assignment: str, student: str, drawings: list[Drawn]) -> None:
    """Write the file atomically; without drawings, delete an older file."""
    path = drawings_path(results_dir, assignment, student)
    if drawings:
        write_atomically(path, encode_json([asdict(drawing) for drawing in drawings]))
    else:
        path.unlink(missing_ok=True)


def read_drawings(results_dir: Path, assignment: str, student: str) -> list[Drawn]:
    """Return the drawings of a result, or an empty list if there is no file. Raises ValueError if it is damaged."""
    path = drawings_path(results_dir, assignment, student)
    if not path.exists():
        return []
    try:
        kept = json.loads(path.read_bytes().decode("utf-8"))
        drawings = [Drawn(**{**one, "panels": [Picture(**panel) for panel in one["panels"]]}) for one in kept]
        for picture in itertools.chain.from_iterable(drawing.panels for drawing in drawings):
            base64.b64decode(picture.png, validate=True)
        return drawings
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"cannot use {path}: it is damaged; delete it and grade again") from error
