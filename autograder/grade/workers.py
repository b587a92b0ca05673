"""The workers: processes that grade the submissions of a class, and the result files that come of it.

Each worker process keeps one warm grader and grades one submission after another.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path

from autograder import Failure
from autograder.drawings import Drawn, write_drawings
from autograder.grade import submissions
from autograder.grade.grader import Grader, Job
from autograder.grade.submissions import Submission
from autograder.results import Result, Timings, read_result, result_path, write_result, write_timings

MAX_KILLED = 3


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


Graded = tuple[Result, Timings, list[Drawn]]


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
    """Grade `students` in worker processes and write each result as it comes; `done` is called with each.

    `scheduler` is the address of a running Dask scheduler whose workers share this file system; without one, `workers`
    processes (as many as cores) are started here, which talk to this one over pipes. An interrupt at any time leaves
    valid files. Raises `Failure` for submissions during which workers were killed again and again.
    """
    folders = {student: (submitted / student / job.assignment.name).absolute() for student in students}
    results = _on_cluster(job, folders, scheduler) if scheduler else _on_this_machine(job, folders, workers)
    with closing(results):
        for result, timings, drawings in results:
            write_timings(results_dir, result.assignment, result.student, timings)
            write_drawings(results_dir, result.assignment, result.student, drawings)
            write_result(results_dir, result)
            done(result)


def _on_this_machine(job: Job, folders: dict[str, Path], workers: int | None) -> Generator[Graded]:
    count = min(workers or os.cpu_count() or 1, len(folders))
    killed: Counter[str] = Counter()  # how often a worker was killed while this student's submission was graded
    left = dict(folders)
    while todo := [student for student in left if killed[student] < MAX_KILLED]:
        suspects = [student for student in todo if killed[student]]
        waiting = iter(suspects[:1] or todo)  # a suspect is graded alone, so that no other comes under suspicion
        running: dict[Future[Graded], str] = {}
        with _pool(1 if suspects else count) as pool:
            try:
                while True:
                    for student in islice(waiting, count - len(running)):
                        running[pool.submit(grade_folder, job, left[student], student)] = student
                    if not running:
                        break
                    ended = wait(running, return_when=FIRST_COMPLETED).done
                    for future in sorted(ended, key=lambda future: future.exception() is not None):
                        yield future.result()
                        del left[running.pop(future)]
            except BrokenProcessPool:
                killed.update(running.values())
                count = max(1, count - 1)  # most often the machine has too little memory for so many
    if left:
        raise Failure(f"Workers were killed while they graded {', '.join(left)}; the other submissions are graded.")


@contextmanager
def _pool(count: int) -> Iterator[ProcessPoolExecutor]:
    """Worker processes that leave Ctrl-C to this one, and are killed at the end, whatever they do then."""
    others = set(multiprocessing.active_children())
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, spawn, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN))
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:
            process.kill()
            process.join()


def _on_cluster(job: Job, folders: dict[str, Path], scheduler: str) -> Generator[Graded]:
    from dask.distributed import Client, as_completed

    with Client(scheduler) as client:
        futures = [client.submit(grade_folder, job, folder, student, pure=False) for student, folder in folders.items()]
        try:
            for _, graded in as_completed(futures, with_results=True):
                yield graded
        finally:
            client.cancel(futures)
