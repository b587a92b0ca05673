"""ILIAS: the zip file of “Download all submissions” of an exercise, or its content in a folder.

`<assignment>/Submissions/[Team 12/]Doe_Jane_jdoe_4711/ex_model.py` (“Abgaben” in German): name, login and number of
the user who uploaded; a list of them may be in the same folder. A late file begins with “Late Submission - ”. The
dates in the zip file depend on the version of ILIAS, so they are not used.
"""

import re

from autograder.collect.archive import Entry, Source
from autograder.collect.people import Person, Reading, made_id, student_id

_SUBMISSIONS = {"Submissions", "Submission", "Abgaben", "Abgabe"}
_USER = re.compile(r"(?P<last>[^_]*)_(?P<first>[^_]*)_(?P<login>.+)_(?P<number>\d+)")
_TEAM = re.compile(r"Team \d+")
_LATE = re.compile(r"(?:Late Submission|Versp(?:ä|ae|a)tete Abgabe) - (?P<file>.+)")
_LIST = re.compile(r".*\.(?:xlsx?|csv)", re.IGNORECASE)
_FEEDBACK = "Feedback_files"


def read(source: Source, assignment: str) -> Reading:
    """Return the submissions, by user or by team. The users of a team share one submission."""
    reading = Reading()
    above = _above(source)
    for entry in source.entries:
        inner = entry.path[len(above) :] if entry.path[: len(above)] == above else ()
        team = inner[0] if inner and _TEAM.fullmatch(inner[0]) else ""
        if team:
            inner = inner[1:]
        user = _USER.fullmatch(inner[0]) if inner else None
        if team and not inner and entry.is_folder:
            reading.of(team, Person((team,), made_id(team)), team)
            continue
        if user is None or not (len(inner) > 1 or entry.is_folder):
            if not _is_about(entry, max(1, len(above))):
                reading.misfits.append(entry.name)
            continue
        called = f"{user['first']} {user['last']}"
        person = Person((user["login"], user["number"], called), student_id(user["login"]), called)
        handed = reading.of(team, Person((team,), made_id(team)), team) if team else reading.of(inner[0], person)
        handed.late = handed.late or False
        if not entry.is_folder:
            path = inner[1:]
            if late := _LATE.fullmatch(path[0]):
                handed.late, path = True, (late["file"], *path[1:])
            handed.files.append((path, entry))
    return reading


def _above(source: Source) -> tuple[str, ...]:
    """Return the folders above those of the users and teams, which are the same for all."""
    for n in (1, 2):
        tops = {entry.path[:n] for entry in source.entries if not _is_about(entry, 2)}
        if len(tops) == 1 and (top := tops.pop())[-1] in _SUBMISSIONS:
            return top
    return ()


def _is_about(entry: Entry, depth: int) -> bool:
    """Whether it is a list of submissions, at most at this depth, or feedback of other students."""
    is_list = len(entry.path) <= depth and _LIST.fullmatch(entry.path[-1]) is not None
    return is_list or _FEEDBACK in entry.path[:2]
