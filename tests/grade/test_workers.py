"""Workers grade a class: over pipes or TLS, so that nobody else can talk to them, and also if some are killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import dask
import psutil
import pytest

from autograder import Failure
from autograder import assignment as assignments
from autograder.grade import workers
from autograder.grade.job import Job
from autograder.grade.seed import given
from autograder.results import Result, read_results

STUDENTS = ["s001", "s002", "s003", "s004"]


@pytest.fixture
def job(tiny_course: Path) -> Job:
    return Job.of(assignments.load("tiny", tiny_course), given(0), confined=False)


@pytest.fixture
def submitted(tiny_course: Path, tmp_path: Path) -> Path:
    program = (tiny_course / "solutions" / "tiny" / "tiny.py").read_text()
    for student in STUDENTS:
        (tmp_path / "submitted" / student / "tiny").mkdir(parents=True)
        (tmp_path / "submitted" / student / "tiny" / "tiny.py").write_text(program)
    return tmp_path / "submitted"


def scores(out: Path) -> list[tuple[str, float]]:
    return [(result.student, result.score) for result in read_results(out, "tiny")]


FULL = [(student, 3.0) for student in STUDENTS]


@pytest.mark.slow
def test_grading_on_this_machine_opens_no_port(job, submitted, tmp_path):
    seen: set[str] = set()
    names: set[str] = set()
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
                try:
                    names.add(process.name())
                    seen.update(str(c.laddr) for c in process.net_connections("inet") if c.status == "LISTEN")
                except psutil.Error:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        workers.grade_class(job, submitted, tmp_path / "out", STUDENTS, workers=2)
    finally:
        ended.set()
        watcher.join()
    assert scores(tmp_path / "out") == FULL
    assert names and not seen, f"somebody listens at {seen}"


@pytest.mark.slow
def test_a_cluster_with_tls_takes_only_graders_that_know_its_certificate(job, submitted, tmp_path):
    from distributed import LocalCluster
    from distributed.security import Security

    security = Security.temporary()
    own = security.get_tls_config_for_role("client")
    tls = {"ca-file": own["ca_file"], "client.cert": own["cert"], "client.key": own["key"]}
    settings = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(protocol="tls://", security=security, **settings) as cluster:
        # A client that was refused can block the next one of its process (its finalizer waits for the same lock).
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:
            refused = other.submit(
                workers.grade_class, job, submitted, tmp_path / "none", STUDENTS, scheduler=cluster.scheduler_address
            )
            with pytest.raises((OSError, TypeError, ValueError)):  # without a certificate
                refused.result()
        with dask.config.set({f"distributed.comm.tls.{key}": value for key, value in tls.items()}):
            workers.grade_class(job, submitted, tmp_path / "out", STUDENTS[:1], scheduler=cluster.scheduler_address)
    assert scores(tmp_path / "out") == FULL[:1]


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_no_result(job, submitted, tmp_path):
    killed: list[int] = []

    def kill_one(result: object) -> None:
        if not killed:
            for process in psutil.Process().children():
                if "spawn_main" in " ".join(process.cmdline()):
                    killed.append(process.pid)
                    os.kill(process.pid, signal.SIGKILL)
                    break

    workers.grade_class(job, submitted, tmp_path / "out", STUDENTS, workers=2, done=kill_one)
    assert killed and scores(tmp_path / "out") == FULL


def dies(job: Job, folder: Path, student: str) -> object:
    if student == "s002":
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)
    return _GRADE(job, folder, student)


_GRADE = workers.grade_folder


@pytest.mark.slow
def test_a_submission_that_kills_its_worker_is_named_and_the_others_are_graded(job, submitted, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "grade_folder", dies)
    with pytest.raises(Failure, match=r"while they graded s002; the other"):
        workers.grade_class(job, submitted, tmp_path / "out", STUDENTS, workers=2)
    assert scores(tmp_path / "out") == [entry for entry in FULL if entry[0] != "s002"]


@pytest.mark.slow
def test_a_submission_that_takes_long_holds_up_no_other(tiny_course, submitted, tmp_path):
    checks = tiny_course / "solutions" / "tiny" / "checks" / "test_1.py"
    checks.write_text(checks.read_text().replace(" points=", " seconds=6000, points="))
    about = tiny_course / "solutions" / "tiny" / "assignment.toml"
    about.write_text(about.read_text().replace("seconds = 60", "seconds = 6000"))
    graded: list[str] = []

    def done(result: Result) -> None:
        graded.append(result.student)
        if len(graded) == len(STUDENTS) - 1:
            (tmp_path / "all others").touch()

    program = submitted / "s001" / "tiny" / "tiny.py"
    others = str(tmp_path / "all others")
    wait = f"import pathlib, time\nwhile not pathlib.Path({others!r}).exists():\n    time.sleep(0.1)\n"
    program.write_text(wait + program.read_text())
    job = Job.of(assignments.load("tiny", tiny_course), given(0), confined=False)
    workers.grade_class(job, submitted, tmp_path / "out", STUDENTS, workers=2, done=done)
    assert graded[-1] == "s001" and scores(tmp_path / "out") == FULL
