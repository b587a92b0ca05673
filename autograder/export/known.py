"""What is known about the students of one assignment in addition to their results."""

from dataclasses import dataclass, field

from autograder.late import Lateness
from autograder.results import Timings


@dataclass(frozen=True)
class Known:
    """Timings, lateness and rows of the roster, each by student and possibly incomplete."""

    timings: dict[str, Timings] = field(default_factory=dict)
    late: dict[str, Lateness] = field(default_factory=dict)
    people: dict[str, dict[str, str]] = field(default_factory=dict)  # the roster's columns

    def of(self, student: str, column: str) -> str | None:
        """Return the value in a column of the roster, such as `email`; None if it is missing or empty."""
        return self.people.get(student, {}).get(column) or None

    def any_of(self, column: str) -> bool:
        """Whether the roster has any value in a column."""
        return any(row.get(column) for row in self.people.values())
