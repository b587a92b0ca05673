"""Makes the drawings of a submission for the feedback page. Drawings do not affect the mark.

Inputs come from the public seed or from the drawing itself, never from the seed of grading.
"""

import base64
import inspect
import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from autograder.drawings import Drawn, Picture
from ebmcourse.checking.compare import Mismatch
from ebmcourse.checking.drawings import Drawing, Panel
from ebmcourse.checking.form import misfit
from ebmcourse.checking.observer import Call, Observer
from ebmcourse.checking.reference import PUBLIC_SEED, LiveReference, derive

MAX_PANELS = 4
MAX_PIXELS = 512  # along each side
MAX_POINTS = 1000
PROBE_SECONDS = 10.0


def draw(drawing: Drawing, observer: Observer | None, reference: LiveReference) -> Drawn | None:
    """One drawing of the submission that `observer` observes, next to the reference.

    None where the submission gives nothing that could be drawn. `reference` answers from the public seed. Without an
    observer the reference is drawn next to itself, and whatever is wrong with the drawing is raised.
    """
    if reference.seed != PUBLIC_SEED:
        raise ValueError("a drawing is made of public inputs only")
    calls = itertools.count()

    def run(probe: Any, *inputs: Any) -> tuple[Any, Any]:
        name = f"drawing {drawing.part}/{drawing.make.__name__}#{next(calls)}"
        file = Path(inspect.getfile(probe))
        call = Call(name, file, probe.__name__, inputs, derive(PUBLIC_SEED, name), PROBE_SECONDS)
        want = reference.observation(name, call)
        got = observer.observe(call) if observer else want
        if misfit(got, want):
            raise Mismatch("The observation cannot be drawn.")
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
