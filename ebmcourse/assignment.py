"""What ``assignment.toml`` says about an assignment: read the same way by instructors' and students' tools."""

import tomllib
from dataclasses import dataclass
from pathlib import Path


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
