"""The folder with the results of an assignment, while a grader writes to it."""

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autograder import Failure

LOCK = ".grading.lock"
_UNFINISHED = re.compile(r"\.[0-9a-f]{16}\.tmp")  # see `autograder.results.write_atomically`


@contextmanager
def reserved(folder: Path) -> Iterator[None]:
    """Make the folder, keep other graders out of it, and remove what killed graders left unfinished.

    The kernel releases the lock when this process ends, however it ends. Raises `Failure` where another grader holds
    it. On a file system without locks, nothing keeps others out: two graders then do the work twice.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failure(
                f"Another grader is writing to {folder}: wait until it has ended, then run this again."
            ) from None
        except OSError:
            pass
        else:
            for path in (*folder.glob(".*.tmp"), *folder.glob("drawings/.*.tmp")):
                if _UNFINISHED.fullmatch(path.name):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(path)
        yield
