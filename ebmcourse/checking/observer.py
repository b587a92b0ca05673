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
from typing import Any, NamedTuple, Protocol

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
    """One call of a probe: which, on what, with which random seed, within how many seconds."""

    check: str
    file: Path
    probe: str
    inputs: tuple[Any, ...]
    seed: int
    seconds: float

    def asks_the_same(self, other: Call) -> bool:
        """Whether the answer to this call answers the other one, too: it asks the same, about the very same inputs."""
        one, another = ((c.file, c.probe, c.seed, c.seconds, len(c.inputs)) for c in (self, other))
        return one == another and all(map(_is_same, self.inputs, other.inputs))


def _is_same(one: Any, other: Any) -> bool:
    return one is other or (type(one) is type(other) and isinstance(one, int | str) and one == other)


@dataclass(frozen=True)
class Request:
    """Calls of probes in one file of checks that are asked for together.

    Whoever asks many submissions the same keeps the request: it is encoded once.
    """

    calls: tuple[Call, ...]

    def encoded(self, ticket: str) -> bytes:
        """The bytes that ask for the calls' observations, see `runner.answer`."""
        head, tail = self._around_ticket
        return head + ticket.encode() + tail

    @cached_property
    def _around_ticket(self) -> tuple[bytes, bytes]:
        """What stands before and after the ticket, which is all that changes from one submission to the next."""
        values: list[Any] = []
        questions = [
            {"probe": call.probe, "inputs": [_place(value, values) for value in call.inputs], "seed": call.seed}
            for call in self.calls
        ]
        request = {
            "ticket": _NO_TICKET,  # first, so that nothing in the inputs can be taken for it
            "source": probe_source(self.calls[0].file, *sorted({call.probe for call in self.calls})),
            "values": values,
            "questions": questions,
        }
        head, _, tail = encode(request).partition(_NO_TICKET.encode())
        return head, tail


def _place(value: Any, values: list[Any]) -> int:
    """The index of a value in `values`, where it is put unless it is there already."""
    for place, other in enumerate(values):
        if _is_same(value, other):
            return place
    values.append(value)
    return len(values) - 1


class Lost(Exception):
    """A submission gave no observation; `status` and `reason` say why."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class _Answer(NamedTuple):
    """What a submission's process says about one call: a value, or what went wrong."""

    value: Any
    error: dict[str, Any] | None


# After a time-out, the next call may take half as long, and so on down to this share, until there is an answer:
# an endless loop at import must not cost the full time of every check.
LEAST_PATIENCE = 0.1
MAX_KEPT_BYTES = 8 * 2**20  # of replies to what is asked ahead: memory is the grader's, and a parsed tree is large


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
        self._kept: dict[Call, _Answer | Lost] = {}

    def ask_ahead(self, requests: Iterable[Request]) -> None:
        """Ask these requests now, and keep the answers for `observe`, up to the first one that does not come in time.

        Whoever then judges in one go needs half the time of a judge who waits before each judgement, and finds the
        machine's caches full of other things. A request may take as long as the longest of its calls may. Where it
        brings no answers, nothing is lost: its calls are asked one by one, before anything else is.
        """
        left = MAX_KEPT_BYTES
        for request in requests:
            try:
                answers, size = self._ask(request, min(max(call.seconds for call in request.calls), self._budget))
                self._kept |= zip(request.calls, answers, strict=True)
                left -= size
            except TimedOut:
                return
            except (Died, Garbled):
                self._kept |= {call: self._ask_alone(call) for call in request.calls}
            if left < 0:
                return

    def observe(self, call: Call) -> Any:
        """Run a probe beside the submission and return its observation; raises `Lost` where there is none."""
        answer = self._kept[call] if call in self._kept else self._ask_alone(call)
        if isinstance(answer, Lost):
            raise answer
        if answer.error is not None:
            raise self._lost(answer.error)
        return answer.value

    def _ask_alone(self, call: Call) -> _Answer | Lost:
        allowed = call.seconds * self._patience
        seconds = min(allowed, self._budget)
        if seconds <= 0:
            return Lost("timeout", "The submission's time was used up by the checks before this one.")
        try:
            (answer,), _ = self._ask(Request((call,)), seconds)
            self._patience = 1.0
            return answer
        except TimedOut:
            self._patience = max(self._patience / 2, LEAST_PATIENCE)
            self._add_seconds(call.check, seconds)
            return Lost("timeout", f"No answer within {allowed:g} seconds: is there an endless loop?")
        except Died:
            self.flags.append(f"{call.check}: the submission's process was ended from inside")
            return Lost("error", "Your program ended the process that ran it, or used too much memory.")
        except Garbled:
            return Lost("error", "Your program sent an answer that cannot be read.")

    def _ask(self, request: Request, seconds: float) -> tuple[list[_Answer], int]:
        """The answers to the calls of a request, and how many bytes they took on their way."""
        ticket = secrets.token_hex(len(_NO_TICKET) // 2)
        begin = time.monotonic()
        try:
            frame = self._room.ask(request.encoded(ticket), seconds)
            elapsed = time.monotonic() - begin
            answers = _read(frame, ticket, len(request.calls))
        except Garbled as garbled:
            self._room.close()
            self.flags.append(f"{request.calls[0].check}: the submission's process {garbled}")
            raise
        finally:
            self._budget -= time.monotonic() - begin  # the budget trusts no clock of the submission's
        for call, (_, used) in zip(request.calls, answers, strict=True):
            self._add_seconds(call.check, min(max(used, 0.0), elapsed))
        return [answer for answer, _ in answers], len(frame)

    def _add_seconds(self, check: str, seconds: float) -> None:
        self.seconds[check] = self.seconds.get(check, 0.0) + seconds

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


def _read(frame: bytes, ticket: str, count: int) -> list[tuple[_Answer, float]]:
    """The answers in a reply to the `count` calls of the request with this ticket, and the seconds that each took."""
    nonsense = Garbled("sent an answer that the kit does not write")
    try:
        reply = decode(frame)
    except ValueError:
        raise nonsense from None
    match reply:
        case {"answers": list(answers)} if reply.keys() <= {"ticket", "answers"} and all(map(_is_answer, answers)):
            pass
        case _:
            raise nonsense
    if reply.get("ticket") != ticket or len(answers) != count:
        raise Garbled("answered what it was not asked")
    return [(_Answer(answer.get("value"), answer.get("error")), answer["seconds"]) for answer in answers]


def _is_answer(answer: Any) -> bool:
    if not isinstance(answer, dict) or answer.keys() not in ({"value", "seconds"}, {"error", "seconds"}):
        return False
    seconds = answer["seconds"]
    return type(seconds) is float and math.isfinite(seconds) and isinstance(answer.get("error", {}), dict)
