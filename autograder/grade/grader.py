"""The grader: a warm sandbox and a judge that grade one submission after another.

What a submission gets depends only on itself, the checks and the seed: not on the worker, the order, or the time.
"""

import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from autograder import Failure
from autograder.assignment import Assignment
from autograder.drawings import Drawn
from autograder.grade.draw import draw
from autograder.grade.fingerprint import fingerprint
from autograder.grade.job import Job
from autograder.grade.submissions import Submission
from autograder.release.programs import reference_program
from autograder.results import Result, Timings
from autograder.sandbox.huge_pages import use_huge_pages
from autograder.sandbox.outside import Sandbox, SandboxProcess
from autograder.sandbox.selftest import failures
from ebmcourse.checking.judge import Judge
from ebmcourse.checking.local import LocalProcess
from ebmcourse.checking.observer import Observer, StudentProcess
from ebmcourse.checking.program import laid_out
from ebmcourse.checking.reference import PUBLIC_SEED, LiveReference

DRAWING_SECONDS = 20.0  # for all drawings of a submission together
LATE_MODULES = ("torch._dynamo",)  # and 900 more: torch imports them at the first step of an optimizer
NOTEBOOK_MODULES = ("IPython.core.inputtransformer2",)  # for cells with magics
MAX_KILLED = 3
KILLED = f"its process was killed {MAX_KILLED} times, and not by the program: does this machine have too little memory?"


class Grader:
    """Grades submissions one by one, with a judge and a sandbox that stay warm.

    Raises `Failure` where the sandbox does not hold, or the assignment is not the one that the job was made for.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._given = job.assignment.given_texts()
        self._sandbox = Sandbox(modules(job.assignment))
        with ExitStack() as stack:
            stack.callback(self._sandbox.close)
            if job.confined:
                self._sandbox.launch()  # it imports what submissions need while the judge imports the same
            reference = stack.enter_context(laid_out(reference_program(job.assignment)))
            # A copy, because Python would take the compiled form of an older file with the same size and time.
            checks = Path(stack.enter_context(TemporaryDirectory()), "checks").resolve()
            shutil.copytree(job.assignment.checks, checks, ignore=shutil.ignore_patterns("__pycache__"))
            self._judge = Judge(checks, LiveReference(job.seed.value, reference))
            self._requests = self._judge.requests
            self._public = LiveReference(PUBLIC_SEED, reference)
            if fingerprint(job.assignment) != job.checks_sha256:
                raise Failure(
                    f"The checks, the reference, this program or a package is not the same on {platform.node()} as "
                    "when grading began: was it changed meanwhile? Run the command again."
                )
            if job.confined:
                self._sandbox.start()
                if job.private and (broken := failures(self._sandbox, job.private[0], job.private[1:])):
                    raise Failure(
                        f"The sandbox does not work on {platform.node()} ({broken[0]}): run `autograder selftest` "
                        "there for details."
                    )
                use_huge_pages()  # for this process, which judges many submissions
            self._open = stack.pop_all()

    def grade(self, submission: Submission) -> tuple[Result, Timings]:
        """Judge one submission; once more where its process was killed, and not by itself."""
        for _ in range(MAX_KILLED):
            begin = time.perf_counter()
            with self._process(submission) as process:
                observer = self._observer(submission, process, self._job.assignment.seconds)
                observer.ask_ahead(self._requests)
                checks = self._judge.outcomes(observer)
            killed = was_killed(process)
            if not killed:
                break
        result = Result(
            assignment=self._job.assignment.name,
            student=submission.student,
            score=round(sum(check.points for check in checks), 6),
            max_score=round(sum(check.max_points for check in checks), 6),
            submission_sha256=submission.sha256,
            checks_sha256=self._job.checks_sha256,
            seed=self._job.seed.label,
            flags=sorted({*submission.flags, *merged_flags(observer.flags), *([KILLED] if killed else [])}),
            checks=checks,
            confined=self._job.confined,
        )
        return result, Timings(time.perf_counter() - begin, observer.seconds)

    def draw(self, submission: Submission, result: Result) -> list[Drawn]:
        """The drawings for the feedback, made in a process of their own: they do not affect the mark.

        What did not answer a check in time is not asked again.
        """
        too_slow = {check.part for check in result.checks if check.status == "timeout"}
        drawings = [drawing for drawing in self._judge.drawings if drawing.part not in too_slow]
        if not drawings:
            return []
        for _ in range(MAX_KILLED):
            with self._process(submission) as process:
                observer = self._observer(submission, process, DRAWING_SECONDS)
                found = [draw(drawing, observer, self._public) for drawing in drawings]
            if not was_killed(process):
                break
        return [drawn for drawn in found if drawn]

    def close(self) -> None:
        """End the sandbox, and remove the files of the reference."""
        self._open.close()

    def _observer(self, submission: Submission, process: StudentProcess, seconds: float) -> Observer:
        return Observer(process, submission.files, submission.problems, messages=False, budget=seconds)

    @contextmanager
    def _process(self, submission: Submission) -> Iterator[StudentProcess]:
        files = submission.files | self._given
        with ExitStack() as stack:
            process: StudentProcess
            if self._job.confined:
                process = SandboxProcess(self._sandbox, files)
            else:
                process = LocalProcess(stack.enter_context(laid_out(files)), self._job.assignment.modules)
            stack.callback(process.close)
            yield process


def modules(assignment: Assignment) -> tuple[str, ...]:
    """What the sandbox imports before the first submission."""
    return (*assignment.modules, *LATE_MODULES, *(NOTEBOOK_MODULES if assignment.hands_in_notebook else ()))


def was_killed(process: StudentProcess) -> bool:
    """Whether something other than the submission killed its process."""
    return isinstance(process, SandboxProcess) and process.was_killed


def merged_flags(flags: list[str]) -> list[str]:
    """Flags ``check: what happened``; those that say the same about several checks become one."""
    checks: dict[str, list[str]] = {}
    for flag in flags:
        check, what = flag.split(": ", 1)
        checks.setdefault(what, []).append(check)
    more = {what: f" and {len(where) - 1} more" if len(where) > 1 else "" for what, where in checks.items()}
    return [f"{where[0]}{more[what]}: {what}" for what, where in checks.items()]
