"""The result files: the output of grading, and the only input of reports, exports and statistics.

Layout of a results folder::

    RESULTS_DIR/<assignment>/<student>.json           one Result; its schema is results.schema.json
    RESULTS_DIR/<assignment>/<student>.timings.json   how long grading took; may be missing

The files are UTF-8 with sorted keys, an indent of two spaces and a final newline. `score` may differ from the sum of
the points of the checks, for example after a late penalty. Timings have their own file, so that grading a submission
again gives the same bytes.
"""

import json
import os
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import fastjsonschema

from ebmcourse.checking.outcome import Outcome

SCHEMA = 1
SCHEMA_FILE = Path(__file__).with_name("results.schema.json")
TIMINGS_SUFFIX = ".timings"

# A file name has at most 255 bytes, including the suffixes that are added to a student's id.
_MAX_NAME_BYTES = 200


@dataclass(frozen=True, slots=True)
class Result:
    """The result of grading one submission. `seed` may be the secret of the course: never show it to students."""

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
        """The score as a fraction of the full mark, in [0, 1]; 0 if the full mark is 0."""
        return min(1.0, max(0.0, self.score / self.max_score)) if self.max_score > 0 else 0.0

    def to_json(self) -> bytes:
        """Return the content of the result file. Raises ValueError if a field violates the schema."""
        data: dict[str, Any] = {"schema": SCHEMA, **asdict(self)}
        if self.confined is None:
            del data["confined"]
        result_from(data)
        return encode_json(data)


@dataclass(frozen=True, slots=True)
class Timings:
    """Wall time in seconds of grading a submission, in total and by check id."""

    seconds: float
    checks: dict[str, float] = field(default_factory=dict)


def result_from(data: object) -> Result:
    """Convert parsed JSON to a Result. Raises ValueError if it does not match the schema."""
    if isinstance(data, dict) and data.get("schema") not in (None, SCHEMA):
        raise ValueError(f"its schema is {data['schema']!r}, but this version reads schema {SCHEMA}")
    values = dict(_validated(data, "result"))
    del values["schema"]
    checks = [Outcome(**{**check, **_floats(check, "points", "max_points")}) for check in values["checks"]]
    if len({check.id for check in checks}) < len(checks):
        raise ValueError("two of its checks have the same id")
    return Result(**{**values, **_floats(values, "score", "max_score"), "checks": checks})


@cache
def _schema(kind: str) -> Callable[[object], Any]:
    """Return a function that validates data; `kind` is a definition of the schema, "result" or "timings"."""
    schemas = json.loads(SCHEMA_FILE.read_text("utf-8"))
    validate: Callable[[object], Any] = fastjsonschema.compile({**schemas, "$ref": f"#/definitions/{kind}"})
    return validate


def _validated(data: object, kind: str) -> dict[str, Any]:
    try:
        valid: dict[str, Any] = _schema(kind)(data)
    except fastjsonschema.JsonSchemaValueException as error:
        raise ValueError(str(error).replace("data", "the file", 1)) from None
    return valid


def _floats(data: dict[str, Any], *keys: str) -> dict[str, float]:
    return {key: float(data[key]) for key in keys}


def result_path(results_dir: Path, assignment: str, student: str) -> Path:
    """Return the path of a result. Raises ValueError for a name that cannot be a file name."""
    return results_dir / _file_name(assignment) / f"{_file_name(student)}.json"


def timings_path(results_dir: Path, assignment: str, student: str) -> Path:
    """Return the path of the timings of a result."""
    return results_dir / _file_name(assignment) / f"{_file_name(student)}{TIMINGS_SUFFIX}.json"


def feedback_path(results_dir: Path, assignment: str, student: str) -> Path:
    """Return the path of the page of feedback, which `autograder report` writes."""
    return results_dir / _file_name(assignment) / "feedback" / f"{_file_name(student)}.html"


def write_result(results_dir: Path, result: Result) -> Path:
    """Write the result file atomically, and return its path."""
    path = result_path(results_dir, result.assignment, result.student)
    write_atomically(path, result.to_json())
    return path


def write_timings(results_dir: Path, assignment: str, student: str, timings: Timings) -> Path:
    """Write the timings file atomically, and return its path."""
    path = timings_path(results_dir, assignment, student)
    write_atomically(path, encode_json(asdict(timings)))
    return path


def read_result(path: Path) -> Result:
    """Read one result file.

    Raises ValueError, with the name of the file, if it is damaged, has another schema version, or contains the result
    of another student or assignment than its path says.
    """
    try:
        result = result_from(_decode(path))
        if (result.assignment, result.student) != (path.parent.name, path.stem):
            raise ValueError(f"it is the result of {result.student!r} for {result.assignment!r}")
    except (ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"cannot use {path}: {error}; delete the file and grade again") from error
    return result


def find_result(results_dir: Path, assignment: str, student: str) -> Result | None:
    """Read the result of a student; return None if there is none, or it is damaged."""
    path = result_path(results_dir, assignment, student)
    try:
        return read_result(path)
    except (FileNotFoundError, ValueError):
        return None


def read_timings(results_dir: Path, assignment: str, student: str) -> Timings | None:
    """Read the timings of a result; return None if there are none. Raises ValueError like `read_result`."""
    path = timings_path(results_dir, assignment, student)
    if not path.exists():
        return None
    try:
        data = _validated(_decode(path), "timings")
    except (ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"cannot use {path}: {error}; delete the file") from error
    return Timings(float(data["seconds"]), {key: float(value) for key, value in data["checks"].items()})


def assignments_in(results_dir: Path) -> list[str]:
    """Return the sorted names of the assignments that have at least one result."""
    if not results_dir.is_dir():
        return []
    return sorted(
        folder.name
        for folder in results_dir.iterdir()
        if folder.is_dir() and not folder.name.startswith(".") and _result_files(folder)
    )


def read_results(results_dir: Path, assignment: str) -> list[Result]:
    """Read all results of one assignment, sorted by student. Raises ValueError like `read_result`."""
    return [read_result(path) for path in _result_files(results_dir / assignment)]


def students_in(results_dir: Path, assignment: str) -> list[str]:
    """Return the sorted ids of the students who have a result, without reading it."""
    return [path.stem for path in _result_files(results_dir / assignment)]


def is_student_id(name: str) -> bool:
    """Whether `name` can be used in the names of result files."""
    try:
        return bool(_file_name(name))
    except ValueError:
        return False


def encode_json(data: object) -> bytes:
    """Return data as JSON, in the form of the result files."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, indent=2, sort_keys=True) + "\n"
    # A lone surrogate (from an undecodable file name) has no UTF-8 form; backslashreplace writes it as “\udc80”, which
    # is its JSON escape.
    return text.encode("utf-8", "backslashreplace")


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a temporary file, then rename it: a full disk or Ctrl-C never leaves an incomplete file at `path`."""
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
            f"{name!r} cannot be the name of a student or an assignment:"
            f" it must not contain a slash, begin with a dot or end with “{TIMINGS_SUFFIX}”"
        )
    if len(name.encode("utf-8", "replace")) > _MAX_NAME_BYTES:
        raise ValueError(f"{name[:30]!r}… cannot be the name of a student: it has more than {_MAX_NAME_BYTES} bytes")
    return name


def _decode(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes().decode("utf-8"), parse_constant=_refuse)
    except ValueError as error:
        raise ValueError(f"it is damaged ({error})") from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
