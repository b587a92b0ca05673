"""The students' commands. Exit codes: 0 success, 1 something was found wrong, 2 wrong use."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

DATA_SETS = ("glyphs",)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """The students' tools of the course on energy-based models."""


@main.command()
@click.argument("directory", type=click.Path(path_type=Path), default=".")
@click.option("--part", help="Check this exercise only, for example 3.2a.")
@click.option("--all", "everything", is_flag=True, help="Show every hint, not only the first thing to mend.")
def check(directory: Path, part: str | None, everything: bool) -> None:
    """Run the public checks on your solution in DIRECTORY (default: here)."""
    from ebmcourse.checking.session import run_public_checks

    out = Console(highlight=False)
    try:
        with Console(stderr=True).status("Checking …"):
            outcomes = run_public_checks(directory.resolve(), part)
    except (ValueError, OSError) as error:
        raise click.UsageError(str(error)) from error
    current = ""
    shown = False
    for outcome in outcomes:
        if outcome.part != current:
            current = outcome.part
            out.print(f"\n[bold]{escape(current)}[/]")
        mark = "[green]✓[/]" if outcome.passed else "[yellow]–[/]" if outcome.status == "skipped" else "[red]✗[/]"
        out.print(f"  {mark} {escape(outcome.title)}  [dim]{outcome.points:g}/{outcome.max_points:g}[/]")
        if not outcome.passed and (everything or not shown):
            shown = True
            reason = outcome.diagnosis or "The answer is not the expected one."
            out.print(f"    [red]{escape(reason)}[/]", soft_wrap=True)
            out.print(f"    [cyan]Hint:[/] {escape(outcome.hint)}", soft_wrap=True)
    points, most = sum(o.points for o in outcomes), sum(o.max_points for o in outcomes)
    out.print(f"\n[bold]{points:g} of {most:g} points[/] of the public checks; grading adds hidden ones.")
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
        out.print(f"{'[green]✓[/]' if finding.remedy is None else '[red]✗[/]'} {escape(finding.what)}")
        if finding.remedy:
            out.print(f"  [cyan]{escape(finding.remedy)}[/]", soft_wrap=True)
    sys.exit(0 if healthy else 1)


if __name__ == "__main__":
    main()
