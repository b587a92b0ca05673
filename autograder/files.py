"""Reads files that come from students: a path may be a link, a pipe, a device, or a very large file."""

import os
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

MAX_DEPTH = 20

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Refused(ValueError):
    """Raised for a file that is not read; the message completes “it is …”."""


@dataclass(frozen=True)
class Item:
    """An entry below a folder: a file, a folder, or something that is not read."""

    path: tuple[str, ...]  # relative to the folder
    about: os.stat_result
    refusal: str = ""  # completes “it is …”; empty for files and folders that can be read

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.about.st_mode)


def read_regular(path: Path, most: int) -> bytes:
    """Return the content of the regular file at `path`, which may have up to `most` bytes.

    Raises FileNotFoundError if there is no file, and `Refused` if it is not a regular file or too large. If the last
    part of the path is a link, it is not followed.
    """
    return _read(os.fspath(path), most, None)


def read_below(folder: int, path: Sequence[str], most: int) -> bytes:
    """Like `read_regular`, for a file below an open folder; links in any part of the path are not followed."""
    where = os.dup(folder)
    try:
        for name in path[:-1]:
            inner = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=where)
            os.close(where)
            where = inner
        return _read(path[-1], most, where)
    except OSError:
        raise Refused("a link or removed") from None
    finally:
        os.close(where)


@contextmanager
def opened(folder: Path, follow: bool = False) -> Iterator[int]:
    """Open a folder for `items` and `read_below`; raise OSError for anything else and for a link."""
    descriptor = os.open(folder, _FOLDER | (0 if follow else os.O_NOFOLLOW))
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def items(
    folder: int, skip: Collection[str] = (), each: int | None = None, _above: tuple[str, ...] = ()
) -> Iterator[Item]:
    """Yield all entries below an open folder, sorted by name, each folder before its content. Links are not followed.

    Entries whose name is in `skip` are left out, with their content. Of the content of each top-level folder, only the
    first `each` entries are yielded; if there are more, the folder is yielded again, with a refusal.
    """
    for name in sorted(os.listdir(folder)):
        if name in skip:
            continue
        path = (*_above, name)
        try:
            about = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError:
            continue  # removed since the folder was listed
        if not stat.S_ISDIR(about.st_mode):
            yield Item(path, about, _refusal(about.st_mode))
        elif len(path) > MAX_DEPTH:
            yield Item(path, about, f"a folder at a depth of more than {MAX_DEPTH}")
        else:
            try:
                inner = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
            except OSError:
                yield Item(path, about, "a folder that cannot be read")
                continue
            try:
                yield Item(path, about)
                found = items(inner, skip, None, path)
                yield from islice(found, each)
                if next(found, None) is not None:
                    yield Item(path, about, f"a folder with more than {each} files")
            finally:
                os.close(inner)


def _refusal(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "a link"
    return "" if stat.S_ISREG(mode) else "not a regular file"


def _read(path: str, most: int, folder: int | None) -> bytes:
    try:
        descriptor = os.open(path, _FILE, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError:
        raise Refused("a link or cannot be opened") from None
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise Refused("not a regular file")
        if about.st_size > most:
            raise Refused(f"larger than {_size(most)}")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(most)
    finally:
        os.close(descriptor)


def _size(count: int) -> str:
    return f"{count / 2**20:.0f} MiB" if count >= 2**20 else f"{count} bytes"
