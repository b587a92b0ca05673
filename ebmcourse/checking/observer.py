"""The trusted end of a conversation with a submission: asks its process, and believes nothing that it says."""

from __future__ import annotations

import builtins
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ebmcourse.checking.observation import decode, encode
from ebmcourse.checking.outcome import Status
from ebmcourse.checking.probe import probe_source

_ADVICE = {
    r"\.cuda\(|[\"']cuda": "A GPU is not always there: take the device from the model or the input, `x.to(y.device)`.",
    r"\.numpy\(": "Use `.detach().cpu().numpy()` for tensors that carry gradients.",
}


@dataclass(frozen=True)
class Call:
    """One call of a probe: which, on what, with which random seed, within how many seconds."""

    check: str
    file: Path
    probe: str
    inputs: tuple[Any, ...]
    seed: int
    seconds: float


class Lost(Exception):
    """A submission gave no observation; `status` and `reason` say why."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class TimedOut(Exception):
    """The submission's process did not answer in time and was killed."""


class Died(Exception):
    """The submission's process ended, or answered with something that is no message."""


class Room(Protocol):
    """Where a submission's process lives: a sandbox, or a plain process on a student's own machine."""

    def ask(self, frame: bytes, seconds: float) -> bytes:
        """Send a request and return the reply; raises `TimedOut` or `Died`, after which the next call starts anew."""

    def close(self) -> None:
        """End the process and everything that it started."""


class Observer:
    """Observes one submission through probes.

    `files` are the texts of the files handed in; `problems` says what is wrong with one that is not there. `messages`: repeat the messages of the submission's exceptions; on a
    student's own machine that helps, in grading they could carry hidden inputs out. `budget` is the time in seconds
    that all calls together may take.
    """

    def __init__(
        self, room: Room, files: dict[str, str], problems: dict[str, str], *, messages: bool, budget: float
    ) -> None:
        self.flags: list[str] = []
        self.seconds: dict[str, float] = {}  # the submission's own computing time for each check
        self._room = room
        self._files = files
        self._problems = problems
        self._messages = messages
        self._budget = budget

    def observe(self, call: Call) -> Any:
        """Run a probe beside the submission and return its observation; raises `Lost` where there is none."""
        request = {
            "source": probe_source(call.file),
            "probe": call.probe,
            "inputs": list(call.inputs),
            "seed": call.seed,
        }
        seconds = min(call.seconds, self._budget)
        if seconds <= 0:
            raise Lost("timeout", "The submission's time was used up by the checks before this one.")
        try:
            reply = decode(self._room.ask(encode(request), seconds))
            used = min(max(float(reply["seconds"]), 0.0), seconds)
            error = reply["error"] if "error" in reply else None
            value = None if error else reply["value"]
        except TimedOut:
            self._use(call.check, seconds)
            raise Lost(
                "timeout", f"No answer within {call.seconds:g} seconds: is there an endless loop?"
            ) from None
        except Died:
            self.flags.append(f"{call.check}: the submission's process was ended from inside")
            raise Lost(
                "error", "Your program ended the process that ran it, or used too much memory."
            ) from None
        except (ValueError, TypeError, KeyError):
            self.flags.append(f"{call.check}: the reply was not one that the kit writes")
            raise Lost("error", "Your program sent an answer that cannot be read.") from None
        self._use(call.check, used)
        if error:
            raise self._lost(error)
        return value

    def _use(self, check: str, seconds: float) -> None:
        self.seconds[check] = self.seconds.get(check, 0.0) + seconds
        self._budget -= seconds

    def _lost(self, error: Any) -> Lost:
        """Put the submission's account of its exception into words that hold nothing it could have chosen freely."""
        said = error if isinstance(error, dict) else {}
        kind, name, file, line = (said.get(key) for key in ("kind", "type", "file", "line"))
        if kind == "todo":
            return Lost("failed", "Not implemented yet.")
        if kind == "missing":
            return Lost("error", self._problems.get(str(said.get("message")), "A file is missing."))
        if kind == "memory":
            return Lost("memory", "Your program used more memory than it may.")
        known = getattr(builtins, name, None) if isinstance(name, str) else None
        is_exception = isinstance(known, type) and issubclass(known, BaseException)
        reason = f"Your program stopped with {name if is_exception else 'an exception'}"
        text = ""
        if isinstance(file, str) and isinstance(line, int):
            lines = self._files.get(file, "").splitlines()
            if 1 <= line <= len(lines):
                text = lines[line - 1].strip()
                reason += f" in {file}, line {line}: `{text[:120]}`"
        if self._messages and said.get("message"):
            reason += f" ({said['message']})"
        advice = [advice for pattern, advice in _ADVICE.items() if re.search(pattern, text)]
        return Lost("error", " ".join([reason + ".", *advice]))
