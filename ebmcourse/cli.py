"""The students' commands. Exit codes: 0 success, 1 something was found wrong, 2 wrong use."""

from __future__ import annotations

import sys
from pathlib import Path

try:
    import click
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
except ModuleNotFoundError as missing:  # then not even `doctor` can start
    print(f"The package {missing.name} is missing: run `pip install .` in the folder of the course.", file=sys.stderr)
    sys.exit(2)

DATA_SETS = ("glyphs",)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """The students' tools of the course on energy-based models."""


@main.command()
@click.argument("directory", type=click.Path(path_type=Path), default=".")
@click.option("--part", help="Check this exercise only, for example 3.2a.")
@click.option("--all", "everything", is_flag=True, help="Show every check and hint, not only the first thing to mend.")
def check(directory: Path, part: str | None, everything: bool) -> None:
    """Run the public checks on your solution in DIRECTORY (default: here)."""
    from ebmcourse import syntax

    out = Console(highlight=False)
    if error := syntax.first_error(directory):
        syntax.show(out, error)
        sys.exit(1)
    from ebmcourse import progress  # these import torch
    from ebmcourse.checking.session import read_sheet, run_public_checks

    try:
        parts = read_sheet(directory.resolve()).parts
        with Console(stderr=True).status("Checking …"):
            outcomes = run_public_checks(directory.resolve(), part)
    except (ValueError, OSError) as mistake:
        raise click.UsageError(str(mistake)) from mistake
    progress.show(out, parts, outcomes, everything=everything or part is not None)
    sys.exit(0 if all(outcome.passed for outcome in outcomes) else 1)


@main.command()
@click.argument("name", type=click.Choice(DATA_SETS))
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the files (default: data/NAME).")
@click.option("--size", default="full", show_default=True, help="full, or small for a first try.")
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed draws other pictures.")
def data(name: str, out: Path | None, size: str, seed: int) -> None:
    """Draw the data set NAME."""
    from ebmcourse.data import glyphs

    folder = out or Path("data") / name
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(f"Drawing {name}", total=None)
            glyphs.generate(folder, size, seed, lambda done, total: bar.update(task, completed=done, total=total))
    except (ValueError, OSError) as error:
        raise click.UsageError(str(error)) from error
    click.echo(f"wrote {folder}")


@main.command()
def doctor() -> None:
    """Say what is missing on this machine for the course, and the command that mends it."""
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
