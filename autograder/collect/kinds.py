"""The kinds of sources, and how the kind of a source is recognized.

Students choose the names of some files, so one name proves nothing. A kind is chosen only if it explains every file and
no other kind does; otherwise the instructor has to specify it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from autograder.assignment import Assignment
from autograder.collect import canvas, exchange, github, gradescope, ilias, moodle, nbgrader, plain
from autograder.collect.archive import Source, shown
from autograder.collect.layout import SECRET, top_folder
from autograder.collect.people import Reading
from autograder.late import TIMESTAMP

SHOWN = 8


@dataclass(frozen=True)
class Kind:
    """One kind of source."""

    title: str  # in a sentence
    read: Callable[[Source, str], Reading]
    keep: frozenset[str] = frozenset()  # nbgrader's own files that are kept


KINDS = {
    "moodle": Kind("Moodle", moodle.read),
    "canvas": Kind("Canvas", canvas.read),
    "gradescope": Kind("Gradescope", gradescope.read),
    "ilias": Kind("ILIAS", ilias.read),
    "github": Kind("GitHub Classroom", github.read),
    "exchange": Kind("nbgrader's exchange", exchange.read, frozenset({SECRET})),
    "nbgrader": Kind("nbgrader", nbgrader.read, frozenset({SECRET, TIMESTAMP})),
    "plain": Kind("a folder of submissions", plain.read),
}


def read_source(source: Source, assignment: Assignment, kind: str = "") -> tuple[str, Reading]:
    """Return the kind of a source (the given one, or the only one that explains every file) and its reading.

    Raises ValueError if there is none.
    """
    if not source.entries:
        raise ValueError(f"{source.path} has no submissions.")
    # Platforms and people often put everything into one folder.
    levels = [source]
    while len(levels) < 3 and (inner := levels[-1].below()):
        levels.append(inner)
    if kind:
        readings = [KINDS[kind].read(level, assignment.name) for level in levels]
        reading = next((reading for reading in readings if reading.handed), None)
        if reading is None:
            raise ValueError(f"{source.path} is not of the kind {kind}: no file name has the form of this system.")
        return kind, reading
    partial: list[tuple[int, str, Reading]] = []
    whole: dict[str, tuple[int, Reading]] = {}
    for name, each in KINDS.items():
        for depth, level in enumerate(levels[:1] if name == "plain" else levels):
            reading = each.read(level, assignment.name)
            if reading.handed and not reading.misfits:
                whole[name] = depth, reading
                break
            if reading.handed:
                partial.append((len(reading.misfits), name, reading))
    alone = whole.pop("plain", None)
    if len(whole) == 1:
        ((name, (depth, reading)),) = whole.items()
        if not (depth and alone and _is_submission(source, assignment)):
            return name, reading
        whole["plain"] = alone
    if len(whole) > 1:
        raise ValueError(f"{source.path} may be of several kinds: choose with --kind {' or --kind '.join(whole)}.")
    is_unclear = len(levels) > 1 and _has_several(source, assignment)
    if alone and not is_unclear:
        return "plain", alone[1]
    if alone and not partial:
        raise ValueError(
            f"{source.path} has one folder, {shown(source.entries[0].path[0])}, with files to hand in at several"
            " places: unpack it and collect from the folder that holds the students' folders; or, if it is one"
            " student's, use --kind plain."
        )
    if partial:
        _, name, reading = min(partial, key=lambda entry: entry[0])
        raise ValueError(
            f"{source.path} looks like {KINDS[name].title}, except for {named(reading.misfits)}:"
            f" --kind {name} leaves these out; other kinds are {', '.join(sorted(KINDS.keys() - {name}))}."
        )
    raise ValueError(
        f"{source.path} has no submissions: expected are a folder for each student, or a download of a platform."
    )


def named(names: list[str]) -> str:
    """Return the first few names, and the number of the others."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(shown, names[:SHOWN])) + more


def _wanted(source: Source, assignment: Assignment) -> list[tuple[str, ...]]:
    return [entry.path for entry in source.entries if entry.path[-1] in assignment.wanted]


def _is_submission(source: Source, assignment: Assignment) -> bool:
    """Whether a source with one folder can be the submission of one student."""
    return top_folder(_wanted(source, assignment), assignment.wanted) is not None


def _has_several(source: Source, assignment: Assignment) -> bool:
    return bool(_wanted(source, assignment)) and not _is_submission(source, assignment)
