"""Cases: submissions whose grading is known in advance, each written as one small TOML file.

A case takes the reference solution (or the stub that students get) and edits it::

    title = "The contrastive term has the wrong sign"
    part = "3.4a"                            # mutants: the exercise that loses points, and no other does
    fails = ["3.4a/loss-of-the-images"]      # mutants: these checks must fail, and
    diagnosis = "wrong sign"                 # the first one's diagnosis must contain this

    [[edit]]
    file = "ex_main.py"
    find = "f_chains.mean() - f_data.mean()" # occurs exactly once
    replace = "f_data.mean() - f_chains.mean()"

An edit may also `prepend` or `append` text, give the file a new `text`, or make something odd of it: `delete`,
`rename`, `link` (to a path), `fifo`, `size` (a file of so many bytes), `hex` (these bytes). `file = "*"` edits every
file that is handed in; a name that is not handed in makes another file in the same folder. How notebooks are edited:
`autograder.quality.notebook_edits`.

``quality/blind`` holds mistakes and right variants by authors who had read only the release, as edits of their own
solution in ``blind/base``, or in another folder (``base = "blind/base-second"``). The share of these mistakes that is
found before a check is adapted to them is the figure to quote.
"""

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from autograder.assignment import Assignment
from autograder.quality.notebook_edits import NOTEBOOK_EDITS, edit_notebook
from autograder.release.programs import released, solved
from autograder.release.stubs import student_version

Kind = Literal["mutants", "variants", "attacks", "class", "blind/mistakes", "blind/variants", "automatic"]
ENOUGH: dict[Kind, int] = {"mutants": 20, "variants": 10, "class": 12}  # that the tests ask of each assignment
COMMON_ATTACKS = Path(__file__).with_name("attacks")


@dataclass(frozen=True)
class Case:
    """One case.

    `base` is what it edits: "reference", "stub", "empty", or a solution of another author, a folder in ``quality``.
    `score` is the share of the full mark that an attack may reach (by default what its base gives).
    """

    kind: Kind
    name: str
    title: str
    base: str
    edits: tuple[dict[str, Any], ...]
    part: str = ""
    fails: tuple[str, ...] = ()
    diagnosis: str = ""
    flagged: str = ""  # attacks: one of the flags must contain this
    score: float | None = None
    harmless: bool = True  # may also run where there is no sandbox
    violates: str = ""  # blind mistakes: the sentence of the exercise that it violates; variants: why it is right
    should_say: str = ""  # blind mistakes: a good diagnosis
    equivalent: str = ""  # automatic mutants: why it is no mistake

    def write(self, assignment: Assignment, folder: Path) -> None:
        """Make the submission of this case in the new folder `folder`."""
        folder.mkdir(parents=True)
        for name in assignment.files if self.base != "empty" else ():
            (folder / name).write_text(_base(assignment, name, self.base), "utf-8")
        for edit in self.edits:
            names = assignment.files if edit["file"] == "*" else (edit["file"],)
            for name in names:
                try:
                    _apply(edit, folder / name)
                except (ValueError, OSError) as error:
                    case = f"{assignment.name}, {self.kind}/{self.name}"
                    raise ValueError(f"{case}: {name} cannot be edited: {error}.") from error


def _base(assignment: Assignment, name: str, base: str) -> str:
    if base.startswith("blind/"):
        return (assignment.quality / base / name).read_text("utf-8")
    if name.endswith(".ipynb"):
        return solved(assignment) if base == "reference" else released(assignment)
    source = (assignment.folder / name).read_text("utf-8")
    return source if base == "reference" else student_version(source, name)


def load(assignment: Assignment, kind: Kind) -> list[Case]:
    """The cases of one kind: the assignment's own and, for attacks, those common to all."""
    folders = [assignment.quality / kind, *([COMMON_ATTACKS] if kind == "attacks" else [])]
    return [_read(kind, path) for folder in folders for path in sorted(folder.glob("*.toml"))]


def lacking(assignment: Assignment) -> str:
    """What the tests ask for in addition to the cases that there are: “18 mutants, 9 variants”; or an empty text."""
    needed = {kind: most - len(load(assignment, kind)) for kind, most in ENOUGH.items()}
    names = {"class": "submissions of the sample class"}
    return ", ".join(f"{count} {names.get(kind, kind)}" for kind, count in needed.items() if count > 0)


def explanations(file: Path, table: str, keys: dict[str, str]) -> list[dict[str, str]]:
    """The entries of a file that explains survivors, each with a reason; none where there is no file.

    `keys` maps the other keys of an entry to what they are called in an error.
    """
    entries: list[dict[str, str]] = tomllib.loads(file.read_text("utf-8")).get(table, []) if file.is_file() else []
    for entry in entries:
        if entry.keys() != {*keys, "reason"} or not entry["reason"].strip():
            raise ValueError(f"{file}: every explanation has {', '.join(keys.values())} and a reason.")
    return entries


def _read(kind: Kind, path: Path) -> Case:
    try:
        about = tomllib.loads(path.read_text("utf-8"))
        edits = tuple(about.pop("edit", ()))
        about["fails"] = tuple(about.get("fails", ()))
        default = "stub" if kind == "attacks" else "blind/base" if kind.startswith("blind/") else "reference"
        return Case(kind=kind, name=path.stem, base=about.pop("base", default), edits=edits, **about)
    except (tomllib.TOMLDecodeError, TypeError) as error:
        raise ValueError(f"{path} is not a case: {error}.") from error


def _apply(edit: dict[str, Any], path: Path) -> None:
    if path.suffix == ".ipynb" and edit.keys() & NOTEBOOK_EDITS:
        path.write_text(edit_notebook(path.read_text("utf-8"), edit), "utf-8")
    elif "find" in edit:
        text = path.read_text("utf-8")
        if text.count(edit["find"]) != 1:
            raise ValueError(f"{edit['find']!r} occurs {text.count(edit['find'])} times")
        path.write_text(text.replace(edit["find"], edit["replace"]), "utf-8")
    elif "prepend" in edit or "append" in edit:
        text = path.read_text("utf-8")
        path.write_text(edit.get("prepend", "") + text + edit.get("append", ""), "utf-8")
    elif "rename" in edit:
        path.rename(path.with_name(edit["rename"]))
    else:
        path.unlink(missing_ok=True)
        if "text" in edit:
            path.write_text(edit["text"], "utf-8")
        elif "hex" in edit:
            path.write_bytes(bytes.fromhex(edit["hex"]))
        elif "link" in edit:
            path.symlink_to(edit["link"])
        elif "fifo" in edit:
            os.mkfifo(path)
        elif "size" in edit:
            with open(path, "wb") as file:
                file.truncate(edit["size"])  # sparse: takes no room on the disk
