"""Gradescope: one results.json per student, in the format of Gradescope's autograder specification.

See https://gradescope-autograders.readthedocs.io/en/latest/specs/. All texts have the format "text", so Gradescope does
not interpret them. Public checks are visible at once, hidden ones after the marks are published. The seed is not
exported, because it may be the secret of the course.
"""

from autograder.export.known import Known
from autograder.late import Lateness
from autograder.results import Result, Timings, encode_json
from autograder.text import number, on_one_line, visible
from ebmcourse.checking.outcome import Outcome


def files(results: list[Result], known: Known) -> dict[str, bytes]:
    """`<assignment>/<student>/results.json`."""
    content = {}
    for result in results:
        data = _results_json(result, known.timings.get(result.student), known.late.get(result.student))
        content[f"{result.assignment}/{result.student}/results.json"] = encode_json(data)
    return content


def _results_json(result: Result, timing: Timings | None, late: Lateness | None) -> dict[str, object]:
    summary = "\n".join(
        [f"{number(result.score)} of {number(result.max_score)} points.", *(late.sentences if late else [])]
    )
    if result.confined is False:
        summary += "\nGraded without the sandbox: this mark is provisional."
    data: dict[str, object] = {
        # The score, which includes late penalties, overrides the sum of the tests.
        "score": result.score,
        "output": summary,
        "output_format": "text",
        "stdout_visibility": "hidden",
        "tests": [_test(check) for check in result.checks],
    }
    if timing is not None:
        data["execution_time"] = timing.seconds
    return data


def _test(check: Outcome) -> dict[str, object]:
    output = check.verdict
    if check.advice:
        output += f"\nHint: {check.advice}"
    return {
        "score": check.points,
        "max_score": check.max_points,
        "status": "passed" if check.passed else "failed",
        "name": on_one_line(check.title),
        "name_format": "text",
        "number": on_one_line(check.part),
        "output": visible(output),
        "output_format": "text",
        "visibility": "visible" if check.public else "after_published",
    }
