"""Gradescope: the zip file of “Export submissions”, or its content in a folder.

`assignment_123_export/submission_metadata.yml` says for each folder `submission_456/` who handed it in, and when. A
group has several submitters.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import yaml

from autograder.collect.archive import Source
from autograder.collect.people import Handed, Person, Reading, made_id, student_id
from autograder.late import parse_time

_METADATA = "submission_metadata.yml"
_EXPORT = re.compile(r"assignment_\d+_export")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Loads plain data; for a Ruby object, its values."""


def _untagged(loader: Any, tag: str, node: yaml.Node) -> object:
    if isinstance(node, yaml.ScalarNode):
        return node.value
    return loader.construct_mapping(node, deep=True) if isinstance(node, yaml.MappingNode) else None


_Loader.add_multi_constructor("!", _untagged)


def read(source: Source, assignment: str) -> Reading:
    """Return the submissions in the metadata. Other folders do not fit this kind."""
    reading = Reading()
    inner = source.below()
    if inner and _EXPORT.fullmatch(source.entries[0].path[0]):
        source = inner
    metadata = _metadata(source)
    for label, about in metadata.items():
        reading.handed[label] = _handed(label, about)
    for entry in source.entries:
        handed = reading.handed.get(entry.path[0])
        if handed is None or not (len(entry.path) > 1 or entry.is_folder):
            if entry.path != (_METADATA,) or not metadata:
                reading.misfits.append(entry.name)
        elif not entry.is_folder:
            handed.files.append((entry.path[1:], entry))
    return reading


def _metadata(source: Source) -> dict[str, Mapping[str, Any]]:
    """Return the metadata of each folder; empty if they are missing or cannot be read."""
    entry = next((entry for entry in source.entries if entry.path == (_METADATA,)), None)
    if entry is None:
        return {}
    try:
        found = yaml.load(entry.read(), Loader=_Loader)
    except (ValueError, yaml.YAMLError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {str(label): about for label, about in found.items() if isinstance(about, dict)}


def _handed(label: str, about: Mapping[str, Any]) -> Handed:
    people = []
    submitters = about.get(":submitters")
    for submitter in submitters if isinstance(submitters, list) else ():
        if isinstance(submitter, dict):
            mail, number, name = (str(submitter.get(key) or "") for key in (":email", ":sid", ":name"))
            people.append(Person((mail, number, name), student_id(number) or student_id(mail) or made_id(name)))
    return Handed(label, people, time=_time(about.get(":created_at")))


def _time(value: object) -> datetime | None:
    if isinstance(value, datetime):
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    try:
        return parse_time(str(value)).astimezone(UTC)
    except ValueError:
        return None
