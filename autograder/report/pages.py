"""Writes the pages: feedback for each student, one page for each class, and the gradebook of the course.

Every page is a single file without fonts or requests to other servers. Its content security policy allows one style
sheet, by its hash, and inlined images, so markup that is not escaped by mistake cannot run code or change the style. No
page has a script, except for the gradebook, whose policy allows the one that sorts it, also by its hash. The same
results give the same bytes.
"""

import base64
import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib import resources
from pathlib import Path
from statistics import fmean, median
from urllib.parse import quote

import jinja2
from markupsafe import Markup, escape

from autograder import late, text
from autograder.assignment import COURSE
from autograder.drawings import Drawn, read_drawings
from autograder.report.advice import waiting, what_to_fix
from autograder.report.charts import NAME_SHOWN, class_strips, histogram_columns, mark_strip
from autograder.report.excerpt import Excerpt, excerpt
from autograder.report.figures import figures_of
from autograder.report.gradebook import gradebook
from autograder.report.sheet import Sheet, read_sheet, without_answers
from autograder.report.statistics import check_statistics, common_mistakes, flags_of, histogram
from autograder.report.unmatched import not_graded
from autograder.results import (
    Result,
    Timings,
    assignments_in,
    feedback_path,
    read_results,
    read_timings,
    write_atomically,
)
from ebmcourse.checking.outcome import NOT_IMPLEMENTED, Outcome

Flag = tuple[str, list[str]]  # a sentence, and the students whom it concerns

MISTAKES_SHOWN = 15
SLOWEST_SHOWN = 5


def write_report(
    results_dir: Path,
    submitted: Path | None = None,
    course: Path = COURSE,
    exercises: str = "",
    names: Mapping[str, str] | None = None,
    flags_of_class: Callable[[list[Result]], Iterable[Flag]] = lambda results: (),
) -> list[Path]:
    """Write all pages of a results folder, and return their paths.

    The pages are `<assignment>/feedback/<student>.html` and `<assignment>/index.html` for each assignment, and
    `index.html`. With `submitted` (nbgrader's `submitted/<student>/<assignment>/`), feedback also shows the student's
    own figures, and the other pages name the students whose submissions are not graded. Titles and deadlines come from
    the `course`. `exercises` is the web address of the folder that holds the folders of the assignments. `names` maps
    the ids in the roster to names; the gradebook shows them. `flags_of_class` returns sentences on the results of one
    assignment, with the students whom they concern; the page of the class shows them.

    Raises ValueError if there are no results, a result file is damaged, `exercises` is not a web address, or there are
    deadlines but no times of submission.
    """
    if exercises and not re.match(r"https?://\S+$", exercises):
        raise ValueError(f"{exercises!r} is not a web address: it must begin with https:// and contain no blanks.")
    results = {assignment: read_results(results_dir, assignment) for assignment in assignments_in(results_dir)}
    if not results:
        raise ValueError(f"There are no results in {results_dir}: run `autograder grade` first.")
    if submitted is not None and not submitted.is_dir():
        raise ValueError(f"There is no folder {submitted}: --submitted is the folder of the graded submissions.")
    ungraded = not_graded(results_dir, submitted, course)
    lateness = late.of_results([result for group in results.values() for result in group], submitted, course)
    written: list[Path] = []
    counting: dict[str, list[Result]] = {}
    flags: dict[str, list[Flag]] = {}
    sheets = {assignment: read_sheet(assignment, course, exercises) for assignment in results}
    for assignment, group in results.items():
        found = {result.student: read_timings(results_dir, assignment, result.student) for result in group}
        timings = {student: timing for student, timing in found.items() if timing is not None}
        folder = results_dir / assignment
        sheet = sheets[assignment]
        mine = {result.student: lateness[assignment, result.student] for result in group}
        findings: dict[str, list[str]] = {}
        for result in group:
            own = submitted / result.student / assignment if submitted is not None else None
            drawings = read_drawings(results_dir, assignment, result.student)
            unanswered = without_answers(own, assignment) if sheet.written and own and own.is_dir() else ""
            if unanswered:
                findings.setdefault(unanswered, []).append(result.student)
            page = feedback_page(result, own, sheet, mine[result.student], drawings, unanswered)
            written.append(_write(feedback_path(results_dir, assignment, result.student), page))
        counting[assignment] = [late.with_penalty(result, mine[result.student]) for result in group]
        flags[assignment] = [*findings.items(), *flags_of_class(group)]
        page = class_page(counting[assignment], timings, mine, sheet, ungraded.get(assignment, ()), flags[assignment])
        written.append(_write(folder / "index.html", page))
    page = course_page(counting, lateness, sheets, names or {}, ungraded, flags)
    written.append(_write(results_dir / "index.html", page))
    return written


def course_page(
    classes: Mapping[str, list[Result]],
    lateness: Mapping[tuple[str, str], late.Lateness],
    sheets: Mapping[str, Sheet],
    names: Mapping[str, str],
    ungraded: Mapping[str, Sequence[str]],
    flags: Mapping[str, Sequence[Flag]],
) -> str:
    """Return the gradebook of the course; `classes` holds the results, with late penalties, by assignment.

    `ungraded` holds, also by assignment, the students who handed in and have no result, and `flags` the flags besides
    those in the results.
    """

    def summary(name: str, results: list[Result]) -> dict[str, object]:
        mine = {result.student: lateness[name, result.student] for result in results}
        return _class_summary(results, _all_flags(results, mine, flags[name])) | {
            "sheet": sheets[name],
            "late": sum(bool(found.days) for found in mine.values()),
            "due": min((found.due for found in mine.values() if found.due), default=None),
        }

    everyone = {student: "" for students in ungraded.values() for student in students} | dict(names)
    return _render(
        "index.html",
        book=gradebook(classes, lateness, everyone),
        ungraded=ungraded,
        classes=[summary(name, results) for name, results in classes.items()],
    )


def feedback_page(
    result: Result,
    submission: Path | None = None,
    sheet: Sheet | None = None,
    lateness: late.Lateness | None = None,
    drawings: Sequence[Drawn] = (),
    unanswered: str = "",
) -> str:
    """Return the page for a student; `submission` is the folder with the files that the student handed in.

    `unanswered` is a sentence on why there are no answers to the written questions.
    """
    parts: dict[str, list[Outcome]] = {}
    for check in result.checks:
        parts.setdefault(check.part, []).append(check)
    reached = sum(check.points for check in result.checks)
    counting = late.with_penalty(result, lateness)
    return _render(
        "feedback.html",
        result=counting,
        sheet=sheet or Sheet(),
        parts=parts,
        advice=what_to_fix(result),
        waits=defaultdict(list, waiting(result)),
        anchors=_anchors(result),
        excerpts=_excerpts(result, submission) if submission is not None else {},
        reached=reached if abs(counting.score - reached) > 1e-6 else None,
        lateness=lateness.sentences if lateness else [],
        drawings=drawings,
        unanswered=unanswered,
        figures=figures_of(submission) if submission is not None else [],
    )


def class_page(
    results: list[Result],
    timings: dict[str, Timings],
    lateness: Mapping[str, late.Lateness] | None = None,
    sheet: Sheet | None = None,
    ungraded: Sequence[str] = (),
    flags: Sequence[Flag] = (),
) -> str:
    """Return the page of a class. `timings` and `lateness` are by student and may be incomplete.

    `ungraded` are the students who handed in and have no result. `flags` are sentences with the students whom they
    concern, besides the flags in the results.
    """
    late_ones = {student: found for student, found in (lateness or {}).items() if found.days}
    statistics = check_statistics(results)
    mistakes = common_mistakes(results)
    ranking = sorted(results, key=lambda result: (-result.fraction, result.student))
    versions = Counter(result.checks_sha256 for result in results)
    seconds_of_check: dict[str, list[float]] = {}
    for timing in timings.values():
        for id_, seconds in timing.checks.items():
            seconds_of_check.setdefault(id_, []).append(seconds)
    known = [entry for entry in statistics if entry.id in seconds_of_check]
    slowest_checks = sorted(known, key=lambda entry: -median(seconds_of_check[entry.id]))[:SLOWEST_SHOWN]
    slowest_students = sorted(timings, key=lambda student: -timings[student].seconds)[:SLOWEST_SHOWN]
    all_flags = _all_flags(results, lateness or {}, flags)
    return _render(
        "class.html",
        summary=_class_summary(results, all_flags),
        sheet=sheet or Sheet(),
        results=results,
        statistics=statistics,
        strips=class_strips(ranking, statistics, {result.student: _anchors(result) for result in results}),
        mark_strip=mark_strip(ranking),
        columns=histogram_columns(histogram(results)),
        mistakes=[mistake for mistake in mistakes if mistake.text != NOT_IMPLEMENTED][:MISTAKES_SHOWN],
        not_begun=next((mistake for mistake in mistakes if mistake.text == NOT_IMPLEMENTED), None),
        flags=all_flags,
        late=late_ones,
        ungraded=ungraded,
        lost_parts={
            result.student: list(dict.fromkeys(check.part for check in result.checks if not check.passed))
            for result in results
        },
        other_checks=len(results) - versions.most_common(1)[0][1],
        timings=timings,
        median_seconds=median(timing.seconds for timing in timings.values()) if timings else None,
        slowest_checks=[(entry, median(seconds_of_check[entry.id])) for entry in slowest_checks],
        slowest_students=[(student, timings[student].seconds) for student in slowest_students],
    )


def _all_flags(results: Iterable[Result], lateness: Mapping[str, late.Lateness], flags: Iterable[Flag]) -> list[Flag]:
    """Return the flags in the results, those about late submissions, and the given ones, rarest first."""
    remarks = (replace(r, flags=[*r.flags, *lateness[r.student].remarks]) if lateness else r for r in results)
    return sorted([*flags_of(remarks), *flags], key=lambda flag: len(flag[1]))


def _class_summary(results: list[Result], flags: Iterable[Flag]) -> dict[str, object]:
    fractions = [result.fraction for result in results]
    return {
        "assignment": results[0].assignment,
        "students": len(results),
        "mean": fmean(fractions),
        "median": median(fractions),
        "max_score": max(result.max_score for result in results),
        "full": sum(fraction == 1 for fraction in fractions),
        "flagged": len({student for _, students in flags for student in students}),
        "unconfined": sum(result.confined is False for result in results),
    }


def _anchors(result: Result) -> dict[str, str]:
    """Return a fragment for each check id, made from its position, because an id may contain any character."""
    return {check.id: f"check-{n}" for n, check in enumerate(result.checks, start=1)}


def _excerpts(result: Result, submission: Path) -> dict[str, Excerpt]:
    """Return the student's own lines by check id, where a diagnosis names a place in them."""
    found = {check.id: excerpt(submission, check.diagnosis) for check in result.checks if check.diagnosis}
    return {id_: lines for id_, lines in found.items() if lines is not None}


def _write(path: Path, page: str) -> Path:
    write_atomically(path, page.encode("utf-8"))
    return path


def _render(template: str, **values: object) -> str:
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("autograder.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        # Everything that a template prints passes through `visible`, so no template can forget it.
        finalize=lambda value: text.visible(value) if type(value) is str else value,
    )
    for name, file in (("style", "style.css"), ("script", "sort.js")):
        content = (resources.files("autograder.report") / "templates" / file).read_text(encoding="utf-8")
        digest = base64.b64encode(hashlib.sha256(content.encode("utf-8")).digest()).decode("ascii")
        environment.globals.update({name: Markup(content), f"{name}_hash": Markup(digest)})
    environment.filters.update(
        line=lambda value: escape(text.on_one_line(value)),
        label=lambda value: escape(text.on_one_line(value, limit=80)),
        name=lambda value: escape(text.on_one_line(value)[:NAME_SHOWN]),
        prose=text.prose,
        listed=lambda names, most: escape(text.listed(names, most)),
        number=text.number,
        percent=text.percent,
        seconds=text.seconds,
        part_of_url=lambda name: Markup(quote(os.fsencode(name), safe="")),
        inlined=Markup,
    )
    return environment
