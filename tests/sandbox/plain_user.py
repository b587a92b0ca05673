"""For tests that run as root: a plain user on this machine, with a Python, an environment and a home of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path

from autograder.assignment import COURSE

USER = 65534
HOME = Path("/home/grader")
PYTHON = f"python{sysconfig.get_python_version()}"
DEBIAN = Path("/usr/bin/python3")


@dataclass
class Machine:
    """This machine as the plain user sees it.

    `home` is the folder here that is the user's home there; `shown` maps more paths there to paths here. The home holds
    this course, without its virtual environment. Folders at the top that hold a home, this course or this Python look
    empty otherwise.
    """

    home: Path
    shown: dict[Path, Path] = field(default_factory=dict)

    def interpreter(self, prefix: Path) -> Path:
        """Install this Python at `prefix`, with its standard library and no packages; returns the program."""
        library = sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix})
        self.shown[prefix / "bin" / PYTHON] = Path(os.path.realpath(sys.executable))
        self.shown[prefix / "lib" / PYTHON] = Path(library)
        shared = Path(sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("INSTSONAME"))
        if shared.suffix != ".a" and shared.exists():
            self.shown[shared] = shared  # where the program looks for it
        return prefix / "bin" / PYTHON

    def packages(self, folder: Path) -> None:
        """Show the packages of this environment in `folder`."""
        self.shown[folder] = Path(sysconfig.get_path("purelib"))

    def environment(self, place: Path, base: Path) -> Path:
        """Make a virtual environment of the Python `base`, with the packages of this one; returns its Python."""
        folder = self.home.parent / "environment"
        (folder / "bin").mkdir(parents=True)
        (folder / "bin" / "python").symlink_to(base)
        (folder / "pyvenv.cfg").write_text(f"home = {base.parent}\ninclude-system-site-packages = false\n")
        (folder / "lib" / PYTHON / "site-packages").mkdir(parents=True)
        (folder / "share" / "jupyter").mkdir(parents=True)
        self.shown[place] = folder
        self.packages(place / "lib" / PYTHON / "site-packages")
        return place / "bin" / "python"

    def run(self, *command: object) -> subprocess.CompletedProcess[str]:
        """Run a command as the plain user, from the home."""
        course = {HOME / "course" / entry.name: entry for entry in COURSE.iterdir() if entry.name != ".venv"}
        shown = course | self.shown
        for place in shown:
            if place.is_relative_to(HOME):
                (self.home / place.relative_to(HOME)).parent.mkdir(parents=True, exist_ok=True)
        for path in (self.home, *self.home.rglob("*")):
            os.chown(path, USER, USER, follow_symlinks=False)
        words: list[object] = ["bwrap", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--dev-bind", "/", "/"]
        tops = {Path("/", Path(path).parts[1]) for path in (HOME, COURSE, sys.prefix, sys.base_prefix)}
        hidden = sorted(tops - {Path("/usr"), Path("/opt")})
        for folder in hidden:
            words += ["--tmpfs", folder]
        words += ["--perms", "1777", "--tmpfs", "/tmp"]
        for folder in sorted({parent for place in (HOME, *shown) for parent in place.parents}):
            if {*folder.parents} & {*hidden, Path("/tmp")}:
                words += ["--perms", "0755", "--dir", folder]
        words += ["--bind", self.home, HOME]
        for place, source in sorted(shown.items()):
            words += ["--bind", source, place]
        words += ["--chdir", HOME, "setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
        words += ["env", "-i", f"HOME={HOME}", f"PYTHONPATH={HOME / 'course'}", "PATH=/usr/local/bin:/usr/bin:/bin"]
        words += ["OMP_NUM_THREADS=1", "PYTHONDONTWRITEBYTECODE=1", *command]
        return subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=600)


def distribution_has_this_version() -> bool:
    """Whether Debian's Python is of the version that this environment's packages are built for."""
    ask = [DEBIAN, "-c", "import sysconfig; print('python' + sysconfig.get_python_version())"]
    return DEBIAN.exists() and subprocess.run(ask, capture_output=True, text=True).stdout.strip() == PYTHON
