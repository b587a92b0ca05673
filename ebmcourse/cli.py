"""The students' commands. Exit codes: 0 for success, 1 if a problem was found, 2 for wrong use."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ebmcourse.terminal import replace_unknown_characters

try:
    import click
    from rich.console import Console
    from rich.markup import escape
    from rich.status import Status

    from ebmcourse.options import Choice
except ModuleNotFoundError as missing:  # `doctor` cannot start either
    print(
        f"The package {missing.name} is missing: run `pip install -r requirements.txt` in the folder of the course.",
        file=sys.stderr,
    )
    sys.exit(2)

if TYPE_CHECKING:
    from ebmcourse.assignment import Description

DATA_SETS = ("glyphs",)
_STEP = "Step {} of 3: {} …"
POLL_SECONDS = 0.2  # interval of looking for changed files with --watch


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Tools for the students of the course on energy-based models."""
    replace_unknown_characters()


@main.command()
@click.argument("directory", type=click.Path(path_type=Path), default=".")
@click.option("--part", help="Check this exercise only: 3.2a, or 3.2 for all of its parts.")
@click.option("--all", "everything", is_flag=True, help="Show every check and hint, not only the first failing part.")
@click.option("--watch", is_flag=True, help="Check again whenever a file is saved, until Ctrl-C.")
def check(directory: Path, part: str | None, everything: bool, watch: bool) -> None:
    """Run the public checks on your solution.

    It is in DIRECTORY (default: here).
    """
    from ebmcourse import summary
    from ebmcourse.assignment import describe

    out = Console(highlight=False)
    try:
        description = describe(directory.resolve())
        description.exercises(part)  # wrong arguments are reported before anything else
        states = _states(directory)
        broken = _show_broken(out, directory, description)
        if broken and not watch:
            sys.exit(1)
        with _step(1, "loading the checks"):
            from ebmcourse.checking.observer import Outdated  # imports torch
            from ebmcourse.checking.public import PublicChecks

            checks = PublicChecks(directory, part)
        everything = everything or part is not None
        with checks.process() as process:
            process.is_outdated = lambda: watch and _states(directory) != states
            while True:
                if not broken:
                    with _step(2, "importing the packages that your program uses"):
                        process.start()
                    with suppress(Outdated):
                        with _step(3, "checking") as status:
                            outcomes = checks.outcomes(
                                process, lambda part: status.update(_STEP.format(3, f"checking {part}"))
                            )
                        command = "ebmcourse check" + (f" {directory}" if directory != Path() else "")
                        summary.show(
                            out,
                            checks.description.parts,
                            outcomes,
                            everything=everything,
                            command=command,
                            where="the notebook" if checks.description.notebook_name else "your files",
                        )
                if not watch:
                    sys.exit(0 if all(outcome.passed for outcome in outcomes) else 1)
                out.print("[dim]Waiting for a file to be saved; press Ctrl-C to quit.[/]")
                sys.stdout.flush()  # also into a pipe
                states = _changed(directory, states)
                out.rule()
                checks.reload(process)
                broken = _show_broken(out, directory, description)
    except (ValueError, OSError) as mistake:
        raise click.UsageError(str(mistake)) from mistake
    except KeyboardInterrupt:
        sys.exit(130)


def _show_broken(out: Console, folder: Path, description: Description) -> bool:
    """Show what keeps all checks from running, if anything does: a syntax error, or a notebook that nobody can read."""
    from ebmcourse import syntax
    from ebmcourse.checking.program import program_in

    error = syntax.first_error(folder)
    if error:
        syntax.show(out, error)
        return True
    _, problems = program_in(folder, description.files, description.given)
    problem = problems.get(f"{description.notebook_name}.py")
    if problem:
        out.print(f"[red]✗[/] [bold]{escape(problem)}[/]")
        out.print("Fix this first: no check can run without the notebook.")
    return problem is not None


def _step(number: int, what: str) -> Status:
    """Show on standard error what is done now."""
    console = Console(stderr=True, highlight=False)
    text = _STEP.format(number, what)
    if not console.is_interactive:
        console.print(text)  # a log file does not show a status
    return console.status(text)


def _changed(folder: Path, before: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """Wait until the files are different from those `before` the last check, during which one may have been saved."""
    while (now := _states(folder)) == before:
        time.sleep(POLL_SECONDS)
    return now


def _states(folder: Path) -> dict[str, tuple[int, int]]:
    """The time of writing and the size of each Python file and notebook in a folder."""
    paths = [path for pattern in ("*.py", "*.ipynb") for path in folder.glob(pattern)]
    found = {}
    for path in paths:
        try:
            about = path.stat()
        except FileNotFoundError:  # an editor is replacing it
            continue
        found[path.name] = (about.st_mtime_ns, about.st_size)
    return found


@main.command()
@click.argument("name", type=Choice(DATA_SETS), metavar="NAME")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the files (default: data/NAME).")
@click.option("--size", default="full", show_default=True, help="Amount of data: full, or small for a first test.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random numbers.")
def data(name: str, out: Path | None, size: str, seed: int) -> None:
    """Generate the data set NAME (glyphs)."""
    from ebmcourse.data import glyphs
    from ebmcourse.progress import progress

    folder = out or Path("data") / name
    again = " again (Ctrl-C keeps the old data)" if (folder / "classes.json").exists() else ""
    try:
        with progress(f"Generating {name}{again}") as show:
            glyphs.generate(folder, size, seed, show)
    except (ValueError, OSError) as error:
        raise click.UsageError(str(error)) from error
    click.echo(f"{'replaced the data in' if again else 'wrote'} {folder}")


@main.command()
def doctor() -> None:
    """Check that this machine has everything for the course.

    Where something is missing, show how to install it.
    """
    from ebmcourse.doctor import examine

    out = Console(highlight=False)
    healthy = True
    for finding in examine():
        healthy &= finding.remedy is None
        out.print(f"{'[green]✓[/]' if finding.remedy is None else '[red]✗[/]'} {escape(finding.what)}", soft_wrap=True)
        if finding.remedy:
            out.print(f"  [cyan]{escape(finding.remedy)}[/]", soft_wrap=True)
    sys.exit(0 if healthy else 1)


if __name__ == "__main__":
    main()
