"""What a submission cannot do, and what it must still be able to do."""

import os
import socket
import sys
from pathlib import Path

import pytest

import ebmcourse
from autograder.assignment import COURSE
from autograder.sandbox.limits import MIB
from autograder.sandbox.selftest import SMALL
from ebmcourse.checking import probe
from ebmcourse.checking.observer import NoObservation


@probe
def reach(student, port):
    import socket

    families = {"internet": (socket.AF_INET, ("127.0.0.1", port)), "name": (socket.AF_UNIX, "\0ebm-test-server")}
    reached = []
    for name, (family, address) in families.items():
        try:
            with socket.socket(family) as line:
                line.connect(address)
                reached.append(name)
        except OSError:
            pass
    return reached


def test_cannot_use_the_network(submission):
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as named:
        named.bind("\0ebm-test-server")
        named.listen()
        assert submission().ask(reach, tcp.getsockname()[1]) == []


@probe
def readable(student, places):
    import os

    return [place for place in places if os.path.exists(place) and (os.path.isfile(place) or os.listdir(place))]


def test_cannot_read_what_is_not_python(submission):
    grader = [str(COURSE / name) for name in ("solutions", "autograder", "tests", "assignments", ".git", "README.md")]
    machine = ["/etc/passwd", "/etc/hostname", "/etc/resolv.conf", "/var", "/run", "/sys", "/boot", "/proc", "/dev/shm"]
    machine += ["/usr/share", "/usr/local/share", "/usr/src", "/usr/include", "/usr/lib/systemd", "/dev/ptmx"]
    assert submission().ask(readable, [*grader, *machine, str(Path.home() / ".config")]) == []
    assert submission().ask(readable, [os.path.dirname(ebmcourse.__file__)]) != []


@probe
def importable(student, names):
    import importlib

    found = []
    for name in names:
        try:
            importlib.import_module(name)
            found.append(name)
        except ImportError:
            pass
    return found


def test_cannot_import_the_grader(submission):
    names = ["autograder", "autograder.grade.grader", "autograder.release.build", "solutions", "ebmcourse.gtn"]
    assert submission().ask(importable, names) == ["ebmcourse.gtn"]


@probe
def gained(student):
    """What worked of all that could bring privileges, other processes or other namespaces."""
    import ctypes
    import os

    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    attempts = {
        "root": lambda: os.setuid(0),
        "group": lambda: os.setgid(0),
        "groups": lambda: os.setgroups([0]),
        "chroot": lambda: os.chroot("/tmp"),
        "priority": lambda: os.nice(-5),
        "fork": os.fork,
        "forkpty": os.forkpty,
        "spawn": lambda: os.posix_spawn("/bin/true", ["true"], {}),
        "exec": lambda: os.execv("/bin/true", ["true"]),
        "vfork": lambda: libc.vfork(),
        "namespaces": lambda: libc.unshare(0x10000000 | 0x00020000),
        "mount": lambda: libc.mount(b"tmpfs", b"/tmp", b"tmpfs", 0, None),
        "unmount": lambda: libc.umount2(b"/proc", 2),
        "trace": lambda: libc.ptrace(0, 0, 0, 0),
        "shared segment": lambda: libc.shmget(0, 4096, 0o1600),
        "message queue": lambda: libc.msgget(0, 0o1600),
        "file in memory": lambda: os.memfd_create("x"),
        "more memory": lambda: __import__("resource").setrlimit(__import__("resource").RLIMIT_AS, (-1, -1)),
        "more threads": lambda: __import__("resource").setrlimit(__import__("resource").RLIMIT_NPROC, (-1, -1)),
    }
    gained = []
    for name, attempt in attempts.items():
        try:
            result = attempt()
        except (OSError, ValueError):
            continue
        if not (isinstance(result, int) and result < 0):
            gained.append(name)
    return gained


def test_cannot_gain_privileges_processes_or_namespaces(submission):
    assert submission().ask(gained) == []


@probe
def killed(student):
    import os
    import signal

    reached = []
    for number in (-1, *range(2, 100)):
        try:
            os.kill(number, signal.SIGCONT)
            reached.append(number)
        except OSError:
            pass
    return {"self": os.getpid(), "parent": os.getppid(), "reached": reached}


def test_sees_no_process_but_itself(submission):
    assert submission().ask(killed) == {"self": 1, "parent": 0, "reached": []}


@probe
def written(student, places):
    import os

    written = []
    for place in places:
        try:
            with open(os.path.join(place, "planted"), "wb") as file:
                file.write(bytes(8192))
            written.append(place)
        except OSError:
            pass
    try:
        with open(student._folder / "work.py", "w"):
            written.append("its own program")
    except OSError:
        pass
    return written


def test_cannot_write_anywhere_but_to_its_own_tmp(submission):
    places = [
        "/",
        "/dev",
        "/dev/shm",
        "/dev/pts",
        "/etc",
        "/usr",
        "/proc",
        "/sys",
        sys.prefix,
        os.path.dirname(os.__file__),
    ]
    places += [str(parent) for parent in Path(ebmcourse.__file__).parents if parent != Path("/")]
    others = [place for place in places if not Path(place).is_relative_to("/tmp")]  # which is its own
    assert submission(work="x = 1").ask(written, [*others, "/tmp"]) == ["/tmp"]


@probe
def hoard(student, step):
    hoard = []
    while True:
        hoard.append(bytearray(step))


def test_cannot_hoard_memory(submission):
    for step in (64 * MIB, 1 * MIB, 4096):
        greedy = submission()
        with pytest.raises(NoObservation) as lost:
            greedy.ask(hoard, step)
        assert lost.value.status == "memory"


@probe
def bombs(student, tmp_files):
    import os
    import threading
    import time

    threads = 0
    try:
        while True:
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
            threads += 1
    except RuntimeError:
        pass
    files = 0
    try:
        for files in range(10 * tmp_files):
            open(f"/tmp/{files}", "w").close()
    except OSError:
        pass
    for number in range(files):
        os.unlink(f"/tmp/{number}")
    size = 0
    try:
        with open("/tmp/large", "wb") as large:
            while True:
                size += large.write(bytes(2**20))
    except OSError:
        pass
    opened = []
    try:
        while True:
            opened.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    return {"threads": threads, "files": files, "size": size, "open": len(opened)}


def test_threads_files_and_descriptors_end_at_their_limits(submission):
    counts = submission().ask(bombs, SMALL["tmp_files"])
    limits = {"threads": "threads", "files": "tmp_files", "size": "tmp_bytes", "open": "open_files"}
    assert all(1 <= counts[name] <= SMALL[limit] for name, limit in limits.items()), counts


@probe
def surroundings(student):
    import os
    import sys

    return {
        "environment": dict(os.environ),
        "arguments": sys.argv + sys.orig_argv,
        "folder": os.listdir("."),
        "tmp": os.listdir("/tmp"),
    }


def test_nothing_tells_who_is_graded_or_that_this_is_grading(submission):
    seen = submission(work="x = 1").ask(surroundings)
    of_the_grader = {name for name, value in seen["environment"].items() if os.environ.get(name) == value}
    assert of_the_grader <= {"LANG", "PWD", "MPLBACKEND", "OMP_NUM_THREADS", "PYTHONDONTWRITEBYTECODE"}
    assert "PYTEST_CURRENT_TEST" not in seen["environment"] and seen["arguments"] == ["", ""]
    homes = [Path(place) for place in (sys.prefix, sys.base_prefix, ebmcourse.__file__)]
    python = {home.parts[2] for home in homes if home.is_relative_to("/tmp")}  # if Python is there, it has to be seen
    assert seen["folder"] == ["work.py"] and set(seen["tmp"]) - python == {"submission"}


@probe
def ordinary(student):
    """What honest programs do."""
    import sqlite3
    import tempfile
    import threading
    import warnings

    import torch

    print("hello")
    warnings.warn("careful", stacklevel=1)
    results = []
    workers = [
        threading.Thread(target=lambda: results.append(torch.rand(50, 50).matmul(torch.eye(50)).sum()))
        for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    with tempfile.TemporaryDirectory() as folder:
        torch.save({"x": torch.arange(3)}, f"{folder}/x.pt")
        loaded = torch.load(f"{folder}/x.pt", weights_only=True)["x"]
    sqlite3.connect(":memory:").execute("create table t (x)")  # in a file it would need locks
    x = torch.arange(3.0, requires_grad=True)
    (x**2).sum().backward()
    return {"threads": len(results), "loaded": loaded, "gradient": x.grad, "answer": student.work.answer}


def test_honest_programs_notice_nothing(submission):
    seen = submission(work="import sys\nprint('x' * 10**6, file=sys.stderr)\nanswer = 42\n").ask(ordinary)
    assert seen["threads"] == 4 and seen["answer"] == 42
    assert seen["loaded"].tolist() == [0, 1, 2] and seen["gradient"].tolist() == [0, 2, 4]


@probe
def crash(student):
    import ctypes

    libc = ctypes.CDLL(None)
    return [libc.prctl(3, 0, 0, 0, 0), libc.prctl(4, 1, 0, 0, 0)]  # PR_GET_DUMPABLE, PR_SET_DUMPABLE


def test_a_crash_sends_no_memory_to_the_crash_reporter_of_the_host(submission):
    assert submission().ask(crash) == [0, -1]


@probe
def burn(student):
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (1, 1))
    while True:
        pass


def test_the_limit_on_cpu_time_ends_a_process_that_is_the_first_of_its_namespace(submission):
    with pytest.raises(NoObservation) as lost:
        submission().ask(burn, seconds=30.0)
    assert lost.value.status == "error"


@probe
def changed_proc(student):
    import os

    try:
        os.chmod("/proc", 0o755)
        open("/proc/x", "w").close()
    except OSError as error:
        return error.strerror
    return os.listdir("/proc")


def test_the_empty_proc_is_read_only(submission):
    assert submission().ask(changed_proc) == "Read-only file system"


@probe
def copies(student):
    """What copying files and asking for limits needs, which the filter of system calls must not break."""
    import os
    import resource
    import shutil
    import subprocess
    import tempfile

    folder = tempfile.mkdtemp()
    with open(f"{folder}/a", "w") as file:
        file.write("text")
    shutil.copy2(f"{folder}/a", f"{folder}/b")
    shutil.copytree(folder, f"{folder}2")
    os.replace(f"{folder}/b", f"{folder}2/c")
    try:
        subprocess.run(["true"])
        process = "started"
    except OSError as error:
        process = type(error).__name__
    shutil.rmtree(folder)
    resource.getrlimit(resource.RLIMIT_AS)
    return [sorted(os.listdir(f"{folder}2")), shutil.get_terminal_size().columns, os.cpu_count() > 0, process]


def test_files_can_be_copied_and_a_new_process_is_an_ordinary_error(submission):
    names, columns, has_cpus, process = submission().ask(copies)
    assert names == ["a", "b", "c"]
    assert columns == 80 and has_cpus and process in ("PermissionError", "OSError", "FileNotFoundError")
