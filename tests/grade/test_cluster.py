"""An existing Dask cluster with TLS: a scheduler and two workers in processes of their own, of which one is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from distributed.security import Security

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("needs_sandbox")]

PROGRAM = """
import time

import torch

time.sleep(0.5)


def double(x):
    return 2 * x


def plus(x, y):
    return x + y
"""
STUDENTS = [f"s{number:03}" for number in range(12)]


class Cluster:
    """A scheduler and workers; `environment` lets a client in."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        own = Security.temporary().get_tls_config_for_role("scheduler")
        options, self.environment = [], dict(os.environ)
        for option, variable, text in (
            ("--tls-ca-file", "CA_FILE", own["ca_file"]),
            ("--tls-cert", "CLIENT__CERT", own["cert"]),
            ("--tls-key", "CLIENT__KEY", own["key"]),
        ):
            path = folder / option.strip("-")
            path.write_text(text)
            options += [option, str(path)]
            self.environment[f"DASK_DISTRIBUTED__COMM__TLS__{variable}"] = str(path)
        about = folder / "scheduler.json"
        scheduler = ["scheduler", "--host", "tls://127.0.0.1", "--port", "0", "--no-dashboard"]
        self._start(stack, [*scheduler, "--scheduler-file", str(about), *options])
        while not about.exists():
            time.sleep(0.1)
        self.address = about.read_text().split('"address": "')[1].split('"')[0]
        worker = ["worker", self.address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
        local = ["--local-directory", str(folder)]
        self.workers = [self._start(stack, [*worker, *local, *options]) for _ in range(2)]

    def _start(self, stack: ExitStack, words: list[str]) -> subprocess.Popen:
        command = [sys.executable, "-m", "dask", *words]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stack.callback(process.wait)
        stack.callback(process.kill)
        return process


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with ExitStack() as stack:
        (tmp_path / "cluster").mkdir()
        yield Cluster(tmp_path / "cluster", stack)


def test_a_worker_that_is_killed_half_way_costs_no_result(cluster, tiny_course, tmp_path):
    for student in STUDENTS:
        (tmp_path / "submitted" / student / "tiny").mkdir(parents=True)
        (tmp_path / "submitted" / student / "tiny" / "tiny.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "autograder.cli", "--course", tiny_course, "grade", "tiny", tmp_path / "submitted"]
    command += ["--seed", "0", "--out"]
    grader = subprocess.Popen(
        [*command, tmp_path / "out", "--scheduler", cluster.address],
        **{"env": cluster.environment, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True},
    )

    def results(out: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (out / "tiny").glob("s???.json")}

    while len(results(tmp_path / "out")) < len(STUDENTS) // 3 and grader.poll() is None:
        time.sleep(0.05)
    assert grader.poll() is None, grader.communicate()[0]
    cluster.workers[0].send_signal(signal.SIGKILL)
    assert len(results(tmp_path / "out")) < len(STUDENTS)
    said, _ = grader.communicate()
    assert grader.returncode == 0, said
    subprocess.run([*command, tmp_path / "alone", "--workers", "1"], check=True, capture_output=True)
    assert results(tmp_path / "out") == results(tmp_path / "alone")
    assert sorted(results(tmp_path / "out")) == [f"{student}.json" for student in STUDENTS]
