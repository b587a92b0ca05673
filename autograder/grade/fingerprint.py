"""The fingerprint of a grading: it changes with everything that a mark depends on, apart from the submission."""

from __future__ import annotations

import hashlib
import json
import sys
from importlib.metadata import version
from pathlib import Path

import ebmcourse
from autograder.assignment import Assignment
from autograder.sandbox.limits import LIMITS

_LIBRARY = Path(ebmcourse.__file__).parent
_GRADE = Path(__file__).parent
_PACKAGES = ("torch", "numpy", "ipython")


def fingerprint(assignment: Assignment) -> str:
    """A SHA-256 over the assignment (checks, reference, given files, description), the students' library with the
    checking engine, the reading of submissions, the limits, and the versions of Python, torch, numpy and IPython."""
    own = [assignment.folder / name for name in ("assignment.toml", *assignment.given)]
    own += [assignment.notebook] if assignment.notebook and assignment.hands_in_notebook else []
    files = {path.relative_to(assignment.folder): path for path in (*own, *assignment.scripts)}
    files |= {Path("checks", path.name): path for path in assignment.checks.glob("*.py")}
    files |= {path.relative_to(_LIBRARY.parent): path for path in _LIBRARY.rglob("*.py")}
    files |= {Path("grade", path.name): path for path in _GRADE.glob("*.py")}
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        digest.update(f"{name.as_posix()}\0".encode() + path.read_bytes() + b"\0")
    versions = {package: version(package) for package in _PACKAGES} | {"python": list(sys.version_info[:2])}
    digest.update(json.dumps([LIMITS, versions], sort_keys=True).encode())
    return digest.hexdigest()
