"""What is the same for all submissions of one run of grading."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autograder.assignment import Assignment
from autograder.grade.fingerprint import fingerprint
from autograder.grade.seed import Seed


@dataclass(frozen=True)
class Job:
    """The assignment as it was at the beginning, the seed, and how submissions are confined.

    `private` are folders that no submission may see. With them, each worker tests its sandbox before the first
    submission: the first folder is that of the course.
    """

    assignment: Assignment
    checks_sha256: str
    seed: Seed
    confined: bool
    private: tuple[Path, ...] = ()

    @classmethod
    def of(cls, assignment: Assignment, seed: Seed, *, confined: bool, private: tuple[Path, ...] = ()) -> Job:
        """The job of grading an assignment as it is now."""
        return cls(assignment, fingerprint(assignment), seed, confined, tuple(path.absolute() for path in private))
