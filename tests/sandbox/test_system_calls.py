"""The filter of system calls, run as the kernel runs it."""

import errno
import platform
import struct

import pytest

from autograder.sandbox import syscalls
from autograder.sandbox.syscalls import seccomp_filter

ALLOW, REFUSE = 0x7FFF0000, 0x00050000
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# What must never be allowed: number on x86-64, number on aarch64.
FORBIDDEN = {
    **{"socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "accept": (43, 202), "bind": (49, 200)},
    **{"sendmsg": (46, 211), "recvmsg": (47, 212), "sendto": (44, 206), "recvfrom": (45, 207), "listen": (50, 201)},
    **{"setsockopt": (54, 208), "accept4": (288, 242), "sendmmsg": (307, 269), "recvmmsg": (299, 243)},
    **{"pipe2": (293, 59), "splice": (275, 76), "tee": (276, 77), "vmsplice": (278, 75), "mknodat": (259, 33)},
    **{"eventfd2": (290, 19), "epoll_create1": (291, 20), "timerfd_create": (283, 85), "signalfd4": (289, 74)},
    **{"inotify_init1": (294, 26), "fanotify_init": (300, 262), "flock": (73, 32), "timer_create": (222, 107)},
    **{"memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "semget": (64, 190)},
    **{"msgget": (68, 186), "mq_open": (240, 180), "io_setup": (206, 0), "io_uring_setup": (425, 425)},
    **{"add_key": (248, 217), "keyctl": (250, 219), "setxattr": (188, 5), "rt_sigqueueinfo": (129, 138)},
    **{"clone3": (435, 435), "execve": (59, 221), "execveat": (322, 281), "unshare": (272, 97), "setns": (308, 268)},
    **{"mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428)},
    **{"fsopen": (430, 430), "move_mount": (429, 429), "mount_setattr": (442, 442), "ptrace": (101, 117)},
    **{"process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "pidfd_open": (434, 434)},
    **{"pidfd_getfd": (438, 438), "kcmp": (312, 272), "bpf": (321, 280), "perf_event_open": (298, 241)},
    **{"userfaultfd": (323, 282), "seccomp": (317, 277), "setuid": (105, 146), "setgroups": (116, 159)},
    **{"capset": (126, 91), "personality": (135, 92), "syslog": (103, 116), "sched_setscheduler": (144, 119)},
    **{"init_module": (175, 105), "kexec_load": (246, 104), "reboot": (169, 142), "mremap": (25, 216)},
    **{"process_madvise": (440, 440), "landlock_create_ruleset": (444, 444), "a call of a later kernel": (999, 999)},
}


@pytest.fixture(params=[0, 1], ids=list(ARCHITECTURES))
def machine(request, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: list(ARCHITECTURES)[request.param])
    return request.param


def decide(call, *arguments, architecture=None):
    """What the filter returns for a call: the kernel's packet filter, as far as it is used here."""
    code = list(struct.iter_unpack("=HBBI", seccomp_filter()))
    data = struct.pack(
        "=iIQ6Q", call, architecture or ARCHITECTURES[platform.machine()], 0, *(*arguments, *[0] * 6)[:6]
    )
    value = place = 0
    while True:
        instruction, if_true, if_false, operand = code[place]
        place += 1
        match instruction:
            case 0x20:
                (value,) = struct.unpack_from("=I", data, operand)
            case 0x15:
                place += if_true if value == operand else if_false
            case 0x45:
                place += if_true if value & operand else if_false
            case 0x06:
                return operand


def refused(error):
    return REFUSE | error


def test_what_is_not_needed_is_refused(machine):
    answers = {name: decide(numbers[machine]) for name, numbers in FORBIDDEN.items()}
    assert {name for name, answer in answers.items() if answer != refused(errno.ENOSYS)} == set()


def test_all_that_is_listed_is_allowed_once(machine):
    names = [call.partition(":")[0] for group in syscalls._ALLOWED.values() for call in group.split()]
    numbers = syscalls._numbers(machine)
    assert len(names) == len(set(names)) and len(numbers) == len(set(numbers.values()))
    assert {decide(number) for name, number in numbers.items() if name in names} == {ALLOW}


def test_another_architecture_is_refused(machine):
    others = [0x40000003, *(value for value in ARCHITECTURES.values() if value != ARCHITECTURES[platform.machine()])]
    assert {decide(0, architecture=other) for other in others} == {refused(errno.EPERM)}
    assert decide(0x40000000) == refused(errno.ENOSYS)  # x32


@pytest.mark.parametrize(
    ("call", "arguments", "answer"),
    [
        ("clone", (0x003D0F00,), ALLOW),  # what pthread_create asks for
        ("clone", (17,), refused(errno.EPERM)),  # fork
        ("clone", (0x4111,), refused(errno.EPERM)),  # posix_spawn
        ("clone", (0x003D0F00 | 0x10000000,), refused(errno.EPERM)),  # a thread in new namespaces
        ("mmap", (0, 4096, 3, 0x22), ALLOW),  # private
        ("mmap", (0, 4096, 1, 0x01), ALLOW),  # a file
        ("mmap", (0, 4096, 3, 0x20022), ALLOW),  # the stack of a thread
        ("mmap", (0, 4096, 3, 0x21), refused(errno.EPERM)),  # shared memory
        ("mmap", (0, 4096, 3, 0x23), refused(errno.EPERM)),
        ("mmap", (0, 4096, 3, 0x122), refused(errno.EPERM)),  # memory that counts as stack
        ("mmap", (0, 4096, 3, 0x40022), refused(errno.EPERM)),  # huge pages of the machine
        ("fcntl", (3, 2), ALLOW),
        ("fcntl", (3, 1030), ALLOW),
        ("fcntl", (3, 6), refused(errno.EPERM)),  # F_SETLK
        ("fcntl", (3, 1031), refused(errno.EPERM)),  # F_SETPIPE_SZ
        ("fcntl", (3, 1024), refused(errno.EPERM)),  # F_SETLEASE
        ("ioctl", (0, 0x5401), ALLOW),
        ("ioctl", (0, 0x5412), refused(errno.ENOTTY)),  # TIOCSTI
        ("prctl", (15,), ALLOW),
        ("prctl", (22,), refused(errno.EINVAL)),  # PR_SET_SECCOMP
        ("prctl", (4,), refused(errno.EINVAL)),  # PR_SET_DUMPABLE
    ],
)
def test_some_calls_depend_on_their_arguments(machine, call, arguments, answer):
    assert decide(syscalls._BY_ARGUMENT[call][machine], *arguments) == answer


def test_there_is_no_filter_for_a_machine_that_is_not_known(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert seccomp_filter() == b""
