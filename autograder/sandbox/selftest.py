"""Proves the confinement on this machine: hostile programs run in the sandbox, and nothing must come of it.

Each proof is a probe that tries something and reports what it reached, and a condition on the report. The probes run
as submissions do, so what they cannot do, no submission can.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autograder.assignment import COURSE
from autograder.sandbox.limits import LIMITS, MIB
from autograder.sandbox.sandbox import Sandbox, SandboxProcess
from ebmcourse.checking import probe
from ebmcourse.checking.observer import Call, NoObservation, Observer

SURVIVOR = "ebm-survivor"


@probe
def network(student: Any, port: str) -> Any:
    import socket

    reached = [name for _, name in socket.if_nameindex() if name != "lo"]
    try:
        socket.create_connection(("127.0.0.1", int(port)), timeout=1)
        reached.append("a server on this machine")
    except OSError:
        pass
    return reached


@probe
def course_files(student: Any, course: str) -> Any:
    import os

    return [
        name
        for name in ("solutions", "autograder", "assignments", "tests", ".git")
        if os.path.exists(f"{course}/{name}")
    ]


@probe
def private_places(student: Any, home: str) -> Any:

    return [path for path in (home, "/etc/passwd", "/etc/shadow", "/home", "/var", "/mnt", "/media") if _listed(path)]


@probe
def _listed(path: str) -> Any:
    import os

    try:
        return bool(os.path.isfile(path) or set(os.listdir(path)) - {".pyenv", ".venv", ".local", "miniconda3"})
    except OSError:
        return False


@probe
def processes(student: Any, _: str) -> Any:
    import os

    return [os.getpid(), len(os.listdir("/proc"))]


@probe
def privileges(student: Any, _: str) -> Any:
    import ctypes
    import os

    libc = ctypes.CDLL(None)
    gained = ["mount"] if libc.mount(b"tmpfs", b"/usr", b"tmpfs", 0, None) == 0 else []
    for name, attempt in {
        "become root": lambda: os.setuid(0),
        "change root": lambda: os.chroot("/tmp"),
        "own namespace's proc": lambda: None if libc.umount2(b"/proc", 2) == 0 else os.stat("/nothing"),
        "be root in a new namespace": lambda: None if libc.unshare(0x10000000) == 0 else os.stat("/nothing"),
    }.items():
        try:
            attempt()
            gained.append(name)
        except OSError:
            pass
    return gained


@probe
def writes(student: Any, python: str) -> Any:
    import os

    written = []
    for path in (python, "/usr", "/", "/dev", "/etc", "/dev/shm/big", "/zygote.py"):
        try:
            if os.path.isdir(path):
                path = os.path.join(path, "planted")
            with open(path, "ab") as file:
                file.write(b"x" * 8192)
            written.append(path)
        except OSError:
            pass
    return written


@probe
def environment(student: Any, _: str) -> Any:
    import os

    return sorted(os.environ)


@probe
def descriptors(student: Any, _: str) -> Any:

    return [number for number in range(3, 256) if _is_open(number)]


@probe
def _is_open(number: int) -> bool:
    import os

    try:
        os.fstat(number)
        return True
    except OSError:
        return False


@probe
def memory(student: Any, _: str) -> Any:
    hoard = []
    while True:
        hoard.append(bytearray(64 * 2**20))


@probe
def stray_memory(student: Any, _: str) -> Any:
    import ctypes
    import os

    found = ["shared segment"] if ctypes.CDLL(None).shmget(0, 2**20, 0o1600) >= 0 else []
    try:
        os.memfd_create("hoard")
        found.append("file without a name")
    except OSError:
        pass
    return found


@probe
def forks(student: Any, _: str) -> Any:
    import os
    import time

    count = 0
    try:
        while True:
            if os.fork() == 0:
                time.sleep(100)
                os._exit(0)
            count += 1
    except OSError:
        return count


@probe
def threads(student: Any, _: str) -> Any:
    import threading
    import time

    count = 0
    try:
        while True:
            threading.Thread(target=time.sleep, args=(100,), daemon=True).start()
            count += 1
    except RuntimeError:
        return count


@probe
def disk(student: Any, _: str) -> Any:
    written = 0
    for number in range(100):
        try:
            with open(f"/tmp/{number}", "wb") as file:
                for _mebibyte in range(64):
                    written += file.write(bytes(2**20))
        except OSError:
            break
    return written


@probe
def files(student: Any, _: str) -> Any:
    count = 0
    try:
        for count in range(10**6):
            open(f"/tmp/{count}", "w").close()
    except OSError:
        pass
    return count


@probe
def loop(student: Any, _: str) -> Any:
    import contextlib
    import signal

    for number in range(1, 65):
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_IGN)
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass


@probe
def survivor(student: Any, name: str) -> Any:
    import ctypes
    import os
    import time

    try:
        child = os.fork()
    except OSError:
        return True
    if child == 0:
        os.setsid()
        if os.fork() == 0:
            ctypes.CDLL(None).prctl(15, name.encode(), 0, 0, 0)
            while True:
                time.sleep(0.01)
        os._exit(0)
    time.sleep(0.1)
    return True


@probe
def traces(student: Any, _: str) -> Any:
    import os

    found = [name for name in os.listdir("/tmp") if name == "left-behind"]
    open("/tmp/left-behind", "w").close()
    return found


@probe
def flood(student: Any, _: str) -> Any:
    import os

    for _time in range(2000):
        os.write(1, bytes(65536))
    return True


@dataclass(frozen=True)
class Proof:
    """A claim about the sandbox, the probe that tries to refute it, and what its report (or its end) must be."""

    title: str
    probe: Callable[..., Any]
    holds: Callable[[Any], bool]
    argument: str = ""


LOOP_SECONDS = 1.0

# Small limits, so that reaching them takes no time; that they are limits is what is proved.
SMALL = LIMITS | {"memory_bytes": 512 * MIB, "tmp_bytes": 8 * MIB, "tmp_files": 256, "threads": 16}

PROOFS = [
    Proof("no network", network, lambda reached: reached == []),
    Proof("no solutions, checks or grader on disk", course_files, lambda found: found == [], str(COURSE)),
    Proof("no home, no accounts, no other data", private_places, lambda found: found == [], str(Path.home())),
    Proof("no other process in sight", processes, lambda seen: seen == [1, 0]),
    Proof("no privileges, none to be had", privileges, lambda gained: gained == []),
    Proof(
        "Python and the system are read-only",
        writes,
        lambda written: written == [],
        os.path.dirname(os.__file__),
    ),
    Proof(
        "nothing of the grader's environment",
        environment,
        lambda names: (
            isinstance(names, list) and not set(names) & {"USER", "PYTHONPATH", "LOGNAME", "PYTEST_CURRENT_TEST"}
        ),
    ),
    Proof(
        "one channel and no other open file",
        descriptors,
        lambda numbers: isinstance(numbers, list) and len(numbers) == 1,
    ),
    Proof("memory ends at its limit", memory, lambda lost: lost == "memory"),
    Proof("no memory beside that of the process", stray_memory, lambda found: found == []),
    Proof("no second process, no fork bomb", forks, lambda count: count == 0),
    Proof(
        "a thread bomb ends at its limit",
        threads,
        lambda count: isinstance(count, int) and count < SMALL["threads"],
    ),
    Proof("the private disk is small", disk, lambda size: isinstance(size, int) and size <= SMALL["tmp_bytes"]),
    Proof(
        "a million files do not fit",
        files,
        lambda count: isinstance(count, int) and count <= SMALL["tmp_files"],
    ),
    Proof("a flood of output goes nowhere", flood, lambda done: done is True),
    Proof("a loop that ignores every signal is killed", loop, lambda lost: lost == "timeout"),
    Proof(
        "no process outlives its submission",
        survivor,
        lambda done: done is True and not _alive(SURVIVOR),
        SURVIVOR,
    ),
    Proof("the next submission finds no traces", traces, lambda found: found == []),
]


def run_all() -> Iterator[tuple[str, str | None]]:
    """Try every proof in one sandbox; yields its title and, where it failed, what was found."""
    with Sandbox(limits=SMALL) as sandbox, socket.create_server(("127.0.0.1", 0)) as server:
        for proof in PROOFS:
            argument = str(server.getsockname()[1]) if proof.probe is network else proof.argument
            for _ in range(2 if proof.probe is traces else 1):
                found = _try(sandbox, proof.probe, argument)
            yield proof.title, None if proof.holds(found) else f"the attempt gave {str(found)[:200]}"


def failures() -> list[str]:
    """The titles of the proofs that fail here; raises `Unavailable` where there is no sandbox at all."""
    return [title for title, complaint in run_all() if complaint]


def _try(sandbox: Sandbox, attempt: Callable[..., Any], argument: str) -> Any:
    room = SandboxProcess(sandbox, {})
    observer = Observer(room, {}, {}, messages=False, budget=60)
    seconds = LOOP_SECONDS if attempt is loop else 30.0
    try:
        return observer.observe(Call("selftest", Path(__file__), attempt.__name__, (argument,), 0, seconds))
    except NoObservation as lost:
        return lost.status
    finally:
        room.close()


def _alive(name: str) -> bool:
    """Whether a process of that name lives anywhere on this machine."""
    deadline = time.monotonic() + 1.0  # the kernel may still be clearing it away
    while time.monotonic() < deadline:
        if not any(_name(path) == name for path in Path("/proc").glob("[0-9]*/comm")):
            return False
        time.sleep(0.01)
    return True


def _name(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
