"""What is known about the students of one assignment beside their results."""

from __future__ import annotations

from dataclasses import dataclass, field

from autograder.late import Lateness
from autograder.results import Timings


@dataclass(frozen=True)
class Known:
    """By student; whoever is missing in one of these is not known to it."""

    timings: dict[str, Timings] = field(default_factory=dict)
    late: dict[str, Lateness] = field(default_factory=dict)
    people: dict[str, dict[str, str]] = field(default_factory=dict)  # the roster's columns

    def of(self, student: str, column: str) -> str | None:
        """What the roster says in a column, such as `email`; None where it says nothing."""
        return self.people.get(student, {}).get(column) or None

    def any_of(self, column: str) -> bool:
        """Whether the roster says anything in a column."""
        return any(row.get(column) for row in self.people.values())
