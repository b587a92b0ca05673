"""Proves the confinement on this machine: hostile programs run in the sandbox, and must reach nothing. Runs outside.

Each proof is an attempt, which tries something in the sandbox and reports what it reached, and a condition on the
report. The attempts (`selftest_inside.py`) run as submissions do, so what they cannot do, no submission can.
"""

import contextlib
import os
import secrets
import socket
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from autograder.assignment import COURSE
from autograder.sandbox import selftest_inside as attempts
from autograder.sandbox.free_memory import shortage
from autograder.sandbox.limits import LIMITS, MIB, NEEDED_BYTES
from autograder.sandbox.outside import Sandbox, SandboxProcess
from autograder.sandbox.visible import LIBRARY, needed_below
from ebmcourse.checking.observer import Call, NoObservation, Observer

EXCHANGE = Path("/usr/local/share/nbgrader/exchange")  # nbgrader's default
PLANT = ".autograder-selftest-"
SURVIVOR = f"ebm-{os.getpid()}"  # other workers on this machine run the same test
LOOP_SECONDS = 1.0
MAX_KILLED = 3
GRADERS_OWN = ["USER", "LOGNAME", "PYTHONPATH", "PYTEST_CURRENT_TEST", socket.gethostname()]
SYSTEM = ("/proc", "/sys", "/dev", "/etc", "/run", "/var", "/usr/bin", "/usr/share", "/usr/local/share", "/usr/src")
DEVICES = {"null", "random", "urandom"}

# Small limits, so that reaching them takes no time; what is proved is that they are limits.
SMALL = LIMITS | {"memory_bytes": 512 * MIB, "tmp_bytes": 8 * MIB, "tmp_files": 256, "threads": 16}


@dataclass(frozen=True)
class Proof:
    """A claim about the sandbox, the attempt to refute it, and what the attempt's report (or its end) must be."""

    title: str
    attempt: Callable[..., Any]
    holds: Callable[[Any], bool]
    inputs: tuple[Any, ...] = ()
    times: int = 1


def _nothing(found: Any) -> bool:
    return found == []


def _at_most(limit: int) -> Callable[[Any], bool]:
    return lambda found: isinstance(found, int) and found <= limit


_PYTHON = [os.path.dirname(os.__file__), sysconfig.get_path("purelib")]
if not Path(sys.prefix).is_relative_to("/tmp"):  # there it is a folder in the submission's own /tmp
    _PYTHON.append(sys.prefix)

PROOFS = [
    Proof("no sockets, and so no network", attempts.sockets, _nothing),
    Proof("no other process in sight", attempts.processes, lambda seen: seen == [1, 0, 1]),
    Proof("no privileges, and no way to any", attempts.privileges, _nothing),
    Proof("no system calls of another architecture", attempts.other_numbers, _nothing),
    Proof(
        "Python and the system are read-only",
        attempts.writes,
        _nothing,
        (["/", "/usr", "/dev", "/etc", "/proc", *_PYTHON, str(LIBRARY)],),
    ),
    Proof("nothing of the grader's environment", attempts.environment, _nothing, (GRADERS_OWN,)),
    Proof("one channel and no other open file", attempts.descriptors, lambda found: len(found) == 1),
    Proof("no terminals and no other devices", attempts.terminals, _nothing),
    Proof("no locks that others notice", attempts.shared_locks, _nothing, (os.__file__,)),
    Proof("memory ends at its limit", attempts.memory, lambda found: found == "memory"),
    Proof(
        "unmapped libraries make no room for more memory",
        attempts.memory_of_libraries,
        _at_most(SMALL["memory_bytes"] // MIB),
    ),
    Proof(
        "the kernel holds {} bytes for sockets, pipes and the like beyond the memory limit",
        attempts.kernel_memory,
        lambda found: sum(found.values()) == 0,
        (40,),
    ),
    Proof("no second process, no fork bomb", attempts.new_processes, _nothing),
    Proof("a thread bomb ends at its limit", attempts.threads, _at_most(SMALL["threads"])),
    Proof("the private disk is small", attempts.disk, _at_most(SMALL["tmp_bytes"])),
    Proof("a million files do not fit", attempts.files, _at_most(SMALL["tmp_files"])),
    Proof("a flood of output goes nowhere", attempts.flood, lambda done: done is True),
    Proof("a loop that ignores every signal is killed", attempts.loop, lambda found: found == "timeout"),
    Proof(
        "no process outlives its submission",
        attempts.survivor,
        lambda done: done is True and not _alive(SURVIVOR),
        (SURVIVOR,),
    ),
    Proof("the next submission finds no traces", attempts.traces, _nothing, times=2),
]


def run_all(
    course: Path = COURSE, folders: Iterable[Path] = (), sandbox: Sandbox | None = None
) -> Iterator[tuple[str, str | None]]:
    """Try every proof in `sandbox`, or in a new one; yields its title and, where it failed, what was found.

    No file of the course, the exchange, the grader's home, and these `folders` may be visible.
    """
    with ExitStack() as stack:
        sandbox = sandbox or stack.enter_context(contextlib.closing(Sandbox()))
        sandbox.launch()
        private = private_places(course, folders)  # while the sandbox warms up
        sandbox.start()
        stack.enter_context(sandbox.limited(SMALL))
        if sandbox.cgroup is not None:
            yield "a cgroup limits the memory of the whole sandbox, the kernel's included", None
        with planted(private) as plants:
            title = f"no file of the course, the exchange or a home ({len(plants)} planted)"
            yield _try(sandbox, Proof(title, attempts.places, _nothing, (plants, _visible_names(private))))
        system = _visible_names(map(Path, SYSTEM))
        yield _try(sandbox, Proof("nothing of the system but Python", attempts.places, _nothing, ([], system)))
        for proof in PROOFS:
            yield _try(sandbox, proof)


def failures(sandbox: Sandbox | None = None, course: Path = COURSE, folders: Iterable[Path] = ()) -> list[str]:
    """The titles of the proofs that fail here; raises `Unavailable` where there is no sandbox at all."""
    return [title for title, complaint in run_all(course, folders, sandbox) if complaint]


def private_places(course: Path, folders: Iterable[Path] = ()) -> list[Path]:
    """Folders that no submission may see: each of them, or what exists of the path to it."""
    home = Path.home()
    found = [*exchanges(course), *folders, course, home, home.parent, home / ".config" / "ebmcourse"]
    found += [course / name for name in ("solutions", "submitted", "autograded", "results", "feedback", ".git")]
    found += map(Path, ("/home", "/root", "/tmp", "/var/tmp", "/srv", "/mnt", "/media", "/opt", "/usr/local/share"))
    found = [Path(os.path.abspath(folder)) for folder in found]
    there = [next(place for place in (folder, *folder.parents) if os.path.isdir(place)) for folder in found]
    return [place for place in dict.fromkeys(there) if place != Path("/")]


def exchanges(course: Path) -> list[Path]:
    """Where nbgrader's exchange may be: the default, what NBGRADER_EXCHANGE says, and what nbgrader is told."""
    from jupyter_core.paths import jupyter_config_path
    from traitlets.config import Application

    nbgrader = Application(log_level="CRITICAL")  # a damaged configuration is reported by nbgrader
    nbgrader.load_config_file("nbgrader_config", path=[str(course), os.getcwd(), *jupyter_config_path()])
    told = [os.environ.get("NBGRADER_EXCHANGE"), nbgrader.config.Exchange.get("root")]
    return [EXCHANGE, *(Path(place).expanduser() for place in told if isinstance(place, str) and place)]


def _visible_names(folders: Iterable[Path]) -> dict[str, list[str]]:
    """Folder -> the names in it that the sandbox has to show: they lead to Python or to the students' library."""
    own = {Path("/dev"): DEVICES, Path("/tmp"): {"submission"}}
    return {
        str(folder): sorted(
            own.get(folder, set()) | {Path(path).relative_to(folder).parts[0] for path in needed_below(folder)}
        )
        for folder in folders
    }


@contextlib.contextmanager
def planted(folders: Iterable[Path]) -> Iterator[list[str]]:
    """Files with a secret that everybody may read, in those of `folders` where this user may write; removed at the end.

    Folders of other people are left alone, except those that everybody may write to. What self-tests of this machine
    left behind, because they were killed, is removed first.
    """
    own = f"{PLANT}{socket.gethostname()}-"
    name = f"{own}{os.getpid()}-{secrets.token_hex(8)}"
    plants = []
    with ExitStack() as stack:
        for folder in folders:
            status = folder.stat()
            if status.st_uid != os.getuid() and not status.st_mode & 0o002:
                continue
            for path in folder.glob(f"{own}[0-9]*-*"):
                if not Path("/proc", path.name.removeprefix(own).partition("-")[0]).exists():
                    _remove(path)
            path = folder / name
            stack.callback(_remove, path)  # first, so that an interrupt leaves nothing
            with contextlib.suppress(OSError):
                # By its descriptor: somebody else may put a link in its place, if everybody may write to the folder.
                with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "w") as file:
                    file.write("secret")
                    os.fchmod(file.fileno(), 0o644)
                plants.append(str(path))
        yield plants


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # somebody may have put a folder there, which must not stop the grading
        path.unlink()


def _try(sandbox: Sandbox, proof: Proof) -> tuple[str, str | None]:
    """The title of a proof, and None where it holds, else what was found."""
    for _ in range(proof.times):
        found, was_killed = _report(sandbox, proof)
    if was_killed:
        return proof.title.format("unknown"), (
            f"not known, because its process was killed {MAX_KILLED} times from outside. "
            + (shortage(NEEDED_BYTES) or "Does this machine have too little memory?")
        )
    try:
        holds = proof.holds(found)
    except (TypeError, AttributeError):  # the attempt ended in another way than by its report
        holds = False
    held = sum(found.values()) if isinstance(found, dict) else "unknown"
    return proof.title.format(held), None if holds else f"the attempt gave {str(found)[:200]}"


def _report(sandbox: Sandbox, proof: Proof) -> tuple[Any, bool]:
    """What the attempt reports, or how it ended, and whether something else killed its process each time."""
    seconds = LOOP_SECONDS if proof.attempt is attempts.loop else 30.0
    call = Call("selftest", Path(attempts.__file__), proof.attempt.__name__, proof.inputs, 0, seconds)
    for _ in range(MAX_KILLED):
        process = SandboxProcess(sandbox, {})
        try:
            found = Observer(process, {}, {}, messages=False, budget=60).observe(call)
        except NoObservation as lost:
            found = lost.status
        finally:
            process.close()
        if not process.was_killed:
            break
    return found, process.was_killed


def _alive(name: str) -> bool:
    """Whether a process of that name is running anywhere on this machine."""
    deadline = time.monotonic() + 1.0  # the kernel may still be ending it
    while time.monotonic() < deadline:
        if all(process.info["name"] != name for process in psutil.process_iter(["name"])):
            return False
        time.sleep(0.01)
    return True
