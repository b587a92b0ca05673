"""Plain CSV: a table of marks, and a table of checks for statistics tools."""

from autograder.export.known import Known
from autograder.export.sheets import Row, csv_bytes
from autograder.late import Lateness
from autograder.results import Result, Timings


def files(results: list[Result], known: Known) -> dict[str, bytes]:
    """`<assignment>.marks.csv` (a row per student) and `.checks.csv` (a row per student and check)."""
    name = results[0].assignment
    return {
        f"{name}.marks.csv": csv_bytes(_marks(results, known.late)),
        f"{name}.checks.csv": csv_bytes(_checks(results, known.timings)),
    }


def _marks(results: list[Result], late: dict[str, Lateness]) -> list[Row]:
    parts = list(dict.fromkeys(check.part for result in results for check in result.checks))
    timing = ["submitted", "days_late", "late_days_spent", "deducted"]
    rows: list[Row] = [["student", "score", "max_score", *parts, *timing, "confined", "flags"]]
    for result in results:
        points: dict[str, float] = {}
        for check in result.checks:
            points[check.part] = points.get(check.part, 0.0) + check.points
        when = late.get(result.student)
        confined = None if result.confined is None else "yes" if result.confined else "no"
        rows.append(
            [
                result.student,
                result.score,
                result.max_score,
                *(points.get(part) for part in parts),
                when.submitted.isoformat() if when and when.submitted else None,
                *((when.days, when.free_days, when.taken) if when and (when.due or when.days) else (None, None, None)),
                confined,
                " | ".join([*result.flags, *(when.remarks if when else ())]),
            ]
        )
    return rows


def _checks(results: list[Result], timings: dict[str, Timings]) -> list[Row]:
    header = "student part check title visibility status points max_points seconds diagnosis"
    rows: list[Row] = [header.split()]
    for result in results:
        took = timings[result.student].checks if result.student in timings else {}
        rows.extend(
            [
                result.student,
                check.part,
                check.id,
                check.title,
                "public" if check.public else "hidden",
                check.status,
                check.points,
                check.max_points,
                f"{took[check.id]:.3f}" if check.id in took else None,
                check.diagnosis,
            ]
            for check in result.checks
        )
    return rows
