"""The memory that is free for grading, and what is said where it is too little. Runs outside."""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path

import psutil

from autograder.sandbox.cgroup import MEMBERSHIP, ROOT

GIB = 2**30


def free_bytes() -> int:
    """The free memory of this machine, or less where a cgroup, such as that of a container or a job, allows less."""
    free = [psutil.virtual_memory().available]
    for line in MEMBERSHIP.read_text().splitlines() if MEMBERSHIP.is_file() else ():  # Linux has this file
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, limit, usage = ROOT, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            top, limit, usage = ROOT / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):  # the limits of those above hold as well
            with suppress(OSError, ValueError):  # no such file, or no limit
                free.append(int((folder / limit).read_text()) - int((folder / usage).read_text()) + _cached(folder))
    return min(free)


def _cached(group: Path) -> int:
    """The bytes of a cgroup that hold copies of files, which the kernel drops when memory is needed."""
    lines = (group / "memory.stat").read_text().splitlines()
    values = {name: int(value) for name, value in (line.split() for line in lines)}
    prefix = "total_" if "total_inactive_file" in values else ""
    return sum(values.get(f"{prefix}{name}", 0) for name in ("inactive_file", "active_file"))


def address_limit() -> str:
    """A sentence where the shell or the job limits the address space, which a sandbox cannot work with."""
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    if most == resource.RLIM_INFINITY:
        return ""
    return (
        f"The address space of this shell or job is limited to {most / GIB:.1f} GiB. Memory that is only reserved "
        "counts, too: use a shell without this limit (`ulimit -v` shows it)."
    )


def shortage(needed: int) -> str:
    """A sentence where less than `needed` bytes are free; otherwise an empty text."""
    free = free_bytes()
    if free >= needed:
        return ""
    return (
        f"This machine has too little free memory: {max(free, 0) / GIB:.1f} GiB are free, and {needed / GIB:.1f} GiB "
        "are needed. End other programs, or use a machine (or container, or job) with more memory."
    )
