"""What ``assignment.toml`` says about an assignment: read the same way by instructors' and students' tools."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path


class Unusable(ValueError):
    """A folder is not an assignment, or its checks cannot be loaded; the message says what to do."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows: IPython calls this instead of writing a traceback, which is about our own code."""
        return [str(self)]


@dataclass(frozen=True)
class Description:
    """The title, the exercises and the files of an assignment."""

    title: str
    files: tuple[str, ...]  # that students hand in
    given: tuple[str, ...]  # that they get as well, and the program needs
    parts: dict[str, str]  # the exercises, in order, and their titles
    modules: tuple[str, ...]  # that a program imports: loaded once, before the first check
    seconds: float  # computing time that a submission gets for all checks together

    @property
    def notebook_name(self) -> str | None:
        """The name, without its ending, of the notebook that is handed in; None where it is Python files."""
        return next((name.removesuffix(".ipynb") for name in self.files if name.endswith(".ipynb")), None)

    def exercises(self, part: str | None) -> list[str] | None:
        """The exercises that belong to a part: 3.2a and 3.2b to 3.2, and all (None) to None.

        Raises `Unusable` where there are none.
        """
        if part is None or part in self.parts:
            return None if part is None else [part]
        if found := [exercise for exercise in self.parts if _belongs(exercise, part)]:
            return found
        raise Unusable(f"There are no checks of the part {part!r}: there are checks of {', '.join(self.parts)}.")


def read_description(file: Path) -> Description:
    """Read an ``assignment.toml``.

    Raises OSError where the file cannot be read, and ValueError where it does not describe an assignment.
    """
    try:
        about = tomllib.loads(file.read_text("utf-8-sig"))
        return Description(
            title=about["title"],
            files=tuple(about["files"]),
            given=tuple(about.get("given", ())),
            parts=about["parts"],
            modules=tuple(about.get("modules", ())),
            seconds=float(about["limits"]["seconds"]),
        )
    except KeyError as error:
        raise ValueError(f"{file} cannot be used: the entry {error} is missing.") from error
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file} cannot be used: {error}.") from error


def describe(folder: Path) -> Description:
    """The description of the released assignment in `folder`; raises `Unusable` where there is none."""
    try:
        return read_description(folder / "checks" / "assignment.toml")
    except OSError:
        raise Unusable(_no_assignment(folder)) from None
    except ValueError:
        raise damaged(folder) from None


def _no_assignment(folder: Path) -> str:
    """Why `folder` is no assignment, and what to do."""
    if not folder.exists():
        return f"There is no folder {folder}: check the name."
    if not folder.is_dir():
        return f"{folder} is a file: give the folder of the assignment, or use --part to check one exercise."
    missing = f"There is no folder `checks` in {folder}"
    inside = sorted(path.parent.parent.name for path in folder.glob("*/checks/assignment.toml"))
    if inside:
        names = ", ".join(inside)
        return f"{missing}, but there are assignments: go to the folder of one of them, or add its name ({names})."
    return f"{missing}: go to the folder of the assignment, or fetch it again."


def _belongs(exercise: str, part: str) -> bool:
    """Whether an exercise belongs to a part: 3.2a to 3.2 and to 3, but 3.10a not to 3.1."""
    return re.match(rf"{re.escape(part)}(?!\d)", exercise) is not None


def damaged(folder: Path) -> Unusable:
    """The error about a release whose files were changed or lost."""
    return Unusable(f"The folder `checks` in {folder} is damaged: fetch the assignment again.")
