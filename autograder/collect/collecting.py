"""Copies the submissions of a source to the folders of the students."""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from autograder.assignment import Assignment
from autograder.collect.archive import open_source, shown
from autograder.collect.groups import Group, compared, read_groups, remember_groups
from autograder.collect.ids import Ids, disjoint, other_ids, remember_ids
from autograder.collect.kinds import KINDS, Kind, named, read_source
from autograder.collect.layout import arranged, place
from autograder.collect.people import Handed, Reading
from autograder.collect.roster import Roster
from autograder.files import items, opened
from autograder.late import TIMESTAMP
from autograder.late.record import Noted, read_record, update_record
from autograder.late.times import stamp

MAX_SHOWN = 10
MAX_EACH = 5000  # files in a folder of the exchange
_PLACED = {"new", "unchanged", "replaced"}
# The states whose names cannot follow a number, and those of submissions that are not collected.
_SAID = {"differs": "different", "nothing": "without files", "twice": "with several submissions"}
_LOST = {"nothing", "failed", "twice"}


@dataclass
class Collected:
    """The state of each student's submission, with remarks and problems."""

    kind: str = ""
    # By id: new, unchanged, replaced; or differs (from the existing one), twice, nothing (usable in it), failed.
    students: dict[str, str] = field(default_factory=dict)
    late: list[str] = field(default_factory=list)  # students who are late according to the platform
    unknown: list[str] = field(default_factory=list)  # names in the source that are not in the roster
    missing: list[str] = field(default_factory=list)  # students in the roster that are not in the source
    groups: list[str] = field(default_factory=list)  # remarks on groups whose members have handed in different files
    remarks: dict[str, list[str]] = field(default_factory=dict)  # by student; "" for those that concern no student
    problems: dict[str, list[str]] = field(default_factory=dict)  # the same, for the instructor to look at

    @property
    def is_whole(self) -> bool:
        """Whether all submissions were collected without problems."""
        return not self.unknown and not any(self.problems.values()) and _PLACED.issuperset(self.students.values())

    def lines(self) -> list[str]:
        """Return the summary as text: first what was done, then what remains to be done."""
        done = Counter(_SAID.get(what, what) for what in self.students.values())
        lines = [f"{self.kind}: {', '.join(f'{n} {what}' for what, n in sorted(done.items())) or 'no submissions'}"]
        lines += [*_by_student(self.remarks), *self.groups]
        if self.late:
            lines.append(f"late according to {KINDS[self.kind].title}: {', '.join(self.late)}")
        if self.missing:
            lines.append(f"in the roster, but not in the source: {', '.join(self.missing)}")
        lines += _by_student(self.problems)
        if differing := [student for student, what in self.students.items() if what == "differs"]:
            lines.append(
                f"different from the existing ones, which were kept (--update replaces them): {', '.join(differing)}"
            )
        lost = [f"{shown(who)} ({_SAID.get(what, what)})" for who, what in self.students.items() if what in _LOST]
        if lost:
            lines.append(f"NOT collected: {', '.join(lost)}")
        if self.unknown:
            lines.append(f"NOT collected, not in the roster or ambiguous: {', '.join(map(shown, self.unknown))}")
        return lines


def collect(
    path: Path, assignment: Assignment, out: Path, *, kind: str = "", roster: Roster | None = None, update: bool = False
) -> Collected:
    """Put the submissions in the zip file or folder `path` into `out/<student>/<assignment>/`.

    Calling it again changes nothing. Existing submissions that are different are kept, or replaced with `update`.
    Raises ValueError if `path` is not a source, its kind is not clear, or its people have other ids than before.
    """
    for read in (read_record, read_groups):  # they raise for a damaged record before anything is written
        read(out, assignment.name)
    with open_source(path, MAX_EACH if kind == "exchange" else None) as source:
        name, reading = read_source(source, assignment, kind)
        ids = _ids_by_name(reading, roster)
        elsewhere = other_ids(out, name, ids)
        if moved := elsewhere.pop(assignment.name, []):
            raise ValueError(
                f"The same people were collected before under other ids ({named(moved)}), so nothing was changed."
                " Collect with the roster of that time; or, if the new ids are right, delete the folders of the old"
                f" ids in {out} and in the results first."
            )
        collected = Collected(name, remarks={"": reading.remarks}, problems={"": source.refused})
        if reading.misfits:
            collected.problems[""].append(f"left out, not of the kind {name}: {named(reading.misfits)}")
        run = _Run(assignment, out, KINDS[name], roster, update, collected)
        for handed, students in _owners(reading, roster, collected):
            run.take(handed, students)
    update_record(out, assignment.name, run.noted)
    remember_ids(out, assignment.name, name, ids)
    for other, people in elsewhere.items():
        collected.problems[""].append(
            f"other ids than in {other} ({named(people)}): the gradebook has such a student twice. Use one roster for"
            " all assignments."
        )
    collected.remarks[""] += [
        f"other ids than from {other} ({named(there)}): if they are the same people, each of them is graded twice."
        " Use one roster for all platforms."
        for other, there in disjoint(out, assignment.name, name, ids, roster.people if roster else ()).items()
    ]
    if roster:
        collected.remarks[""] += roster.remarks
        collected.missing = sorted(roster.people.keys() - collected.students.keys())
        twice = [student for student, what in collected.students.items() if what == "twice"]
        groups = [
            compared(out, assignment.name, assignment.wanted, Group(roster.people[ids[0]]["group"], tuple(ids)), twice)
            for ids in roster.groups.values()
            if len(ids) > 1
        ]
        remember_groups(out, assignment.name, groups)
        collected.groups = [group.remark for group in groups if group.remark]
    _check_links(out, assignment.name, collected)
    return collected


def _ids(handed: Handed, roster: Roster | None) -> list[str | None]:
    """Return the ids of those who handed it in, or of the members of the group; None for an unknown name."""
    return roster.members(handed) if roster else [person.default_id for person in handed.people]


def _ids_by_name(reading: Reading, roster: Roster | None) -> Ids:
    found: Ids = {}
    for handed in reading.handed.values():
        ids = _ids(handed, roster)
        owners = [ids] if len(handed.people) == 1 else [[student] for student in ids]
        for person, students in zip(handed.people, owners, strict=False):
            name = next(filter(None, person.names), handed.label)
            found[name] = [student for student in students if student is not None]
    return found


def _owners(reading: Reading, roster: Roster | None, collected: Collected) -> list[tuple[Handed, list[str]]]:
    """Return each submission with the ids of its students. Students with several submissions are left out."""
    found: list[tuple[Handed, list[str]]] = []
    by_student: dict[str, list[str]] = {}
    for handed in reading.handed.values():
        ids = _ids(handed, roster)
        if not any(ids):
            collected.unknown.append(handed.label)
        else:  # of a group, some may be unknown
            unknown = [person for person, student in zip(handed.people, ids, strict=False) if student is None]
            collected.unknown += [f"{next(filter(None, who.names), '?')} of {handed.label}" for who in unknown]
        students = list(dict.fromkeys(student for student in ids if student is not None))
        for student in students:
            by_student.setdefault(student, []).append(handed.label)
        found.append((handed, students))
    twice = {student: labels for student, labels in by_student.items() if len(labels) > 1}
    for student, labels in sorted(twice.items()):
        collected.students[student] = "twice"
        collected.problems[student] = [f"has several submissions, and none was collected: {named(sorted(labels))}"]
    return [(handed, [student for student in students if student not in twice]) for handed, students in found]


@dataclass
class _Run:
    """The settings for all submissions, and the results."""

    assignment: Assignment
    out: Path
    kind: Kind
    roster: Roster | None
    update: bool
    collected: Collected
    noted: dict[str, Noted | None] = field(default_factory=dict)

    def take(self, handed: Handed, students: list[str]) -> None:
        """Put one submission into the folders of its students. Nothing in a submission raises an exception."""
        if students:
            if len(students) > 1:
                handed.remarks.append(f"handed in together, as {shown(handed.label)}.")
            self.collected.students |= dict.fromkeys(students, "failed")
            try:
                files = arranged(handed, self.assignment, self.kind.keep)
                for student in students:
                    self.collected.students[student] = self._place(handed, student, files)
            except Exception as error:
                handed.problems.append(f"cannot be collected: {shown(str(error) or type(error).__name__)}.")
        handed.problems += handed.doubts
        who = ", ".join(students) or handed.label
        for found, said in ((handed.remarks, self.collected.remarks), (handed.problems, self.collected.problems)):
            if found:
                said.setdefault(who, []).extend(found)

    def _place(self, handed: Handed, student: str, files: dict[str, bytes]) -> str:
        target = self.out / student / self.assignment.name
        if not files:
            if self.update and target.exists():  # an earlier submission, which no longer counts
                place(target, {}, update=True)
            return "nothing"
        time = self.roster.submitted.get(student, handed.time) if self.roster else handed.time
        if time is not None:
            files = files | {TIMESTAMP: stamp(time).encode()}
        what = place(target, files, self.update)
        if handed.late:
            self.collected.late.append(student)
        if what in _PLACED:
            known = Noted(self.kind.title, time, handed.late, tuple(handed.doubts) if time == handed.time else ())
            if time is not None or handed.late is not None:
                self.noted[student] = known
            elif what != "unchanged":
                self.noted[student] = None
        return what


def _check_links(out: Path, assignment: str, collected: Collected) -> None:
    """Report everything below `out` that is not a file or a folder, including earlier submissions."""
    for student in sorted(os.listdir(out)) if out.is_dir() else ():
        if student.startswith("."):
            continue
        found = []
        if (out / student).is_symlink() or (out / student / assignment).is_symlink():
            found = ["its folder"]
        elif (out / student / assignment).is_dir():
            with opened(out / student / assignment) as folder:
                found = ["/".join(item.path) for item in items(folder) if item.refusal]
        if found:
            text = f"not a regular file, so not graded, in {out.name}/{student}/{assignment}: {named(found)}."
            collected.problems.setdefault(student, []).append(text)


def _by_student(said: dict[str, list[str]]) -> list[str]:
    lines = []
    for who, texts in said.items():
        cut = [f"and {len(texts) - MAX_SHOWN} more remarks"] if len(texts) > MAX_SHOWN else []
        lines += [f"{shown(who) + ': ' if who else ''}{text}" for text in (*texts[:MAX_SHOWN], *cut)]
    return lines
