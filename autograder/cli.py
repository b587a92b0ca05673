"""The instructors' commands. Exit codes: 0 success, 1 something was found wrong, 2 wrong use.

Every command imports what it needs when it runs: most of them need neither torch nor nbgrader, which take seconds.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import click
from rich.console import Console

from autograder import Failure
from autograder import assignment as assignments
from autograder.collect import KINDS
from autograder.export import FORMATS
from ebmcourse.progress import progress_bar

console = Console(stderr=True, highlight=False)


class Commands(click.Group):
    """Turns a user's mistake into one line on stderr and exit code 2."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except Failure as error:
            raise click.ClickException(str(error)) from error
        except (ValueError, OSError) as error:
            raise click.UsageError(_sentence(error)) from error
        except KeyboardInterrupt:
            console.print("Interrupted. Nothing is lost: the same command goes on where it stopped.")
            sys.exit(130)


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}. Files that were written before are complete; run the command again to go on."
    return str(error)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--course",
    type=click.Path(path_type=Path),
    default=assignments.COURSE,
    help="Folder with solutions/ and assignments/ (default: this checkout).",
)
@click.pass_context
def main(ctx: click.Context, course: Path) -> None:
    """Release, grade and report the assignments of the course."""
    ctx.obj = course


@main.command()
@click.argument("name")
@click.option("--notebook", is_flag=True, help="Students hand in a notebook, instead of a Python file beside one.")
@click.pass_obj
def new(course: Path, name: str, notebook: bool) -> None:
    """Make a new assignment, solutions/NAME/: small, complete, and to be rewritten."""
    from autograder.release.new import create

    click.echo(f"wrote {create(name, course, notebook=notebook)}")
    click.echo(f"Change it, and then: autograder release {name} && autograder quality {name}")


@main.command()
@click.argument("name")
@click.argument("submitted", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the result files.")
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes on this machine (default: one per core).")
@click.option("--scheduler", help="Address of a running Dask scheduler, instead of workers on this machine.")
@click.option("--student", help="Grade this student only.")
@click.option("--seed", type=int, help="Draw the inputs from this known seed instead of the course's secret one.")
@click.option("--unconfined", is_flag=True, help="Grade WITHOUT a sandbox; every result is marked.")
@click.option("--force", is_flag=True, help="Grade also submissions whose results are up to date.")
@click.pass_obj
def grade(
    course: Path,
    name: str,
    submitted: Path,
    out: Path,
    workers: int | None,
    scheduler: str | None,
    student: str | None,
    seed: int | None,
    unconfined: bool,
    force: bool,
) -> None:
    """Grade the submissions SUBMITTED/<student>/NAME/ of the assignment NAME."""
    from autograder.changes import changes, changes_table, identical, results_before
    from autograder.grade import seed as seeds
    from autograder.grade import submissions
    from autograder.grade import workers as processes
    from autograder.grade.grader import Job
    from autograder.report import class_table
    from autograder.results import Result, is_student_id, read_results
    from autograder.sandbox.selftest import failures
    from autograder.text import on_one_line

    assignment = assignments.load(name, course)
    everyone = submissions.students(submitted, name)
    unusable = [who for who in everyone if not is_student_id(who)]
    everyone = [who for who in everyone if who not in unusable]
    if student is not None:
        if student not in everyone:
            raise ValueError(f"There is no folder {submitted / student / name}.")
        everyone = [student]
    if not everyone:
        raise ValueError(f"No submissions found: expected are folders {submitted}/<student>/{name}/.")
    if unconfined:
        console.print("[bold red]Warning: grading without a sandbox. Every submission runs with your rights.[/]")
    elif broken := failures(course, [submitted, out]):
        raise Failure(f"The sandbox does not hold here ({broken[0]}); see `autograder selftest`.")
    job = Job.of(assignment, seeds.given(seed) if seed is not None else seeds.secret(), confined=not unconfined)
    (out / name).mkdir(parents=True, exist_ok=True)
    todo = [
        who
        for who in everyone
        if force or not processes.is_graded(job, out, submissions.read(submitted / who / name, who, assignment))
    ]
    before = results_before(out, name, todo)
    graded: list[Result] = []
    try:
        with progress_bar() as progress:
            task = progress.add_task(f"Grading {name}", total=len(everyone), completed=len(everyone) - len(todo))

            def done(result: Result) -> None:
                graded.append(result)
                progress.advance(task)

            if todo:
                processes.grade_class(job, submitted, out, todo, workers=workers, scheduler=scheduler, done=done)
    finally:
        # After an interrupt, too: for the next run, the new marks are the marks before.
        if before:
            found = changes(before, graded)
            console.print(f"Graded again: {len(before)}; marks that changed: {len(found)}.")
            if found:
                Console().print(changes_table(found))
    results = [result for result in read_results(out, name) if result.student in everyone]
    Console().print(class_table(results))
    for group in identical(results):
        console.print(f"Identical files were handed in by {', '.join(map(on_one_line, group))}.", markup=False)
    if unusable:
        raise Failure(f"Not graded, since these folders cannot be ids: {', '.join(map(on_one_line, unusable))}.")


@main.command()
@click.argument("words", nargs=-1, required=True, metavar="[SOURCE] NAME")
@click.option("--from", "origin", type=click.Choice(["exchange"]), help="Collect from nbgrader's exchange, not SOURCE.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the submissions: submitted.")
@click.option("--kind", type=click.Choice(list(KINDS)), help="What SOURCE is (default: what explains all its names).")
@click.option("--roster", type=click.Path(path_type=Path), help="CSV: id, and whatever else identifies a student.")
@click.option("--update", is_flag=True, help="Replace submissions that are there and differ.")
@click.pass_obj
def collect(
    course: Path,
    words: tuple[str, ...],
    origin: str | None,
    out: Path,
    kind: str | None,
    roster: Path | None,
    update: bool,
) -> None:
    """Put the submissions of the assignment NAME into OUT/<student>/NAME/.

    SOURCE is a zip file or folder from Moodle, Canvas, Gradescope, ILIAS or GitHub Classroom, or a folder with one
    folder for each student. With `--from exchange` there is no SOURCE: nbgrader's inbound folder is read.
    """
    from autograder.collect import collect as put
    from autograder.collect import read_roster
    from autograder.late import read_rules
    from autograder.late.exchange import inbound

    *sources, name = words
    if len(sources) != (0 if origin else 1):
        raise ValueError("Give SOURCE and NAME, or --from exchange and NAME.")
    assignment = assignments.load(name, course)
    rules = read_rules(course)
    people = read_roster(roster, rules.zone) if roster else None
    source = inbound(course, rules) if origin else Path(sources[0])
    collected = put(source, assignment, out, kind=origin or kind or "", roster=people, update=update)
    for line in collected.lines():
        click.echo(line)
    sys.exit(0 if collected.is_whole else 1)


@main.command()
@click.argument("name")
@click.option(
    "--only", default="", help="Only the cases whose kind/name, and the checks whose forged/id, contains this text."
)
@click.option("--blind", is_flag=True, help="Grade the blind mistakes and variants instead.")
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes (default: one per core).")
@click.option("--seed", type=int, default=0, show_default=True, help="The inputs are drawn from this seed.")
@click.pass_obj
def quality(course: Path, name: str, only: str, blind: bool, workers: int | None, seed: int) -> None:
    """Grade mutants, variants and attacks of the assignment NAME, and judge forged replies: the grader is graded."""
    from autograder.quality.forged import measure_forged
    from autograder.quality.measure import BLIND_KINDS, KINDS, measure
    from autograder.quality.table import report

    assignment = assignments.load(name, course)
    with progress_bar() as bar:
        task = bar.add_task(f"Cases of {name}", total=None)
        verdicts = list(
            measure(
                assignment,
                known_seed=seed,
                kinds=BLIND_KINDS if blind else KINDS,
                only=only,
                workers=workers,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        )
        forged = None
        if not blind:
            calls = bar.add_task("Forged replies", total=None)
            forged = measure_forged(
                assignment,
                known_seed=seed,
                only=only,
                progress=lambda done, total: bar.update(calls, completed=done, total=total),
            )
    Console().print(report(verdicts, forged))
    sys.exit(1 if (forged and forged.complaints) or any(verdict.complaint for verdict in verdicts) else 0)


@main.command()
@click.argument("names", nargs=-1)
@click.option("--check", is_flag=True, help="Only compare with what is there; exit 1 on any difference.")
@click.pass_obj
def release(course: Path, names: tuple[str, ...], check: bool) -> None:
    """Build what students get, assignments/NAME/, for all assignments or those named; and nbgrader's source of it."""
    from autograder.release.build import build, differing
    from autograder.release.build import release as put
    from autograder.release.gate import complaints
    from autograder.release.nbgrader_source import fill

    stale = False
    for name in names or assignments.names(course):
        assignment = assignments.load(name, course)
        with TemporaryDirectory() as folder:
            built = Path(folder) / name
            build(assignment, built)
            if found := complaints(assignment, built):
                raise Failure(f"{name} is not released: {found[0]}.")
            changed = differing(assignment, built, course)
            if not check:
                put(assignment, built, course)
                fill(assignment, course)
        stale |= bool(changed)
        for path in changed:
            click.echo(f"{'differs' if check else 'wrote'}: assignments/{name}/{path}")
    if check and stale:
        raise Failure("assignments/ is not what solutions/ gives: run `autograder release` and commit.")


@main.command()
@click.argument("results_dir", type=click.Path(path_type=Path))
@click.option(
    "--submitted",
    type=click.Path(path_type=Path),
    help="Folder of the submissions: their times, and the students' own figures.",
)
@click.option("--exercises", default="", help="Web address below which students find the assignments' folders.")
@click.pass_obj
def report(course: Path, results_dir: Path, submitted: Path | None, exercises: str) -> None:
    """Write the feedback of every student and the page of the class from the result files."""
    from autograder.report import write_report

    pages = write_report(results_dir, submitted, course, exercises)
    click.echo(f"wrote {len(pages)} pages; start at {results_dir / 'index.html'}")


@main.command()
@click.argument("results_dir", type=click.Path(path_type=Path))
@click.option("--to", "to", type=click.Choice(FORMATS), required=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder to write to (default: RESULTS_DIR; for nbgrader the course, where gradebook.db is).",
)
@click.option("--submitted", type=click.Path(path_type=Path), help="Folder of the submissions, with their times.")
@click.option("--roster", type=click.Path(path_type=Path), help="CSV: id, and by what other systems know a student.")
@click.pass_obj
def export(
    course: Path, results_dir: Path, to: str, out: Path | None, submitted: Path | None, roster: Path | None
) -> None:
    """Write the marks in the form that another system imports; course.toml says what late ones lose."""
    from autograder.collect import read_roster
    from autograder.export import export as write

    people = read_roster(roster).people if roster else None

    out = out or (course if to == "nbgrader" else results_dir)
    for path in write(
        results_dir,
        to,
        out,
        submitted=submitted,
        course=course,
        people=people,
        say=lambda remark: click.echo(remark, err=True),
    ):
        click.echo(f"wrote {path}")


@main.command()
@click.pass_obj
def selftest(course: Path) -> None:
    """Prove the confinement on this machine, one line per probe."""
    from autograder.sandbox.selftest import run_all

    broken = False
    for title, complaint in run_all(course):
        broken |= complaint is not None
        mark = "[green]holds[/]" if complaint is None else "[bold red]BROKEN[/]"
        Console(highlight=False).print(f"{mark}  {title}" + (f": {complaint}" if complaint else ""))
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
