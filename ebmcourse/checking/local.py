"""A plain process that runs a program on the student's own machine, where no confinement is needed."""

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
from ebmcourse.checking.untrusted.server import CAN_FORK, read_frame, write_frame

WARM_UP_SECONDS = 300


class LocalProcess:
    """Runs the program in `folder` in a child process, started at the first question and again after it ended.

    `modules` are imported before the time of the first question starts: on a laptop that can take half a minute.
    """

    def __init__(self, folder: Path, modules: Iterable[str] = ()) -> None:
        self.folder = folder
        self._modules = tuple(modules)
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, frame: bytes, seconds: float) -> bytes:
        self.start()
        return self._exchange(frame, seconds)

    def start(self) -> None:
        """Start the process and import the modules, if it is not running."""
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._process is None:
            server = "ebmcourse.checking.untrusted.server"
            settings = {"CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", server, str(self.folder), *self._modules],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | settings,
                cwd=self.folder,
                start_new_session=True,  # so that its children, such as loaders of data, can be ended with it
            )
            self._exchange(b"", WARM_UP_SECONDS)

    def restart(self) -> None:
        """Go on in a process in which nothing of the program has run; imported modules stay where that is possible."""
        if self._process is not None:
            if CAN_FORK:
                with contextlib.suppress(Died, TimedOut):  # then the next question starts another one
                    self._exchange(b"", WARM_UP_SECONDS)
            else:
                self.close()

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
                    with contextlib.suppress(OSError):  # a request that was not read
                        stream.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and, where the system has sessions, all that it has started."""
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL) if hasattr(os, "killpg") else process.kill()
