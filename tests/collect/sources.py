"""Zip files and folders as platforms and students make them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

TEXT = "def double(x):\n    return 2 * x\n"


def zipped(path: Path, files: Mapping[str, str | bytes]) -> Path:
    path.write_bytes(inner_zip(files))
    return path


def inner_zip(files: Mapping[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in files.items():
            made.writestr(name, content)
    return buffer.getvalue()


def folder(path: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return path


def tree(out: Path) -> dict[str, str]:
    """What was collected: content by path, without the record of the times."""
    return {
        path.relative_to(out).as_posix(): path.read_text("utf-8")
        for path in out.rglob("*")
        if path.is_file() and ".collected" not in path.parts
    }
