"""Grading: a folder of submissions in, result files out.

Each worker process holds a warm sandbox and an open judge, and grades one submission after another. What a
submission gets depends on itself, the checks and the seed only: not on the worker, the order, or the time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from autograder import submissions
from autograder.assignment import Assignment
from autograder.drawings import Drawn, draw, drawings_in, write_drawings
from autograder.judge import Judge
from autograder.programs import reference_program
from autograder.results import Result, Timings, read_result, result_path, write_result, write_timings
from autograder.sandbox.huge_pages import use_huge_pages
from autograder.sandbox.outside import Sandbox, SandboxProcess
from autograder.seed import Seed
from autograder.submissions import Submission
from ebmcourse.checking.answers import PUBLIC_SEED, Live
from ebmcourse.checking.drawing import Drawing
from ebmcourse.checking.local import LocalRoom
from ebmcourse.checking.observer import Observer
from ebmcourse.checking.program import laid_out

DRAWING_SECONDS = 20.0  # for all drawings of a submission together
LATE_MODULES = ("torch._dynamo",)  # and 900 more: torch imports them at the first step of an optimizer


@dataclass(frozen=True)
class Job:
    """What stays the same for all submissions of one run."""

    assignment: Assignment
    checks_sha256: str
    seed: Seed
    confined: bool


def in_short(flags: list[str]) -> list[str]:
    """Flags ``check: what happened``, with those that say the same of several checks made one."""
    checks: dict[str, list[str]] = {}
    for flag in flags:
        check, what = flag.split(": ", 1)
        checks.setdefault(what, []).append(check)
    more = {what: f" and {len(where) - 1} more" if len(where) > 1 else "" for what, where in checks.items()}
    return [f"{where[0]}{more[what]}: {what}" for what, where in checks.items()]


class Grader:
    """Grades submissions one by one, with a judge and a sandbox that stay warm."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._given = job.assignment.given_texts()
        self._sandbox = Sandbox((*job.assignment.modules, *LATE_MODULES))
        with ExitStack() as stack:
            stack.callback(self._sandbox.close)
            if job.confined:
                self._sandbox.launch()  # it imports what submissions need while the judge imports it, too
            reference = stack.enter_context(laid_out(reference_program(job.assignment)))
            self._judge = Judge(job.assignment.checks, Live(job.seed.value, reference))
            self._public = Live(PUBLIC_SEED, reference)
            if job.confined:
                self._sandbox.start()
                use_huge_pages()  # of the judge, who will judge many
            self._open = stack.pop_all()

    def grade(self, submission: Submission) -> tuple[Result, Timings]:
        """Judge one submission."""
        begin = time.perf_counter()
        with self._room(submission.files | self._given) as room:
            observer = Observer(
                room,
                submission.files,
                submission.problems,
                messages=False,
                budget=self._job.assignment.seconds,
            )
            checks = self._judge.outcomes(observer)
        result = Result(
            assignment=self._job.assignment.name,
            student=submission.student,
            score=round(sum(check.points for check in checks), 6),
            max_score=round(sum(check.max_points for check in checks), 6),
            submission_sha256=submission.sha256,
            checks_sha256=self._job.checks_sha256,
            seed=self._job.seed.label,
            flags=sorted({*submission.flags, *in_short(observer.flags)}),
            checks=checks,
            confined=self._job.confined,
        )
        return result, Timings(time.perf_counter() - begin, observer.seconds)

    def draw(self, submission: Submission) -> list[Drawn]:
        """The drawings for the feedback, in a world of their own: what happens there weighs nothing."""
        if not self._drawings:
            return []
        with self._room(submission.files | self._given) as room:
            observer = Observer(room, submission.files, submission.problems, messages=False, budget=DRAWING_SECONDS)
            return [drawn for drawing in self._drawings if (drawn := draw(drawing, observer, self._public))]

    @cached_property
    def _drawings(self) -> list[Drawing]:
        # Read at the first use, not before: the judge has imported the same files by then, and rests.
        return drawings_in(self._job.assignment.checks)

    def close(self) -> None:
        """End the sandbox, and remove the reference that was laid out."""
        self._open.close()

    @contextmanager
    def _room(self, files: dict[str, str]) -> Iterator[Any]:
        with ExitStack() as stack:
            if self._job.confined:
                room: Any = SandboxProcess(self._sandbox, files)
            else:
                room = LocalRoom(stack.enter_context(laid_out(files)), self._job.assignment.modules)
            stack.callback(room.close)
            yield room


class _Warm:
    """The grader that this process keeps between tasks, and the job that it was made for."""

    job: Job | None = None
    grader: Grader | None = None


def _grader(job: Job) -> Grader:
    if _Warm.grader is None or _Warm.job != job:
        if _Warm.grader is not None:
            _Warm.grader.close()
        _Warm.job, _Warm.grader = job, Grader(job)
    return _Warm.grader


def grade_folder(job: Job, folder: Path, student: str) -> tuple[Result, Timings, list[Drawn]]:
    """The task of a worker: grade what lies in `folder`, with this process's warm grader for `job`."""
    submission = submissions.read(folder, student, job.assignment)
    return *_grader(job).grade(submission), _grader(job).draw(submission)


def is_graded(job: Job, results_dir: Path, submission: Submission) -> bool:
    """Whether the results folder holds what grading this submission now would give."""
    path = result_path(results_dir, job.assignment.name, submission.student)
    if not path.exists():
        return False
    try:
        result = read_result(path)
    except ValueError:
        return False  # damaged: grade again
    return (result.submission_sha256, result.checks_sha256, result.seed, result.confined) == (
        submission.sha256,
        job.checks_sha256,
        job.seed.label,
        job.confined,
    )


def grade_class(
    job: Job,
    submitted: Path,
    results_dir: Path,
    students: list[str],
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    done: Callable[[Result], None] = lambda result: None,
) -> None:
    """Grade `students` on Dask workers and write each result as it comes; `done` is called with every new one.

    `scheduler` is the address of a running Dask scheduler whose workers share this file system; without one, `workers`
    processes (as many as cores) are started here. May be interrupted at any time: what is written stays valid.
    """
    from dask.distributed import Client, LocalCluster, as_completed

    folders = {student: (submitted / student / job.assignment.name).absolute() for student in students}
    if scheduler:
        client = Client(scheduler)
    else:
        count = min(workers or os.cpu_count() or 1, max(len(students), 1))
        client = Client(LocalCluster(n_workers=count, threads_per_worker=1, dashboard_address=":0", silence_logs=50))
    with client:
        futures = [client.submit(grade_folder, job, folder, student, pure=False) for student, folder in folders.items()]
        try:
            for _, (result, timings, drawings) in as_completed(futures, with_results=True):
                write_timings(results_dir, result.assignment, result.student, timings)
                write_drawings(results_dir, result.assignment, result.student, drawings)
                write_result(results_dir, result)
                done(result)
        finally:
            client.cancel(futures)
            if not scheduler and client.cluster:
                client.cluster.close()
