"""Puts the files of one submission into the folder of one student."""

import os
import re
import secrets
import shutil
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from autograder.assignment import Assignment
from autograder.collect.archive import MAX_FILE_BYTES, Entry, inside, shown
from autograder.collect.people import Handed
from autograder.files import Refused, items, opened, read_below
from autograder.late import TIMESTAMP
from autograder.late.times import stamp
from autograder.text import listed

MAX_SUBMISSION_BYTES = 200 * 2**20
MAX_FILES = 2000
MAX_NAMED = 3
# Written by nbgrader, or by a student who wants to appear on time.
SECRET = "submission_secret.txt"
_NBGRADERS = {TIMESTAMP, SECRET}


def arranged(handed: Handed, assignment: Assignment, keep: Collection[str]) -> dict[str, bytes]:
    """Return the content of a submission by relative path; remarks and problems are added to `handed`.

    Zip files in it are unpacked. If no file of the assignment is at the top level, the only folder with such files
    becomes the top level. A number in such a name (`ex_model-1.py`) is removed. nbgrader's own files are left out,
    except those in `keep`.
    """
    wanted = assignment.wanted
    files: dict[tuple[str, ...], bytes] = {}
    total = seen = 0
    for path, entry in _unpacked(handed):
        name = shown("/".join(path))
        seen += 1
        total += 0 if entry.refusal else entry.size
        if total > MAX_SUBMISSION_BYTES or seen > MAX_FILES:
            handed.problems.append(f"{name} and all further files were left out: the submission is too large.")
            break
        try:
            if entry.refusal:
                raise Refused(entry.refusal)
            content = entry.read()
        except Refused as refused:
            handed.problems.append(f"{name} is refused: it is {refused}.")
            continue
        if path in files:
            handed.remarks.append(f"{name} occurs twice; the first one counts.")
        files.setdefault(path, content)
    top = top_folder(files, wanted) or ()
    if top:
        handed.remarks.append(f"Its files are in {shown('/'.join(top))}/ and were taken from there.")
    named = {path[len(top) :]: content for path, content in files.items() if path[: len(top)] == top}
    named = _renamed(named, wanted, handed.remarks)
    known = stamp(handed.time).encode() if handed.time else None
    for own in sorted(_NBGRADERS.difference(keep)):
        brought = named.pop((own,), None)
        if brought is not None and (own != TIMESTAMP or brought.strip() != known):
            handed.remarks.append(f"Its own {own} was left out.")
    missing = [name for name in wanted if (name,) not in named]
    if named and missing:
        lacks = f"lacks {', '.join(missing)}"
        if len(missing) == len(wanted):
            lacks = f"has none of the files to hand in ({', '.join(wanted)})"
        handed.problems.append(lacks + _instead(named, wanted))
    return {"/".join(path): content for path, content in sorted(named.items()) if not _is_covered(path, named)}


def top_folder(paths: Iterable[tuple[str, ...]], wanted: Collection[str]) -> tuple[str, ...] | None:
    """Return the highest folder with wanted files, () for the top level, or None if there is none or more than one."""
    folders = {path[:-1] for path in paths if _unnumbered(path[-1], wanted) in wanted}
    highest = [folder for folder in folders if len(folder) == min(map(len, folders))]
    return highest[0] if len(highest) == 1 else None


def place(target: Path, files: dict[str, bytes], update: bool) -> str:
    """Write `files` to the folder `target`; return new, unchanged, replaced or differs (from the existing ones)."""
    if target.parent.is_symlink():
        raise Refused(f"{target.parent} is a link")
    there = target.exists() or target.is_symlink()
    if there and content_of(target) == files:
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
        shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
        return "replaced"
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _unpacked(handed: Handed) -> Iterator[tuple[tuple[str, ...], Entry]]:
    """Return all files; those in a zip file are at its place."""
    zipped = 0
    for path, entry in sorted(handed.files, key=lambda file: file[0]):
        if entry.refusal or not path[-1].lower().endswith(".zip"):
            yield path, entry
            continue
        zipped += entry.size
        try:
            if zipped > MAX_SUBMISSION_BYTES:
                raise Refused("one of too many large ones")
            source = inside(entry)
        except Refused as refused:
            handed.problems.append(f"{shown(entry.name)} is refused: it is {refused}.")
            continue
        handed.problems += source.refused
        yield from ((path[:-1] + inner.path, inner) for inner in source.entries if not inner.is_folder)


def _renamed(
    files: dict[tuple[str, ...], bytes], wanted: Collection[str], remarks: list[str]
) -> dict[tuple[str, ...], bytes]:
    """Return the top-level wanted files under their own names; the highest number, which came last, counts."""
    renamed = dict(files)
    numbered = [path for path in files if len(path) == 1 and _unnumbered(path[0], wanted) != path[0]]
    for path in sorted(numbered, key=lambda path: int(re.findall(r"\d+", path[0])[-1])):
        plain = _unnumbered(path[0], wanted)
        if (plain,) in renamed:
            remarks.append(f"{shown(path[0])} counts instead of another copy of {plain}, which was left out.")
        else:
            remarks.append(f"{shown(path[0])} was renamed to {plain}.")
        renamed[(plain,)] = renamed.pop(path)
    return renamed


def _unnumbered(name: str, wanted: Collection[str]) -> str:
    plain = re.sub(r"(?:-\d{1,3}| ?\(\d{1,3}\))(\.\w+)$", r"\1", name)
    return plain if plain in wanted else name


def _instead(files: Iterable[tuple[str, ...]], wanted: Collection[str]) -> str:
    """Return the end of a sentence on missing files: what was handed in instead, perhaps under a wrong name."""
    others = ["/".join(path) for path in sorted(files) if path not in {(name,) for name in wanted}]
    return f"; other files: {listed(others, MAX_NAMED)}." if others else "."


def _is_covered(path: tuple[str, ...], files: dict[tuple[str, ...], bytes]) -> bool:
    """Whether a part of the path is a file, so that both cannot exist."""
    return any(path[:n] in files for n in range(1, len(path)))


def content_of(folder: Path) -> dict[str, bytes] | None:
    """Return the content of a folder; None if there is none, or if it has anything but folders and regular files."""
    found = {}
    try:
        with opened(folder) as top:
            for item in items(top):
                if item.refusal:
                    return None
                if not item.is_folder:
                    found["/".join(item.path)] = read_below(top, item.path, MAX_FILE_BYTES)
    except (OSError, Refused):
        return None
    return found
