"""An assignment of a course: one folder under ``solutions/`` with an ``assignment.toml`` that describes it."""

from dataclasses import dataclass
from pathlib import Path

from ebmcourse.assignment import Description, read_description

COURSE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Assignment(Description):
    """The description of an assignment, its name, and the folder that holds its sources."""

    name: str
    folder: Path

    @property
    def checks(self) -> Path:
        return self.folder / "checks"

    @property
    def quality(self) -> Path:
        return self.folder / "quality"

    @property
    def notebook(self) -> Path | None:
        """The percent script that is the source of the assignment's notebook; None where there is no notebook."""
        script = self.folder / f"{self.name}.py"
        return script if script.is_file() and script.name not in self.files else None

    @property
    def hands_in_notebook(self) -> bool:
        """Whether the program is in the notebook, and not in Python files."""
        return f"{self.name}.ipynb" in self.files

    @property
    def wanted(self) -> tuple[str, ...]:
        """The names of all files to hand in: those of the program, and the notebook with the written answers."""
        notebook = f"{self.name}.ipynb"
        return self.files if self.notebook is None or notebook in self.files else (*self.files, notebook)

    @property
    def scripts(self) -> tuple[Path, ...]:
        """The sources of the Python files that are handed in."""
        return tuple(self.folder / name for name in self.files if name.endswith(".py"))

    def given_texts(self) -> dict[str, str]:
        """The given files that a submission's program may import."""
        return {name: (self.folder / name).read_text("utf-8") for name in self.given if name.endswith(".py")}


def load(name: str, course: Path = COURSE) -> Assignment:
    """Read the assignment `name` of a course; raises ValueError where there is none or its description is wrong."""
    folder = course / "solutions" / name
    if not (folder / "assignment.toml").is_file():
        known = ", ".join(names(course)) or "none"
        raise ValueError(f"There is no assignment {name!r}; this course has: {known}.")
    return Assignment(**vars(read_description(folder / "assignment.toml")), name=name, folder=folder)


def names(course: Path = COURSE) -> list[str]:
    """The assignments of a course."""
    return sorted(path.parent.name for path in (course / "solutions").glob("*/assignment.toml"))
