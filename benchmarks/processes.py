"""Measure a command with all processes that it starts, also those that it kills."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

PR_SET_CHILD_SUBREAPER = 36
SECONDS_BETWEEN_LOOKS = 0.5


@dataclass(frozen=True)
class Usage:
    """The seconds and CPU seconds of a command, and what its workers used of the memory at some moments."""

    seconds: float
    cpu_seconds: float
    memory: list[tuple[float, int]] = field(default_factory=list)  # seconds, bytes (PSS) of a worker with its sandbox


def measured(command: Sequence[str], *, cwd: Path | None = None, env: dict[str, str] | None = None) -> Usage:
    """Run a command, whose output is discarded; raises CalledProcessError where it fails."""
    # The system counts a process with the one that waits for it. With this, orphans come to us, and not to process 1.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    begin, before = time.perf_counter(), _children()
    process = subprocess.Popen(command, cwd=cwd, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    memory: list[tuple[float, int]] = []
    while True:
        try:
            _, said = process.communicate(timeout=SECONDS_BETWEEN_LOOKS)
            break
        except subprocess.TimeoutExpired:
            memory += [(time.perf_counter() - begin, size) for size in _workers(process.pid)]
    seconds = time.perf_counter() - begin
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, command, stderr=said)
    return Usage(seconds, _children() - before, memory)


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _workers(grader: int) -> list[int]:
    found = []
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(grader).children():
            if any("spawn_main" in word for word in process.cmdline()):
                family = [process, *process.children(recursive=True)]
                found.append(sum(_proportional_set_size(member.pid) for member in family))
    return found


def _proportional_set_size(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
