"""The trusted end of the sandbox: starts it with bubblewrap, and talks to the submissions in it. Runs outside."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from autograder.sandbox import cgroup
from autograder.sandbox.bubblewrap import Unavailable, bubblewrap
from autograder.sandbox.free_memory import address_limit, shortage
from autograder.sandbox.limits import LIMITS, NEEDED_BYTES
from autograder.sandbox.syscalls import seccomp_filter
from autograder.sandbox.visible import LIBRARY, bind_arguments, needed_below, needed_paths
from ebmcourse.checking.observation import MAX_BYTES, encode
from ebmcourse.checking.observer import Died, ProtocolError, TimedOut, TooLarge

WARM_UP_SECONDS = 300  # usually 5; on a machine with much other work, a hundred were not enough
CLOSING_SECONDS = 5  # for the kernel to end what was killed
NOBODY = 65534
PROGRAM = Path("/sandbox")  # the folder in the sandbox that holds its program
_LENGTH = struct.Struct("<Q")


def bubblewrap_command(settings: dict[str, Any]) -> list[str]:
    """The command that starts `inside.py` in a sandbox that sees Python, the students' library and nothing else."""
    command = [bubblewrap(), "--die-with-parent", "--new-session", "--clearenv", "--hostname", "sandbox"]
    command += ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    if os.getuid() == 0:  # root keeps what it needs to make every submission nobody, and to end it
        for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_KILL"):
            command += ["--cap-add", capability]
    else:
        command += ["--unshare-user"]
    command += ["--proc", "/proc", "--tmpfs", "/tmp", "--tmpfs", "/dev"]
    for device in ("/dev/null", "/dev/random", "/dev/urandom"):
        command += ["--dev-bind", device, device]
    command += bind_arguments(needed_paths())
    for name in ("inside.py", "huge_pages.py"):
        command += ["--ro-bind", str(Path(__file__).with_name(name)), str(PROGRAM / name)]
    command += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp"]  # or plain users could write there
    environment = {"HOME": "/tmp", "LANG": "C.UTF-8", "PATH": "/usr/bin:/bin", "MPLBACKEND": "Agg"}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "CUDA_VISIBLE_DEVICES": ""}
    # Memory that is freed stays with the process: see `inside.warm_up`.
    environment |= {"MALLOC_MMAP_THRESHOLD_": str(2**26), "MALLOC_TRIM_THRESHOLD_": str(2**29)}
    for name, value in environment.items():
        command += ["--setenv", name, value]
    return [*command, sys.executable, "-I", str(PROGRAM / "inside.py"), json.dumps(settings)]


class Sandbox:
    """One sandbox with one warm process in it; one submission at a time lives there.

    `modules` are imported before the first submission comes. `limits` hold for the containers that are made from now
    on; `limited` changes them. Use as a context manager, or call `close`.
    """

    def __init__(self, modules: tuple[str, ...] = (), limits: dict[str, int] | None = None) -> None:
        self.limits = limits or LIMITS
        self.cgroup: Path | None = None
        self._modules = ("ebmcourse.checking.untrusted.server", *modules)
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._warm = False
        self._ready: socket.socket | None = None  # the channel to the container that waits for a submission
        self._open: socket.socket | None = None  # the channel to the container that a submission is in

    def __enter__(self) -> Sandbox:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def launch(self) -> None:
        """Start the sandbox and go on while it warms up; raises `Unavailable` where that fails."""
        if self._process is not None:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        rules = {
            "limits": self.limits,
            "user": NOBODY if os.getuid() == 0 else os.getuid(),
            "seccomp_filter": seccomp_filter().hex(),
            "needed_below_tmp": needed_below(Path("/tmp")),
        }
        settings = {"control": theirs.fileno(), "rules": rules, "library": str(LIBRARY.parent)}
        with theirs:
            command = bubblewrap_command(settings | {"modules": self._modules})
            self.cgroup = cgroup.create(self.limits["memory_bytes"] + self.limits["tmp_bytes"])
            self._process = subprocess.Popen(
                cgroup.join(self.cgroup, command),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                process_group=0,  # for `_end`; and Ctrl-C is left to this process
            )
        ours.settimeout(WARM_UP_SECONDS)
        self._control = ours

    @contextlib.contextmanager
    def limited(self, limits: dict[str, int]) -> Iterator[None]:
        """Give the submissions of this context other limits."""
        usual = self.limits
        self._change_limits(limits)
        yield
        self._change_limits(usual)

    def _change_limits(self, limits: dict[str, int]) -> None:
        self.limits = limits
        self.close_container(self.open_container())  # the limits hold for the containers after it

    def start(self) -> None:
        """Start the sandbox and wait until it is warm; raises `Unavailable` where that fails."""
        self.launch()
        if self._warm:
            return
        too_slow = False
        try:
            self._receive_channel()
            self._warm = True
            return
        except TimeoutError:
            too_slow = True
        except OSError:
            pass
        complaint = self._end()
        if reason := shortage(NEEDED_BYTES) or address_limit():
            raise Unavailable(f"The sandbox does not start ({complaint}). {reason}")
        if too_slow:
            raise Unavailable(
                f"The sandbox was not ready after {WARM_UP_SECONDS} seconds: this machine is too busy. End other "
                "programs, or use fewer --workers, and run the same command again."
            )
        raise Unavailable(
            f"Submissions cannot be confined: the sandbox does not start here ({complaint}). Is it allowed to make "
            "user namespaces? See docs/sandbox.md, or grade with --unconfined if you trust every submission."
        )

    def _receive_channel(self) -> bool:
        """Wait until a container is ready and the last one is dead; raises OSError where the sandbox has ended.

        False where the last container was killed by neither side.
        """
        assert self._control
        news, descriptors, _, _ = socket.recv_fds(self._control, 16, 1)
        if not descriptors:
            raise ConnectionResetError
        self._ready = socket.socket(fileno=descriptors[0])
        return news == b"ready"

    def open_container(self) -> socket.socket:
        """The channel to a new container, in which no submission has been; ends the container that was open before."""
        if self._open is not None:
            self.close_container(self._open)
        for _ in range(2):
            self.start()
            assert self._control
            try:
                if self._ready is None:
                    self._receive_channel()
                self._control.send(json.dumps(self.limits).encode())
            except OSError:
                self.close()  # the machine may have run out of memory; with a new sandbox nothing is lost
                continue
            self._open, self._ready = self._ready, None
            assert self._open
            return self._open
        raise Unavailable("The sandbox ends again and again; is this machine out of memory?")

    def close_container(self, channel: socket.socket) -> None:
        """End everything in the container with this channel, unless that was done. It is dead before the next opens."""
        channel.close()
        if channel is self._open and self._control is not None:
            self._open = None
            try:
                self._control.send(b"stop")
            except OSError:
                self.close()

    def was_killed(self, channel: socket.socket) -> bool:
        """Close the container with this channel; whether it or the sandbox was killed, and not by the submission."""
        is_open = channel is self._open
        self.close_container(channel)
        try:
            return is_open and not (self._control is not None and self._receive_channel())
        except OSError:
            self.close()
            return True

    def close(self) -> None:
        """End the sandbox and everything in it."""
        self._end()

    def _end(self) -> str:
        """End it, and return the last line that it wrote to standard error: why it ended, if it did so by itself."""
        for end in (self._control, self._ready, self._open):
            if end is not None:
                end.close()
        written = b""
        if self._process is not None:
            with self._process as process:
                with contextlib.suppress(ProcessLookupError):
                    # As a group: a child that bubblewrap has not prepared yet would outlive it.
                    os.killpg(process.pid, signal.SIGKILL)
                try:
                    _, written = process.communicate(timeout=CLOSING_SECONDS)
                except subprocess.TimeoutExpired as late:  # another process holds the stream
                    written = late.stderr or b""
        if self.cgroup is not None:
            cgroup.remove(self.cgroup)
        self._control = self._process = self._ready = self._open = self.cgroup = None
        self._warm = False
        lines = written.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "no reason given"


class SandboxProcess:
    """The process of one submission in a sandbox: started at the first question, and again after it ended.

    `was_killed` says whether it ended for a reason that is not the submission's.
    """

    def __init__(self, sandbox: Sandbox, files: dict[str, str]) -> None:
        self._sandbox = sandbox
        contents = {name: np.frombuffer(text.encode(), np.uint8) for name, text in files.items()}
        self._files = encode(contents)  # bytes: as text, they would be escaped twice
        self._channel: socket.socket | None = None
        self._is_new = False
        self.was_killed = False

    def start(self) -> None:
        """Wait for a container, if there is none yet; raises `Unavailable`."""
        if self._channel is None:
            self._channel = self._sandbox.open_container()
            self._is_new = True

    def ask(self, frame: bytes, seconds: float) -> bytes:
        """Send a request and return the reply; ends the process and raises `TimedOut`, `Died` or `ProtocolError`."""
        self.start()
        assert self._channel
        deadline = time.monotonic() + seconds
        try:
            if self._is_new:
                self._is_new = False
                self._send(self._files, deadline)
            elif self._speaks_unasked():
                raise ProtocolError("answered what it was not asked")
            self._send(frame, deadline)
            size = _LENGTH.unpack(self._receive(_LENGTH.size, deadline))[0]
            if size > MAX_BYTES:
                raise TooLarge(f"announced an answer of more than {MAX_BYTES // 2**20} MiB")
            return self._receive(size, deadline)
        except TimeoutError:
            self.close()
            raise TimedOut from None
        except (OSError, Died):
            self.was_killed |= self._sandbox.was_killed(self._channel)
            self._channel = None
            raise Died from None
        except ProtocolError:
            self.close()
            raise

    def close(self) -> None:
        """End the process and everything that it started."""
        if self._channel is not None:
            self._sandbox.close_container(self._channel)
            self._channel = None

    def _speaks_unasked(self) -> bool:
        assert self._channel
        self._channel.setblocking(False)
        try:
            if not self._channel.recv(1, socket.MSG_PEEK):
                raise Died
            return True
        except BlockingIOError:
            return False

    def _send(self, payload: bytes, deadline: float) -> None:
        assert self._channel
        self._channel.settimeout(max(deadline - time.monotonic(), 0.001))
        self._channel.sendall(_LENGTH.pack(len(payload)) + payload)

    def _receive(self, size: int, deadline: float) -> bytes:
        assert self._channel
        data = bytearray(size)
        rest = memoryview(data)
        while rest:
            self._channel.settimeout(max(deadline - time.monotonic(), 0.001))
            received = self._channel.recv_into(rest)
            if not received:
                raise Died
            rest = rest[received:]
        return bytes(data)
