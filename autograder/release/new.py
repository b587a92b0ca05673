"""A new assignment: a small one that is complete and grades green, made from the templates, to be rewritten.

``template/shared`` holds what both kinds have, ``template/files`` and ``template/notebook`` what only one has. In names
and texts `__NAME__` stands for the assignment's name and `__PROGRAM__` for the module that checks see.
"""

from __future__ import annotations

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
    """Make ``solutions/<name>/``, and return it.

    Students hand in a notebook if `notebook` is true, and else a Python file beside one. Raises ValueError where the
    name cannot be one, or is taken.
    """
    _require_possible(name)
    target = course / "solutions" / name
    if target.exists():
        raise ValueError(f"There is something at {target} already: choose another name, or move that away first.")
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
    """An assignment's name is that of a folder, of a notebook and of a Python module that students import."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise ValueError(f"{name!r} cannot be the name: take small letters, digits and _, beginning with a letter.")
    # Asked on disk: the references of other courses that this process has run are modules, too, but not installed.
    if name in sys.stdlib_module_names or PathFinder.find_spec(name) is not None:
        raise ValueError(f"{name!r} is the name of a Python package that is installed here: choose another one.")
