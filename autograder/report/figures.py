"""A student's own figures: PNG files that were handed in, and PNG outputs of notebooks.

The files are not trusted, so nothing here decodes an image. A figure is used if it has the header of a PNG of
reasonable size, and its bytes are copied into the page. An <img> element runs no code.
"""

import base64
import binascii
import json
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autograder.files import read_regular

MAX_FIGURES = 12
MAX_FIGURE_BYTES = 1_000_000
MAX_PIXELS = 16_000_000
MAX_NOTEBOOK_BYTES = 20_000_000
MAX_FILES = 200


@dataclass(frozen=True, slots=True)
class Figure:
    """A PNG: its source, its size in pixels, and its bytes in base64."""

    source: str
    width: int
    height: int
    base64: str


def figures_of(folder: Path) -> list[Figure]:
    """Return the figures of one submission, by file name and then by cell, at most MAX_FIGURES.

    Links, devices, and damaged or oversized files are ignored.
    """
    if folder.is_symlink() or folder.parent.is_symlink() or not folder.is_dir():
        return []
    found: list[Figure] = []
    for name in sorted(os.listdir(folder))[:MAX_FILES]:
        path = folder / name
        if name.lower().endswith(".png"):
            content = _read(path, MAX_FIGURE_BYTES)
            found.extend(filter(None, [_figure(name, content)]))
        elif name.endswith(".ipynb"):
            found.extend(_notebook_figures(name, _read(path, MAX_NOTEBOOK_BYTES)))
        if len(found) >= MAX_FIGURES:
            break
    return found[:MAX_FIGURES]


def _figure(source: str, content: bytes) -> Figure | None:
    if content[:8] != b"\x89PNG\r\n\x1a\n" or content[12:16] != b"IHDR" or len(content) < 24:
        return None
    width, height = struct.unpack(">II", content[16:24])
    if not 0 < width * height <= MAX_PIXELS or len(content) > MAX_FIGURE_BYTES:
        return None
    return Figure(source, width, height, base64.b64encode(content).decode("ascii"))


def _notebook_figures(name: str, content: bytes) -> Iterator[Figure]:
    try:
        cells = json.loads(content)["cells"]
        outputs = [
            (n, output["data"]["image/png"])
            for n, cell in enumerate(cells, start=1)
            for output in cell.get("outputs", [])
            if "image/png" in output.get("data", {})
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return
    for n, image in outputs:
        # nbformat allows a string or a list of lines.
        text = "".join(image) if isinstance(image, list) and all(isinstance(x, str) for x in image) else image
        try:
            figure = _figure(f"{name}, cell {n}", base64.b64decode(text, validate=False))
        except (binascii.Error, TypeError, ValueError):
            continue
        if figure is not None:
            yield figure


def _read(path: Path, limit: int) -> bytes:
    """Return the content of a regular file of at most `limit` bytes, or no bytes for links, devices and so on."""
    try:
        return read_regular(path, limit)
    except (ValueError, OSError):
        return b""
