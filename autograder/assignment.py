"""An assignment: one folder under ``solutions/`` with an ``assignment.toml`` that describes it."""

from __future__ import annotations

import hashlib
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

COURSE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Assignment:
    """What `assignment.toml` says, and where things are."""

    name: str
    folder: Path
    title: str
    files: tuple[str, ...]  # that students hand in
    given: tuple[str, ...]  # that they get beside these, and the program needs
    parts: dict[str, str]  # the exercises, in order, and their titles
    modules: tuple[str, ...]  # imported once in the sandbox, before the first submission
    seconds: float  # computing time that a submission gets for all checks together

    @property
    def checks(self) -> Path:
        return self.folder / "checks"

    @property
    def quality(self) -> Path:
        return self.folder / "quality"

    @property
    def notebook(self) -> Path | None:
        """The percent script that is the source of the assignment's notebook, where it has one."""
        script = self.folder / f"{self.name}.py"
        return script if script.is_file() and script.name not in self.files else None

    @property
    def hands_in_notebook(self) -> bool:
        """Whether the program is in the notebook, and not in files beside it."""
        return f"{self.name}.ipynb" in self.files

    @property
    def scripts(self) -> tuple[Path, ...]:
        """The sources of the Python files that are handed in."""
        return tuple(self.folder / name for name in self.files if name.endswith(".py"))

    def given_texts(self) -> dict[str, str]:
        """The given files that a submission's program may import."""
        return {name: (self.folder / name).read_text("utf-8") for name in self.given if name.endswith(".py")}

    def checks_sha256(self) -> str:
        """Changes with whatever a mark depends on: the checks, the reference, the given files, the description."""
        digest = hashlib.sha256()
        own = [self.folder / name for name in ("assignment.toml", *self.given)]
        own += [self.notebook] if self.notebook and self.hands_in_notebook else []
        for path in sorted([*own, *self.scripts, *self.checks.glob("*.py")]):
            digest.update(f"{path.relative_to(self.folder)}\0".encode() + path.read_bytes() + b"\0")
        return digest.hexdigest()


def load(name: str, course: Path = COURSE) -> Assignment:
    """Read the assignment `name` of a course; raises ValueError where there is none or its description is wrong."""
    folder = course / "solutions" / name
    file = folder / "assignment.toml"
    if not file.is_file():
        known = ", ".join(names(course)) or "none"
        raise ValueError(f"There is no assignment {name!r}; this course has: {known}.")
    try:
        about = tomllib.loads(file.read_text("utf-8"))
        return Assignment(
            name=name,
            folder=folder,
            title=about["title"],
            files=tuple(about["files"]),
            given=tuple(about.get("given", ())),
            parts=about["parts"],
            modules=tuple(about.get("modules", ())),
            seconds=float(about["limits"]["seconds"]),
        )
    except (tomllib.TOMLDecodeError, KeyError) as error:
        raise ValueError(f"{file} cannot be used: {error}.") from error


def names(course: Path = COURSE) -> list[str]:
    """The assignments of a course."""
    return sorted(path.parent.name for path in (course / "solutions").glob("*/assignment.toml"))


def part_points(assignment: Assignment) -> dict[str, float]:
    """How many points the checks of each exercise give."""
    points: dict[str, float] = {}
    for path in sorted(assignment.checks.glob("test_*.py")):
        for part, value in re.findall(r'@exercise\(\s*"([^"]+)",\s*points=([\d.]+)', path.read_text("utf-8")):
            points[part] = points.get(part, 0.0) + float(value)
    return points
