"""The workers: processes that grade the submissions of a class, and the result files that come of it.

Each worker process keeps one warm grader and grades one submission after another.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from autograder.drawings import Drawn, write_drawings
from autograder.grade import submissions
from autograder.grade.grader import Grader, Job
from autograder.grade.submissions import Submission
from autograder.results import Result, Timings, read_result, result_path, write_result, write_timings


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
    """The task of a worker: grade the submission in `folder`, with this process's warm grader for `job`."""
    submission = submissions.read(folder, student, job.assignment)
    return *_grader(job).grade(submission), _grader(job).draw(submission)


def is_graded(job: Job, results_dir: Path, submission: Submission) -> bool:
    """Whether the results folder holds the result that grading this submission now would give."""
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
    """Grade `students` on Dask workers and write each result as it comes; `done` is called with each.

    `scheduler` is the address of a running Dask scheduler whose workers share this file system; without one, `workers`
    processes (as many as cores) are started here. An interrupt at any time leaves valid files.
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
