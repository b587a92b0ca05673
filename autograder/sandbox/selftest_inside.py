"""The attempts of the self-test. They run in the sandbox, as a submission would, and report what they reached."""

import contextlib
import ctypes
import fcntl
import mmap
import os
import signal
import socket
import struct
import threading
import time
from typing import Any

from ebmcourse.checking import probe

MIB = 2**20


@probe
def libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


@probe
def succeeded(attempts: dict[str, Any]) -> Any:
    """The names of the attempts that raised nothing and returned no error of a system call."""
    names = []
    for name, attempt in attempts.items():
        with contextlib.suppress(OSError, ValueError, AttributeError):
            result = attempt()
            if not (isinstance(result, int) and result < 0):
                names.append(name)
    return names


@probe
def sockets(student: Any) -> Any:
    """Families of sockets of which one can be made, and other ways to a socket."""
    found = []
    for family in range(46):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
            with contextlib.suppress(OSError), socket.socket(family, kind):
                found.append(f"family {family}")
    with contextlib.suppress(OSError):
        found.append(str(socket.socketpair()))
    for channel in range(3, 64):
        if libc().sendmsg(channel, bytes(56), 0) >= 0:
            found.append(f"messages over {channel}")
    return found


@probe
def places(student: Any, plants: list[str], folders: dict[str, list[str]]) -> Any:
    """Which of the planted files can be read, and which folders show more than the names that they have to."""
    found = []
    for path in plants:
        with contextlib.suppress(OSError), open(path) as file:
            found.append(f"{path}: {file.read()}")
    for folder, names in folders.items():
        with contextlib.suppress(OSError):
            found += [os.path.join(folder, name) for name in sorted(set(os.listdir(folder)) - set(names))[:3]]
    return found


@probe
def processes(student: Any) -> Any:
    """Process numbers: its own, its parent's, its group's, and those that a signal reaches.

    A signal to the own group is not tried: it would end the sandbox where the group has other members.
    """
    reached = []
    for number in (-1, *range(2, 200)):
        with contextlib.suppress(OSError):
            os.kill(number, signal.SIGCONT)
            reached.append(number)
    return [os.getpid(), os.getppid(), os.getpgrp(), *reached]


@probe
def privileges(student: Any) -> Any:
    """Attempts at other users, other roots, mounts, namespaces, other processes' memory, higher limits."""
    import resource

    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    call = libc().syscall
    new = {"users": 0x10000000, "mounts": 0x20000, "processes": 0x20000000, "network": 0x40000000, "cgroups": 0x2000000}
    return succeeded(
        {
            "become root": lambda: os.setuid(0),
            "join the group of root": lambda: os.setgid(0),
            "join groups": lambda: os.setgroups([0]),
            "change root": lambda: os.chroot("/tmp"),
            "a higher priority": lambda: os.nice(-5),
            "mount": lambda: libc().mount(b"tmpfs", b"/usr", b"tmpfs", 0, None),
            "unmount": lambda: libc().umount2(b"/proc", 2),
            "make writable": lambda: libc().mount(None, b"/usr", None, 0x1020, None),
            "open a tree of mounts": lambda: call(428, -100, b"/", 1),
            "open a file system": lambda: call(430, b"tmpfs", 0),
            "trace": lambda: libc().ptrace(0, 0, 0, 0),
            "read another process": lambda: call(310, 1, 0, 0, 0, 0, 0),
            "hold a process": lambda: call(434, 1, 0),
            "enter a namespace": lambda: libc().setns(0, 0),
            "load a program into the kernel": lambda: call(321, 0, bytes(128), 128),
            "queue work for the kernel": lambda: call(425, 1, bytes(128)),
            "handle page faults": lambda: call(323, 1),
            "watch performance": lambda: call(298, bytes(128), 0, -1, -1, 0),
            "read the kernel's log": lambda: libc().klogctl(10, None, 0),
            "be dumped": lambda: libc().prctl(4, 1, 0, 0, 0),
            "a host name": lambda: libc().sethostname(b"x", 1),
            **{f"new {name}": lambda flag=flag: libc().unshare(flag) for name, flag in new.items()},
            **{
                f"more {name}": lambda name=name: resource.setrlimit(getattr(resource, name), unlimited)
                for name in ("RLIMIT_AS", "RLIMIT_DATA", "RLIMIT_NPROC", "RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_NOFILE")
            },
        }
    )


@probe
def other_numbers(student: Any) -> Any:
    """System calls by the numbers of another architecture, which the same processor understands."""
    if os.uname().machine != "x86_64":
        return []
    found = ["x32"] if libc().syscall(0x40000000 + 39) >= 0 else []
    memory = mmap.mmap(-1, mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=7)
    memory.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")  # mov eax, 20 (getpid); int 0x80; ret
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    return [*found, "i386"] if ctypes.CFUNCTYPE(ctypes.c_int)(address)() > 0 else found


@probe
def writes(student: Any, folders: list[str]) -> Any:
    """Files and folders, and those above, that can be changed."""
    written = []
    for path in (*folders, "/sandbox/inside.py"):
        with contextlib.suppress(OSError):
            os.chmod(path, 0o777)
            written.append(f"mode of {path}")
        with contextlib.suppress(OSError), open(os.path.join(path, "planted") if os.path.isdir(path) else path, "ab"):
            written.append(path)
    return written


@probe
def environment(student: Any, names: list[str]) -> Any:
    """Which of these names are variables of the environment, or the name of the machine."""
    return [name for name in names if name in os.environ or name == os.uname().nodename]


@probe
def descriptors(student: Any) -> Any:
    """The numbers of the open files other than standard input, output and error."""
    numbers = []
    for number in range(3, 4096):
        with contextlib.suppress(OSError):
            os.fstat(number)
            numbers.append(number)
    return numbers


@probe
def memory(student: Any) -> Any:
    """Takes memory until there is no more."""
    hoard = []
    while True:
        hoard.append(bytearray(64 * MIB))


@probe
class LoadedObject(ctypes.Structure):
    """The beginning of the C library's ``struct dl_phdr_info``."""

    _fields_ = (
        ("base", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("headers", ctypes.c_void_p),
        ("count", ctypes.c_ushort),
    )


@probe
def memory_of_libraries(student: Any) -> Any:
    """MiB that can be taken, without the writable memory of the CUDA libraries, when these have been unmapped."""
    found = []

    def note(item: Any, size: int, data: Any) -> int:
        headers = (ctypes.c_uint64 * (7 * item.contents.count)).from_address(item.contents.headers)
        if os.path.basename(item.contents.name or b"").startswith((b"libcu", b"libnv", b"libtorch_cuda")):
            segments = [headers[i : i + 7] for i in range(0, len(headers), 7) if headers[i] & 0xFFFFFFFF == 1]
            end = max(segment[2] + segment[5] for segment in segments)
            found.append((item.contents.base, end, sum(segment[5] for segment in segments if segment[0] >> 32 & 2)))
        return 0

    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(LoadedObject), ctypes.c_size_t, ctypes.c_void_p)
    libc().dl_iterate_phdr(kind(note), None)
    for base, size, _ in found:
        libc().munmap(ctypes.c_void_p(base), ctypes.c_size_t(size))
    taken = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(mmap.mmap(-1, 16 * MIB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    return 16 * len(taken) - sum(writable for _, _, writable in found) // MIB


@probe
def filled(descriptor: int) -> int:
    """The bytes that a descriptor takes before it would block."""
    os.set_blocking(descriptor, False)
    size = 0
    with contextlib.suppress(OSError):
        while True:
            size += os.write(descriptor, bytes(65536))
    return size


@probe
def kernel_memory(student: Any, count: int) -> Any:
    """Bytes that the kernel holds for this process, without its memory, by kind; what cannot be counted, roughly."""
    held: dict[str, int] = {}
    opened: list[Any] = []  # until the end

    def pair() -> int:
        opened.append(socket.socketpair())
        for end in opened[-1]:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**26)
        return sum(filled(end.fileno()) for end in opened[-1])

    def pipe() -> int:
        opened.append(os.pipe())
        with contextlib.suppress(OSError):
            fcntl.fcntl(opened[-1][1], 1031, MIB)  # F_SETPIPE_SZ
        return filled(opened[-1][1])

    def named_pipe() -> int:
        os.mkfifo(f"/tmp/{len(opened)}")
        opened.append(os.open(f"/tmp/{len(opened)}", os.O_RDWR))
        return filled(opened[-1])

    def lock() -> int:
        opened.append(os.open("/tmp/locks", os.O_RDWR | os.O_CREAT))
        fcntl.lockf(opened[-1], fcntl.LOCK_EX, 1, 2 * len(opened))
        return 200

    def call(size: int, function: Any) -> Any:
        def attempt() -> int:
            opened.append(function())
            if isinstance(opened[-1], int) and opened[-1] < 0:
                raise OSError
            return size

        return attempt

    def hoard(name: str, attempt: Any) -> None:
        try:
            for _ in range(count):
                held[name] = held.get(name, 0) + attempt()
        except (OSError, AttributeError, ValueError):
            pass

    c = libc()
    event = struct.pack("=qii52x", 0, 0, 1)  # struct sigevent: SIGEV_NONE
    hoard("sockets", pair)
    hoard("pipes", pipe)
    hoard("named pipes", named_pipe)
    hoard("locks", lock)
    hoard("shared memory", call(MIB, lambda: mmap.mmap(-1, MIB)))
    hoard("stacks", call(MIB, lambda: mmap.mmap(-1, MIB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x100)))
    hoard("files in memory", call(MIB, lambda: os.memfd_create("x")))
    hoard("shared segments", call(MIB, lambda: c.shmget(0, MIB, 0o1600)))
    hoard("semaphores", call(65536, lambda: c.semget(0, 250, 0o1600)))
    hoard("message queues", call(16384, lambda: c.msgget(0, 0o1600)))
    hoard("POSIX message queues", call(81920, lambda: c.mq_open(b"/x", 0o102, 0o600, None)))
    hoard("watches of files", call(16384 * 64, lambda: c.inotify_init1(0)))
    hoard("watches of descriptors", call(200, lambda: c.epoll_create1(0)))
    hoard("events", call(200, lambda: c.eventfd(0, 0)))
    hoard("clocks", call(300, lambda: c.timerfd_create(1, 0)))
    hoard("signal descriptors", call(200, lambda: c.signalfd(-1, bytes(8), 0)))
    hoard("timers", call(300, lambda: c.timer_create(1, event, ctypes.byref(ctypes.c_void_p()))))
    hoard("asynchronous files", call(4096, lambda: c.syscall(206, 64, ctypes.byref(ctypes.c_uint64()))))
    hoard("keys", call(20000, lambda: c.syscall(248, b"user", b"x", bytes(1000), 1000, -2)))
    hoard("filters of calls", call(32768, lambda: c.syscall(317, 1, 0, struct.pack("=HxxxxxxQ", 0, 0))))
    return held


@probe
def shared_locks(student: Any, path: str) -> Any:
    """Locks and leases on a file that other submissions see, too."""
    with open(path, "rb") as file:
        return succeeded(
            {
                "lock": lambda: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB),
                "record lock": lambda: fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB),
                "lease": lambda: fcntl.fcntl(file, 1024, fcntl.F_RDLCK),
                "notification": lambda: fcntl.fcntl(os.open("/usr", os.O_RDONLY), 1026, 1),
            }
        )


@probe
def terminals(student: Any) -> Any:
    """Terminals and other devices that can be opened or made."""
    return succeeded(
        {
            "new terminal": os.openpty,
            "own terminal": lambda: os.open("/dev/tty", os.O_RDWR),
            "input of a terminal": lambda: fcntl.ioctl(0, 0x5412, b"x"),
            "device": lambda: os.mknod("/tmp/device", 0o020600, os.makedev(1, 1)),
            "shared memory": lambda: os.open("/dev/shm/x", os.O_RDWR | os.O_CREAT),
        }
    )


@probe
def new_processes(student: Any) -> Any:
    """Ways to a second process that work; a new process ends at once."""

    def fork() -> int:
        child = os.fork()
        if child == 0:
            os._exit(0)
        return child

    def clone(flags: int) -> int:
        child = libc().syscall(56 if os.uname().machine == "x86_64" else 220, flags, 0, 0, 0, 0)
        if child == 0:
            os._exit(0)
        return int(child)

    return succeeded(
        {
            "fork": fork,
            "vfork": lambda: os.posix_spawn("/usr/bin/true", ["true"], {}),
            "clone": lambda: clone(17),
            "clone into namespaces": lambda: clone(0x10000000 | 17),
            "exec": lambda: os.execv("/proc/self/exe", ["python"]),
        }
    )


@probe
def threads(student: Any) -> Any:
    """How many threads can be started."""
    count = 0
    try:
        while True:
            threading.Thread(target=time.sleep, args=(100,), daemon=True).start()
            count += 1
    except RuntimeError:
        return count


@probe
def disk(student: Any) -> Any:
    """How many bytes can be written."""
    written = 0
    for number in range(100):
        try:
            with open(f"/tmp/{number}", "wb") as file:
                for _mebibyte in range(64):
                    written += file.write(bytes(MIB))
        except OSError:
            break
    return written


@probe
def files(student: Any) -> Any:
    """How many files can be made."""
    count = 0
    try:
        for count in range(10**6):
            open(f"/tmp/{count}", "w").close()
    except OSError:
        pass
    return count


@probe
def loop(student: Any) -> Any:
    """Ignores every signal and exception."""
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
    """Names this process, and tries to leave a thread and a process behind that go on for ever."""

    def sleep() -> None:
        while True:
            time.sleep(0.01)

    libc().prctl(15, name.encode(), 0, 0, 0)  # PR_SET_NAME
    threading.Thread(target=sleep, daemon=True).start()
    with contextlib.suppress(OSError):
        if os.fork() == 0:
            os.setsid()
            sleep()
    return True


@probe
def traces(student: Any) -> Any:
    """Leaves a file, and reports the file of an earlier submission."""
    found = [name for name in os.listdir("/tmp") if name == "left-behind"]
    open("/tmp/left-behind", "w").close()
    return found


@probe
def flood(student: Any) -> Any:
    """Writes more output than anything would keep."""
    for _time in range(2000):
        os.write(1, bytes(65536))
    return True
