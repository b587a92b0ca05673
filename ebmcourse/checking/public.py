"""The public checks on a student's own machine, against the recorded observations of the reference."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from ebmcourse.assignment import Unusable, damaged, describe
from ebmcourse.checking.judge import BrokenChecks, Judge
from ebmcourse.checking.local import LocalProcess
from ebmcourse.checking.observer import Call, Observer, StudentProcess
from ebmcourse.checking.outcome import Outcome
from ebmcourse.checking.program import laid_out, program_in, write_program
from ebmcourse.checking.reference import RecordedReference

RECORDING = "recorded.safetensors"


class PublicChecks:
    """The public checks of the assignment in `folder`, or those of one `part`, to be run any number of times.

    A part may stand for several exercises, which are then the `parts`: 3.2 for 3.2a and 3.2b. Raises `Unusable` where
    the checks cannot be loaded or there is no such part.
    """

    def __init__(self, folder: Path, part: str | None = None) -> None:
        self.folder = folder.resolve()
        self.description = describe(self.folder)
        self.parts = self.description.exercises(part)
        checks = self.folder / "checks"
        try:
            reference = RecordedReference(checks / RECORDING)
            of_part = [names for of, names in reference.files.items() if self.parts is None or of in self.parts]
            files = [name for names in of_part for name in names]
            self._judge = Judge(checks, reference, dict.fromkeys(files)) if files else None
        except BrokenChecks as error:
            reason = str(error).strip().splitlines()[-1]
            raise Unusable(f"The checks cannot be loaded ({reason}): fetch the assignment again.") from None
        except (OSError, ValueError):
            raise damaged(self.folder) from None

    def outcomes(
        self,
        process: StudentProcess | None = None,
        announce: Callable[[str], None] = lambda part: None,
        cells: dict[str, str] | None = None,
    ) -> list[Outcome]:
        """Run the checks on the program as it is in the folder now, in the order of the files.

        Without a `process` the program runs in one that is started, and ended, here. `announce` is called with the
        exercise whenever the program is about to run for a check. `cells` are the texts of a kernel's cells, by their
        names: what is said about an exception quotes them instead of the files.
        """
        with self.process() if process is None else nullcontext(process) as running:
            files, problems = program_in(self.folder, self.description.files, self.description.given)
            clock = running.clock if isinstance(running, LocalProcess) else time.monotonic
            budget = self.description.seconds
            texts = files if cells is None else cells
            observer = _Announcing(running, texts, problems, messages=True, budget=budget, clock=clock)
            observer.announce = announce
            return self._judge.outcomes(observer, self.parts) if self._judge else []

    @contextmanager
    def process(self) -> Iterator[LocalProcess]:
        """A process for the program as it is in the folder now, with the modules imported that these checks need."""
        files, _ = program_in(self.folder, self.description.files, self.description.given)
        place = laid_out(files) if self.description.notebook_name else nullcontext(self.folder)
        with place as folder:
            process = LocalProcess(folder, self._modules(files))
            try:
                yield process
            finally:
                process.close()

    def reload(self, process: LocalProcess) -> None:
        """Let a process that `process` has made go on with the program as it is in the folder now."""
        if self.description.notebook_name:
            files, _ = program_in(self.folder, self.description.files, self.description.given)
            write_program(process.folder, files)
        process.restart()

    def _modules(self, files: dict[str, str]) -> list[str]:
        """The modules, of those that the assignment names, that the checks and the files they run import."""
        texts = self._judge.probe_sources(self.parts) if self._judge else []
        needed = [f"{name}.py" for text in texts for name in re.findall(r"\bstudent\.(\w+)", text)]
        for name in needed:  # grows while it is read: files that these files import
            text = files.get(name, "")
            texts.append(text)
            needed += [file for file in files if file not in needed and re.search(rf"\b{Path(file).stem}\b", text)]
        return [module for module in self.description.modules if _mentions("\n".join(texts), module)]


class _Announcing(Observer):
    """An observer that tells which exercise it is about to run."""

    announce: Callable[[str], None]

    def observe(self, call: Call) -> Any:
        self.announce(call.part)
        return super().observe(call)


def _mentions(text: str, module: str) -> bool:
    """Whether a program mentions a module: ``a.b``, or ``from a import b``; ``a.b.c`` also by its package ``a.b``."""
    parent, _, name = module.rpartition(".")
    pattern = rf"\b{re.escape(module)}\b"
    if parent:
        pattern += rf"|\bfrom {re.escape(parent)} import .*\b{name}\b"
    return re.search(pattern, text) is not None or ("." in parent and _mentions(text, parent))
