"""A plain process on a student's own machine that runs the student's own program: no confinement is needed there."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

from ebmcourse.checking.observer import Died, TimedOut
from ebmcourse.checking.runner import read_frame, write_frame


class LocalRoom:
    """Runs the program in `folder` in a child process, started at the first question and again after it died."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, frame: bytes, seconds: float) -> bytes:
        if self._process is None:
            command = [sys.executable, "-P", "-m", "ebmcourse.checking.runner", str(self._folder)]
            environment = {
                **os.environ,
                "CUDA_VISIBLE_DEVICES": "",
                "MPLBACKEND": "Agg",
                "OMP_NUM_THREADS": "1",
            }
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd=self._folder
            )
        process = self._process
        assert process.stdin and process.stdout
        late = threading.Event()

        def stop() -> None:
            late.set()
            process.kill()

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
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
