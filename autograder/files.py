"""Reading files that come from students: a name may be a link, a pipe, a device, or a file of a gigabyte."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def read_regular(path: Path, most: int) -> bytes:
    """The bytes of the regular file at `path`, of at most `most` bytes.

    Raises FileNotFoundError where there is nothing, and ValueError, whose message completes “it is …”, for anything
    that is not to be read. The last part of the path is never followed if it is a link.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError:
        raise ValueError("a link or cannot be opened") from None
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise ValueError("not a regular file")
        if about.st_size > most:
            raise ValueError(f"larger than {_size(most)}")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(most)
    finally:
        os.close(descriptor)


def _size(count: int) -> str:
    return f"{count / 2**20:.0f} MiB" if count >= 2**20 else f"{count} bytes"
