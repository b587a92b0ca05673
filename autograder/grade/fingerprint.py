"""The fingerprint of a grading: it changes with everything that a mark depends on, apart from the submission."""

import hashlib
import json
import platform
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import ebmcourse
from autograder.assignment import Assignment
from autograder.results import write_atomically
from autograder.sandbox.limits import LIMITS

_LIBRARY = Path(ebmcourse.__file__).parent
_AUTOGRADER = Path(__file__).parents[1]
_GRADER = (
    *("assignment.py", "files.py", "drawings.py", "results.py"),
    *(f"grade/{name}.py" for name in ("copied", "draw", "fingerprint", "grader", "repair", "seed", "submissions")),
    *(f"release/{name}.py" for name in ("notebooks", "programs", "stubs")),
    *(f"sandbox/{name}.py" for name in ("cgroup", "huge_pages", "inside", "outside", "syscalls", "visible")),
)
_PACKAGES = (
    *("ipython", "matplotlib", "numba", "numpy", "pillow", "pytorch-lightning", "safetensors", "scikit-learn"),
    *("scipy", "torch", "torchmetrics", "torchvision"),
)
_KNOWN = ".fingerprints"  # in the folder of results, where names that end with .json are results


def parts(assignment: Assignment) -> dict[str, str]:
    """What a mark depends on, in words -> its checksum or version."""
    folder = assignment.folder
    found = {f"the checks in {path.name}": _checksum([path]) for path in assignment.checks.glob("*.py")}
    found |= {f"the reference {path.name}": _checksum([path]) for path in assignment.scripts}
    if assignment.notebook and assignment.hands_in_notebook:
        found |= {f"the reference {assignment.notebook.name}": _checksum([assignment.notebook])}
    found |= {f"the given file {name}": _checksum([folder / name]) for name in assignment.given}
    found["the description of the assignment"] = _checksum([folder / "assignment.toml"])
    found["the students' library with the checking engine"] = _checksum(_LIBRARY.rglob("*.py"), _LIBRARY)
    found["the grader"] = _checksum((_AUTOGRADER / name for name in _GRADER), _AUTOGRADER)
    found["the limits"] = json.dumps(LIMITS, sort_keys=True)
    found |= {package: version(package) for package in _PACKAGES}
    return found | {"Python": ".".join(platform.python_version_tuple()[:2])}


def fingerprint(assignment: Assignment) -> str:
    """A SHA-256 over `parts`."""
    return hashlib.sha256(json.dumps(parts(assignment), sort_keys=True).encode()).hexdigest()


def remember(folder: Path, assignment: Assignment, checks_sha256: str) -> None:
    """Write down in a folder of results what this fingerprint was made of, for `known`."""
    everything = known(folder)
    if checks_sha256 not in everything:
        everything[checks_sha256] = parts(assignment)
        write_atomically(folder / _KNOWN, (json.dumps(everything, indent=1, sort_keys=True) + "\n").encode())


def known(folder: Path) -> dict[str, dict[str, str]]:
    """Fingerprint -> its parts, of all gradings into a folder of results; none where the file is missing or damaged."""
    try:
        found: dict[str, dict[str, str]] = json.loads((folder / _KNOWN).read_bytes())
        return found if all(isinstance(entry, dict) for entry in found.values()) else {}
    except (OSError, ValueError, AttributeError):
        return {}


def difference(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """The parts that differ, in words."""
    return [name for name in sorted({*one, *other}) if one.get(name) != other.get(name)]


def _checksum(files: Iterable[Path], root: Path | None = None) -> str:
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.relative_to(root or path.parent).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()
