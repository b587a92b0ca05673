"""Reading what was handed in: the named files only, never through links, never more than a limit.

The folders come from students, so a name may be a link, a pipe or a file of a gigabyte. Nothing here follows,
executes or parses what it finds.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

from autograder.assignment import Assignment

MAX_FILE_BYTES = 2**20
MAX_LISTED = 2000

# Names that a Python program or pytest would load by itself, were they ever laid beside it.
_SHADOWS = re.compile(
    r"(conftest|sitecustomize|usercustomize|torch|numpy|pytest)\.py|.*\.pth|pytest\.ini|tox\.ini"
)

_SUSPICIOUS = {
    r"\bos\._exit\b": "ends the process with `os._exit`",
    r"\bsys\._getframe\b|\binspect\.(stack|currentframe|getouterframes)\b": "looks into other stack frames",
    r"\bgc\.get_(objects|referrers)\b": "searches the interpreter's memory",
    r"\b(ctypes|cffi)\b": "calls C functions",
    r"\bsubprocess\b|\bos\.(system|fork|popen|exec\w*|spawn\w*)\b": "starts processes",
    r"\bsocket\b|\burllib\b|\brequests\b|\bhttp\.client\b": "uses the network",
    r"\b_pytest\b|\bpytest\.(skip|xfail|exit)\b|\bimport pytest\b": "meddles with pytest",
    r"\bebmcourse\.checking\b|\bautograder\b": "meddles with the checks",
    r"\b__code__\b|\b__globals__\b|\b__subclasses__\b": "rewrites functions from inside",
    r"\b(torch\.(allclose|equal|isclose|testing)|np\.testing\.\w+|torch\.Tensor\.__\w+__)\s*=[^=]": (
        "replaces a comparison"
    ),
    r"\bsys\.modules\b": "changes the table of loaded modules",
    r"\bpickle\b|\b__reduce__\b": "uses pickle",
    r"\bsignal\.(signal|SIG_IGN|pthread_sigmask)\b": "changes signal handling",
    r"__torch_function__|__eq__": "overrides comparison or torch's functions",
}


@dataclass(frozen=True)
class Submission:
    """What one student handed in for one assignment."""

    student: str
    files: dict[str, str]
    problems: dict[str, str]  # file name -> a sentence on why it is not in `files`
    flags: tuple[str, ...]
    sha256: str


def students(submitted: Path, assignment: str) -> list[str]:
    """The students for whom there is anything at ``submitted/<student>/<assignment>``."""
    if not submitted.is_dir():
        raise ValueError(f"There is no folder {submitted}; expected is SUBMITTED/<student>/{assignment}/.")
    names = [entry.name for entry in os.scandir(submitted) if not entry.name.startswith(".")]
    return sorted(name for name in names if _mode(submitted / name / assignment))


def read(folder: Path, student: str, assignment: Assignment) -> Submission:
    """Read the named files of one submission."""
    files: dict[str, str] = {}
    problems: dict[str, str] = {}
    flags: list[str] = []
    digest = hashlib.sha256()
    real = all(stat.S_ISDIR(_mode(path)) for path in (folder, folder.parent))
    present = [entry.name for entry in islice(os.scandir(folder), MAX_LISTED)] if real else []
    for name in assignment.files:
        data = b""
        try:
            if not real:
                raise OSError("in a folder that is a link or no folder")
            data = _read_plain(folder / name)
            files[name] = data.decode("utf-8")
        except FileNotFoundError:
            problems[name] = f"The file `{name}` is missing."
            alike = _alike(name, present)
            if alike:
                problems[name] += f" There is one called `{alike}`: give it the right name and hand in again."
        except UnicodeDecodeError:
            problems[name] = f"The file `{name}` is not UTF-8 text: save it with the encoding UTF-8."
        except OSError as error:
            problems[name] = f"The file `{name}` was refused: it is {error.args[0]}."
            flags.append(f"{name} is {error.args[0]}")
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    flags += [
        f"brings a file that programs load by themselves: {name}"
        for name in present
        if _SHADOWS.fullmatch(name)
    ]
    for name, text in files.items():
        flags += [f"{name} {what}" for pattern, what in _SUSPICIOUS.items() if re.search(pattern, text)]
    return Submission(student, files, problems, tuple(sorted(flags)), digest.hexdigest())


def _mode(path: Path) -> int:
    try:
        return os.lstat(path).st_mode
    except OSError:
        return 0


def _read_plain(path: Path) -> bytes:
    """The bytes of a regular file of bearable size; OSError with a phrase for anything else."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError:
        raise OSError("a link or cannot be opened") from None
    with open(descriptor, "rb") as file:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise OSError("not a regular file")
        if about.st_size > MAX_FILE_BYTES:
            raise OSError(f"larger than {MAX_FILE_BYTES // 2**20} MiB")
        return file.read(MAX_FILE_BYTES)


def _alike(name: str, present: list[str]) -> str | None:
    plain = [other for other in present if re.fullmatch(r"[\w.() -]{1,60}", other) and other != name]
    close = get_close_matches(name.lower(), [other.lower() for other in plain], n=1, cutoff=0.7)
    return next((other for other in plain if other.lower() in close), None)
