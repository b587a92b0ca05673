"""The trusted end of a conversation with a submission: asks its process, and believes nothing that it says."""

from __future__ import annotations

import builtins
import math
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from ebmcourse.checking.observation import decode, encode
from ebmcourse.checking.outcome import Status
from ebmcourse.checking.probe import probe_source

_ADVICE = {
    r"\.cuda\(|[\"']cuda": "A GPU is not always there: take the device from the model or the input, `x.to(y.device)`.",
    r"\.numpy\(": "Use `.detach().cpu().numpy()` for tensors that carry gradients.",
}


_NO_TICKET = "0" * 16


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a probe: which, on what, with which random seed, within how many seconds.

    Whoever asks many submissions the same keeps the call: it is encoded once. Only the same call is equal to a call.
    """

    check: str
    file: Path
    probe: str
    inputs: tuple[Any, ...]
    seed: int
    seconds: float

    def request(self, ticket: str) -> bytes:
        """The request that asks for this call's observation, see `runner.answer`."""
        head, tail = self._around_ticket
        return head + ticket.encode() + tail

    @cached_property
    def _around_ticket(self) -> tuple[bytes, bytes]:
        """What stands before and after the ticket, which is all that changes from one submission to the next."""
        request = {
            "ticket": _NO_TICKET,  # first, so that nothing in the inputs can be taken for it
            "source": probe_source(self.file, self.probe),
            "probe": self.probe,
            "inputs": list(self.inputs),
            "seed": self.seed,
        }
        head, _, tail = encode(request).partition(_NO_TICKET.encode())
        return head, tail


class Lost(Exception):
    """A submission gave no observation; `status` and `reason` say why."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True)
class _Reply:
    """What came for a call, unread, and how long it took."""

    ticket: str
    frame: bytes
    elapsed: float


# After a time-out, the next call may take half as long, and so on down to this share, until there is an answer:
# an endless loop at import must not cost the full time of every check.
LEAST_PATIENCE = 0.1
MAX_KEPT_BYTES = 64 * 2**20  # of replies that nobody has asked for yet: memory is the grader's


class TimedOut(Exception):
    """The submission's process did not answer in time and was killed."""


class Died(Exception):
    """The submission's process ended."""


class Garbled(Exception):
    """The submission's process said what is no answer; the message completes “the submission's process …”."""


class Room(Protocol):
    """Where a submission's process lives: a sandbox, or a plain process on a student's own machine."""

    def ask(self, frame: bytes, seconds: float) -> bytes:
        """Send a request, return the reply; raises `TimedOut`, `Died` or `Garbled`, and the next call starts anew."""

    def close(self) -> None:
        """End the process and everything that it started."""


class Observer:
    """Observes one submission through probes.

    `files` are the texts of the files handed in; `problems` says what is wrong with one that is not there.
    `messages`: repeat the messages of the submission's exceptions; on a student's own machine that helps, in grading
    they could carry hidden inputs out. `budget` is the time in seconds that all calls together may take.
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
        self._patience = 1.0
        self._kept: dict[Call, _Reply | Lost] = {}

    def ask_ahead(self, calls: Iterable[Call]) -> None:
        """Ask these calls now, and keep the replies for `observe`, up to the first one that does not come in time.

        Whoever then judges in one go needs half the time of a judge who waits before each judgement, and finds the
        machine's caches full of other things.
        """
        room = MAX_KEPT_BYTES
        for call in calls:
            reply = self._kept[call] = self._ask(call)
            room -= len(reply.frame) if isinstance(reply, _Reply) else 0
            if room < 0 or (isinstance(reply, Lost) and reply.status == "timeout"):
                return

    def observe(self, call: Call) -> Any:
        """Run a probe beside the submission and return its observation; raises `Lost` where there is none."""
        reply = self._kept.pop(call, None) or self._ask(call)
        if isinstance(reply, Lost):
            raise reply
        try:
            value, error, used = _read(reply)
        except Garbled as garbled:
            raise self._garbled(call, garbled) from None
        self.seconds[call.check] = self.seconds.get(call.check, 0.0) + min(max(used, 0.0), reply.elapsed)
        if error is not None:
            raise self._lost(error)
        return value

    def _ask(self, call: Call) -> _Reply | Lost:
        ticket = secrets.token_hex(len(_NO_TICKET) // 2)
        allowed = call.seconds * self._patience
        seconds = min(allowed, self._budget)
        if seconds <= 0:
            return Lost("timeout", "The submission's time was used up by the checks before this one.")
        begin = time.monotonic()
        try:
            frame = self._room.ask(call.request(ticket), seconds)
            self._patience = 1.0
            return _Reply(ticket, frame, time.monotonic() - begin)
        except TimedOut:
            self._patience = max(self._patience / 2, LEAST_PATIENCE)
            self.seconds[call.check] = self.seconds.get(call.check, 0.0) + seconds
            return Lost("timeout", f"No answer within {allowed:g} seconds: is there an endless loop?")
        except Died:
            self.flags.append(f"{call.check}: the submission's process was ended from inside")
            return Lost("error", "Your program ended the process that ran it, or used too much memory.")
        except Garbled as garbled:
            return self._garbled(call, garbled)
        finally:
            self._budget -= time.monotonic() - begin  # the budget trusts no clock of the submission's

    def _garbled(self, call: Call, garbled: Garbled) -> Lost:
        self._room.close()
        self.flags.append(f"{call.check}: the submission's process {garbled}")
        return Lost("error", "Your program sent an answer that cannot be read.")

    def _lost(self, error: dict[str, Any]) -> Lost:
        """Put the submission's account of its exception into words that hold nothing it could have chosen freely."""
        kind, name, missing = (error.get(key) for key in ("kind", "type", "missing"))
        if kind == "todo":
            return Lost("failed", "Not implemented yet.")
        if isinstance(missing, str) and missing in self._problems:
            return Lost("error", self._problems[missing])
        if kind == "memory":
            return Lost("memory", "Your program used more memory than it may.")
        known = getattr(builtins, name, None) if isinstance(name, str) else None
        is_exception = isinstance(known, type) and issubclass(known, BaseException)
        reason = f"Your program stopped with {name if is_exception else 'an exception'}"
        place, text = self._innermost(error.get("places"))
        if text:
            reason += f" in {place}: `{text[:120]}`"
        if self._messages and error.get("message"):
            reason += f" ({error['message']})"
        advice = [advice for pattern, advice in _ADVICE.items() if re.search(pattern, text)]
        return Lost("error", " ".join([reason + ".", *advice]))

    def _innermost(self, places: Any) -> tuple[str, str]:
        """The last of `places` that is a line of a file handed in, as words and as that line; of others, nothing."""
        for place in reversed(places if isinstance(places, list) else []):
            match place:
                case [str(file), int(line)] if file in self._files:
                    lines = re.split(r"\r\n|\r|\n", self._files[file])  # as Python counts them
                    if 1 <= line <= len(lines):
                        return f"{file}, line {line}", lines[line - 1].strip()
        return "", ""


def _read(answer: _Reply) -> tuple[Any, dict[str, Any] | None, float]:
    """The value, the error (one of the two) and the seconds that a reply to the request with its ticket tells."""
    nonsense = Garbled("sent an answer that the kit does not write")
    try:
        reply = decode(answer.frame)
    except ValueError:
        raise nonsense from None
    if not isinstance(reply, dict) or reply.keys() - {"ticket"} not in ({"value", "seconds"}, {"error", "seconds"}):
        raise nonsense
    error, seconds = reply.get("error"), reply["seconds"]
    if type(seconds) is not float or not math.isfinite(seconds) or ("error" in reply and not isinstance(error, dict)):
        raise nonsense
    if reply.get("ticket") != answer.ticket:
        raise Garbled("answered what it was not asked")
    return reply.get("value"), error, seconds
