"""Moodle: the zip file of “Download all submissions”, or its content in a folder.

In folders: `Full name_1234567_assignsubmission_file/ex_model.py` (older versions write `…_file_/`), or flat:
`Full name_1234567_assignsubmission_file_ex_model.py`. The number is the participant's within the assignment, or the
group's; with anonymous submissions the name is “Participant”. Versions before 4.1 list each member of a group, as
`Group-Full name_…`. Moodle does not write times into the zip file; its grading worksheet, given as the roster, has
them.
"""

import re
from dataclasses import replace

from autograder.collect.archive import Source
from autograder.collect.people import TYPED, Person, Reading, made_id

_NAME = re.compile(r"(?P<name>.*?)(?:_(?P<number>\d+))?_assignsubmission_(?P<plugin>[a-z]+)(?:_(?P<file>.*))?")


def read(source: Source, assignment: str) -> Reading:
    """Return the submissions. Online texts count as handed in, but are not collected."""
    reading = Reading()
    for entry in source.entries:
        match = _NAME.fullmatch(entry.path[0])
        in_folder = len(entry.path) > 1 or entry.is_folder
        if not match or in_folder == bool(match["file"]):
            reading.misfits.append(entry.name)
            continue
        name, number = match["name"], match["number"] or ""
        label = f"{name} {number}".strip()
        handed = reading.of(label, Person((label, number, name), made_id(name, number), name), name)
        if match["plugin"] == "onlinetext" and not handed.remarks:
            handed.remarks.append(TYPED)
        if match["plugin"] == "file" and not entry.is_folder:
            handed.files.append((entry.path[1:] if in_folder else (match["file"],), entry))
    people = [handed.people[0] for handed in reading.handed.values()]
    if len(people) > 1 and len({person.called for person in people}) == 1:  # anonymous submissions
        for handed in reading.handed.values():
            handed.people = [replace(person, called="") for person in handed.people]
    return reading
