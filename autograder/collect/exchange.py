"""nbgrader's exchange: its inbound folder, `<user>+<assignment>+<time>[+<random>]/…`.

Students can write to this folder: any link, name and time in it may be forged. The last submission of each student
counts. Its time is the one in the name of the folder, compared with what the system knows about the folder.
"""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from autograder.collect.archive import Entry, Source, shown
from autograder.collect.people import Handed, Person, Reading, student_id
from autograder.late.exchange import changed_later, last_time, other_owner, parse_name
from autograder.late.times import stamp


@dataclass
class _Attempt:
    """One folder of a student."""

    folder: str
    time: datetime
    doubts: list[str]
    entries: list[Entry] = field(default_factory=list)


def read(source: Source, assignment: str) -> Reading:
    """The last submissions of `assignment`, by user; those of other assignments are ignored."""
    reading = Reading()
    attempts: dict[str, dict[str, _Attempt]] = {}
    for entry in source.entries:
        folder = entry.path[0]
        name = parse_name(folder)
        if name is None:
            if folder not in reading.misfits:
                reading.misfits.append(folder)
        elif name.assignment == assignment:
            own = attempts.setdefault(name.user, {})
            if folder not in own:
                own[folder] = _attempt(source, folder, name.time)
            own[folder].entries.append(entry)
    unchecked = []
    for user, own in sorted(attempts.items()):
        handed = reading.of(user, Person((user,), student_id(user)))
        known = [source.owners[folder] for folder in own if folder in source.owners]
        if not known or other_owner(user, known[0]) is None:
            unchecked.append(user)
            if len(set(known)) > 1:
                handed.problems.append("Its folders in the exchange have different owners.")
        for folder, attempt in list(own.items()):
            if folder in source.owners and (other := other_owner(user, source.owners[folder])):
                handed.problems.append(f"{shown(folder)} belongs to {shown(other)}, so it was not collected.")
                del own[folder]
            elif folder in source.changed and attempt.time > last_time(source.changed[folder]):
                handed.problems.append(
                    f"{shown(folder)} has a time after its last change in its name, so it was not collected."
                )
                del own[folder]
        if own:
            _take_last(handed, sorted(own.values(), key=lambda attempt: (attempt.time, attempt.folder)))
    if unchecked:
        users = ", ".join(map(shown, sorted(set(unchecked))))
        reading.remarks.append(f"not users of this system, so the owners of their folders were not checked: {users}")
    return reading


def _attempt(source: Source, folder: str, time: datetime | None) -> _Attempt:
    changed = source.changed.get(folder)
    if time is None:
        time = datetime.fromtimestamp(changed or 0.0, UTC)
        return _Attempt(folder, time, ["Its folder in the exchange names no time: that of its last change counts."])
    return _Attempt(folder, time, changed_later(time, [changed]) if changed is not None else [])


def _take_last(handed: Handed, attempts: list[_Attempt]) -> None:
    *earlier, last = attempts
    handed.time, handed.doubts = last.time, last.doubts
    for entry in last.entries:
        if len(entry.path) > 1 and not entry.is_folder:
            handed.files.append((entry.path[1:], entry))
        elif len(entry.path) == 1 and not entry.is_folder:
            handed.files.append((entry.path, replace(entry, refusal=entry.refusal or "not a folder")))
    if earlier:
        times = ", ".join(stamp(attempt.time) for attempt in earlier)
        handed.remarks.append(f"The submission of {stamp(last.time)} was collected; there are earlier ones: {times}.")
