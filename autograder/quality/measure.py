"""Grade all cases and compare with what must come out."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from autograder.assignment import Assignment
from autograder.grade import seed
from autograder.grade.job import Job
from autograder.grade.workers import grade_class
from autograder.quality.automatic import automatic
from autograder.quality.cases import Case, Kind, load
from autograder.quality.contract import contract
from autograder.quality.pools import as_if_alone, pooled, pools
from autograder.results import Result, read_results

KINDS: tuple[Kind, ...] = ("attacks", "mutants", "variants")  # those first that take minutes: others fill the gaps
BLIND_KINDS: tuple[Kind, ...] = ("blind/mistakes", "blind/variants")
AUTOMATIC: tuple[Kind, ...] = ("automatic",)
CONTROL = Case("variants", "control", "The reference itself, graded last", "reference", ())
STUB = Case("attacks", "stub", "The untouched stub", "stub", ())


@dataclass(frozen=True)
class Verdict:
    """A graded case, and what is wrong with its grading (nothing: None)."""

    case: Case
    result: Result
    complaint: str | None


def measure(
    assignment: Assignment,
    *,
    known_seed: int = 0,
    kinds: tuple[Kind, ...] = KINDS,
    only: str = "",
    in_pools: bool = False,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Verdict]:
    """Grade the cases of an assignment in the sandbox, and judge the grading of each.

    `only` picks the cases whose kind/name contains it. The stub and the reference are always among them: they set the
    scale, and the reference is graded after all attacks, which must not have hurt anybody. `in_pools` grades mistakes
    in different parts together, in far less time (`autograder.quality.pools`).
    """
    job = Job.of(assignment, seed.given(known_seed), confined=True)
    loaded = [case for kind in kinds for case in _load(assignment, kind)]
    cases = [STUB, *(case for case in loaded if only in f"{case.kind}/{case.name}"), CONTROL]
    groups = pools(assignment, cases) if in_pools else [[case] for case in cases]
    results = _grade(job, [pooled(group, number) for number, group in enumerate(groups)], workers, progress)
    stub_score = results[0].score
    verdicts: list[Verdict] = []
    doubtful: list[Case] = []
    for group, result in zip(groups, results, strict=True):
        for case in group:
            verdict = _verdict(case, as_if_alone(case, group, result), stub_score)
            if len(group) > 1 and verdict.complaint:
                doubtful.append(case)
            else:
                verdicts.append(verdict)
    results = _grade(job, doubtful, workers, progress)
    verdicts += [_verdict(case, result, stub_score) for case, result in zip(doubtful, results, strict=True)]
    order = {_student(case): number for number, case in enumerate(cases)}
    return sorted(verdicts, key=lambda verdict: order[_student(verdict.case)])


def _grade(job: Job, cases: list[Case], workers: int | None, progress: Callable[[int, int], None]) -> list[Result]:
    """The results of the cases, in this order."""
    if not cases:
        return []
    students = [_student(case) for case in cases]
    done = 0

    def count(_: Result) -> None:
        nonlocal done
        done += 1
        progress(done, len(cases))

    with TemporaryDirectory() as folder:
        submitted, results_dir = Path(folder) / "submitted", Path(folder) / "results"
        for student, case in zip(students, cases, strict=True):
            case.write(job.assignment, submitted / student / job.assignment.name)
        progress(0, len(cases))
        grade_class(job, submitted, results_dir, students, workers=workers, done=count)
        results = {result.student: result for result in read_results(results_dir, job.assignment.name)}
    return [results[student] for student in students]


def _verdict(case: Case, result: Result, stub_score: float) -> Verdict:
    return Verdict(case, result, complaint(case, result, stub_score))


def _load(assignment: Assignment, kind: Kind) -> list[Case]:
    """The cases of a kind. With the mutants come the blind mistakes that prove what the checks vary."""
    if kind == "automatic":
        return automatic(assignment)
    proofs = contract(assignment).values() if kind == "mutants" else ()
    named = {text for dimensions in proofs for text in dimensions.values() if text.startswith("blind/mistakes/")}
    blind = load(assignment, "blind/mistakes") if named else []
    return load(assignment, kind) + [case for case in blind if f"blind/mistakes/{case.name}" in named]


def _student(case: Case) -> str:
    return f"{case.kind}-{case.name}".replace("/", "-")


def complaint(case: Case, result: Result, stub_score: float) -> str | None:
    """What is wrong with the grading of a case; None where it is as expected."""
    if case.kind == "automatic":
        return _automatic_complaint(case, result)
    if case.kind in ("mutants", "blind/mistakes"):
        return _mutant_complaint(case, result)
    if case.kind in ("variants", "blind/variants"):
        lost = [f"{check.id} ({check.diagnosis})" for check in result.checks if check.lost]
        return f"a right solution loses {', '.join(lost)}" if lost else None
    base = result.max_score if case.base == "reference" else stub_score
    allowed = base if case.score is None else case.score * result.max_score
    if result.score > allowed:
        gained = [check.id for check in result.checks if check.points]
        return f"gains: {result.score:g} instead of at most {allowed:g} ({', '.join(gained)})"
    if case.flagged and not any(case.flagged in flag for flag in result.flags):
        return f"is not flagged with “{case.flagged}” but with {list(result.flags)}"
    return None


def _automatic_complaint(case: Case, result: Result) -> str | None:
    survives = result.score == result.max_score
    if survives and not case.equivalent:
        return "survives"
    if case.equivalent and not survives:
        return f"is found, and quality/equivalent.toml calls it equivalent: “{case.equivalent}”"
    return None


def _mutant_complaint(case: Case, result: Result) -> str | None:
    lost = {check.id: check for check in result.checks if check.lost}
    if not lost:
        return "survives"
    elsewhere = [check for check in lost.values() if check.part != case.part]
    if elsewhere:
        return f"costs points outside of {case.part}: {elsewhere[0].id} ({elsewhere[0].diagnosis})"
    missed = [name for name in case.fails if name not in lost]
    if missed:
        return f"passes {', '.join(missed)}; it fails {', '.join(lost)}"
    if not any(case.diagnosis in (check.diagnosis or "") for check in lost.values()):
        return f"is diagnosed otherwise: {[check.diagnosis for check in lost.values()]}"
    return None
