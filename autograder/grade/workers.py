"""The workers: processes that grade the submissions of a class, and the result files that come of it.

Each worker process keeps one warm grader and grades one submission after another. This process itself imports neither
torch nor the checks.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from autograder import Failure
from autograder.drawings import Drawn, write_drawings
from autograder.grade import submissions
from autograder.grade.job import Job
from autograder.results import Result, Timings, find_result, write_result, write_timings
from autograder.sandbox.free_memory import free_bytes
from autograder.sandbox.limits import LIMITS

if TYPE_CHECKING:
    from autograder.grade.grader import Grader

MAX_KILLED = 3
WORKER_BYTES = LIMITS["memory_bytes"] + 2**30  # what a submission may use, and the libraries, twice


class _Warm:
    """The grader that this process keeps between tasks, and the job that it was made for."""

    job: Job | None = None
    grader: Grader | None = None
    lock = threading.Lock()  # a worker of a Dask cluster may have several threads


def _grader(job: Job) -> Grader:
    from autograder.grade.grader import Grader

    if _Warm.grader is None or _Warm.job != job:
        if _Warm.grader is not None:
            _Warm.grader.close()
            _Warm.grader = None
        _Warm.job, _Warm.grader = job, Grader(job)
    return _Warm.grader


def grade_folder(job: Job, folder: Path, student: str) -> tuple[Result, Timings, list[Drawn]]:
    """The task of a worker: grade the submission in `folder`, with this process's warm grader for `job`."""
    with _Warm.lock:
        submission = submissions.read(folder, student, job.assignment)
        result, timings = _grader(job).grade(submission)
        return result, timings, _grader(job).draw(submission, result)


def is_graded(job: Job, results_dir: Path, submitted: Path, student: str) -> bool:
    """Whether the results folder holds the result that grading the student's submission now would give."""
    result = find_result(results_dir, job.assignment.name, student)
    if result is None:
        return False
    handed = submissions.handed_in(submitted / student / job.assignment.name, job.assignment)
    now = (handed.sha256, job.checks_sha256, job.seed.label, job.confined)
    return (result.submission_sha256, result.checks_sha256, result.seed, result.confined) == now


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
    processes (see `default_workers`) are started here, which talk to this one over pipes. An interrupt at any time
    leaves valid files. Raises `Failure` for submissions during which workers were killed again and again.
    """
    folders = {student: (submitted / student / job.assignment.name).absolute() for student in students}
    results = _on_cluster(job, folders, scheduler) if scheduler else _on_this_machine(job, folders, workers)
    with closing(results):
        for result, timings, drawings in results:
            write_timings(results_dir, result.assignment, result.student, timings)
            write_drawings(results_dir, result.assignment, result.student, drawings)
            write_result(results_dir, result)
            done(result)


def default_workers() -> int:
    """One worker for each core, but no more than the free memory allows."""
    return max(1, min(os.cpu_count() or 1, free_bytes() // WORKER_BYTES))


def _on_this_machine(job: Job, folders: dict[str, Path], workers: int | None) -> Generator[Graded]:
    count = min(workers or default_workers(), len(folders))
    killed: Counter[str] = Counter()  # how often a worker was killed while this student's submission was graded
    in_a_row = 0  # kills of workers without a result between them
    left = dict(folders)
    while todo := [student for student in left if killed[student] < MAX_KILLED]:
        if in_a_row > MAX_KILLED * MAX_KILLED:
            raise Failure(
                f"Workers are killed again and again; {len(left)} submissions are not graded. Is this machine out of "
                "memory? Free some, or try --workers 1, and run the command again."
            )
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
                        in_a_row = 0
                        del left[running.pop(future)]
            except BrokenProcessPool:
                in_a_row += 1
                killed.update(running.values())
                count = max(1, count - 1)  # most often the machine has too little memory for so many
    if left:
        raise _killed(list(left))


def _killed(students: list[str]) -> Failure:
    return Failure(f"Workers were killed while they graded {', '.join(students)}; the other submissions are graded.")


@contextmanager
def _pool(count: int) -> Iterator[ProcessPoolExecutor]:
    """Worker processes that leave Ctrl-C to this one, and end with it, whatever they do then."""
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), initializer=_begin)
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:
            process.kill()
            process.join()


def _begin() -> None:
    """Prepare a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Wait until the process that started this one has ended, perhaps by SIGKILL, and end this one too."""
    parent = multiprocessing.parent_process()
    assert parent
    parent.join()
    os._exit(1)


def _on_cluster(job: Job, folders: dict[str, Path], scheduler: str) -> Generator[Graded]:
    from dask.distributed import Client, KilledWorker, as_completed

    killed = []
    with Client(scheduler) as client:
        futures = {
            client.submit(grade_folder, job, folder, student, pure=False): student
            for student, folder in folders.items()
        }
        try:
            for future in as_completed(futures):
                try:
                    yield future.result()
                except KilledWorker:  # Dask has tried it on several workers
                    killed.append(futures[future])
        finally:
            client.cancel(list(futures))
    if killed:
        raise _killed(sorted(killed))
