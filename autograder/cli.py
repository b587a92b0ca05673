"""The instructors' commands. Exit codes: 0 for success, 1 if a problem was found, 2 for wrong use, 130 if interrupted.

Commands import their modules when they run, because torch and nbgrader take seconds to import and most commands need
neither.
"""

import os
import re
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

import click
from click.core import ParameterSource
from rich.console import Console

from autograder import Failure
from autograder import assignment as assignments
from autograder.collect import KINDS
from autograder.export import FORMATS
from ebmcourse.options import Choice
from ebmcourse.progress import progress
from ebmcourse.terminal import replace_unknown_characters

console = Console(stderr=True, highlight=False)
PATH = click.Path(path_type=Path)

# These write submissions and marks: other users of the machine, such as students on its nbgrader, may not read them.
_PRIVATE = {"collect", "grade", "report", "export"}


class Commands(click.Group):
    """Reports a user's mistake in one line on stderr, with exit code 2. SIGTERM ends a command as Ctrl-C does."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            # Warnings of libraries: an instructor can do nothing about them.
            with warnings.catch_warnings(action="ignore"), _interrupted_by_sigterm():
                return super().invoke(ctx)
        except Failure as error:
            raise click.ClickException(_with_course(ctx, str(error))) from error
        except (ValueError, OSError) as error:
            raise click.UsageError(_with_course(ctx, _sentence(error))) from error
        except KeyboardInterrupt:
            console.print("Interrupted. Run the same command again to continue.")
            sys.exit(130)


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt: otherwise, the process ends at once and leaves files and semaphores."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # only there, Python allows handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return (
            f"{where}{error.strerror}. Files that were written before are complete; run the command again to continue."
        )
    return str(error)


def _with_course(ctx: click.Context, text: str) -> str:
    """Insert `--course` into the commands in a text if it was given, so that they can be pasted."""
    ctx = ctx.find_root()
    if ctx.get_parameter_source("course") is not ParameterSource.COMMANDLINE:
        return text
    commands = f"autograder (?=(?:{'|'.join(main.commands)})\\b)"
    option = f"--course {shlex.quote(str(ctx.params['course']))} "
    return re.sub(commands, lambda match: match[0] + option, text)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--course",
    type=PATH,
    default=assignments.COURSE,
    help="Folder with solutions/ and assignments/ (default: this checkout).",
)
@click.pass_context
def main(ctx: click.Context, course: Path) -> None:
    """Release, collect, grade and report the assignments of the course."""
    replace_unknown_characters()
    if not course.is_dir() and ctx.invoked_subcommand != "new":  # which creates it
        raise ValueError(f"There is no folder {course}: --course is the folder that contains solutions/.")
    ctx.obj = course
    if ctx.invoked_subcommand in _PRIVATE:
        before = os.umask(0o077)
        os.umask(before | 0o007)
        ctx.call_on_close(lambda: os.umask(before))


@main.command()
@click.argument("name")
@click.option("--notebook", is_flag=True, help="Students hand in a notebook instead of a Python file and a notebook.")
@click.pass_context
def new(ctx: click.Context, name: str, notebook: bool) -> None:
    """Create a small but complete assignment in solutions/NAME/."""
    from autograder.quality.cases import lacking
    from autograder.release.new import create

    click.echo(f"wrote {create(name, ctx.obj, notebook=notebook)}")
    missing = lacking(assignments.load(name, ctx.obj))
    click.echo(f"It is an example. In quality/, {missing} are still to be added; docs/checks.md says what for.")
    click.echo("Edit it, then run:")
    commands = {
        f"autograder release {name}": "builds the students' version, and runs its notebook once",
        f"autograder quality {name}": "tests the checks with the cases in quality/",
    }
    if ctx.find_root().get_parameter_source("course") is not ParameterSource.COMMANDLINE:  # the demo knows no other
        commands[f"python -m autograder.demo {name}"] = "grades the sample class in quality/class and writes its pages"
    shown = {_with_course(ctx, command): effect for command, effect in commands.items()}
    width = max(map(len, shown))
    for command, effect in shown.items():
        click.echo(f"  {command:{width}}    {effect}")


@main.command()
@click.argument("name")
@click.argument("submitted", type=PATH)
@click.option("--out", type=PATH, required=True, help="Folder for the result files.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Worker processes on this machine (default: one per core, if there is enough memory).",
)
@click.option("--scheduler", help="Address of a running Dask scheduler, instead of workers on this machine.")
@click.option("--student", help="Grade this student only.")
@click.option("--seed", type=int, help="Draw the inputs from this seed instead of the secret seed of the course.")
@click.option("--unconfined", is_flag=True, help="Grade WITHOUT the sandbox; every result is marked as such.")
@click.option("--force", is_flag=True, help="Also grade submissions whose results are up to date.")
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
    """Grade the submissions of an assignment.

    The submissions of the assignment NAME are the folders SUBMITTED/<student>/NAME/.
    """
    from autograder.grade import submissions
    from autograder.results import Result, is_student_id, read_results

    assignment = assignments.load(name, course)
    everyone = submissions.students(submitted, name)
    unusable = [who for who in everyone if not is_student_id(who)]
    everyone = [who for who in everyone if who not in unusable]
    if student is not None:
        if student not in everyone:
            raise ValueError(f"There is no folder {submitted / student / name}.")
        everyone = [student]
    if not everyone:
        raise ValueError(f"No submissions found: there is no folder {submitted}/<student>/{name}/.")

    from autograder.changes import changes, changes_table, identical, results_before
    from autograder.collect.ids import handed_in_together
    from autograder.grade import seed as seeds
    from autograder.grade import workers as processes
    from autograder.grade.fingerprint import known, remember
    from autograder.grade.job import Job
    from autograder.grade.results_folder import reserved
    from autograder.release.programs import by_part
    from autograder.release.texts import outdated
    from autograder.report import class_table
    from autograder.report.unmatched import not_handed_in
    from autograder.sandbox.bubblewrap import bubblewrap
    from autograder.text import listed, on_one_line

    together = handed_in_together(submitted, name)
    if unconfined:
        console.print("[bold red]Warning: grading without the sandbox. Every submission runs with your permissions.[/]")
    elif not scheduler:
        bubblewrap()  # fails at once, and not in a worker
    drawn_from = seeds.given(seed) if seed is not None else seeds.secret()
    job = Job.of(assignment, drawn_from, confined=not unconfined, private=(course, submitted, out))
    with reserved(out / name):
        todo = [who for who in everyone if force or not processes.is_graded(job, out, submitted, who)]
        before = results_before(out, name, todo)
        remember(out / name, assignment, job.checks_sha256)
        graded: list[Result] = []
        try:
            with progress(f"Grading {name}") as show:

                def done(result: Result) -> None:
                    graded.append(result)
                    show(len(everyone) - len(todo) + len(graded), len(everyone))

                show(len(everyone) - len(todo), len(everyone))
                if todo:
                    processes.grade_class(job, submitted, out, todo, workers=workers, scheduler=scheduler, done=done)
        finally:
            # Also after an interrupt: the next run compares with the new marks.
            if before:
                found = changes(before, graded)
                console.print(f"Graded again: {len(before)}; marks that changed: {len(found)}.")
                if found:
                    Console().print(changes_table(found, known(out / name)))
        results = [result for result in read_results(out, name) if result.student in everyone]
        Console().print(class_table(results))
    if graded:
        points = by_part((check.part, check.max_points) for check in graded[0].checks)
        if note := outdated(assignment, points, course):
            console.print(note, markup=False)
    for group in identical(results, together):
        console.print(f"Identical files were handed in by {', '.join(map(on_one_line, group))}.", markup=False)
    if gone := not_handed_in(out, submitted, name):
        console.print(
            f"Results without a submission, which are still reported and exported: {listed(gone, 20)}. To remove one,"
            f" delete {out / name}/<student>.json.",
            markup=False,
        )
    if unusable:
        names = ", ".join(map(on_one_line, unusable))
        raise Failure(f"Not graded, because the names of these folders cannot be ids: {names}.")


@main.command()
@click.argument("words", nargs=-1, required=True, metavar="[SOURCE] NAME")
@click.option("--from", "origin", type=Choice(["exchange"]), help="Collect from nbgrader's exchange instead of SOURCE.")
@click.option("--out", type=PATH, required=True, help="Folder for the submissions: submitted.")
@click.option("--kind", type=Choice(KINDS), help="Platform of SOURCE (default: recognized by the names of all files).")
@click.option("--roster", type=PATH, help="CSV file with the ids and other names of the students.")
@click.option("--update", is_flag=True, help="Replace existing submissions that differ.")
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
    """Put the submissions into one folder for each student.

    Those of the assignment NAME go into OUT/<student>/NAME/. SOURCE is a zip file or folder from Moodle, Canvas,
    Gradescope, ILIAS or GitHub Classroom, or a folder with one folder for each student. With `--from exchange`,
    submissions are read from nbgrader's exchange instead of SOURCE.
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
    "--only", default="", help="Only cases whose kind/name contains this text, and checks whose forged/id does."
)
@click.option("--blind", is_flag=True, help="Grade the blind mistakes and variants instead.")
@click.option("--automatic", is_flag=True, help="Grade the mutants that a mutation library makes instead.")
@click.option("--pools", is_flag=True, help="Grade mistakes in different parts together: a fraction of the time.")
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes (default: one per core).")
@click.option("--seed", type=int, default=0, show_default=True, help="The inputs are drawn from this seed.")
@click.pass_obj
def quality(
    course: Path, name: str, only: str, blind: bool, automatic: bool, pools: bool, workers: int | None, seed: int
) -> None:
    """Test the checks of an assignment.

    The checks of the assignment NAME grade mutants, variants, attacks and forged replies, whose marks are known.
    """
    from autograder.quality.cases import lacking
    from autograder.quality.forged import measure_forged
    from autograder.quality.measure import AUTOMATIC, BLIND_KINDS, KINDS, measure
    from autograder.quality.table import report

    if blind and automatic:
        raise click.UsageError("Give --blind or --automatic, not both.")
    assignment = assignments.load(name, course)
    kinds = BLIND_KINDS if blind else AUTOMATIC if automatic else KINDS
    with progress(f"Cases of {name}") as show:
        verdicts = measure(
            assignment,
            known_seed=seed,
            kinds=kinds,
            only=only,
            in_pools=pools,
            workers=workers,
            progress=show,
        )
    forged = None
    if not blind and not automatic:
        with progress("Forged replies") as show:
            forged = measure_forged(assignment, known_seed=seed, only=only, progress=show)
    Console().print(report(verdicts, forged))
    if missing := lacking(assignment):
        click.echo(f"Still to be added in {assignment.quality}: {missing}; docs/checks.md says what for.")
    sys.exit(1 if (forged and forged.complaints) or any(verdict.complaint for verdict in verdicts) else 0)


@main.command()
@click.argument("names", nargs=-1)
@click.option("--check", is_flag=True, help="Only compare with the current release; exit with 1 if it differs.")
@click.option(
    "--handout",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write a zip file with the releases, the students' library and their guide.",
)
@click.pass_obj
def release(course: Path, names: tuple[str, ...], check: bool, handout: Path | None) -> None:
    """Build what students get of the named assignments (default: all).

    This is the release, assignments/NAME/. nbgrader's source folder is built as well.
    """
    if check and handout:
        raise ValueError("Use --check or --handout, not both: --check writes nothing.")
    from autograder.release.build import build, differing
    from autograder.release.build import release as put
    from autograder.release.gate import complaints
    from autograder.release.nbgrader_source import fill
    from autograder.release.notebook_run import first_error

    stale = False
    chosen = {name: assignments.load(name, course) for name in names or assignments.names(course)}
    for name, assignment in chosen.items():
        console.print(f"Building the release of {name}.")
        with TemporaryDirectory() as folder:
            built = Path(folder) / name
            build(assignment, built)
            if found := complaints(assignment, built):
                raise Failure(f"{name} was not released: {found[0]}.")
            changed = differing(assignment, built, course)
            if changed and assignment.notebook and not check:
                with progress(f"Running the cells of {name} (may take minutes)") as show:
                    error = first_error(assignment, built, show)
                if error:
                    raise Failure(f"{name} was not released: {error.rstrip('.')}.")
            if not check:
                put(assignment, built, course)
                fill(assignment, course)
        stale |= bool(changed)
        for path in changed:
            click.echo(f"{'differs' if check else 'wrote'}: assignments/{name}/{path}")
    if check and stale:
        raise Failure("assignments/ is not up to date with solutions/: run `autograder release` and commit.")
    if handout:
        from autograder.release.handout import write_handout

        everything = {name: assignments.load(name, course) for name in assignments.names(course)}
        with progress(f"Building and testing {handout.name} (takes up to a minute)") as show:
            write_handout(handout, list(chosen.values()), list(everything.values()), show)
        click.echo(f"wrote {handout}")


@main.command()
@click.argument("results_dir", type=PATH)
@click.option("--submitted", type=PATH, help="Folder of the submissions, for times and the students' own figures.")
@click.option("--exercises", default="", help="Web address of the folder that holds the assignments.")
@click.option("--roster", type=PATH, help="CSV file with the names of the students, for the gradebook.")
@click.pass_context
def report(ctx: click.Context, results_dir: Path, submitted: Path | None, exercises: str, roster: Path | None) -> None:
    """Write feedback, a page for each class and the gradebook."""
    from autograder import late
    from autograder.changes import flags_of_class
    from autograder.collect import read_roster
    from autograder.report import write_report
    from autograder.report.unmatched import not_graded, not_in_roster, without_result
    from autograder.results import assignments_in, students_in
    from autograder.text import listed

    course = ctx.obj
    people = read_roster(roster).people if roster else {}
    names = {student: row.get("name", "") for student, row in people.items()}
    pages = write_report(
        results_dir, submitted, course, exercises, names, lambda results: flags_of_class(results, submitted)
    )
    click.echo(f"wrote {len(pages)} pages; start at {results_dir / 'index.html'}")
    if old := without_result(results_dir, pages):
        click.echo(f"Pages in {results_dir} whose results are gone: {listed(old, 20)}. Delete them.")
    graded = {name: students_in(results_dir, name) for name in assignments_in(results_dir)}
    for table, students in late.without_result(graded, course).items():
        click.echo(f"No result, but in {table} of course.toml: {listed(students, 20)}")
    for name, students in not_graded(results_dir, submitted, course).items():
        command = shlex.join(["autograder", "grade", name, str(submitted), "--out", str(results_dir)])
        click.echo(f"Handed in {name}, but not graded: {listed(students, 20)}. Run `{_with_course(ctx, command)}`.")
    if roster and (unknown := not_in_roster(results_dir, people)):
        click.echo(f"Results of students who are not in {roster}: {listed(unknown, 20)}")


@main.command()
@click.argument("results_dir", type=PATH)
@click.option("--to", "to", type=Choice(FORMATS), required=True, help="Format of the files.")
@click.option(
    "--out",
    type=PATH,
    help="Folder to write to (default: RESULTS_DIR; for nbgrader the course, with gradebook.db).",
)
@click.option("--submitted", type=PATH, help="Folder of the submissions, with their times.")
@click.option(
    "--roster",
    type=PATH,
    help="CSV file with the ids and other names of the students. A download of Canvas or Moodle is filled in.",
)
@click.option("--assignment", default="", help="Export this assignment only.")
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="NAME=COLUMN",
    help="Column of the roster for the marks of the assignment NAME.",
)
@click.option("--scale", is_flag=True, help="Scale the marks to the full marks in the roster.")
@click.pass_obj
def export(
    course: Path,
    results_dir: Path,
    to: str,
    out: Path | None,
    submitted: Path | None,
    roster: Path | None,
    assignment: str,
    columns: tuple[str, ...],
    scale: bool,
) -> None:
    """Export the marks for another system.

    They include the late penalties of course.toml. If the roster is the gradebook that Canvas exports, or the grading
    worksheet of Moodle, the marks are filled into a copy of it, which the platform can import.
    """
    from autograder.collect import read_roster
    from autograder.export import export as write

    if wrong := [entry for entry in columns if "=" not in entry]:
        raise ValueError(f"--column {wrong[0]} is not of the form NAME=COLUMN.")
    for path in write(
        results_dir,
        to,
        out or (course if to == "nbgrader" else results_dir),
        submitted=submitted,
        course=course,
        roster=read_roster(roster) if roster else None,
        assignment=assignment,
        columns=dict(entry.split("=", 1) for entry in columns),
        scale=scale,
        say=lambda remark: click.echo(remark, err=True),
    ):
        click.echo(f"wrote {path}")


@main.command()
@click.pass_obj
def selftest(course: Path) -> None:
    """Test the sandbox on this machine, one line per test."""
    from autograder.sandbox.free_memory import shortage
    from autograder.sandbox.limits import NEEDED_BYTES
    from autograder.sandbox.selftest import run_all

    if short := shortage(NEEDED_BYTES):
        raise Failure(f"The sandbox was not tested. {short}")
    broken = count = 0
    for title, complaint in run_all(course):
        count += 1
        broken += complaint is not None
        mark = "[green]holds[/]" if complaint is None else "[bold red]BROKEN[/]"
        Console(highlight=False).print(f"{mark}  {title}" + (f": {complaint}" if complaint else ""))
    if broken:
        raise Failure(f"{broken} of {count} tests failed: do not grade on this machine (see docs/sandbox.md).")
    click.echo(f"All {count} tests passed: submissions can be graded on this machine.")


if __name__ == "__main__":
    main()
