"""A plain process on a student's own machine that runs the student's own program: no confinement is needed there."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

from ebmcourse.checking.observer import Died, TimedOut
from ebmcourse.checking.runner import read_frame, write_frame

WARM_UP_SECONDS = 300


class LocalRoom:
    """Runs the program in `folder` in a child process, started at the first question and again after it died.

    `modules` are imported before the clock of the first question starts: on a laptop that can take half a minute.
    """

    def __init__(self, folder: Path, modules: Iterable[str] = ()) -> None:
        self._folder = folder
        self._modules = tuple(modules)
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, frame: bytes, seconds: float) -> bytes:
        if self._process is None:
            command = [sys.executable, "-P", "-m", "ebmcourse.checking.runner", str(self._folder), *self._modules]
            settings = {"CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | settings,
                cwd=self._folder,
                start_new_session=True,  # so that what it starts, such as loaders of data, can be ended with it
            )
            self._exchange(b"", WARM_UP_SECONDS)
        return self._exchange(frame, seconds)

    def _exchange(self, frame: bytes, seconds: float) -> bytes:
        process = self._process
        assert process and process.stdin and process.stdout
        late = threading.Event()

        def stop() -> None:
            late.set()
            _kill(process)

        watchdog = threading.Timer(seconds, stop)
        watchdog.start()
        try:
            write_frame(process.stdin, frame)
            reply = read_frame(process.stdout)
        except (OSError, ValueError):
            reply = None
        finally:
            watchdog.cancel()
        if reply is None or late.is_set():
            self.close()
            raise TimedOut if late.is_set() else Died
        return reply

    def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            _kill(process)
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream:
                    with contextlib.suppress(OSError):  # a request that nobody has read
                        stream.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and, where the system knows sessions, whatever it has started."""
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL) if hasattr(os, "killpg") else process.kill()
