"""What grading one submission costs in addition to the submission's own computing, once everything is warm.

Overhead is the time from the submission's text to its result, less the time that the submission's process spent in
probes: requests and replies, judging, and waiting for the container of the last submission to end. The table shows the
median, the least overhead (other work on the machine disturbs it less), and the CPU time of the judge, which
is most of the overhead that is not waiting.

The peer is a fresh Python process for every submission that imports what the submission needs.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from autograder import assignment
from autograder.grade import seed, submissions
from autograder.grade.grader import Grader, Job
from autograder.quality.cases import Case


def run(quick: bool = False) -> list[dict]:
    """Three rows per assignment: overhead of a correct submission, median and least, and the judge's CPU time."""
    return [row for name in assignment.names() for row in measure(name, 5 if quick else 25)]


def measure(name: str, repeats: int) -> list[dict]:
    """Grade the reference of an assignment `repeats` times with one warm grader."""
    about = assignment.load(name)
    grader = Grader(Job.of(about, seed.given(0), confined=True))
    with TemporaryDirectory() as folder:
        Case("class", "s001", "", "reference", ()).write(about, Path(folder) / "s001" / name)
        submission = submissions.read(Path(folder) / "s001" / name, "s001", about)
    own, overhead, judging = [], [], []
    for _ in range(repeats + 2):
        begin = time.process_time()
        _, timings = grader.grade(submission)
        judging.append(1000 * (time.process_time() - begin))
        own.append(1000 * sum(timings.checks.values()))
        overhead.append(1000 * timings.seconds - own[-1])
    grader.close()
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {', '.join(about.modules or ('torch',))}"], check=True)
    cold = 1000 * (time.perf_counter() - begin)
    what = f"overhead per submission of {name}, which itself takes {statistics.median(own[2:]):.0f} ms"
    found = {
        f"{what}: median of {repeats}": statistics.median(overhead[2:]),
        f"{what}: least of {repeats}": min(overhead[2:]),
        f"CPU time of the judge per submission of {name}: least of {repeats}": min(judging[2:]),
    }
    peer = {"peer": "starting Python and importing", "peer_ms": cold}
    return [{"case": case, "ours_ms": ours, **peer, "ratio": ours / cold} for case, ours in found.items()]
