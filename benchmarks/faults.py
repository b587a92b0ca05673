"""Kills processes of a grading at random moments, and compares the results with those of an undisturbed grading.

    python -m benchmarks.faults --kills 100

A moment and a process are drawn: the grader, a worker, a sandbox, its warm process, or a container. Whenever the grader
ends before the class is graded, it is started again. After each end, every result file must be complete and have the
bytes of the undisturbed grading, no file that was there before may have been written again, and no process may be left.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from autograder.grade.results_folder import LOCK
from autograder.release.new import create
from ebmcourse.progress import progress

NAME = "fresh"
KINDS = ("grader", "worker", "sandbox", "warm process", "container")
LEFT_SECONDS = 60.0  # in which the processes of a killed grader must have ended
RIGHT = """
import time

import torch

time.sleep({seconds})


def free_energy(energies, beta):
    return -torch.logsumexp(-beta * energies, dim=1) / beta * {factor}
"""
OTHERS = ["", "def free_energy(energies, beta)\n", "import os\nos._exit(0)\n"]


@dataclass
class Report:
    """What was killed and what came of it; `complaints` says where a promise was broken."""

    kills: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    classes: int = 0
    compared: int = 0
    complaints: list[str] = field(default_factory=list)


class Course:
    """A small course with a class, of which each submission takes a little time."""

    def __init__(self, folder: Path, students: int, seconds: float) -> None:
        self.folder, self.submitted = folder / "course", folder / "submitted"
        create(NAME, self.folder)
        for number in range(students):
            text = RIGHT.format(seconds=seconds, factor=1 + number % 2)
            place = self.submitted / f"s{number:03}" / NAME
            place.mkdir(parents=True)
            text = OTHERS[number // 4 % len(OTHERS)] if number % 4 == 3 else text
            (place / f"ex_{NAME}.py").write_text(text)

    def command(self, out: Path, workers: int = 2) -> list[str]:
        options = ["--out", str(out), "--seed", "0", "--workers", str(workers)]
        course = [sys.executable, "-m", "autograder.cli", "--course", str(self.folder)]
        return [*course, "grade", NAME, str(self.submitted), *options]

    def grade(self, out: Path) -> dict[str, bytes]:
        """Grade the class undisturbed."""
        subprocess.run(self.command(out), check=True, capture_output=True)
        return contents(out)


def contents(out: Path) -> dict[str, bytes]:
    """The files in a folder of results except the timings, and the file that locks it."""
    files = [path for path in out.rglob("*") if path.is_file()] if out.is_dir() else []
    kept = [path for path in files if not path.stem.endswith(".timings") and path.name != LOCK]
    return {str(path.relative_to(out)): path.read_bytes() for path in kept}


def kill_at_random(
    folder: Path,
    kills: int,
    seed: int = 0,
    *,
    students: int = 24,
    seconds: float = 0.3,
    progress: Callable[[int], None] = lambda done: None,
) -> Report:
    """Grade a class in `folder` again and again until so many processes have been killed."""
    course = Course(folder, students, seconds)
    begin = time.monotonic()
    expected = course.grade(folder / "undisturbed")
    typical = time.monotonic() - begin
    report, rng = Report(), random.Random(seed)
    while report.kills.total() < kills:
        out = folder / f"disturbed-{report.classes}"
        while _run(course, out, expected, kills, typical / 2, rng, report, progress) != 0:
            pass
        report.classes += 1
        if (found := contents(out)) != expected:
            names = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
            report.complaints.append(f"at the end these files differ: {', '.join(names)}")
    return report


def _run(
    course: Course,
    out: Path,
    expected: dict[str, bytes],
    kills: int,
    longest: float,
    rng: random.Random,
    report: Report,
    progress: Callable[[int], None],
) -> int:
    """Start the grader once and kill until it ends; returns its exit code."""
    report.starts += 1
    before = _times(out)
    known: set[psutil.Process] = set()
    errors = out.with_name("errors")  # a pipe would stay open as long as a worker lives
    with open(errors, "w") as file:
        grader = subprocess.Popen(course.command(out), stdout=subprocess.DEVNULL, stderr=file)
    while report.kills.total() < kills:
        try:
            grader.wait(rng.uniform(0, longest))
            break
        except subprocess.TimeoutExpired:
            kind = rng.choice(KINDS)
            while grader.poll() is None:
                kinds = _kinds(psutil.Process(grader.pid))
                known.update(process for processes in kinds.values() for process in processes)
                if kind in kinds:
                    victim = rng.choice(sorted(kinds[kind], key=lambda process: process.pid))
                    with contextlib.suppress(psutil.NoSuchProcess):
                        victim.kill()
                        report.kills[kind] += 1
                        progress(report.kills.total())
                    break
                time.sleep(0.05)  # until there is one
    grader.wait()
    said = errors.read_text()
    if "Traceback" in said or grader.returncode not in (0, 1, -9):
        report.complaints.append(f"the grader ended with {grader.returncode}: {said[-2000:]}")
    _, left = psutil.wait_procs(known, LEFT_SECONDS)
    if left:
        report.complaints.append(f"{len(left)} processes are left: {[process.cmdline()[:6] for process in left]}")
    found = _finished(out)
    report.compared += len(found)
    if wrong := sorted(name for name, content in found.items() if content != expected.get(name)):
        report.complaints.append(f"after kill {report.kills.total()} these files differ: {', '.join(wrong)}")
    after = _times(out)
    if again := sorted(name for name in before if before[name] != after.get(name)):
        report.complaints.append(f"graded twice: {', '.join(again)}")
    return grader.returncode


def _finished(out: Path) -> dict[str, bytes]:
    """The contents without hidden files, which killed graders have begun and the next one removes."""
    return {name: content for name, content in contents(out).items() if not Path(name).name.startswith(".")}


def _times(out: Path) -> dict[str, int]:
    return {name: (out / name).stat().st_mtime_ns for name in _finished(out)}


def _kinds(grader: psutil.Process) -> dict[str, list[psutil.Process]]:
    """The processes of a grading by kind."""
    kinds: dict[str, list[psutil.Process]] = {"grader": [grader]}
    try:
        children = grader.children(recursive=True)
    except psutil.NoSuchProcess:
        return kinds
    for process in children:
        try:
            words, parent = process.cmdline(), process.parent()
            above = parent.cmdline() if parent else []
        except psutil.Error:
            continue
        if any("spawn_main" in word for word in words):
            kind = "worker"
        elif words and words[0].endswith("bwrap"):
            kind = "sandbox"
        elif any(word.endswith("inside.py") for word in words):
            kind = "container" if any(word.endswith("inside.py") for word in above[:4]) else "warm process"
        else:
            continue
        kinds.setdefault(kind, []).append(process)
    return kinds


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill processes of a grading at random moments.")
    parser.add_argument("--kills", type=int, default=100, help="number of kills (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (default: 0)")
    args = parser.parse_args()
    begin = time.monotonic()
    with TemporaryDirectory() as folder, progress("Kills") as show:
        report = kill_at_random(Path(folder), args.kills, args.seed, progress=lambda done: show(done, args.kills))
    kinds = ", ".join(f"{count} × {kind}" for kind, count in sorted(report.kills.items()))
    print(
        f"{report.kills.total()} kills ({kinds}) in {time.monotonic() - begin:.0f} s: {report.starts} starts of the "
        f"grader, {report.classes} classes, {report.compared} comparisons of files; {len(report.complaints)} complaints"
    )
    for complaint in report.complaints:
        print(f"* {complaint}")
    return 1 if report.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
