"""Statistics of a class: difficulty and discrimination of the checks, and the most common mistakes."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import correlation

from autograder.results import Result
from ebmcourse.checking.outcome import DIFFERENT_NUMBERS, Outcome

# With fewer than three students, a correlation is always ±1 or undefined.
_FEWEST_FOR_CORRELATION = 3
# After a timeout, the next checks get less time.
_SECONDS = re.compile(r"^No answer within \S+ seconds")
# With n students, the standard error of r is about 1/√n.
_FEWEST_FOR_REMARK = 15


@dataclass(frozen=True, slots=True)
class CheckStatistics:
    """Statistics of one check: `passed` of `taken` students passed it.

    `discrimination` is the item-rest correlation: Pearson's r, over the students, between the points of this check and
    the points of all other checks. If it is near 0 or negative, the check does not measure the same as the others. It
    is None if r is undefined: for fewer than three students, or if all students have the same points.
    """

    id: str
    part: str
    title: str
    public: bool
    max_points: float
    taken: int
    passed: int
    discrimination: float | None

    @property
    def share_passed(self) -> float:
        return self.passed / self.taken

    @property
    def remark(self) -> str:
        """“weak” or “reversed” for a low discrimination, if the class is large enough."""
        if self.discrimination is None or self.taken < _FEWEST_FOR_REMARK:
            return ""
        return "reversed" if self.discrimination < -0.1 else "weak" if self.discrimination < 0.15 else ""


@dataclass(frozen=True, slots=True)
class Mistake:
    """A diagnosis and the students who got it. Without a diagnosis (`named` is False), `text` is the check's title."""

    text: str
    named: bool
    parts: tuple[str, ...]
    students: tuple[str, ...]


def check_statistics(results: Sequence[Result]) -> list[CheckStatistics]:
    """Return one entry per check id, in the order of first appearance."""
    taken: dict[str, list[tuple[Outcome, float]]] = {}
    for result in results:
        total = sum(check.points for check in result.checks)
        for check in result.checks:
            taken.setdefault(check.id, []).append((check, total - check.points))
    return [
        CheckStatistics(
            id=id_,
            part=entries[0][0].part,
            title=entries[0][0].title,
            public=entries[0][0].public,
            max_points=entries[0][0].max_points,
            taken=len(entries),
            passed=sum(check.passed for check, _ in entries),
            discrimination=_correlation([check.points for check, _ in entries], [rest for _, rest in entries]),
        )
        for id_, entries in taken.items()
    ]


def common_mistakes(results: Iterable[Result]) -> list[Mistake]:
    """Return the mistakes of a class, most common first; each student counts once per mistake.

    Equal diagnoses of several checks are one mistake, except for the diagnosis that names no mistake: its checks are
    grouped by part. The seconds in the diagnosis of a timeout make no other mistake. A failed check without a diagnosis
    is listed by its title. Skipped checks are not counted.
    """
    order: dict[str, None] = {}
    students: dict[tuple[bool, str, str], dict[str, None]] = {}
    parts: dict[tuple[bool, str, str], dict[str, None]] = {}
    for result in results:
        for check in result.checks:
            order.setdefault(check.part)
            if check.status in ("passed", "skipped"):
                continue
            diagnosis = check.diagnosis
            if diagnosis and check.status == "timeout":
                diagnosis = _SECONDS.sub("No answer in time", diagnosis)
            part = check.part if diagnosis == DIFFERENT_NUMBERS else ""
            key = (True, diagnosis, part) if diagnosis else (False, check.title, "")
            students.setdefault(key, {})[result.student] = None
            parts.setdefault(key, {})[check.part] = None
    place = list(order).index
    mistakes = [
        Mistake(text, named, tuple(sorted(parts[named, text, part], key=place)), tuple(who))
        for (named, text, part), who in students.items()
    ]
    return sorted(mistakes, key=lambda mistake: (-len(mistake.students), not mistake.named, mistake.text))


def flags_of(results: Iterable[Result]) -> list[tuple[str, list[str]]]:
    """Return every flag of a class and the students who have it, rarest first."""
    students: dict[str, list[str]] = {}
    for result in results:
        for flag in dict.fromkeys(result.flags):
            students.setdefault(flag, []).append(result.student)
    return sorted(students.items(), key=lambda item: len(item[1]))


def histogram(results: Iterable[Result], bins: int = 10) -> list[int]:
    """Return the number of students in each of `bins` equal ranges of the mark; the last includes full marks."""
    counts = [0] * bins
    for result in results:
        # The small offset keeps 0.7 of the mark in the bin that begins at 70 %: 0.7 * 10 may be 6.999….
        counts[min(bins - 1, int(result.fraction * bins + 1e-9))] += 1
    return counts


def _correlation(points: list[float], rest: list[float]) -> float | None:
    if len(points) < _FEWEST_FOR_CORRELATION or len(set(points)) == 1 or len(set(rest)) == 1:
        return None
    return correlation(points, rest)
