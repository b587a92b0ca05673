"""Drawings for the feedback pages, made while grading and kept beside the results.

Layout: ``RESULTS_DIR/<assignment>/drawings/<student>.json``, a list of drawings; no file where there are none::

    [{"part": "4b", "caption": "…", "panels": [{"title": "…", "width": 9, "height": 4, "png": "<base64>",
                                               "path": [[0.5, 0.5], …]}]}]

`path` holds points (x, y) in pixels of the picture. Inputs come from the public seed or from the drawing itself, never
from the seed of grading (`ebmcourse.checking.drawing`). Nothing here changes a mark.
"""

from __future__ import annotations

import base64
import importlib
import inspect
import io
import itertools
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from autograder.results import result_path, write_atomically
from ebmcourse.checking.answers import PUBLIC_SEED, Live, derive
from ebmcourse.checking.compare import require_structure
from ebmcourse.checking.drawing import Drawing, Panel
from ebmcourse.checking.observer import Call, Observer

MAX_PANELS = 4
MAX_PIXELS = 512  # along each side
MAX_POINTS = 1000


@dataclass(frozen=True, slots=True)
class Picture:
    """A panel as it is kept: a PNG of `width` × `height` in base64, and the points (x, y) in its pixels."""

    title: str
    width: int
    height: int
    png: str
    path: list[list[float]]


@dataclass(frozen=True, slots=True)
class Drawn:
    """A drawing as it is kept."""

    part: str
    caption: str
    panels: list[Picture]


def drawings_in(checks: Path) -> list[Drawing]:
    """The drawings in a folder of checks, in the order of the files and of their lines."""
    files = [path for path in sorted(checks.glob("test_*.py")) if "@drawing(" in path.read_text("utf-8")]
    neighbours = [path.stem for path in checks.glob("*.py")]
    _forget(neighbours)  # another assignment's may have the same names
    sys.path.insert(0, str(checks))
    try:
        modules = [importlib.import_module(path.stem) for path in files]
    finally:
        sys.path.remove(str(checks))
        _forget(neighbours)
    found = [item.drawing for module in modules for item in vars(module).values() if hasattr(item, "drawing")]
    return [drawing for drawing in found if isinstance(drawing, Drawing)]


def _forget(modules: list[str]) -> None:
    for name in modules:
        sys.modules.pop(name, None)


def draw(drawing: Drawing, observer: Observer | None, reference: Live) -> Drawn | None:
    """One drawing of the submission that `observer` looks at, beside the reference.

    None where the submission gives nothing that could be drawn. `reference` answers from the public seed. Without an
    observer the reference is drawn beside itself, and whatever is wrong with the drawing is raised.
    """
    if reference.seed != PUBLIC_SEED:
        raise ValueError("a drawing is made of public inputs only")
    calls = itertools.count()

    def run(probe: Any, *inputs: Any) -> tuple[Any, Any]:
        name = f"drawing {drawing.part}/{drawing.make.__name__}#{next(calls)}"
        file = Path(inspect.getfile(probe))
        call = Call(name, file, probe.__name__, inputs, derive(PUBLIC_SEED, name), drawing.seconds)
        want = reference.want(name, call)
        got = observer.observe(call) if observer else want
        require_structure(got, want)
        return got, want

    try:
        panels = [_picture(panel) for panel in drawing.make(run)[:MAX_PANELS]]
    except Exception:  # whatever it stumbles over came from the submission: the checks say what is wrong with it
        if observer is None:
            raise
        return None
    return Drawn(drawing.part, drawing.caption, panels)


def _picture(panel: Panel) -> Picture:
    pixels = _pixels(np.asarray(panel.image))
    height, width = pixels.shape[:2]
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    png = base64.b64encode(content.getvalue()).decode("ascii")
    path = [] if panel.path is None else _path(np.asarray(panel.path, dtype=float), height, width)
    return Picture(panel.title, width, height, png, path)


def _pixels(image: np.ndarray) -> np.ndarray:
    """The image as uint8; raises ValueError for what is none."""
    colours = image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    if not (image.ndim == 2 or colours) or min(image.shape) == 0 or max(image.shape) > MAX_PIXELS:
        raise ValueError("no image")
    if image.dtype == np.uint8:
        return image
    values = image.astype(float)
    if not np.isfinite(values).all():
        raise ValueError("no image")
    low, high = values.min(), values.max()
    return np.rint(255 * (values - low) / (high - low or 1.0)).astype(np.uint8)


def _path(points: np.ndarray, height: int, width: int) -> list[list[float]]:
    """Centres of the points' pixels, (x, y); what lies outside the picture is drawn at its border."""
    if points.ndim != 2 or points.shape[1] != 2 or len(points) > MAX_POINTS or not np.isfinite(points).all():
        raise ValueError("no path")
    inside = np.clip(points[:, ::-1] + 0.5, 0, [width, height])
    return [[round(x, 2), round(y, 2)] for x, y in inside.tolist()]


def drawings_path(results_dir: Path, assignment: str, student: str) -> Path:
    """Where the drawings live, beside the results."""
    path = result_path(results_dir, assignment, student)
    return path.parent / "drawings" / path.name


def write_drawings(results_dir: Path, assignment: str, student: str, drawings: list[Drawn]) -> None:
    """Write the file whole or not at all; without drawings, an older one goes."""
    path = drawings_path(results_dir, assignment, student)
    if drawings:
        text = json.dumps([asdict(drawing) for drawing in drawings], ensure_ascii=False, indent=2, sort_keys=True)
        write_atomically(path, f"{text}\n".encode())
    else:
        path.unlink(missing_ok=True)


def read_drawings(results_dir: Path, assignment: str, student: str) -> list[Drawn]:
    """The drawings of a result; none where there is no file. Raises ValueError where it is damaged."""
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
