"""The hand-out: one zip file with all that students need, and nothing else.

It contains the wheel of `ebmcourse`, the released assignments, the tested versions of all packages, the students'
guide, and the scripts for a cluster and nbgrader. Equal sources give equal bytes.
"""

import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from autograder import Failure
from autograder.assignment import COURSE, Assignment
from autograder.release.gate import hidden_checks, hidden_values, leaks
from autograder.results import write_atomically

TOP = "course"  # the folder that unpacking makes
WHEEL = "ebmcourse-*.whl"
# What the hand-out contains besides the assignments and the wheel.
GENERAL = ("README.md", "constraints.txt", "environment.yml", "nbgrader_config.py", "requirements.txt")
SLURM = "slurm/train.sbatch"
_TEMPLATES = Path(__file__).with_name("template") / "handout"
_DATE = (2020, 1, 1, 0, 0, 0)  # of all files, because the time of the build would change the bytes


def write_handout(
    target: Path,
    assignments: Iterable[Assignment],
    everything: list[Assignment],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write the hand-out with the releases of `assignments`; `everything` are all assignments of the course.

    `progress` is called with the numbers of finished and of all steps. Raises `Failure` if the hand-out would contain
    something that students must not get.
    """
    chosen = list(assignments)
    total = len(everything) + 2
    progress(0, total)
    with TemporaryDirectory() as name:
        folder = Path(name) / TOP
        _fill(folder, chosen)
        progress(1, total)
        if found := complaints(folder, chosen, everything, lambda tested: progress(1 + tested, total)):
            raise Failure(f"{target} was not written: {found[0]}.")
        packed = Path(name) / "packed.zip"
        _pack(folder, packed)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, packed.read_bytes())
    progress(total, total)


def _fill(folder: Path, assignments: list[Assignment]) -> None:
    folder.mkdir()
    for assignment in assignments:
        released = assignment.folder.parents[1] / "assignments" / assignment.name
        shutil.copytree(released, folder / assignment.name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    built = subprocess.run(command, cwd=COURSE, capture_output=True, text=True, check=False)
    if built.returncode:
        raise Failure(f"The wheel of ebmcourse cannot be built: {built.stderr.strip().splitlines()[-1]}")
    (wheel,) = folder.glob(WHEEL)
    shutil.copytree(_TEMPLATES, folder, dirs_exist_ok=True)
    shutil.copyfile(COURSE / "requirements.lock", folder / "constraints.txt")
    (folder / SLURM).parent.mkdir()
    shutil.copyfile(COURSE / SLURM, folder / SLURM)
    guide = (COURSE / "docs" / "student.md").read_text("utf-8")
    texts = {
        "README.md": re.sub(r"<!--.*?-->\n", "", guide, flags=re.DOTALL),  # without the comments for its tests
        "environment.yml": _environment((COURSE / "environment.yml").read_text("utf-8")),
        "requirements.txt": f"--constraint constraints.txt\n./{wheel.name}[notebook]\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8", newline="\n")


def _environment(text: str) -> str:
    """The conda environment, with the packages of requirements.txt."""
    head, pip, _ = text.partition("  - pip:\n")
    lines = [line for line in head.splitlines(keepends=True) if not line.startswith("#")]
    return "".join(lines) + f"{pip}      - -r requirements.txt\n"


def _pack(folder: Path, target: Path) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            about = zipfile.ZipInfo(path.relative_to(folder.parent).as_posix(), _DATE)
            about.external_attr = 0o644 << 16
            about.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(about, path.read_bytes())


def complaints(
    folder: Path,
    assignments: Iterable[Assignment],
    everything: list[Assignment],
    progress: Callable[[int], None] = lambda tested: None,
) -> list[str]:
    """Return the reasons, as sentences, why the unpacked hand-out in `folder` must not be given to students.

    Its files are those listed in this module, and none contains a line of a solution, a hidden check, or what the
    reference returns in a hidden check, of any assignment of the course. `progress` is called with the number of these
    that have been tested.
    """
    names = {assignment.name for assignment in assignments}
    found = []
    with TemporaryDirectory() as unpacked:
        whole = Path(unpacked) / TOP
        shutil.copytree(folder, whole)
        for wheel in whole.glob(WHEEL):
            zipfile.ZipFile(wheel).extractall(whole / "wheel")
            wheel.unlink()
        for path in sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file()):
            if not _belongs(path, names):
                found.append(f"{path} is not a part of the hand-out")
        for tested, assignment in enumerate(everything, start=1):
            found += leaks(assignment, whole, everything)
            progress(tested)
        for name in sorted(names):
            found += [*hidden_checks(whole / name), *hidden_values(whole / name)]
    return found


def _belongs(path: Path, assignments: set[str]) -> bool:
    top, *rest = path.parts
    if top == "wheel":
        return re.fullmatch(r"ebmcourse(-[\d.]+\.dist-info)?", rest[0]) is not None
    return top in assignments if rest and path.as_posix() != SLURM else path.as_posix() in (*GENERAL, SLURM)
