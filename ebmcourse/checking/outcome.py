"""What became of one check of one submission, and how every page, table and notebook says it."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

Status = Literal["passed", "failed", "error", "timeout", "memory", "skipped"]
STATUSES: tuple[Status, ...] = get_args(Status)
Kind = Literal[Status, "unwritten"]

NOT_IMPLEMENTED = "Not implemented yet."
DIFFERENT_NUMBERS = "The numbers are different from those of a correct solution."  # names no mistake


class _Words(NamedTuple):
    sign: str
    word: str
    explanation: str  # where there is no diagnosis


_WORDS: dict[Kind, _Words] = {
    "passed": _Words("✓", "passed", ""),
    "unwritten": _Words("·", "not implemented yet", ""),
    "failed": _Words("✗", "failed", "The result is not what the exercise asks for."),
    "error": _Words("✗", "crashed", "The code stopped with an exception, or ended its process."),
    "timeout": _Words("✗", "ran out of time", "The code was still running when the time of this check was over."),
    "memory": _Words("✗", "ran out of memory", "The code needed more memory than this check allows."),
    "skipped": _Words("–", "not run", "It builds on another check, which has to pass first."),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one check, as stored in a result file.

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

    @property
    def is_unwritten(self) -> bool:
        """Whether the exercise is still the stub."""
        return self.diagnosis == NOT_IMPLEMENTED

    @property
    def kind(self) -> Kind:
        """The status, or “unwritten” instead of “failed” for a stub."""
        return "unwritten" if self.is_unwritten else self.status

    @property
    def sign(self) -> str:
        """A character for the kind: ✓, ·, ✗ or –."""
        return _WORDS[self.kind].sign

    @property
    def word(self) -> str:
        """The kind in words: passed, not implemented yet, failed, crashed, ran out of time or of memory, not run."""
        return _WORDS[self.kind].word

    @property
    def explanation(self) -> str:
        """What went wrong: the diagnosis or else what the status means; empty where the word says everything."""
        return "" if self.passed or self.is_unwritten else self.diagnosis or _WORDS[self.kind].explanation

    @property
    def verdict(self) -> str:
        """The word and the explanation as sentences; empty for a check that passed."""
        return "" if self.passed else f"{self.word.capitalize()}. {self.explanation}".rstrip()

    @property
    def advice(self) -> str:
        """The hint, for a check that was run and did not pass."""
        return self.hint if self.status not in ("passed", "skipped") else ""
