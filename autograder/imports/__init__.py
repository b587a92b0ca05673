"""Submissions from other systems, put into nbgrader's layout `submitted/<student>/<assignment>/`.

A source is a zip file or a folder, and of one kind; each kind has a module that says whose a file is. What comes from
students is never trusted: see `archive`. Nothing that is there already is overwritten without being asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from autograder.assignment import Assignment
from autograder.imports import canvas, moodle, nbgrader, plain
from autograder.imports.archive import Entry, Source, open_source, shown
from autograder.imports.layout import arranged, place
from autograder.imports.people import Piece, Roster
from autograder.late import TIMESTAMP

Kind = Callable[[list[Entry], str], list[Piece] | None]

# In the order in which they are tried: each returns None where the files are not of its kind.
KINDS: dict[str, Kind] = {
    "moodle": moodle.pieces,
    "canvas": canvas.pieces,
    "nbgrader": nbgrader.pieces,
    "plain": plain.pieces,
}


@dataclass
class Collected:
    """What became of each student's submission, and what there is to say."""

    kind: str = ""
    students: dict[str, str] = field(default_factory=dict)  # id -> new, unchanged, replaced, differs, twice
    late: list[str] = field(default_factory=list)  # whom the other system calls late
    unknown: list[str] = field(default_factory=list)  # who is not in the roster, as the source names them
    remarks: dict[str, list[str]] = field(default_factory=dict)  # by student, "" for what belongs to nobody

    def lines(self) -> list[str]:
        """The same, to be read: first what was done, last what is to be done."""
        done = Counter(self.students.values())
        count = ", ".join(f"{n} {what}" for what, n in sorted(done.items())) or "no submissions"
        lines = [f"{self.kind}: {count}"]
        lines += [f"{who + ': ' if who else ''}{text}" for who, texts in self.remarks.items() for text in texts]
        if self.late:
            lines.append(f"called late by {self.kind.capitalize()}: {', '.join(self.late)}")
        differing = [student for student, what in self.students.items() if what == "differs"]
        if differing:
            lines.append(f"differ from what is there, left alone (--update replaces them): {', '.join(differing)}")
        if self.unknown:
            lines.append(f"not in the roster, or not to be told apart: {', '.join(map(shown, self.unknown))}")
        return lines

    @property
    def is_whole(self) -> bool:
        """Whether everybody's submission is in its place."""
        return not self.unknown and "differs" not in self.students.values() and "twice" not in self.students.values()


def collect(
    path: Path, assignment: Assignment, out: Path, *, kind: str = "", roster: Roster | None = None, update: bool = False
) -> Collected:
    """Put the submissions in the zip file or folder `path` into `out/<student>/<assignment>/`.

    Raises ValueError where `path` is no such source, or too large to be one. Run again, it changes nothing; what
    differs from what is there is left alone, or replaced with `update`.
    """
    with open_source(path) as source:
        collected, pieces = _pieces(source, assignment.name, kind)
        by_student: dict[str, dict[str, list[Piece]]] = {}
        for piece in pieces:
            student = roster.find(piece.names) if roster else piece.default_id
            if student is None:
                if piece.names[0] not in collected.unknown:
                    collected.unknown.append(piece.names[0])
            else:
                by_student.setdefault(student, {}).setdefault(piece.names[0], []).append(piece)
        for student, submissions in sorted(by_student.items()):
            remarks = collected.remarks.setdefault(student, [])
            if len(submissions) > 1:
                collected.students[student] = "twice"
                remarks.append(f"has several submissions, none is taken: {', '.join(sorted(submissions))}")
                continue
            (own,) = submissions.values()
            if any(piece.late for piece in own):
                collected.late.append(student)
            trusted = collected.kind == "nbgrader"
            files = arranged(source, own, {*assignment.files, f"{assignment.name}.ipynb"}, trusted, remarks)
            if roster and (time := roster.submitted.get(student)) and not trusted:
                files[TIMESTAMP] = f"{time:%Y-%m-%d %H:%M:%S.%f} UTC".encode()
            collected.students[student] = place(out / student / assignment.name, files, update)
        collected.remarks[""] = source.refused
    return collected


def _pieces(source: Source, assignment: str, kind: str) -> tuple[Collected, list[Piece]]:
    for name, find in KINDS.items():
        if kind in ("", name):
            pieces = find(source.entries, assignment)
            if pieces is not None:
                return Collected(name), pieces
    what = f"is not of the kind {kind}: no file has a name as that system gives it" if kind else "has no submissions"
    raise ValueError(f"{source.path} {what}")
