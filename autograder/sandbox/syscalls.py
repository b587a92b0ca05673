"""What a submission may not ask of the kernel, as a program that the kernel runs at every system call (seccomp).

Namespaces and limits confine the calls that are left. Refused is what would get around them: a second process, since
the limits on memory and time hold for each one; memory that belongs to no process; new namespaces, in which whoever
makes them has all privileges; and calls that no exercise needs and that kernel exploits began with.
"""

from __future__ import annotations

import errno
import platform
import struct

# linux/audit.h: the machine's name in the kernel's words, then the numbers of its system calls.
_MACHINES: dict[str, tuple[int, dict[str, int]]] = {
    "x86_64": (
        0xC000003E,
        {
            "clone": 56,
            "clone3": 435,
            **{"fork": 57, "vfork": 58, "execve": 59, "execveat": 322},
            **{"unshare": 272, "setns": 308, "mount": 165, "umount2": 166, "pivot_root": 155, "fsopen": 430},
            **{"memfd_create": 319, "memfd_secret": 447, "shmget": 29, "semget": 64, "msgget": 68, "mq_open": 240},
            **{"add_key": 248, "request_key": 249, "keyctl": 250},
            **{"ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311},
            **{"bpf": 321, "io_uring_setup": 425, "perf_event_open": 298, "userfaultfd": 323},
        },
    ),
    "aarch64": (
        0xC00000B7,
        {
            "clone": 220,
            "clone3": 435,
            **{"execve": 221, "execveat": 281},
            **{"unshare": 97, "setns": 268, "mount": 40, "umount2": 39, "pivot_root": 41, "fsopen": 430},
            **{"memfd_create": 279, "memfd_secret": 447, "shmget": 194, "semget": 190, "msgget": 186, "mq_open": 180},
            **{"add_key": 217, "request_key": 218, "keyctl": 219},
            **{"ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271},
            **{"bpf": 280, "io_uring_setup": 425, "perf_event_open": 241, "userfaultfd": 282},
        },
    ),
}

# Instructions of the kernel's packet filter, and where a call's number, machine and first argument lie.
_LOAD, _EQUAL, _AT_LEAST, _HAS_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _MACHINE, _ARGUMENT = 0, 4, 16
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
_FOREIGN_NUMBERS = 0x40000000  # x86-64 answers to a second set of numbers from here on
_CLONE_THREAD = 0x00010000


def program() -> bytes:
    """The filter for this machine, instruction by instruction; empty on machines whose numbers are not known here.

    There the proofs of `selftest` fail, which is how grading is refused.
    """
    if platform.machine() not in _MACHINES:
        return b""
    machine, calls = _MACHINES[platform.machine()]
    refuse = _REFUSE | errno.EPERM
    code = [(_LOAD, 0, 0, _MACHINE), (_EQUAL, 1, 0, machine), (_RETURN, 0, 0, refuse)]
    code += [(_LOAD, 0, 0, _NUMBER), (_AT_LEAST, 0, 1, _FOREIGN_NUMBERS), (_RETURN, 0, 0, refuse)]
    for name, number in calls.items():
        if name == "clone3":
            # Its arguments lie where a filter cannot look; told that there is no such call, C libraries take `clone`.
            code += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _REFUSE | errno.ENOSYS)]
        elif name == "clone":
            code += [(_EQUAL, 0, 4, number), (_LOAD, 0, 0, _ARGUMENT), (_HAS_BITS, 0, 1, _CLONE_THREAD)]
            code += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, refuse)]
        else:
            code += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, refuse)]
    return b"".join(struct.pack("=HBBI", *line) for line in [*code, (_RETURN, 0, 0, _ALLOW)])
