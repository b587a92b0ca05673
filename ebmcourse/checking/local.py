"""A plain process that runs a program on the student's own machine, where no confinement is needed."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

from ebmcourse.checking.observer import Died, Outdated, TimedOut
from ebmcourse.checking.untrusted.server import CAN_FORK, read_frame, write_frame

WARM_UP_SECONDS = 300
POLL_SECONDS = 0.25  # interval of looking at the time that a process has used


class LocalProcess:
    """Runs the program in `folder` in a child process, started at the first question and again after it ended.

    `modules` are imported before the time of the first question starts: on a laptop that can take half a minute.
    The time limits count the time in which the program computes or sleeps, not the time in which it waits for a
    processor or the disk, so that they hold on a busy machine. A question during which `is_outdated` becomes true ends
    with `Outdated`.
    """

    def __init__(self, folder: Path, modules: Iterable[str] = ()) -> None:
        self.folder = folder
        self._modules = tuple(modules)
        self._process: subprocess.Popen[bytes] | None = None
        self._used = 0.0
        self.is_outdated: Callable[[], bool] = lambda: False

    def clock(self) -> float:
        """The seconds that the program has used in all questions so far."""
        return self._used

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
        end: type[Exception] = Died
        done = threading.Event()

        def watch() -> None:
            nonlocal end
            watched = _Used(process.pid)
            while end is Died and not done.wait(POLL_SECONDS):
                if frame and self.is_outdated():
                    end = Outdated
                elif watched.seconds() > seconds:
                    end = TimedOut
            if end is not Died:
                _kill(process)
            self._used += watched.seconds()

        watchdog = threading.Thread(target=watch, daemon=True)
        watchdog.start()
        try:
            write_frame(process.stdin, frame)
            reply = read_frame(process.stdout)
        except (OSError, ValueError):
            reply = None
        finally:
            done.set()
            watchdog.join()
        if reply is None or end is not Died:
            self.close()
            raise end
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


class _Used:
    """The time that a process and its children use from now on: what they compute, and what they sleep."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._slept = 0.0
        self._before, _ = self._look()
        self._start, self._last = self._before, time.monotonic()

    def seconds(self) -> float:
        """The seconds so far; to be called often, because sleep is what is found between two calls."""
        computed, is_waiting = self._look()
        now = time.monotonic()
        if computed == self._before and not is_waiting:
            self._slept += now - self._last
        self._before, self._last = max(computed, self._before), now
        return self._before - self._start + self._slept

    def _look(self) -> tuple[float, bool]:
        """The processor time of all processes, and whether one of them waits for a processor or the disk."""
        total, is_waiting = 0.0, False
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self._pid)
            for each in (process, *process.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    times = each.cpu_times()
                    # the times of children that have ended are part of their parent's
                    total += times.user + times.system + times.children_user + times.children_system
                    is_waiting |= each.status() in (psutil.STATUS_RUNNING, psutil.STATUS_DISK_SLEEP)
        return total, is_waiting
