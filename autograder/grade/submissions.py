"""Reading what was handed in: the named files only, never through links, never more than a limit.

The folders come from students, so a name may be a link, a pipe or a file of a gigabyte. Nothing here follows,
executes or parses what it finds.
"""

import hashlib
import os
import re
import stat
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from itertools import islice
from pathlib import Path

from autograder.assignment import Assignment
from autograder.files import Refused, read_regular
from autograder.grade.copied import copied, lines_of_code
from autograder.grade.repair import repair
from autograder.release.programs import released, stub_program
from ebmcourse.checking.program import MAX_NOTEBOOK_BYTES, Notebook, module_file, program, read_notebook
from ebmcourse.syntax import python_text

MAX_FILE_BYTES = 2**20
MAX_LISTED = 2000

# Names that a Python program or pytest would load by itself, if they were in its folder.
_SHADOWS = re.compile(r"(conftest|sitecustomize|usercustomize|torch|numpy|pytest)\.py|.*\.pth|pytest\.ini|tox\.ini")

# What honest programs have little use for; a person looks whether this one has. One phrase of each line is mentioned.
_REMARKABLE = [
    re.compile(pattern, re.ASCII)
    for pattern in (
        r"(?<![a-zA-Z0-9])os\._exit\b",
        r"sys\._getframe\b|inspect\.(stack|currentframe|getouterframes)\b",
        r"gc\.get_(objects|referrers)\b",
        r"\b(import|from) (ctypes|cffi)\b|\bctypes\.\w+",
        r"\b(import|from) subprocess\b|\bsubprocess\.\w+",
        r"(?<![a-zA-Z0-9])os\.(system|v?fork\w*|popen|exec\w*|(posix_)?spawn\w*)\b",
        r"\b(import|from) (socket|urllib|requests|http\.client)\b|\bsocket\.socket\b",
        r"\b_pytest\b|\bpytest\.(skip|xfail|exit)\b|\b(import|from) pytest\b",
        r"\bebmcourse\.checking\b(?!\.notebook\b)|\bautograder\b",
        r"\.__code__\b|\.__globals__\b|\.__subclasses__\b",
        r"\b(torch\.(allclose|equal|isclose|testing)|np\.testing\.\w+|torch\.Tensor\.__\w+__)(?=\s*=[^=])",
        r"\bsys\.modules\b",
        r"\b(import|from) pickle\b|\bpickle\.(loads?|Unpickler)\b|\b__reduce__\b",
        r"\bsignal\.(signal|SIG_IGN|pthread_sigmask)\b",
        r"\bdef (__torch_function__|__eq__)\b",
    )
]


@dataclass(frozen=True)
class HandedIn:
    """The bytes of the files that one student handed in, before anything is made of them."""

    contents: dict[str, bytes]
    problems: dict[str, str]  # named file -> a sentence on why it is not in `contents`
    flags: tuple[str, ...]
    sha256: str  # of all of it


@dataclass(frozen=True)
class Submission:
    """What one student handed in for one assignment."""

    student: str
    files: dict[str, str]  # of the program: those handed in, or the cells of a notebook
    problems: dict[str, str]  # Python file -> a sentence on why it is not in `files`
    flags: tuple[str, ...]
    sha256: str


def submitted_program(assignment: Assignment, content: bytes | str) -> tuple[dict[str, str], list[str]]:
    """The program in a notebook that was handed in, and a sentence about everything in it that was repaired.

    Raises ValueError, completing “it is …”, where the notebook cannot be read.
    """
    cells, remarks = repair(_released(released(assignment)), read_notebook(content))
    return program(assignment.name, cells), remarks


@lru_cache(maxsize=8)
def _released(text: str) -> Notebook:
    return read_notebook(text)


def students(submitted: Path, assignment: str) -> list[str]:
    """The students for whom there is anything at ``submitted/<student>/<assignment>``."""
    if not submitted.is_dir():
        raise ValueError(f"There is no folder {submitted}; expected is SUBMITTED/<student>/{assignment}/.")
    names = [entry.name for entry in os.scandir(submitted) if not entry.name.startswith(".")]
    return sorted(name for name in names if _mode(submitted / name / assignment))


def handed_in(folder: Path, assignment: Assignment) -> HandedIn:
    """Read the named files of one submission."""
    contents: dict[str, bytes] = {}
    problems: dict[str, str] = {}
    flags: list[str] = []
    real = all(stat.S_ISDIR(_mode(path)) for path in (folder, folder.parent))
    present = _names(folder) if real else []
    if len(present) > MAX_LISTED:
        flags.append(f"brings more than {MAX_LISTED} files")
        present = []  # which ones come first differs from disk to disk
    for name in assignment.files:
        try:
            if not real:
                raise Refused("in a folder that is a link or no folder")
            contents[name] = _read_plain(folder / name)
        except FileNotFoundError:
            problems[name] = f"The file `{name}` is missing."
            alike = _alike(name, present)
            if alike:
                problems[name] += f" There is one called `{alike}`: give it the right name and hand in again."
        except Refused as refused:
            problems[name] = f"The file `{name}` was refused: it is {refused}."
            flags.append(f"{name} is {refused}")
    for name in sorted(filter(_SHADOWS.fullmatch, present)):
        flags.append(f"brings a file that programs load by themselves: {ascii(name)[1:-1][:80]}")
    digest = hashlib.sha256()
    for name in assignment.files:
        data = contents.get(name, b"")
        digest.update(f"{name}\0{problems.get(name, '')}\0{len(data)}\0".encode() + data)
    digest.update("\0".join(flags).encode())
    return HandedIn(contents, problems, tuple(flags), digest.hexdigest())


def read(folder: Path, student: str, assignment: Assignment) -> Submission:
    """Read one submission, and make a program of it."""
    handed = handed_in(folder, assignment)
    parts: dict[str, dict[str, str]] = {}  # what each file that was handed in gives to the program
    problems = {module_file(name): problem for name, problem in handed.problems.items()}
    flags = list(handed.flags)
    for name, data in handed.contents.items():
        try:
            if name.endswith(".ipynb"):
                parts[name], remarks = submitted_program(assignment, data)
                flags += [f"{name}: {remark}" for remark in remarks]
            else:
                parts[name] = {name: python_text(data)}
        except ValueError as unreadable:
            problems[module_file(name)] = f"The file `{name}` cannot be used: it is {unreadable}."
    for name, part in parts.items():
        released_lines = frozenset[str]().union(*map(lines_of_code, stub_program(assignment, name).values()))
        own_lines = frozenset[str]().union(*map(lines_of_code, part.values())) - released_lines
        found = [pattern.search("\n".join(sorted(own_lines))) for pattern in _REMARKABLE]
        flags += [f"{name} contains `{match[0][:60]}`" for match in found if match]
        flags += copied(name, own_lines, assignment)
    files = {file: text for part in parts.values() for file, text in part.items()}
    return Submission(student, files, problems, tuple(sorted(flags)), handed.sha256)


def _mode(path: Path) -> int:
    try:
        return os.lstat(path).st_mode
    except OSError:
        return 0


def _names(folder: Path) -> list[str]:
    """The names in a folder; of more than `MAX_LISTED` names just so many that one sees that there are more."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in islice(entries, MAX_LISTED + 1)]
    except OSError:
        return []


def _read_plain(path: Path) -> bytes:
    """The bytes of a regular file of bearable size; raises `Refused` for anything else that is there."""
    return read_regular(path, MAX_NOTEBOOK_BYTES if path.suffix == ".ipynb" else MAX_FILE_BYTES)


def _alike(name: str, present: list[str]) -> str | None:
    plain = [other for other in present if re.fullmatch(r"[\w.() -]{1,60}", other) and other != name]
    close = get_close_matches(name.lower(), [other.lower() for other in plain], n=1, cutoff=0.7)
    return next((other for other in plain if other.lower() in close), None)
