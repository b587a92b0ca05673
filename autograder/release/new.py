"""Creates a new assignment from templates: small, complete, and meant to be rewritten.

``template/shared`` contains the files of both kinds of assignment, ``template/files`` and ``template/notebook`` those
of one kind. In file names and texts, `__NAME__` is replaced by the name of the assignment and `__PROGRAM__` by the name
of the module that the checks use.
"""

import keyword
import re
import shutil
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from tempfile import TemporaryDirectory

from autograder.assignment import COURSE

TEMPLATES = Path(__file__).with_name("template")


def create(name: str, course: Path = COURSE, *, notebook: bool = False) -> Path:
    """Create ``solutions/<name>/``, and return its path.

    Students hand in a notebook if `notebook` is true, and otherwise a Python file and a notebook. Raises ValueError if
    the name is invalid or already used.
    """
    _require_possible(name)
    target = course / "solutions" / name
    if target.exists():
        raise ValueError(f"{target} already exists: choose another name, or remove it first.")
    target.parent.mkdir(parents=True, exist_ok=True)
    words = {"__NAME__": name, "__PROGRAM__": name if notebook else f"ex_{name}"}
    with TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / name
        for template in (TEMPLATES / "shared", TEMPLATES / ("notebook" if notebook else "files")):
            shutil.copytree(
                template,
                made,
                dirs_exist_ok=True,
                ignore=shutil.ignore_patterns("__pycache__"),
                copy_function=lambda source, copy: _fill(Path(source), Path(copy), words),
            )
        made.rename(target)
    return target


def _fill(source: Path, copy: Path, words: dict[str, str]) -> None:
    text = source.read_text("utf-8")
    copy.with_name(_replace(copy.name, words)).write_text(_replace(text, words), "utf-8", newline="\n")


def _replace(text: str, words: dict[str, str]) -> str:
    for placeholder, word in words.items():
        text = text.replace(placeholder, word)
    return text


def _require_possible(name: str) -> None:
    """Raise ValueError unless `name` can be the name of a folder, a notebook and a Python module."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise ValueError(f"{name!r} cannot be the name: use lower-case letters, digits and _, beginning with a letter.")
    # Search on disk, because `sys.modules` may contain reference solutions, which are not installed.
    if name in sys.stdlib_module_names or PathFinder.find_spec(name) is not None:
        raise ValueError(f"{name!r} is the name of an installed Python package: choose another name.")
