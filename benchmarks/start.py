"""What it costs to start a command, in CPU seconds of all its processes, next to importing torch.

`ebmcourse check` is measured on the released `jem` with its reference solution, for all parts and for one. The row for
`--watch` is the own computing of a second check, from the saved file to the outcomes, in the process that waits and in
the fresh process that it forks.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from autograder.assignment import COURSE, load

AUTOGRADER = [sys.executable, "-m", "autograder.cli"]
EBMCOURSE = [sys.executable, "-m", "ebmcourse.cli"]
COMMANDS = {
    "autograder --help": [*AUTOGRADER, "--help"],
    "autograder export --help": [*AUTOGRADER, "export", "--help"],
    "autograder report --help": [*AUTOGRADER, "report", "--help"],
    "autograder collect --help": [*AUTOGRADER, "collect", "--help"],
    "autograder new --help": [*AUTOGRADER, "new", "--help"],
    "autograder grade nosuch … (wrong use)": [*AUTOGRADER, "grade", "nosuch", "submitted", "--out", "results"],
    "autograder report . (no results)": [*AUTOGRADER, "report", "benchmarks"],
    "ebmcourse doctor --help": [*EBMCOURSE, "doctor", "--help"],
}


def run(quick: bool = False) -> list[dict]:
    """A row for each command: the least of some runs; the peer is ``python -c "import torch"``."""
    repeats = 1 if quick else 5
    torch = _least([sys.executable, "-c", "import torch"], repeats)
    seconds = {name: _least(command, repeats) for name, command in COMMANDS.items()}
    with TemporaryDirectory() as folder:
        work = Path(folder) / "jem"
        shutil.copytree(COURSE / "assignments" / "jem", work)
        for script in load("jem").scripts:
            shutil.copyfile(script, work / script.name)
        check = [*EBMCOURSE, "check", str(work)]
        seconds["ebmcourse check jem"] = _least(check, min(repeats, 3))
        seconds["ebmcourse check jem --part 3.2a"] = _least([*check, "--part", "3.2a"], min(repeats, 3))
        seconds["ebmcourse check jem --part 3.2a, again with --watch"] = _again(work)
    return [
        {
            "case": f"CPU time of `{name}`",
            "ours_ms": 1000 * ours,
            "peer": "import torch",
            "peer_ms": 1000 * torch,
            "ratio": ours / torch,
        }
        for name, ours in seconds.items()
    ]


def _least(command: Sequence[str], repeats: int) -> float:
    """The least CPU time of a command with its children, after one run that fills the caches."""
    spent = []
    for _ in range(repeats + 1):
        before = _children()
        subprocess.run(command, cwd=COURSE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        spent.append(_children() - before)
    return min(spent[1:])


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _again(work: Path) -> float:
    """The CPU time of a check that follows another one in a warm process; fails where a check does not pass."""
    from ebmcourse.checking.public import PublicChecks

    checks = PublicChecks(work, "3.2a")
    with checks.process() as process:
        assert all(outcome.passed for outcome in checks.outcomes(process))
        own, others = time.process_time(), 0.0
        checks.reload(process)
        outcomes = checks.outcomes(process)
        own = time.process_time() - own
        others = sum(_cpu_seconds(child) for child in _descendants())
        assert all(outcome.passed for outcome in outcomes)
    return own + others


def _descendants() -> list[int]:
    """The processes that the server has forked: children of children of this process."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        fields = path.read_text().rpartition(")")[2].split()
        parents[int(path.parent.name)] = int(fields[1])
    servers = [pid for pid, parent in parents.items() if parent == os.getpid()]
    return [pid for pid, parent in parents.items() if parent in servers]


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
