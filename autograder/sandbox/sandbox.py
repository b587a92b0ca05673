"""The trusted end of the sandbox: starts it with bubblewrap and talks with the submissions in it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import ebmcourse
from autograder import Failure
from autograder.sandbox.limits import LIMITS
from autograder.sandbox.syscalls import program
from ebmcourse.checking.observation import MAX_BYTES, encode
from ebmcourse.checking.observer import Died, ProtocolError, TimedOut

WARM_UP_SECONDS = 120
NOBODY = 65534
_LENGTH = struct.Struct("<Q")
LIBRARY = Path(ebmcourse.__file__).resolve().parent
_ZYGOTE = Path(__file__).with_name("zygote.py")


class Unavailable(Failure):
    """This machine cannot confine submissions; the message says what to do."""


def bubblewrap_command(zygote_arguments: list[str]) -> list[str]:
    """The command that starts the zygote in a sandbox which sees Python, the students' library and nothing else."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise Unavailable(
            "Submissions cannot be confined: bubblewrap is not installed. Install it (Debian, Ubuntu: "
            "`sudo apt-get install bubblewrap`; Fedora: `sudo dnf install bubblewrap`), or grade with --unconfined "
            "if you trust every submission."
        )
    command = [bwrap, "--die-with-parent", "--new-session", "--clearenv"]
    command += ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    if os.getuid() == 0:  # root keeps just what it takes to make every submission a nobody, and to end it
        for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_KILL"):
            command += ["--cap-add", capability]
    else:
        command += ["--unshare-user"]
    command += ["--ro-bind", "/usr", "/usr"]
    for name in ("/bin", "/sbin", "/lib", "/lib32", "/lib64"):
        path = Path(name)
        if path.is_symlink():
            command += ["--symlink", os.readlink(path), name]
        elif path.exists():
            command += ["--ro-bind", name, name]
    command += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    command += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    for folder in dict.fromkeys([sys.base_prefix, sys.prefix, str(LIBRARY)]):
        if not Path(folder).is_relative_to("/usr"):
            for parent in reversed(Path(folder).parents[:-1]):
                command += ["--perms", "0755", "--dir", str(parent)]  # or nobody may pass through
            command += ["--ro-bind", folder, folder]
    command += ["--ro-bind", str(_ZYGOTE), "/zygote.py", "--chdir", "/tmp"]
    command += ["--remount-ro", "/dev", "--remount-ro", "/"]  # else a user who is not root could leave things there
    environment = {"HOME": "/tmp", "LANG": "C.UTF-8", "PATH": "/usr/bin:/bin", "MPLBACKEND": "Agg"}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "CUDA_VISIBLE_DEVICES": ""}
    # Memory that is freed stays with the process: see `zygote.rehearse`.
    environment |= {"MALLOC_MMAP_THRESHOLD_": str(2**26), "MALLOC_TRIM_THRESHOLD_": str(2**29)}
    for name, value in environment.items():
        command += ["--setenv", name, value]
    return [*command, sys.executable, "-I", "/zygote.py", *zygote_arguments]


class Sandbox:
    """One sandbox with one warm process in it; at any time one submission lives there.

    `modules` are imported before the first submission comes. Use as a context manager, or call `close`.
    """

    def __init__(self, modules: tuple[str, ...] = (), limits: dict[str, int] | None = None) -> None:
        self.limits = limits or LIMITS
        self._modules = ("ebmcourse.checking.untrusted.server", *modules)
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._warm = False

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
        user = NOBODY if os.getuid() == 0 else os.getuid()
        with theirs:
            arguments = [str(theirs.fileno()), json.dumps(self.limits), str(user), program().hex(), str(LIBRARY.parent)]
            self._process = subprocess.Popen(
                bubblewrap_command([*arguments, *self._modules]),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
        ours.settimeout(WARM_UP_SECONDS)
        self._control = ours
        self._warm = False

    def start(self) -> None:
        """Start the sandbox and wait until it is warm; raises `Unavailable` where that fails."""
        self.launch()
        assert self._control
        if self._warm:
            return
        with contextlib.suppress(OSError):
            if self._control.recv(16) == b"ready":
                self._warm = True
                return
        complaint = self._complaint()
        self.close()
        raise Unavailable(
            f"Submissions cannot be confined: the sandbox does not start here ({complaint}). Is it allowed to make "
            "user namespaces? See docs/sandbox.md, or grade with --unconfined if you trust every submission."
        )

    def _complaint(self) -> str:
        assert self._process and self._process.stderr
        self._process.kill()
        lines = self._process.stderr.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "no reason given"

    def request(self, what: str, channel: socket.socket | None = None) -> None:
        """Tell the zygote to ``start`` a submission that speaks on `channel`, or to ``stop`` the one that lives.

        The zygote obeys in order: nothing of the last submission runs any more when the next one starts.
        """
        for _ in range(2):
            self.start()
            assert self._control
            try:
                socket.send_fds(self._control, [what.encode()], [channel.fileno()] if channel else [])
                return
            except OSError:
                self.close()  # the machine may have run out of memory; with a new sandbox nothing is lost
                if what == "stop":
                    return
        raise Unavailable("The sandbox ends again and again; is this machine out of memory?")

    def close(self) -> None:
        """End the sandbox and all that lives in it."""
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._control = self._process = None


class SandboxProcess:
    """The process of one submission in a sandbox: started at the first question, and again after it died."""

    def __init__(self, sandbox: Sandbox, files: dict[str, str]) -> None:
        self._sandbox = sandbox
        contents = {name: np.frombuffer(text.encode(), np.uint8) for name, text in files.items()}
        self._files = encode(contents)  # bytes: as text, they would be escaped twice
        self._channel: socket.socket | None = None

    def ask(self, frame: bytes, seconds: float) -> bytes:
        deadline = time.monotonic() + seconds
        try:
            if self._channel is not None and self._speaks_unasked():
                raise ProtocolError("answered what it was not asked")
            if self._channel is None:
                self._channel, theirs = socket.socketpair()
                with theirs:
                    self._sandbox.request("start", theirs)
                self._send(self._files, deadline)
            self._send(frame, deadline)
            size = _LENGTH.unpack(self._receive(_LENGTH.size, deadline))[0]
            if size > MAX_BYTES:
                raise ProtocolError(f"announced an answer of more than {MAX_BYTES // 2**20} MiB")
            return self._receive(size, deadline)
        except TimeoutError:
            self.close()
            raise TimedOut from None
        except OSError:
            self.close()
            raise Died from None
        except (Died, ProtocolError):
            self.close()
            raise

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
            self._sandbox.request("stop")

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
