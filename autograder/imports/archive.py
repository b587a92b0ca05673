"""A zip file or a folder as a list of files, none of which can reach beyond it.

Students name and make what is inside. Refused, one by one and with a remark, are absolute names, `..`, links, devices,
encrypted and damaged entries, names that stand twice, and what is larger than a submission can be; an archive with too
many entries is refused as a whole. Sizes are counted as they are unpacked, not as the archive claims.
"""

from __future__ import annotations

import io
import os
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from autograder.files import read_regular

MAX_ENTRIES = 200_000
MAX_FILE_BYTES = 64 * 2**20
MAX_NAME_BYTES = 200
MAX_DEPTH = 20

# What tools leave behind; nobody hands it in on purpose.
_LITTER = {"__MACOSX", ".DS_Store", ".git", "__pycache__", ".ipynb_checkpoints", "Thumbs.db", ".idea", ".vscode"}


class Refused(Exception):
    """A file that is not taken; the message completes “it is …”."""


@dataclass(frozen=True)
class Entry:
    """One file: where it lies, from the top of the source, and its content, which may be refused when read."""

    path: tuple[str, ...]
    read: Callable[[], bytes]

    @property
    def name(self) -> str:
        return "/".join(self.path)


@dataclass
class Source:
    """The files of a zip file or folder, and sentences on those that were refused."""

    path: Path
    entries: list[Entry] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """The files in a zip file or folder; raises ValueError where it is neither, or has too many entries."""
    if path.is_dir():
        yield _folder(path)
        return
    if not path.exists():
        raise ValueError(f"there is no {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            yield _zip(archive, path)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is neither a folder nor a whole zip file ({error})") from error


def inside(entry: Entry, refused: list[str]) -> list[Entry] | None:
    """The files in a zip file that was handed in; None where it is none that can be opened."""
    try:
        source = _zip(zipfile.ZipFile(io.BytesIO(entry.read())), Path(entry.name))
    except (zipfile.BadZipFile, Refused, ValueError) as error:
        refused.append(f"{shown(entry.name)} is not opened: it is {error}.")
        return None
    refused += source.refused
    return source.entries


def shown(name: str) -> str:
    """A name as it can be printed: on one line, without anything that could steer a terminal."""
    return ascii(name)[1:-1][:120]


def _folder(top: Path) -> Source:
    source = Source(top)
    for where, folders, files in os.walk(top):
        folders[:] = sorted(name for name in folders if name not in _LITTER)
        inner = Path(where).relative_to(top).parts
        for name in [name for name in folders if (Path(where) / name).is_symlink()]:
            source.refused.append(f"{shown('/'.join((*inner, name)))} is refused: it is a link.")
        for name in sorted(files):
            path = Path(where) / name
            _add(source, (*inner, name), _reader(path), "a link" if path.is_symlink() else "")
    return source


def _reader(path: Path) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            return read_regular(path, MAX_FILE_BYTES)
        except (OSError, ValueError) as error:
            raise Refused(str(error)) from None

    return read


def _zip(archive: zipfile.ZipFile, path: Path) -> Source:
    source = Source(path)
    infos = archive.infolist()
    if len(infos) > MAX_ENTRIES:
        raise ValueError(f"{path} has {len(infos)} entries: that is no archive of submissions")
    seen: set[tuple[str, ...]] = set()
    for info in infos:
        if info.is_dir():
            continue
        parts = tuple(_name(info).replace("\\", "/").split("/"))
        complaint = "there twice" if parts in seen else _complaint(info)
        seen.add(parts)
        _add(source, parts, _unpacker(archive, info), complaint)
    return source


def _add(source: Source, parts: tuple[str, ...], read: Callable[[], bytes], complaint: str) -> None:
    if _LITTER & set(parts) or parts[-1].startswith("._"):
        return
    complaint = complaint or _complaint_of_name(parts)
    if complaint:
        source.refused.append(f"{shown('/'.join(parts))} is refused: it is {complaint}.")
    elif len(source.entries) >= MAX_ENTRIES:
        raise ValueError(f"{source.path} has more than {MAX_ENTRIES} files: that is no folder of submissions")
    else:
        source.entries.append(Entry(parts, read))


def _complaint(info: zipfile.ZipInfo) -> str:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return "a link" if kind == stat.S_IFLNK else "not a regular file"
    return "encrypted" if info.flag_bits & 1 else ""


def _complaint_of_name(parts: tuple[str, ...]) -> str:
    if parts[0] == "" or parts[0][1:2] == ":":
        return "an absolute name"
    if len(parts) > MAX_DEPTH or any(part in ("", ".", "..") for part in parts):
        return "a name that leads elsewhere"
    if any(len(part.encode("utf-8", "replace")) > MAX_NAME_BYTES for part in parts):
        return "a name that is too long"
    if any(unicodedata.category(letter) in ("Cc", "Cs") for part in parts for letter in part):
        return "a name that cannot be shown"
    return ""


def _name(info: zipfile.ZipInfo) -> str:
    """The name of an entry: UTF-8 where the archive says so, or where its bytes are (many tools do not say it)."""
    name = info.filename
    if not info.flag_bits & 0x800:
        with suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return unicodedata.normalize("NFC", name)


def _unpacker(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            with archive.open(info) as file:
                content = file.read(MAX_FILE_BYTES + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError, ValueError):
            raise Refused("damaged, or packed in a way that cannot be unpacked") from None
        if len(content) > MAX_FILE_BYTES:
            raise Refused(f"larger than {MAX_FILE_BYTES // 2**20} MiB")
        return content

    return read
