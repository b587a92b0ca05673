"""Runs inside the sandbox: imports torch once, then forks a confined child for every submission.

Standing alone, it waits on a control socket. ``start`` comes with a socket on which one submission's child then
answers questions; ``stop`` kills everything that this child has started. The zygote itself never runs a line of a
submission, so whatever a submission breaks is gone with its child.

Each child lives in namespaces of its own (users, processes, mounts, shared memory), as a user without any
capability, with a private empty /tmp, under the limits of `limits.py`, and cannot make the calls of `syscalls.py`.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import sys
from pathlib import Path
from typing import NamedTuple

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID = 0x00020000, 0x08000000, 0x10000000, 0x20000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 4, 22, 24, 38
SECCOMP_MODE_FILTER = 2
CAPABILITY_VERSION_3 = 0x20080522
MADV_COLLAPSE, HUGE = 25, 2 * 2**20
FOLDER = Path("/tmp/submission")
SETTLING_SECONDS = 0.02  # making the next world must not slow down the submission's way into this one

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int) -> None:
    """Raise the C library's last error unless a call succeeded."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def mount_tmpfs(target: str, options: str) -> None:
    """Put an empty file system of limited size over `target`."""
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    check(libc.mount(b"tmpfs", target.encode(), b"tmpfs", flags, options.encode()))


def drop_capabilities() -> None:
    """Give up every capability, also those that a later exec could bring."""
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    for capability in range(64):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)  # fails beyond the kernel's last one
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    check(libc.capset(header, (ctypes.c_uint32 * 6)()))


def needed_below_tmp() -> list[str]:
    """The folders of Python and of the students' library that an empty /tmp would hide."""
    folders = [sys.base_prefix, sys.prefix, str(Path(sys.modules["ebmcourse"].__file__ or "").parent)]
    return [folder for folder in dict.fromkeys(folders) if folder.startswith("/tmp/")]


class Filter(ctypes.Structure):
    """The kernel's ``struct sock_fprog``: how many instructions of eight bytes there are, and where they lie."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def filter_calls(program: bytes) -> None:
    """Let `program` (see `syscalls.py`) decide from now on which system calls this process may make."""
    if program:
        check(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(Filter(len(program) // 8, program)), 0, 0))


class Rules(NamedTuple):
    """What holds for every submission."""

    limits: dict[str, int]
    user: int
    program: bytes


def confine(limits: dict[str, int], user: int) -> None:
    """Enter new namespaces and set the limits; the caller's next child is process 1 of a world of its own."""
    if user != os.getuid():  # started by root: every submission is a nobody, for whom process limits count
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # or /proc/self/uid_map is root's
    uid, gid = os.getuid(), os.getgid()
    check(libc.unshare(CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    check(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None))
    kept = {folder: os.open(folder, os.O_PATH) for folder in needed_below_tmp()}
    mount_tmpfs("/tmp", f"size={limits['tmp_bytes']},nr_inodes={limits['tmp_files']},mode=0700")
    for folder, descriptor in kept.items():
        os.makedirs(folder, exist_ok=True)
        check(libc.mount(f"/proc/self/fd/{descriptor}".encode(), folder.encode(), None, MS_BIND | MS_REC, None))
        os.close(descriptor)
    mount_tmpfs("/dev/shm", "size=4k,nr_inodes=2")
    virtual = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    Path("/proc/self/oom_score_adj").write_text("1000")  # where the machine's memory ends, this process goes first
    mount_tmpfs("/proc", "size=4k,nr_inodes=2,mode=0555")  # the sandbox's own /proc shows the zygote
    for name, value in {
        "RLIMIT_AS": virtual + limits["memory_bytes"],
        "RLIMIT_CPU": limits["cpu_seconds"],
        "RLIMIT_NPROC": limits["threads"],
        "RLIMIT_FSIZE": limits["file_bytes"],
        "RLIMIT_NOFILE": limits["open_files"],
        "RLIMIT_CORE": 0,
    }.items():
        resource.setrlimit(getattr(resource, name), (value, value))


def hold_world(door: socket.socket, killed: int, rules: Rules) -> None:
    """Make a world for a submission, and hold it until its first process ends or must end.

    `killed` is closed as soon as nothing in the world can run any more: `syscalls.py` lets it have one process only.
    That this one's memory goes takes longer.
    """
    confine(rules.limits, rules.user)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD})
    first = os.fork()
    if first == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGCHLD})
        serve_submission(door, rules)
    elif signal.sigwait({signal.SIGTERM, signal.SIGCHLD}) == signal.SIGTERM:
        os.kill(first, signal.SIGKILL)
    os.close(killed)
    os.waitpid(first, 0)  # when the first process of a world has been waited for, all of it are gone


# Does what most submissions do.
_REHEARSAL = """
import torch

def gradient(student, images, weights):
    weights.requires_grad_()
    torch.nn.functional.conv2d(images[0], weights, padding=1).sum().backward()
    return {"gradient": weights.grad, "images": [image.half() for image in images]}
"""


def rehearse() -> None:
    """Answer a request as `serve_submission` will, for all that is done for the first time takes longer.

    A fork copies what it writes to, page by page, and new memory comes page by page, too.
    """
    import torch

    from ebmcourse.checking.observation import encode
    from ebmcourse.checking.untrusted.server import serve, write_frame

    torch.zeros(8 * 2**20)  # 32 MiB, which the allocator keeps
    values = [[torch.zeros(1, 1, 4, 4) for _ in range(64)], torch.zeros(1, 1, 3, 3)]
    question = {"probe": "gradient", "inputs": [0, 1], "seed": 0}
    request = {"ticket": "", "source": _REHEARSAL, "values": values, "questions": [question, question]}
    ours, theirs = socket.socketpair()  # which hold more than what is written here
    with ours, theirs, theirs.makefile("rb") as reader, theirs.makefile("wb") as writer:
        with ours.makefile("wb") as asking:
            write_frame(asking, encode(request))
        ours.shutdown(socket.SHUT_WR)
        serve(reader, writer, FOLDER)


def serve_submission(door: socket.socket, rules: Rules) -> None:
    """Wait at the door for the channel of a submission, take its files, and answer questions about it."""
    from ebmcourse.checking.observation import decode
    from ebmcourse.checking.untrusted.server import read_frame, serve

    drop_capabilities()
    filter_calls(rules.program)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.closerange(3, door.fileno())
    os.closerange(door.fileno() + 1, rules.limits["open_files"])
    FOLDER.mkdir()
    os.chdir(FOLDER)
    gc.enable()
    rehearse()  # while nobody waits for it
    _, descriptors, _, _ = socket.recv_fds(door, 1, 1)
    if not descriptors:
        return
    door.close()
    channel = socket.socket(fileno=descriptors[0])
    with channel.makefile("rb") as reader, channel.makefile("wb") as writer:
        for name, content in decode(read_frame(reader) or b"").items():
            with open(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444), "wb") as file:
                file.write(content.numpy())
        serve(reader, writer, FOLDER)


def use_huge_pages() -> None:
    """Let the kernel gather this process's memory in pages of 2 MiB, as far as it can.

    The processor finds its way in few large pages faster than in many small ones. A fork copies the table of pages, and
    an exit takes it down: of half a gigabyte in pages of 4 KiB, that takes longer than most submissions compute.
    Kernels before Linux 6.1 refuse, and all is as it was.
    """
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, rights, _, _, _, *name = line.split()
        begin, end = (int(address, 16) for address in addresses.split("-"))
        begin, end = -(-begin // HUGE) * HUGE, end // HUGE * HUGE
        if rights == "rw-p" and name in ([], ["[heap]"]) and begin < end:
            libc.madvise(begin, end - begin, MADV_COLLAPSE)


class World:
    """A confined world that is ready before its submission comes: making one takes longer than most checks."""

    def __init__(self, control: socket.socket, rules: Rules) -> None:
        self.door, inside = socket.socketpair()
        self.killed, held = os.pipe()
        self.holder = os.fork()
        if self.holder == 0:
            try:
                control.close()
                self.door.close()
                hold_world(inside, held, rules)
            finally:
                os._exit(0)  # an exception must not climb into the zygote's loop
        inside.close()
        os.close(held)

    def enter(self, channel: int) -> None:
        """Let the submission in that speaks on `channel`."""
        socket.send_fds(self.door, [b"x"], [channel])
        self.door.close()
        os.close(channel)

    def end(self) -> None:
        """Kill everything that lives in this world; taking down its memory goes on for a while."""
        os.kill(self.holder, signal.SIGTERM)
        os.read(self.killed, 1)  # nobody writes: the holder closes its end
        os.close(self.killed)

    def bury(self) -> None:
        """Wait until a world that was ended is gone altogether."""
        os.waitpid(self.holder, 0)


def main() -> None:
    """``zygote.py CONTROL_FD LIMITS USER PROGRAM LIBRARY MODULE…``"""
    control = socket.socket(fileno=int(sys.argv[1]))
    rules = Rules(json.loads(sys.argv[2]), int(sys.argv[3]), bytes.fromhex(sys.argv[4]))
    sys.path.insert(0, sys.argv[5])  # the grader's own library, and not one that the environment may know besides
    for module in sys.argv[6:]:
        importlib.import_module(module)
    sys.argv[:] = [""]  # as for anybody who tries a program by hand

    rehearse()
    gc.collect()
    gc.freeze()  # children share these pages as long as nobody counts references in them
    gc.disable()
    use_huge_pages()
    control.send(b"ready")
    ready, living, gone = World(control, rules), None, None
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 16, 1)
        if living is not None:
            living.end()
            if gone is not None:
                gone.bury()
            living, gone = None, living
        if message == b"start":
            ready.enter(descriptors[0])
            select.select([control], [], [], SETTLING_SECONDS)
            ready, living = World(control, rules), ready
        elif message != b"stop":
            return


if __name__ == "__main__":
    main()
