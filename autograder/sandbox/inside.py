"""The program that runs in the sandbox: it imports torch once, then forks a confined container for every submission.

The grader starts this file with bubblewrap, and never imports it. It must not import `autograder`, which is not there.

A container is ready before its submission comes: making one takes longer than most checks. `main` sends the grader the
channel of the ready container. The grader answers with the limits of the following container when it uses the channel,
and ``stop`` when it is done; then everything in the container is killed before the next channel is sent. With the
channel comes ``killed`` instead of ``ready`` where the last container was killed by neither side, for example because
the machine ran out of memory. This process never runs a line of a submission, so whatever a submission breaks is gone
with its container.

Each container has namespaces of its own (users, processes, mounts, shared memory). The submission runs in it as a user
without any capability, with a private empty /tmp, under the limits of `limits.py`, and can make only the system calls
of `syscalls.py`.
"""

import ctypes
import gc
import importlib
import io
import json
import os
import resource
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Any, NamedTuple

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID = 0x00020000, 0x08000000, 0x10000000, 0x20000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 4096, 16384, 1 << 18
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 24, 38
SECCOMP_MODE_FILTER = 2
CAPABILITY_VERSION_3 = 0x20080522
STACK_BYTES, SIGNALS = 8 * 2**20, 128  # of the main thread; that wait for delivery
FOLDER = Path("/tmp/submission")
READY, ENDED, STOP = b".", b".", b"stop"
MAX_LIMITS_BYTES = 4096  # of the grader's messages
SETTLING_SECONDS = 0.02  # making the next container must not slow down a submission that has just started

libc = ctypes.CDLL(None, use_errno=True)


class Rules(NamedTuple):
    """What holds for every submission."""

    limits: dict[str, int]
    user: int
    seccomp_filter: bytes
    needed_below_tmp: dict[str, str]  # what an empty /tmp would hide; of a symbolic link, where it leads


def check(result: int) -> None:
    """Raise the C library's last error unless a call succeeded."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def mount_tmpfs(target: str, options: str, flags: int = 0) -> None:
    """Mount an empty file system of limited size over `target`."""
    flags |= MS_NOSUID | MS_NODEV | MS_NOEXEC
    check(libc.mount(b"tmpfs", target.encode(), b"tmpfs", flags, options.encode()))


def mount_private_tmp(rules: Rules) -> None:
    """Replace /tmp by an empty one, which still shows what this Python needs below it."""
    opened = {path: os.open(path, os.O_PATH) for path, link in rules.needed_below_tmp.items() if not link}
    size, files = rules.limits["tmp_bytes"], rules.limits["tmp_files"]
    mount_tmpfs("/tmp", f"size={size},nr_inodes={files},mode=0700")
    for path, link in rules.needed_below_tmp.items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if link:
            os.symlink(link, path)
            continue
        source = f"/proc/self/fd/{opened[path]}"
        if os.path.isdir(source):
            os.mkdir(path)
        else:
            Path(path).touch()
        check(libc.mount(source.encode(), path.encode(), None, MS_BIND | MS_REC, None))
        os.close(opened[path])


def set_limits(limits: dict[str, int], total_pages: int, data_pages: int) -> None:
    """Limit what this process and its children may use beyond the pages that the warm process has."""
    memory, page = limits["memory_bytes"], resource.getpagesize()
    for name, value in {
        "RLIMIT_AS": total_pages * page + memory,
        "RLIMIT_DATA": data_pages * page + memory,  # or unmapping libraries would make room for more
        "RLIMIT_STACK": STACK_BYTES,
        "RLIMIT_CPU": limits["cpu_seconds"],
        "RLIMIT_NPROC": limits["threads"],
        "RLIMIT_FSIZE": limits["file_bytes"],
        "RLIMIT_NOFILE": limits["open_files"],
        "RLIMIT_SIGPENDING": SIGNALS,
        "RLIMIT_MSGQUEUE": 0,
        "RLIMIT_MEMLOCK": 0,
        "RLIMIT_CORE": 0,
    }.items():
        resource.setrlimit(getattr(resource, name), (value, value))


def confine(rules: Rules) -> None:
    """Enter new namespaces and set the limits; the caller's next child is process 1 of a container."""
    if rules.user != os.getuid():  # started by root: every submission is nobody, for whom process limits count
        os.setgroups([])
        os.setresgid(rules.user, rules.user, rules.user)
        os.setresuid(rules.user, rules.user, rules.user)
        libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # or /proc/self/uid_map is root's
    uid, gid = os.getuid(), os.getgid()
    check(libc.unshare(CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    check(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None))
    mount_private_tmp(rules)
    total, _, _, _, _, data, _ = map(int, Path("/proc/self/statm").read_text().split())
    Path("/proc/self/oom_score_adj").write_text("1000")  # where the machine's memory ends, this process goes first
    mount_tmpfs("/proc", "size=4k,nr_inodes=2,mode=0555", MS_RDONLY)  # the sandbox's own /proc shows this process
    set_limits(rules.limits, total, data)


def drop_capabilities() -> None:
    """Give up every capability, also those that a later exec could bring."""
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    for capability in range(64):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)  # fails beyond the kernel's last one
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    check(libc.capset(header, (ctypes.c_uint32 * 6)()))


class FilterProgram(ctypes.Structure):
    """The kernel's ``struct sock_fprog``: the number of instructions, of eight bytes each, and their address."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def filter_system_calls(seccomp_filter: bytes) -> None:
    """From now on, this process may make only the system calls that `seccomp_filter` allows (see `syscalls.py`)."""
    if seccomp_filter:
        program = FilterProgram(len(seccomp_filter) // 8, seccomp_filter)
        check(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0))


# Does what most submissions do.
_SAMPLE_PROBE = """
import torch

def gradient(student, images, weights):
    weights.requires_grad_()
    torch.nn.functional.conv2d(images[0], weights, padding=1).sum().backward()
    return {"gradient": weights.grad, "images": [image.half() for image in images]}
"""


def warm_up() -> None:
    """Answer a sample request as `serve_submission` will, because everything takes longer the first time.

    A fork copies the pages that it writes to, one by one, and gets new memory page by page, too.
    """
    import torch

    from ebmcourse.checking.observation import encode
    from ebmcourse.checking.untrusted.server import serve, write_frame

    torch.zeros(8 * 2**20)  # 32 MiB, which the allocator keeps
    values = [[torch.zeros(1, 1, 4, 4) for _ in range(64)], torch.zeros(1, 1, 3, 3)]
    question = {"probe": "gradient", "inputs": [0, 1], "seed": 0}
    request = {"ticket": "", "source": _SAMPLE_PROBE, "values": values, "questions": [question, question]}
    reader = io.BytesIO()
    write_frame(reader, encode(request))
    reader.seek(0)
    serve(reader, io.BytesIO(), FOLDER)


def serve_submission(channel: int, rules: Rules) -> None:
    """Confine this process for good, take the files of a submission from the channel, and answer questions about it."""
    from ebmcourse.checking.observation import decode
    from ebmcourse.checking.untrusted.server import read_frame, serve

    os.setsid()  # a signal to the own group of processes would reach the warm process and other containers, too
    drop_capabilities()
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))  # or it would outlive a holder that is killed
    check(libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))  # a crash must not send memory to the host's crash reporter
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.closerange(3, channel)
    os.closerange(channel + 1, 2**16)
    FOLDER.mkdir()
    os.chdir(FOLDER)
    gc.enable()
    warm_up()
    filter_system_calls(rules.seccomp_filter)
    os.write(channel, READY)
    with open(channel, "rb", closefd=False) as reader, open(channel, "wb", closefd=False) as writer:
        for name, content in decode(read_frame(reader) or b"").items():
            with open(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444), "wb") as file:
                file.write(content.numpy())
        serve(reader, writer, FOLDER)


def hold_container(channel: int, ended: int, rules: Rules) -> None:
    """Make a container whose first process serves a submission, and wait until that process ends or SIGTERM comes.

    `ended` is closed as soon as nothing in the container can run any more: `syscalls.py` allows a single process there.
    Freeing its memory takes longer. Before, `ENDED` is written unless the process was killed from elsewhere.
    """
    confine(rules)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD})
    first = os.fork()
    if first == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGCHLD})
        serve_submission(channel, rules)
    while signal.sigwait({signal.SIGTERM, signal.SIGCHLD}) == signal.SIGCHLD and not has_ended(first):
        pass  # it was stopped, or goes on
    alive = not has_ended(first)
    if alive:
        os.kill(first, signal.SIGKILL)
        os.write(ended, ENDED)
        os.close(ended)
    _, status, used = os.wait4(first, 0)  # the kernel ends a namespace of processes with its first process
    if not alive and not was_killed(status, used, rules.limits):
        os.write(ended, ENDED)


def has_ended(child: int) -> bool:
    """Whether a child has ended; its number stays in use."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def was_killed(status: int, used: resource.struct_rusage, limits: dict[str, int]) -> bool:
    """Whether the first process of a container was killed from elsewhere: it cannot send itself SIGKILL.

    The kernel sends this signal also when the CPU time is used up.
    """
    return os.WTERMSIG(status) == signal.SIGKILL and used.ru_utime + used.ru_stime < limits["cpu_seconds"] - 1


class Container:
    """A confined container, and the grader's end of the channel to it."""

    def __init__(self, control: socket.socket, rules: Rules) -> None:
        self.channel, inside = socket.socketpair()
        self._ended, held = os.pipe()
        self._holder = os.fork()
        if self._holder == 0:
            try:
                control.close()
                self.channel.close()
                hold_container(inside.fileno(), held, rules)
            except Exception as error:
                print(f"no container can be made: {error}", file=sys.stderr, flush=True)
            finally:
                os._exit(0)  # nothing may return to the loop of `serve_grader`
        inside.close()
        os.close(held)

    def is_ready(self) -> bool:
        """Wait until the first process is confined; false where that failed."""
        return self.channel.recv(1) == READY

    def kill(self) -> bool:
        """Kill everything in this container, and return when nothing in it can run any more.

        False where something was killed from elsewhere before: a process of the container, or its holder.
        """
        os.kill(self._holder, signal.SIGTERM)
        said = os.read(self._ended, 1)
        os.close(self._ended)
        return said == ENDED

    def wait(self) -> None:
        """Wait until a container that was killed has freed its memory."""
        os.waitpid(self._holder, 0)


def serve_grader(control: socket.socket, rules: Rules) -> None:
    """Give the grader one container after another, until it closes its end of `control` or none can be made."""
    container, killed, news = Container(control, rules), None, b"ready"
    while container.is_ready():
        socket.send_fds(control, [news], [container.channel.fileno()])
        container.channel.close()
        limits = control.recv(MAX_LIMITS_BYTES)
        if not limits:
            return
        select.select([control], [], [], SETTLING_SECONDS)
        if killed is not None:
            killed.wait()
        following = Container(control, rules._replace(limits=json.loads(limits)))
        if control.recv(MAX_LIMITS_BYTES) != STOP:
            return
        news = b"ready" if container.kill() else b"killed"
        container, killed = following, container


def main(settings: dict[str, Any]) -> None:
    """Import what submissions need, and serve the grader."""
    rules = Rules(**settings["rules"] | {"seccomp_filter": bytes.fromhex(settings["rules"]["seccomp_filter"])})
    sys.path.insert(0, settings["library"])  # the grader's own library, and not another one of this environment
    for module in settings["modules"]:
        importlib.import_module(module)
    sys.path.insert(0, str(Path(__file__).parent))
    from huge_pages import use_huge_pages

    del sys.path[0]
    warm_up()
    gc.collect()
    gc.freeze()  # children share these pages as long as nothing counts references in them
    gc.disable()
    use_huge_pages()
    serve_grader(socket.socket(fileno=settings["control"]), rules)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    sys.argv[:] = sys.orig_argv[:] = [""]  # as in a program that somebody tries by hand
    main(given)
