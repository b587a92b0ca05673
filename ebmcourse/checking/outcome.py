"""What became of one check of one submission."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Status = Literal["passed", "failed", "error", "timeout", "memory", "skipped"]


STATUSES: tuple[Status, ...] = get_args(Status)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One check's result, as it stands in a result file.

    `diagnosis` says what went wrong, as far as it is known; it never holds inputs or expected values.
    """

    id: str
    part: str
    title: str
    status: Status
    points: float
    max_points: float
    public: bool
    hint: str = ""
    diagnosis: str | None = None

    @property
    def passed(self) -> bool:
        return self.status == "passed"

    @property
    def lost(self) -> float:
        """Points that a pass would still bring."""
        return self.max_points - self.points
