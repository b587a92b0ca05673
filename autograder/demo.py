"""`make demo`: releases, grades and reports all assignments with the sample classes of the course.

Runs the instructor's commands one after the other and shows them. `python -m autograder.demo NAME` does so for one
assignment.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
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


def main(names: list[str]) -> None:
    """Build the releases, grade the sample class of every assignment, and write the pages.

    With `names`, do so for these assignments only. Raises ValueError if there is no such assignment.
    """
    chosen = [assignments.load(name) for name in names or assignments.names()]
    safe = confined()
    cases = {a.name: [case for case in load(a, "class") if safe or case.harmless] for a in chosen}
    total = sum(map(len, cases.values()))
    _say(
        f"The demo builds the releases of {', '.join(cases)}, grades {total} sample submissions as an instructor does, "
        f"and writes their feedback. This takes about {'one minute' if total < 10 else 'two minutes'} on two cores."
    )
    _say("Step 1 of 3: the students' versions, without solutions and hidden checks")
    _run("release", *names)
    submitted = FOLDER / "submitted"
    shutil.rmtree(FOLDER, ignore_errors=True)
    for assignment in chosen:
        for case in cases[assignment.name]:
            case.write(assignment, submitted / case.name / assignment.name)
    _say("Step 2 of 3: grading" + (", each submission in a sandbox; the sandbox is tested first" if safe else ""))
    options = [] if safe else ["--unconfined"]
    for name in cases:
        _run("grade", name, str(submitted), "--out", str(FOLDER), "--seed", "0", *options)
    _say("Step 3 of 3: the feedback for each student, and a page for the class")
    _run("report", str(FOLDER), "--submitted", str(submitted))
    _say("Open this page in a browser:")
    Console().print((FOLDER / "index.html").resolve().as_uri(), style="bold", soft_wrap=True)


def _say(text: str) -> None:
    Console(highlight=False).print(f"\n[bold]{text}[/]")


def _run(*arguments: str) -> None:
    command = f"\n[bold cyan]$ autograder {' '.join(arguments)}[/]"
    Console(highlight=False).print(command, soft_wrap=True)
    try:
        autograder(list(arguments), standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except SystemExit as end:
        if end.code:
            sys.exit(end.code)


if __name__ == "__main__":
    os.chdir(assignments.COURSE)
    try:
        main(sys.argv[1:])
    except ValueError as error:
        Console(stderr=True, highlight=False).print(str(error), markup=False)
        sys.exit(2)
