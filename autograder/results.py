"""The result files: what grading writes, and all that reports, exports and statistics read.

Layout of a results folder::

    RESULTS_DIR/<assignment>/<student>.json           one Result
    RESULTS_DIR/<assignment>/<student>.timings.json   how long it took; may be absent

A result file holds exactly these keys (UTF-8, keys sorted, two-space indent, a final newline)::

    {"schema": 1, "assignment": "jem", "student": "s001", "score": 17.0, "max_score": 20.0,
     "submission_sha256": "…", "checks_sha256": "…", "seed": 0, "confined": true,
     "flags": ["what looked like tampering"],
     "checks": [{"id": "3.2a/logits-shape", "part": "3.2a", "title": "…", "status": "passed",
                 "points": 2.0, "max_points": 2.0, "public": true, "hint": "…", "diagnosis": null}]}

`confined` may be absent; `false` says that the submission was graded without the sandbox. `hint` and
`diagnosis` are plain text in which `backticks` mark code; the diagnosis of a skipped check is the reason,
and names the check that it waits for by its id. `score` need not be the sum of the checks' points: a late
policy may have lowered it. Timings live in a file of their own, so that the same submission graded twice
gives the same bytes.
"""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ebmcourse.checking.outcome import STATUSES, Outcome

SCHEMA = 1
TIMINGS_SUFFIX = ".timings"

# Leaves room, within the 255 bytes of a file name, for the suffixes that are added to a student's id.
_MAX_NAME_BYTES = 200

_NUMBER = (int, float)
_TEXT = (str,)
_CHECK_TYPES: dict[str, tuple[type, ...]] = {
    "id": _TEXT,
    "part": _TEXT,
    "title": _TEXT,
    "status": _TEXT,
    "points": _NUMBER,
    "max_points": _NUMBER,
    "public": (bool,),
    "hint": _TEXT,
    "diagnosis": (str, type(None)),
}
_RESULT_TYPES: dict[str, tuple[type, ...]] = {
    "assignment": _TEXT,
    "student": _TEXT,
    "score": _NUMBER,
    "max_score": _NUMBER,
    "submission_sha256": _TEXT,
    "checks_sha256": _TEXT,
    "seed": (int,),
    "flags": (list,),
    "checks": (list,),
}


@dataclass(frozen=True, slots=True)
class Result:
    """What grading one submission gave. `seed` may be the course's secret: never show it to students."""

    assignment: str
    student: str
    score: float
    max_score: float
    submission_sha256: str
    checks_sha256: str
    seed: int
    flags: list[str] = field(default_factory=list)
    checks: list[Outcome] = field(default_factory=list)
    confined: bool | None = None

    @property
    def fraction(self) -> float:
        """Score as a share of the full mark, within [0, 1]; 0 where the full mark is 0."""
        return min(1.0, max(0.0, self.score / self.max_score)) if self.max_score > 0 else 0.0

    def to_json(self) -> bytes:
        """The content of the result file. Raises ValueError where a field breaks the schema."""
        data: dict[str, Any] = {"schema": SCHEMA, **asdict(self)}
        if self.confined is None:
            del data["confined"]
        result_from(data)
        return _encode(data)


@dataclass(frozen=True, slots=True)
class Timings:
    """Wall time in seconds of one grading, whole and per check id."""

    seconds: float
    checks: dict[str, float] = field(default_factory=dict)


def result_from(data: object) -> Result:
    """The Result that parsed JSON describes. Raises ValueError saying what does not fit the schema."""
    if not isinstance(data, dict):
        raise ValueError("it holds no JSON object")
    if data.get("schema") != SCHEMA:
        raise ValueError(f"its schema is {data.get('schema')!r}, and this version reads schema {SCHEMA}")
    values = {key: value for key, value in data.items() if key != "schema"}
    types = _RESULT_TYPES | ({"confined": (bool,)} if "confined" in values else {})
    _expect(values, types, "the result")
    if not all(isinstance(flag, str) for flag in values["flags"]):
        raise ValueError("its flags are not all text")
    checks = [_check_from(check, f"check {n}") for n, check in enumerate(values["checks"], start=1)]
    if len({check.id for check in checks}) < len(checks):
        raise ValueError("two of its checks have the same id")
    numbers = {key: float(values[key]) for key in ("score", "max_score")}
    return Result(**(values | numbers | {"checks": checks}))


def _check_from(data: object, where: str) -> Outcome:
    if not isinstance(data, dict):
        raise ValueError(f"{where} is no JSON object")
    _expect(data, _CHECK_TYPES, where)
    if data["status"] not in STATUSES:
        raise ValueError(f"{where} has the unknown status {data['status']!r}")
    return Outcome(**(data | {key: float(data[key]) for key in ("points", "max_points")}))


def _expect(data: Mapping[str, object], types: Mapping[str, tuple[type, ...]], where: str) -> None:
    if missing := sorted(types.keys() - data.keys()):
        raise ValueError(f"{where} lacks {', '.join(missing)}")
    if unknown := sorted(data.keys() - types.keys()):
        raise ValueError(f"{where} has the unknown keys {', '.join(unknown)}")
    for key, allowed in types.items():
        value = data[key]
        # `type(…) in` rather than isinstance: True is an int, and no score.
        if type(value) not in allowed:
            raise ValueError(f"{key} of {where} is {type(value).__name__}, not {allowed[0].__name__}")
        if isinstance(value, _NUMBER) and allowed == _NUMBER and not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{key} of {where} is {value}, not a finite number ≥ 0")


def result_path(results_dir: Path, assignment: str, student: str) -> Path:
    """Where the result lives. Raises ValueError for a name that cannot be a file name of its own."""
    return results_dir / _file_name(assignment) / f"{_file_name(student)}.json"


def timings_path(results_dir: Path, assignment: str, student: str) -> Path:
    """Where the timings live, beside the result."""
    return results_dir / _file_name(assignment) / f"{_file_name(student)}{TIMINGS_SUFFIX}.json"


def write_result(results_dir: Path, result: Result) -> Path:
    """Write the result file whole or not at all, and return its path."""
    path = result_path(results_dir, result.assignment, result.student)
    write_atomically(path, result.to_json())
    return path


def write_timings(results_dir: Path, assignment: str, student: str, timings: Timings) -> Path:
    """Write the timings file whole or not at all, and return its path."""
    path = timings_path(results_dir, assignment, student)
    write_atomically(path, _encode(asdict(timings)))
    return path


def read_result(path: Path) -> Result:
    """Read one result file.

    Raises ValueError, with the file's name, when it is damaged, of another schema version, or holds the
    result of another student or assignment than its place says.
    """
    try:
        result = result_from(_decode(path))
        if (result.assignment, result.student) != (path.parent.name, path.stem):
            raise ValueError(f"it is the result of {result.student!r} for {result.assignment!r}")
    except (ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"cannot use {path}: {error}; delete the file and grade again") from error
    return result


def read_timings(results_dir: Path, assignment: str, student: str) -> Timings | None:
    """Read the timings beside a result; None when there are none. Raises ValueError like `read_result`."""
    path = timings_path(results_dir, assignment, student)
    if not path.exists():
        return None
    try:
        data = _decode(path)
        if not isinstance(data, dict):
            raise ValueError("it holds no JSON object")
        _expect(data, {"seconds": _NUMBER, "checks": (dict,)}, "the file")
        _expect(data["checks"], dict.fromkeys(data["checks"], _NUMBER), "the checks")
    except (ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"cannot use {path}: {error}; delete the file") from error
    return Timings(float(data["seconds"]), {key: float(value) for key, value in data["checks"].items()})


def assignments_in(results_dir: Path) -> list[str]:
    """Names of the assignments that have at least one result, sorted."""
    if not results_dir.is_dir():
        return []
    return sorted(
        folder.name
        for folder in results_dir.iterdir()
        if folder.is_dir() and not folder.name.startswith(".") and _result_files(folder)
    )


def read_results(results_dir: Path, assignment: str) -> list[Result]:
    """All results of one assignment, sorted by student. Raises ValueError like `read_result`."""
    return [read_result(path) for path in _result_files(results_dir / assignment)]


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside `path`, then rename: a full disk or Ctrl-C never leaves half a file in its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _result_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.json") if not path.stem.endswith(TIMINGS_SUFFIX))


def _file_name(name: str) -> str:
    if not name or name.startswith(".") or "/" in name or "\0" in name or name.endswith(TIMINGS_SUFFIX):
        raise ValueError(
            f"{name!r} cannot name a student or an assignment:"
            f" it must be free of slashes, of a leading dot and of a final “{TIMINGS_SUFFIX}”"
        )
    if len(name.encode("utf-8", "replace")) > _MAX_NAME_BYTES:
        raise ValueError(f"{name[:30]!r}… cannot name a student: over {_MAX_NAME_BYTES} bytes")
    return name


def _encode(data: object) -> bytes:
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, indent=2, sort_keys=True) + "\n"
    # A lone surrogate (from an undecodable file name) has no UTF-8 form; “\udc80”, which backslashreplace
    # writes, is its JSON escape.
    return text.encode("utf-8", "backslashreplace")


def _decode(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes().decode("utf-8"))
    except ValueError as error:
        raise ValueError(f"it is damaged ({error})") from error
