"""`make demo`: releases, grades and reports all assignments with the sample classes of the course.

Runs the instructor's commands one after the other and shows them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from autograder import assignment as assignments
from autograder.cli import main as autograder
from autograder.quality.cases import load
from autograder.sandbox.outside import Sandbox, Unavailable

FOLDER = Path("build") / "demo"


def confined() -> bool:
    """Whether the sandbox works here; install bubblewrap first if root runs this on Debian or Ubuntu."""
    if shutil.which("bwrap") is None and shutil.which("apt-get") and os.getuid() == 0:
        Console().print("Installing bubblewrap for the sandbox …")
        subprocess.run(["apt-get", "update", "-qq"], check=False)
        subprocess.run(["apt-get", "install", "-y", "-qq", "bubblewrap"], check=False, stdout=subprocess.DEVNULL)
    try:
        with Sandbox():
            return True
    except Unavailable as reason:
        Console().print(
            f"[bold yellow]{reason}[/]\nGrading only the harmless submissions of the sample class, without the sandbox."
        )
        return False


def main() -> None:
    """Build the releases, grade the sample class of every assignment, and write the pages."""
    safe = confined()
    _run("release")
    submitted = FOLDER / "submitted"
    shutil.rmtree(FOLDER, ignore_errors=True)
    for name in assignments.names():
        assignment = assignments.load(name)
        for case in load(assignment, "class"):
            if safe or case.harmless:
                case.write(assignment, submitted / case.name / name)
        options = [] if safe else ["--unconfined"]
        _run("grade", name, str(submitted), "--out", str(FOLDER), "--seed", "0", *options)
    _run("report", str(FOLDER), "--submitted", str(submitted))
    Console().print(f"\nOpen [bold]{FOLDER / 'index.html'}[/] in a browser.")


def _run(*arguments: str) -> None:
    Console(highlight=False).print(f"\n[bold cyan]$ autograder {' '.join(arguments)}[/]")
    try:
        autograder(list(arguments), standalone_mode=False)
    except SystemExit as end:
        if end.code:
            sys.exit(end.code)


if __name__ == "__main__":
    os.chdir(assignments.COURSE)
    main()
