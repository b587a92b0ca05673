"""A memory limit for a whole sandbox, the kernel's memory included, where the system offers one. Runs outside.

The limits of `limits.py` hold for a process. A cgroup (version 2) also counts what the kernel holds for its processes.
Making one takes the right to write to the cgroup above that of this process: root has it on most systems, a plain
user has it in what ``systemd-run --user --scope`` starts. Everywhere else there is no such limit.
"""

import contextlib
import os
import re
import secrets
import subprocess
import time
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
LIBRARY_BYTES = 2**30  # what the warm process holds for itself
_JOIN = 'echo $$ >"$0/cgroup.procs" && exec "$@"'


def create(memory_bytes: int) -> Path | None:
    """A new cgroup for a sandbox whose submission may use `memory_bytes`; None where that is not possible."""
    membership = re.search(r"^0::/(.+)$", MEMBERSHIP.read_text(), re.MULTILINE)
    if membership is None:  # version 1, or in the root of the hierarchy
        return None
    above = (ROOT / membership[1]).parent
    for left in above.glob("autograder-*-*"):  # by a grader that was killed
        if not Path("/proc", left.name.split("-")[1]).exists():
            with contextlib.suppress(OSError):
                left.rmdir()
    group = above / f"autograder-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        group.mkdir()
    except OSError:
        return None
    try:
        (group / "memory.max").write_text(str(memory_bytes + LIBRARY_BYTES))
        if (group / "memory.swap.max").exists():
            (group / "memory.swap.max").write_text("0")
        subprocess.run(join(group, ["true"]), check=True, stderr=subprocess.DEVNULL)
        return group
    except (OSError, subprocess.CalledProcessError):
        remove(group)
        return None


def join(group: Path | None, command: list[str]) -> list[str]:
    """`command`, run in the cgroup."""
    return ["/bin/sh", "-c", _JOIN, str(group), *command] if group else command


def remove(group: Path) -> None:
    """Remove a cgroup whose processes have been killed; the kernel may need a moment until they are gone."""
    for _ in range(100):
        with contextlib.suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.01)
