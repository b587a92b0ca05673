"""What grading costs: one submission in a worker that has started, and a whole class.

`python -m benchmarks grading` measures the overhead of one submission in addition to its own computing. Overhead is the
time from the submission's text to its result, less the time that the submission's process spent in probes: requests
and replies, judging, and waiting for the container of the last submission to end. The table shows the median, the least
overhead (other work on the machine disturbs it less), and the CPU time of the judge, which is most of the overhead that
is not waiting. The peer is a fresh Python process that imports what the submission needs.

`python -m benchmarks.grading --submissions 300` grades a class of variants, mutants, stubs and a few programs with an
endless loop, with one and with two workers, and some of the same submissions with `nbgrader autograde` and in a process
for each. It writes every figure to build/grading/ as soon as it is measured; the same command goes on where it was
stopped, and prints the table for docs/results.md at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

from autograder import assignment as assignments
from autograder.assignment import COURSE, Assignment
from autograder.grade import seed, submissions
from autograder.grade.fingerprint import fingerprint
from autograder.grade.job import Job
from autograder.quality.cases import Case, load
from autograder.results import read_timings
from benchmarks.processes import Usage, measured

FOLDER = Path("build") / "grading"
NAMES = ("jem", "structured_prediction")
SHARES = {"variants": 0.45, "mutants": 0.45, "stub": 0.1}
LOOPS = ("25-endless-loop", "25-loop-at-import", "25-loop-in-a-given-name")  # two of each that an assignment has
SIZES = (10, 30, 100, 300)
TURNS = 3  # of one and two workers, since the speed of a shared machine changes within minutes


def run(quick: bool = False) -> list[dict]:
    """Three rows per assignment: overhead of a correct submission, median and least, and the judge's CPU time."""
    return [row for name in assignments.names() for row in overhead(name, 5 if quick else 25)]


def overhead(name: str, repeats: int) -> list[dict]:
    """Grade the reference of an assignment `repeats` times with one warm grader."""
    from autograder.grade.grader import Grader

    about = assignments.load(name)
    grader = Grader(Job.of(about, seed.given(0), confined=True))
    with TemporaryDirectory() as folder:
        Case("class", "s001", "", "reference", ()).write(about, Path(folder) / "s001" / name)
        submission = submissions.read(Path(folder) / "s001" / name, "s001", about)
    own, more, judging = [], [], []
    for _ in range(repeats + 2):
        begin = time.process_time()
        _, timings = grader.grade(submission)
        judging.append(1000 * (time.process_time() - begin))
        own.append(1000 * sum(timings.checks.values()))
        more.append(1000 * timings.seconds - own[-1])
    grader.close()
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {', '.join(about.modules or ('torch',))}"], check=True)
    cold = 1000 * (time.perf_counter() - begin)
    what = f"overhead per submission of {name}, which itself takes {statistics.median(own[2:]):.0f} ms"
    found = {
        f"{what}: median of {repeats}": statistics.median(more[2:]),
        f"{what}: least of {repeats}": min(more[2:]),
        f"CPU time of the judge per submission of {name}: least of {repeats}": min(judging[2:]),
    }
    peer = {"peer": "starting Python and importing", "peer_ms": cold}
    return [{"case": case, "ours_ms": ours, **peer, "ratio": ours / cold} for case, ours in found.items()]


class Class:
    """A generated class of an assignment, and the figures that were measured with it, kept in a file."""

    def __init__(self, name: str, size: int, folder: Path) -> None:
        self.assignment = assignments.load(name)
        self.cases = generated(self.assignment, size)
        self.folder = folder.absolute() / f"{name}-{size}"
        self.submitted = self.folder / "submitted"
        self._file = self.folder / "figures.json"
        self.figures: dict[str, Any] = json.loads(self._file.read_text()) if self._file.exists() else {}
        if self.figures.get("fingerprint") != (current := fingerprint(self.assignment)):
            self.figures = {"fingerprint": current}  # those of an older version say nothing about this one
        for student, case in self.cases.items():
            if not (place := self.submitted / student / name).exists():
                case.write(self.assignment, place)

    def measure(self, what: str, function: Callable[[], Any]) -> None:
        """Call the function and keep what it returns, unless that was done by an earlier run."""
        if what not in self.figures:
            self.figures[what] = function()
            self._file.write_text(json.dumps(self.figures, indent=2) + "\n")

    def steps(self, peers: int) -> dict[str, Callable[[], Any]]:
        """What there is to measure, in this order."""
        chosen = [student for student, case in self.cases.items() if case.kind in ("variants", "mutants")][:peers]
        return {
            "torch": lambda: importing(["torch"]),
            "import": lambda: importing(sandbox_modules(self.assignment)),
            "one": lambda: self.one(chosen[0]),
            "1 worker": lambda: self.grade(1),
            "2 workers": lambda: self.grade(2),
            "turns": self.turns,
            "unchanged": lambda: measured(self.command(self.results(2), "--workers", "2")).cpu_seconds,
            "nbgrader": lambda: self.nbgrader(chosen),
            "processes": lambda: self.processes(chosen),
        }

    def results(self, workers: int) -> Path:
        return self.folder / f"results-{workers}"

    def command(self, out: Path, *options: str, submitted: Path | None = None) -> list[str]:
        where = str(submitted or self.submitted)
        grade = [sys.executable, "-m", "autograder.cli", "grade", self.assignment.name, where]
        return [*grade, "--out", str(out), "--seed", "0", *options]

    def one(self, student: str) -> float:
        """CPU seconds of grading one submission."""
        with TemporaryDirectory() as out:
            command = self.command(Path(out), "--student", student, "--force")
            return min(measured(command).cpu_seconds for _ in range(2))

    def turns(self) -> list[list[float]]:
        """Seconds of grading up to 60 right solutions, from the first result to the last.

        In turns with one worker, with two workers, and with two graders at once that have one worker each and know
        nothing of each other: two workers cannot be faster than these.
        """
        name, found = self.assignment.name, []
        plain = [student for student, case in self.cases.items() if case.kind == "variants"][:60]
        with TemporaryDirectory() as folder:
            submitted = Path(folder) / "submitted"
            for student in plain:
                shutil.copytree(self.submitted / student, submitted / student)

            def seconds(*workers: int) -> float:
                outs = [Path(mkdtemp(dir=folder)) for _ in workers]
                running = [
                    subprocess.Popen(
                        self.command(out, "--workers", str(count), submitted=submitted), stdout=subprocess.DEVNULL
                    )
                    for out, count in zip(outs, workers, strict=True)
                ]
                assert not any([process.wait() for process in running])
                times = [[(out / name / f"{student}.json").stat().st_mtime for student in plain] for out in outs]
                return max(map(max, times)) - max(map(min, times))

            for _ in range(TURNS):
                found.append([seconds(1), seconds(2), seconds(1, 1)])
        return found

    def grade(self, workers: int) -> dict[str, Any]:
        """Grade the class from the beginning."""
        out, name = self.results(workers), self.assignment.name
        shutil.rmtree(out, ignore_errors=True)
        begin = time.time()
        usage = measured(self.command(out, "--workers", str(workers)))
        timings = {student: read_timings(out, name, student) for student in self.cases}
        loops = [student for student, case in self.cases.items() if case.name in LOOPS]
        plain = [timing for student, timing in timings.items() if timing and student not in loops]
        own = [sum(timing.checks.values()) for timing in plain]
        done = sorted((out / name / f"{student}.json").stat().st_mtime - begin for student in self.cases)
        return {
            "seconds": usage.seconds,
            "cpu_seconds": usage.cpu_seconds,
            "memory": max((size for _, size in usage.memory), default=0),
            "memory_after_start": max((size for when, size in usage.memory if when > done[0]), default=0),
            "done": done,
            "own": statistics.median(own),
            "own_mean": statistics.mean(own),
            "overhead": statistics.median(timing.seconds - used for timing, used in zip(plain, own, strict=True)),
            "loops": [timing.seconds for student in loops if (timing := timings[student])],
        }

    def nbgrader(self, students: list[str]) -> dict[str, Any]:
        """Grade these submissions with `nbgrader autograde`."""
        name = self.assignment.name
        with TemporaryDirectory() as folder:
            course = Path(folder) / "course"
            for kind in ("solutions", "assignments"):
                shutil.copytree(COURSE / kind / name, course / kind / name)
            shutil.copy(COURSE / "nbgrader_config.py", course)
            for student in students:
                place = course / "submitted" / student / name
                shutil.copytree(COURSE / "assignments" / name, place)
                shutil.copytree(self.submitted / student / name, place, dirs_exist_ok=True)
            environment = os.environ | {
                "PATH": sysconfig.get_path("scripts") + os.pathsep + os.environ["PATH"],  # nbgrader calls alembic
                "EBM_COURSE_SEED_FILE": str(Path(folder) / "seed"),
                "OMP_NUM_THREADS": "1",
            }
            release = [sys.executable, "-m", "autograder.cli", "--course", str(course), "release", name]
            subprocess.run(release, env=environment, check=True, capture_output=True)
            nbgrader = [sys.executable, "-m", "nbgrader"]
            subprocess.run(
                [*nbgrader, "generate_assignment", name, "--force"],
                **{"cwd": course, "env": environment, "check": True, "capture_output": True},
            )
            usage = measured([*nbgrader, "autograde", name, "--create"], cwd=course, env=environment)
        return per_submission(usage, len(students))

    def processes(self, students: list[str]) -> dict[str, Any]:
        """Grade these submissions without a sandbox, in a new Python for each."""
        program = "import sys; from pathlib import Path; from autograder import assignment\n"
        program += "from autograder.grade import seed, submissions; from autograder.grade.grader import Grader\n"
        program += "from autograder.grade.job import Job\nabout = assignment.load(sys.argv[1])\n"
        program += "grader = Grader(Job.of(about, seed.given(0), confined=False))\n"
        program += "grader.grade(submissions.read(Path(sys.argv[2]), 's001', about)); grader.close()\n"
        name = self.assignment.name
        places = [str(self.submitted / student / name) for student in students]
        usages = [measured([sys.executable, "-c", program, name, place]) for place in places]
        total = Usage(sum(usage.seconds for usage in usages), sum(usage.cpu_seconds for usage in usages))
        return per_submission(total, len(students))


def importing(modules: Iterable[str]) -> float:
    """CPU seconds of importing modules once."""
    return min(measured([sys.executable, "-c", f"import {', '.join(modules)}"]).cpu_seconds for _ in range(3))


def sandbox_modules(assignment: Assignment) -> tuple[str, ...]:
    from autograder.grade.grader import modules  # imports torch

    return modules(assignment)


def per_submission(usage: Usage, count: int) -> dict[str, Any]:
    return {"count": count, "seconds": usage.seconds / count, "cpu_seconds": usage.cpu_seconds / count}


def generated(assignment: Assignment, size: int) -> dict[str, Case]:
    """The submissions of a class: the same for the same size."""
    rng = random.Random(0)
    pools = {"variants": load(assignment, "variants"), "mutants": load(assignment, "mutants")}
    pools["stub"] = [Case("attacks", "stub", "The untouched stub", "stub", ())]
    loops = [case for case in load(assignment, "attacks") if case.name in LOOPS]
    cases = [*loops, *loops] if size >= 100 else loops[:1]
    while len(cases) < size:
        (kind,) = rng.choices(list(SHARES), list(SHARES.values()))
        cases.append(rng.choice(pools[kind]))
    rng.shuffle(cases)
    return {f"s{number:04}": case for number, case in enumerate(cases, 1)}


def table(classes: list[Class]) -> str:
    """The figures as a table of Markdown."""
    columns = [rows(one) for one in classes]
    lines = [f"| | {' | '.join(f'`{one.assignment.name}`' for one in classes)} |", "|---" * (len(classes) + 1) + "|"]
    lines += [f"| {title} | {' | '.join(column[title] for column in columns)} |" for title in columns[0]]
    return "\n".join(lines) + "\n"


def rows(one: Class) -> dict[str, str]:
    """Title -> figure."""
    found, size = one.figures, len(one.cases)
    alone, both, nbgrader, processes = (found[key] for key in ("1 worker", "2 workers", "nbgrader", "processes"))
    kinds = Counter(kind_of(case) for case in one.cases.values())
    # The system does not count the processes of a container whose sandbox is killed; they wait for nothing.
    each = (alone["cpu_seconds"] - found["one"]) / (size - 1) + alone["own_mean"]
    turns = [(one / two / 2, one / twice) for one, two, twice in found["turns"]]
    loops = iter(alone["loops"])
    spent = list(accumulate(next(loops) if kind_of(case) == "loops" else 0.0 for case in one.cases.values()))
    slope, start = line([done - others for done, others in zip(alone["done"][:100], spent, strict=False)])
    sizes = [count for count in SIZES if count <= size]

    def several(numbers: Iterable[float], digits: int = 0) -> str:
        return ", ".join(f"{number:.{digits}f}" for number in numbers)

    def peer(figures: dict[str, Any]) -> str:
        cpu = figures["cpu_seconds"]
        return f"{cpu:.1f}, {cpu / each:.0f} ({figures['count']} submissions)"

    return {
        "submissions": f"{size}: " + ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()),
        "1 worker: seconds, of each submission": f"{alone['seconds']:.0f}, {alone['seconds'] / size:.2f}",
        "2 workers: seconds, of each submission": f"{both['seconds']:.0f}, {both['seconds'] / size:.2f}",
        "speed of 2 workers / (2 × speed of 1), in turns": several((two for two, _ in turns), 2),
        "the same of 2 graders that know nothing of each other": several((twice for _, twice in turns), 2),
        "own computing of a submission, median [ms]: 1 worker, 2 workers": several(
            1000 * usage["own"] for usage in (alone, both)
        ),
        "overhead of a submission, median [ms]": f"{1000 * alone['overhead']:.0f}",
        "CPU seconds of a submission (own computing by the clock), beyond the start": f"{each:.2f}",
        "most memory (PSS) of a worker with its sandbox, and after the self-test [MiB]": several(
            both[when] / 2**20 for when in ("memory", "memory_after_start")
        ),
        "endless loops: seconds of each": several(alone["loops"]),
        "limit of a submission [s]": f"{one.assignment.seconds:.0f}",
        "`nbgrader autograde`: CPU seconds of a submission, ratio": peer(nbgrader),
        "a process for each submission: CPU seconds of it, ratio": peer(processes),
        "CPU seconds of importing torch, and all modules of the assignment": several(
            (found[key] for key in ("torch", "import")), 1
        ),
        "CPU seconds of grading one submission, ratio to each of the two": several(
            (found["one"], found["one"] / found["torch"], found["one"] / found["import"]), 1
        ),
        "CPU seconds where nothing has changed": f"{found['unchanged']:.2f}",
        f"1 worker: seconds until {several(sizes)} are graded": several(alone["done"][count - 1] for count in sizes),
        "the same by a line through the first 100, and the loops": several(
            start + slope * count + spent[count - 1] for count in sizes
        ),
        "that line at 1,000 and 3,000, with loops in proportion": several(
            start + (slope + spent[-1] / size) * count for count in (1000, 3000)
        ),
    }


def kind_of(case: Case) -> str:
    return "loops" if case.name in LOOPS else "stubs" if case.name == "stub" else case.kind


def line(done: list[float]) -> tuple[float, float]:
    """Slope and start of the line of least squares through (number of results, seconds)."""
    fit = statistics.linear_regression(range(1, len(done) + 1), done)
    return fit.slope, fit.intercept


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the grading of a class.")
    parser.add_argument("--submissions", type=int, default=300, help="number per assignment (default: %(default)s)")
    parser.add_argument("--peers", type=int, default=3, help="submissions for the slow peers (default: %(default)s)")
    default = f"default: {' '.join(NAMES)}"
    parser.add_argument("--assignments", nargs="+", default=NAMES, choices=assignments.names(), help=default)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="folder to write to (default: %(default)s)")
    args = parser.parse_args()
    classes = [Class(name, args.submissions, args.folder) for name in args.assignments]
    steps = [(one, what, step) for one in classes for what, step in one.steps(args.peers).items()]
    for number, (one, what, step) in enumerate(steps, start=1):
        print(f"Step {number} of {len(steps)}: {one.assignment.name}, {what}", file=sys.stderr)
        one.measure(what, step)
    text = table(classes)
    (args.folder / "table.md").write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
