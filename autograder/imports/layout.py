"""From the files of one student to the folder of one submission."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from autograder.imports.archive import Refused, Source, inside, shown
from autograder.imports.people import Piece
from autograder.late import TIMESTAMP

MAX_SUBMISSION_BYTES = 200 * 2**20
MAX_FILES = 2000
# Written by nbgrader, or else by a student who wants to seem to have been in time.
_NBGRADERS = {(TIMESTAMP,), ("submission_secret.txt",)}


def arranged(
    source: Source, pieces: list[Piece], wanted: set[str], trusted: bool, remarks: list[str]
) -> dict[str, bytes]:
    """The content of a submission by relative path.

    Zip files in it are unpacked. Where none of the `wanted` files lies on top, the one folder that has some counts as
    the top. A wanted file with a number (`ex_model-1.py`) gets its name back. Appends what was refused to `remarks`.
    """
    files: dict[tuple[str, ...], bytes] = {}
    total = 0
    for path, read in _unpacked(pieces, remarks):
        name = shown("/".join(path))
        try:
            content = read()
        except Refused as refused:
            remarks.append(f"{name} is refused: it is {refused}.")
            continue
        total += len(content)
        if total > MAX_SUBMISSION_BYTES or len(files) >= MAX_FILES:
            remarks.append(f"{name} and what follows is left out: a submission is smaller.")
            break
        if path in files:
            remarks.append(f"{name} is there twice; the first one counts.")
        files.setdefault(path, content)
    top = _top(files, wanted)
    if top:
        remarks.append(f"Its files lie in {shown('/'.join(top))}/ and are taken from there.")
    named = {path[len(top) :]: content for path, content in files.items() if path[: len(top)] == top}
    named = _renamed(named, wanted, remarks)
    if not trusted:
        for path in sorted(_NBGRADERS & named.keys()):
            remarks.append(f"It brings its own {path[0]}: left out.")
            del named[path]
    return {"/".join(path): content for path, content in sorted(named.items()) if not _is_covered(path, named)}


def place(target: Path, files: dict[str, bytes], update: bool) -> str:
    """Make the folder `target` hold just `files`: new, unchanged, or, where it held others, replaced or differs."""
    there = target.exists() or target.is_symlink()
    if there and not target.is_symlink() and _content(target) == files:
        return "unchanged"
    if there and not update:
        return "differs"
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{secrets.token_hex(8)}.new")
    try:
        fresh.mkdir()
        for name, content in files.items():
            (fresh / name).parent.mkdir(parents=True, exist_ok=True)
            (fresh / name).write_bytes(content)
        if not there:
            os.rename(fresh, target)
            return "new"
        old = target.with_name(f".{secrets.token_hex(8)}.old")
        os.rename(target, old)
        os.rename(fresh, target)
        old.unlink() if old.is_symlink() else shutil.rmtree(old)
        return "replaced"
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _unpacked(pieces: list[Piece], remarks: list[str]) -> Iterator[tuple[tuple[str, ...], Callable[[], bytes]]]:
    """Every file and how it is read; those in a zip file lie where it lies."""
    for piece in sorted(pieces, key=lambda piece: piece.path):
        if piece.path[-1].lower().endswith(".zip"):
            entries = inside(piece.entry, remarks)
            yield from ((piece.path[:-1] + entry.path, entry.read) for entry in entries or ())
        else:
            yield piece.path, piece.entry.read


def _top(files: dict[tuple[str, ...], bytes], wanted: set[str]) -> tuple[str, ...]:
    """The highest folder with wanted files; the top of all where it has some, or where there is no single one."""
    folders = {path[:-1] for path in files if _unnumbered(path[-1], wanted) in wanted}
    highest = [folder for folder in folders if len(folder) == min(map(len, folders))]
    return highest[0] if len(highest) == 1 else ()


def _renamed(files: dict[tuple[str, ...], bytes], wanted: set[str], remarks: list[str]) -> dict[tuple[str, ...], bytes]:
    """Wanted files on top under their own names; of several numbers the highest, which came last, counts."""
    renamed = dict(files)
    numbered = [path for path in files if len(path) == 1 and _unnumbered(path[0], wanted) != path[0]]
    for path in sorted(numbered, key=lambda path: int(re.findall(r"\d+", path[0])[-1])):
        plain = _unnumbered(path[0], wanted)
        remarks.append(f"{shown(path[0])} is taken for {plain}.")
        renamed[(plain,)] = renamed.pop(path)
    return renamed


def _unnumbered(name: str, wanted: set[str]) -> str:
    plain = re.sub(r"(?:-\d{1,3}| ?\(\d{1,3}\))(\.\w+)$", r"\1", name)
    return plain if plain in wanted else name


def _is_covered(path: tuple[str, ...], files: dict[tuple[str, ...], bytes]) -> bool:
    """Whether a part of the path is a file: both cannot be made."""
    return any(path[:n] in files for n in range(1, len(path)))


def _content(folder: Path) -> dict[str, bytes] | None:
    """What a folder holds; None where it holds anything but folders and regular files."""
    if not folder.is_dir():
        return None
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            return None
        if path.is_file():
            found[path.relative_to(folder).as_posix()] = path.read_bytes()
    return found
