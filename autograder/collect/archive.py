"""The files of a zip file or a folder. None of them can reach outside of it.

Students choose the names and the content. Absolute names, `..`, links, devices, encrypted and damaged entries,
duplicate names and files that are too large are refused one by one, with a reason. An archive with too many entries is
refused as a whole. No links are followed in folders.
"""

from __future__ import annotations

import io
import stat
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from autograder.files import MAX_DEPTH, Item, Refused, items, opened, read_below
from autograder.late.record import FOLDER as RECORD
from autograder.text import on_one_line

MAX_ENTRIES = 200_000
MAX_ZIPPED = 20_000  # entries in a zip file that was handed in
MAX_FILE_BYTES = 64 * 2**20
MAX_NAME_BYTES = 200
_TOO_LARGE = f"larger than {MAX_FILE_BYTES // 2**20} MiB"

# Files of tools and systems that students hand in unintentionally.
LITTER = {
    *("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini"),
    *(".git", "__pycache__", ".ipynb_checkpoints", ".idea", ".vscode", RECORD),
}


@dataclass(frozen=True)
class Entry:
    """One file, or a folder without files, by its path from the top of the source."""

    path: tuple[str, ...]
    read: Callable[[], bytes]  # the content; raises `Refused`
    size: int = 0  # in bytes; `read` never returns more
    refusal: str = ""  # the reason why it cannot be read, if it is known; completes “it is …”
    is_folder: bool = False

    @property
    def name(self) -> str:
        return "/".join(self.path)


@dataclass
class Source:
    """The files of a zip file or folder."""

    path: Path
    entries: list[Entry] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)  # sentences about entries with unusable names
    owners: dict[str, int] = field(default_factory=dict)  # owners (user numbers) of the top-level entries
    changed: dict[str, float] = field(default_factory=dict)  # the last change, according to the system

    def below(self) -> Source | None:
        """Return the content of the only folder, or None if there are several folders or files."""
        tops = {entry.path[0] for entry in self.entries}
        if len(tops) != 1 or any(len(entry.path) == 1 for entry in self.entries):
            return None
        return Source(self.path, [replace(entry, path=entry.path[1:]) for entry in self.entries])


@contextmanager
def open_source(path: Path, each: int | None = None) -> Iterator[Source]:
    """Return the files in a zip file or folder. Raises ValueError if it is neither, or has too many entries.

    With `each`, the limit applies to each top-level folder, and only a folder with too many files is refused.
    """
    if path.is_dir():
        if each is not None and path.is_symlink():
            raise ValueError(f"{path} is a link: name the folder that it leads to.")
        with opened(path, follow=True) as folder:
            yield _folder(path, folder, each)
        return
    if not path.exists():
        raise ValueError(f"There is no file or folder {path}.")
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(f"{path} is neither a folder nor a complete zip file ({error}).") from error
    with archive:
        yield _zip(archive, path)


def inside(entry: Entry) -> Source:
    """Return the files in a zip file that was handed in. Raises `Refused` if it cannot be opened."""
    content = entry.read()
    if content.count(b"PK\x01\x02") > MAX_ZIPPED:  # before `ZipFile` makes an object of each
        raise Refused(f"a zip file with more than {MAX_ZIPPED} files")
    try:
        return _zip(zipfile.ZipFile(io.BytesIO(content)), Path(entry.name))
    except Exception as error:  # a damaged archive can raise any exception
        raise Refused(f"not a zip file that can be unpacked ({shown(str(error))})") from error


def shown(name: str) -> str:
    """Return a name for printing: on one line, without control characters."""
    return on_one_line(name, limit=120)


def _folder(top: Path, folder: int, each: int | None) -> Source:
    source = Source(top)
    found: list[Item] = []
    filled: set[tuple[str, ...]] = set()  # folders that are not empty
    for item in items(folder, LITTER, each):
        found.append(item)
        if not item.is_folder:
            filled.update(item.path[:n] for n in range(1, len(item.path)))
        source.owners.setdefault(item.path[0], item.about.st_uid)
        source.changed[item.path[0]] = max(item.about.st_ctime, source.changed.get(item.path[0], 0.0))
        if each is None and len(found) > MAX_ENTRIES:
            raise ValueError(f"{top} has more than {MAX_ENTRIES} files: it is not a folder of submissions.")
    for item in found:
        refusal = item.refusal
        if not refusal and item.is_folder and item.path in filled:
            continue
        # Perhaps a hard link to a file that only the instructor may read.
        owner = source.owners[item.path[0]]
        if not refusal and not item.is_folder and item.about.st_nlink > 1 and item.about.st_uid != owner:
            refusal = "a link to another user's file"
        if not refusal and not item.is_folder and item.about.st_size > MAX_FILE_BYTES:
            refusal = _TOO_LARGE
        is_folder = item.is_folder and not refusal
        read = partial(read_below, folder, item.path, MAX_FILE_BYTES)
        _add(source, Entry(item.path, read, item.about.st_size, refusal, is_folder))
    return source


def _zip(archive: zipfile.ZipFile, path: Path) -> Source:
    source = Source(path)
    infos = archive.infolist()
    if len(infos) > MAX_ENTRIES:
        raise ValueError(f"{path} has {len(infos)} entries: it is not an archive of submissions.")
    seen: set[tuple[str, ...]] = set()
    filled: set[tuple[str, ...]] = set()  # folders that are not empty
    folders: dict[tuple[str, ...], None] = {}
    for info in infos:
        parts = tuple(_name(info).replace("\\", "/").removesuffix("/").split("/"))
        litter = next((n for n, part in enumerate(parts) if part in LITTER or part.startswith("._")), None)
        if info.is_dir() or litter is not None:
            folders[parts[:litter]] = None
            continue
        filled.update(parts[:n] for n in range(1, len(parts)))
        if parts in seen:
            source.refused.append(f"{shown('/'.join(parts))} occurs twice; the first one counts.")
        else:
            _add(source, Entry(parts, partial(_unpack, archive, info), info.file_size, _refusal(info)))
        seen.add(parts)
    for parts in folders:
        if parts and parts not in filled:
            _add(source, Entry(parts, bytes, is_folder=True))
    return source


def _add(source: Source, entry: Entry) -> None:
    if entry.path[-1].startswith("._"):  # macOS adds these
        return
    if complaint := _complaint(entry.path):
        source.refused.append(f"{shown(entry.name)} is refused: it is {complaint}.")
    else:
        source.entries.append(entry)


def _complaint(parts: tuple[str, ...]) -> str:
    if parts[0] == "" or parts[0][1:2] == ":":
        return "an absolute name"
    if len(parts) > MAX_DEPTH or any(part in ("", ".", "..") for part in parts):
        return "a name that leads elsewhere"
    if any(len(part.encode("utf-8", "replace")) > MAX_NAME_BYTES for part in parts):
        return "a name that is too long"
    if any(unicodedata.category(letter) in ("Cc", "Cs") for part in parts for letter in part):
        return "a name that cannot be shown"
    return ""


def _refusal(info: zipfile.ZipInfo) -> str:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return "a link" if kind == stat.S_IFLNK else "not a regular file"
    if info.file_size > MAX_FILE_BYTES:
        return _TOO_LARGE
    if info.flag_bits & 1:
        return "encrypted"
    # Python's decoders of the other methods have no limit for the size.
    plain = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    return "" if plain else "packed in an unusual way: pack it again as an ordinary zip file"


def _name(info: zipfile.ZipInfo) -> str:
    """Return the name of an entry, decoded as UTF-8 if the archive says so or its bytes are valid UTF-8."""
    name = info.filename
    if not info.flag_bits & 0x800:
        with suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return unicodedata.normalize("NFC", name)


def _unpack(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    try:
        with archive.open(info) as file:
            return file.read()  # at most the size in the archive, which `_refusal` has checked
    except Exception:  # a damaged archive can raise any exception
        raise Refused("damaged, or packed in a way that cannot be unpacked") from None
