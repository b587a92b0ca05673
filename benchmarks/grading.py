"""What grading one submission costs beside the submission's own computing, once everything is warm.

The peer is the plain way: a fresh Python process for every submission that imports what the submission needs.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from autograder import assignment, seed, submissions
from autograder.grading import Grader, Job
from autograder.quality.cases import Case


def run(quick: bool = False) -> list[dict]:
    """One row per assignment: the median overhead of a correct submission."""
    return [row for name in assignment.names() for row in measure(name, 5 if quick else 25)]


def measure(name: str, repeats: int) -> list[dict]:
    """Grade the reference of an assignment `repeats` times with one warm grader."""
    about = assignment.load(name)
    grader = Grader(Job(about, about.checks_sha256(), seed.given(0), confined=True))
    with TemporaryDirectory() as folder:
        Case("class", "s001", "", "reference", ()).write(about, Path(folder) / "s001" / name)
        submission = submissions.read(Path(folder) / "s001" / name, "s001", about)
    whole, own = [], []
    for _ in range(repeats + 2):
        _, timings = grader.grade(submission)
        whole.append(timings.seconds)
        own.append(sum(timings.checks.values()))
    grader.close()
    overhead = [1000 * (total - inside) for total, inside in zip(whole[2:], own[2:], strict=True)]
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {', '.join(about.modules or ('torch',))}"], check=True)
    cold = 1000 * (time.perf_counter() - begin)
    return [
        {
            "case": f"overhead per submission of {name}, which itself takes {1000 * statistics.median(own[2:]):.0f} ms",
            "ours_ms": statistics.median(overhead),
            "peer": "starting Python and importing",
            "peer_ms": cold,
            "ratio": statistics.median(overhead) / cold,
        }
    ]
