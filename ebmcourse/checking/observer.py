"""The trusted side of a submission: sends requests to its process, and trusts nothing in the replies."""

from __future__ import annotations

import math
import re
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ebmcourse.checking.observation import LARGEST, Size, decode, encode, fits
from ebmcourse.checking.outcome import NOT_IMPLEMENTED, Status
from ebmcourse.checking.probes import probe_source, sentences

_ADVICE = {  # kind of the error -> what to do about it
    "gpu": "A GPU is not always there: take the device from the model or the input, `x.to(y.device)`.",
    "numpy": "Use `.detach().cpu().numpy()` for tensors that carry gradients.",
    "undefined": (
        "Grading does not define this name, because a cell of your own sets it by training, by asking for input, or "
        "from another file. Compute it in the function, or define it in a cell that does none of these."
    ),
}
# A submission chooses what it raises and where, and could so tell its author about hidden inputs: see `Observer`.
NAMED_EXCEPTIONS = {"AssertionError", "AttributeError", "ImportError", "IndexError", "KeyError", "ModuleNotFoundError"}
NAMED_EXCEPTIONS |= {"NameError", "RecursionError", "RuntimeError", "TypeError", "ValueError"}
NAMED_EXCEPTIONS |= {"ZeroDivisionError"}
_SYNTAX_ERRORS = ("IndentationError", "SyntaxError", "TabError")
_WITHOUT_HINT = ("ImportError", "ModuleNotFoundError", "SystemExit", *_SYNTAX_ERRORS)  # whatever the exercise
_SYNTAX = (  # what Python says about them; other words are not repeated in grading
    "expected ':'",
    "expected an indented block",
    "unexpected indent",
    "unindent does not match any outer indentation level",
    "'(' was never closed",
    "'[' was never closed",
    "unmatched ')'",
    "unterminated string literal",
    "invalid syntax. Perhaps you forgot a comma?",
    "invalid syntax. Maybe you meant '==' or ':=' instead of '='?",
)
MAX_LINES = 4096  # in all files together; in a longer program, exceptions have no place
MAX_PLACES = 16  # of an exception that are looked at
_ARGUMENTS = "It was raised in an object or function of the check: look at the arguments that it is given there."
_INTERFACE = "Compare the names, the parameters and what is returned with the template."
_IMPORTS = (
    "Only the packages of the course and the files of the assignment can be imported: remove this import, and what "
    "uses it."
)
_EXIT = 'Remove the call that ends it, such as `exit()`, or run it only under `if __name__ == "__main__":`.'
_INPUT = "A graded program cannot ask for input: take the value from the arguments, or write it into the program."
_ANOTHER = "Your program stopped with an exception, another one than in the check above: repair that one first."

_NO_TICKET = "0" * 16


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a probe: its inputs, its random seed, the seconds it may take, and the largest answer to it."""

    check: str
    file: Path
    probe: str
    inputs: tuple[Any, ...]
    seed: int
    seconds: float
    largest: Size = LARGEST

    @property
    def part(self) -> str:
        """The exercise that the call is about."""
        return self.check.partition("/")[0]

    def asks_the_same(self, other: Call) -> bool:
        """Whether the other call is equal to this one, with identical inputs, so that one answer serves both."""
        one, another = ((c.file, c.probe, c.seed, c.seconds, len(c.inputs)) for c in (self, other))
        return one == another and all(map(_is_same, self.inputs, other.inputs))


def _is_same(one: Any, other: Any) -> bool:
    return one is other or (type(one) is type(other) and isinstance(one, int | str) and one == other)


@dataclass(frozen=True)
class Request:
    """Calls of probes from one file of checks that are sent together.

    A request is encoded once, and can then be sent to many submissions.
    """

    calls: tuple[Call, ...]

    def encoded(self, ticket: str) -> bytes:
        """The bytes of the request, see `untrusted.server.answer`."""
        head, tail = self._around_ticket
        return head + ticket.encode() + tail

    @cached_property
    def largest_reply(self) -> Size:
        """The bytes that a reply may have."""
        trees, totals = zip(*(call.largest for call in self.calls), strict=True)
        return Size(min(sum(trees), LARGEST.tree), min(sum(totals), LARGEST.total))

    @cached_property
    def _around_ticket(self) -> tuple[bytes, bytes]:
        """The bytes before and after the ticket, the only part that differs between submissions."""
        values: list[Any] = []
        questions = [
            {"probe": call.probe, "inputs": [_place(value, values) for value in call.inputs], "seed": call.seed}
            for call in self.calls
        ]
        request = {
            "ticket": _NO_TICKET,  # first, so that nothing in the inputs can be mistaken for it
            "source": probe_source(self.calls[0].file, *sorted({call.probe for call in self.calls})),
            "values": values,
            "questions": questions,
        }
        head, _, tail = encode(request).partition(_NO_TICKET.encode())
        return head, tail


def _place(value: Any, values: list[Any]) -> int:
    """The index of a value in `values`, to which it is appended if it is not there yet."""
    for place, other in enumerate(values):
        if _is_same(value, other):
            return place
    values.append(value)
    return len(values) - 1


class NoObservation(Exception):
    """There is no observation of the submission; `status` and `reason` say why.

    `hint_helps` is false where the hint of the check does not: the program cannot be loaded, ends itself, or asks for
    input.
    """

    def __init__(self, status: Status, reason: str, *, hint_helps: bool = True) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.hint_helps = hint_helps


class _Answer(NamedTuple):
    """What the process of a submission returns for one call: a value, or an error."""

    value: Any
    error: dict[str, Any] | None


# After a time-out, the next call may take half as long, and so on down to this share, until there is an answer: an
# endless loop at import must not use the full time of every check.
LEAST_PATIENCE = 0.1
# After so many violations of the protocol, nothing more is asked. A reply that is too large counts less, because a
# program can send it by mistake, in all calls of an exercise.
MAX_VIOLATIONS, LARGE_REPLY = 3, 1 / 8
MAX_KEPT_BYTES = 8 * 2**20  # of replies to `ask_ahead`, which the grader holds in memory; a parsed tree is larger still


class TimedOut(Exception):
    """The process of the submission did not answer in time and was killed."""


class Died(Exception):
    """The process of the submission ended."""


class Outdated(Exception):
    """The program was changed while it ran, and its process was killed."""


class ProtocolError(Exception):
    """The process of the submission broke the protocol; the message completes “the submission's process …”."""


class TooLarge(ProtocolError):
    """The reply is larger than allowed. A program can do this by mistake; other errors of the protocol are attacks."""


class StudentProcess(Protocol):
    """The process of a submission: in a sandbox, on a student's own machine, or a notebook's kernel."""

    def start(self) -> None:
        """Make the process ready for a request, before the submission's time begins. `ask` does so too."""

    def ask(self, frame: bytes, seconds: float) -> bytes:
        """Send a request and return the reply.

        Raises `TimedOut`, `Died` or `ProtocolError`; then the next call starts a new process.
        """

    def close(self) -> None:
        """End the process and all processes that it has started."""


class Observing(Protocol):
    """What a judge needs of an observer."""

    flags: list[str]

    def observe(self, call: Call) -> Any:
        """What the probe of a call observes of the submission; raises `NoObservation` where there is nothing."""


class Observer:
    """Observes one submission through probes.

    `files` are the texts of the files handed in; `problems` says what is wrong with a file that is not among them.
    `messages` repeats the messages of the submission's exceptions: helpful on a student's own machine, but in grading
    they could reveal hidden inputs. In grading, what is said about an exception tells less than 19 bits: one of 4,096
    lines, and one of 13 classes with one of four remarks or none, or `SystemExit`, or a call of `input`, or one of 11
    sentences about the syntax; and that only once for each exercise. `budget` is the time in seconds that all calls
    together may take, by `clock`.
    """

    def __init__(
        self,
        process: StudentProcess,
        files: dict[str, str],
        problems: dict[str, str],
        *,
        messages: bool,
        budget: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.flags: list[str] = []
        self.seconds: dict[str, float] = {}  # the submission's own computing time for each check
        self._process = process
        self._lines = _Lines(files)
        self._problems = problems
        self._messages = messages
        self._budget = budget
        self._clock = clock
        self._patience = 1.0
        self._violations = 0.0
        self._kept: dict[Call, _Answer | NoObservation] = {}
        self._described: dict[str, str] = {}  # part -> description of the first exception

    def ask_ahead(self, requests: Iterable[Request]) -> None:
        """Send these requests now and keep the answers for `observe`, up to the first request that takes too long.

        Judging all answers at once takes half the time of judging each one as it comes, because the processor's
        caches stay warm. A request may take as long as its longest call. If the process ends or breaks the protocol,
        the calls of the request are sent one by one.
        """
        left = MAX_KEPT_BYTES
        for request in requests:
            try:
                answers, size = self._ask(request, min(max(call.seconds for call in request.calls), self._budget))
                self._kept |= zip(request.calls, answers, strict=True)
                left -= size
            except TimedOut:
                return
            except (Died, ProtocolError):
                self._kept |= {call: self._ask_alone(call) for call in request.calls}
            if left < 0 or self._violations >= MAX_VIOLATIONS:
                return

    def observe(self, call: Call) -> Any:
        """Run a probe on the submission and return its observation; raises `NoObservation` where there is none."""
        answer = self._kept[call] if call in self._kept else self._ask_alone(call)
        if isinstance(answer, NoObservation):
            raise answer
        if answer.error is not None:
            raise self._lost(call, answer.error)
        return answer.value

    def _ask_alone(self, call: Call) -> _Answer | NoObservation:
        allowed = call.seconds * self._patience
        seconds = min(allowed, self._budget)
        if seconds <= 0:
            return NoObservation("timeout", "The checks before this one used up the time of the submission.")
        if self._violations >= MAX_VIOLATIONS:
            return NoObservation("error", "Your program sent replies that cannot be read to earlier checks.")
        try:
            (answer,), _ = self._ask(Request((call,)), seconds)
            self._patience = 1.0
            return answer
        except TimedOut:
            self._patience = max(self._patience / 2, LEAST_PATIENCE)
            self._add_seconds(call.check, seconds)
            return NoObservation("timeout", f"No answer within {allowed:g} seconds: is there an endless loop?")
        except Died:
            self.flags.append(f"{call.check}: the submission's process was ended from inside")
            reason = "Your program ended the process that ran it, or used too much memory."
            return NoObservation("error", reason, hint_helps=False)
        except ProtocolError:
            return NoObservation("error", "Your program sent a reply that cannot be read.")

    def _ask(self, request: Request, seconds: float) -> tuple[list[_Answer], int]:
        """The answers to the calls of a request, and the size of the reply in bytes."""
        ticket = secrets.token_hex(len(_NO_TICKET) // 2)
        self._process.start()
        begin = self._clock()
        try:
            frame = self._process.ask(request.encoded(ticket), seconds)
            elapsed = self._clock() - begin
            answers = _read(frame, ticket, request)
        except ProtocolError as error:
            self._process.close()
            self._violations += LARGE_REPLY if isinstance(error, TooLarge) else 1
            self.flags.append(f"{request.calls[0].check}: the submission's process {error}")
            raise
        finally:
            self._budget -= self._clock() - begin  # the budget does not rely on times that the submission reports
        for call, (_, used) in zip(request.calls, answers, strict=True):
            self._add_seconds(call.check, min(max(used, 0.0), elapsed))
        return [answer for answer, _ in answers], len(frame)

    def _add_seconds(self, check: str, seconds: float) -> None:
        self.seconds[check] = self.seconds.get(check, 0.0) + seconds

    def _lost(self, call: Call, error: dict[str, Any]) -> NoObservation:
        """Describe the exception that the submission reports, without any text that it could choose freely."""
        kind, message, missing = (error.get(key) for key in ("kind", "message", "missing"))
        if kind == "todo":
            return NoObservation("failed", NOT_IMPLEMENTED)
        if kind == "refused" and isinstance(message, str) and message in sentences(call.file, call.probe):
            return NoObservation("failed", message)
        if kind == "not run" and self._messages and isinstance(message, str):
            return NoObservation("error", message, hint_helps=False)
        if isinstance(missing, str) and missing in self._problems:
            return NoObservation("error", self._problems[missing], hint_helps=False)
        if kind == "memory":
            return NoObservation("memory", "Your program used more memory than allowed.")
        reason = self._description(error)
        if not self._messages and self._described.setdefault(call.part, reason) != reason:
            return NoObservation("error", _ANOTHER)
        hint_helps = kind != "input" and error.get("type") not in _WITHOUT_HINT
        return NoObservation("error", reason, hint_helps=hint_helps)

    def _description(self, error: dict[str, Any]) -> str:
        """What is said about an exception: its class, if that is a usual one, and the innermost line handed in."""
        kind, name = error.get("kind"), error.get("type")
        place = self._innermost(error.get("places"))
        if name in _SYNTAX_ERRORS:
            said, _, guess = self._about_syntax(error.get("message")).partition(". ")
            said = f"Your program is not valid Python: {said}" + (f" in {place}." if place else ".")
            return f"{said} {guess}" if guess else said
        if name == "SystemExit":
            return f"Your program ended itself{place and f' in {place}'}. {_EXIT}"
        if kind == "input":
            return f"Your program asks for input{place and f' in {place}'}. {_INPUT}"
        reason = name if isinstance(name, str) and name in NAMED_EXCEPTIONS else "an exception"
        from_check = error.get("from_check") is True
        if place:
            reason = f"Your program stopped with {reason} in {place}"
        elif from_check:
            reason = f"The check cannot use your code and stopped with {reason}"
        else:
            reason = f"Your program stopped with {reason}"
        if self._messages and isinstance(error.get("message"), str) and error["message"]:
            reason += f" ({error['message']})"
        advice = _ADVICE.get(kind) if isinstance(kind, str) else None
        if advice is None and from_check:
            advice = _ARGUMENTS if place else _INTERFACE
        if name == "ModuleNotFoundError":
            advice = _IMPORTS
        return f"{reason}. {advice}" if advice else f"{reason}."

    def _about_syntax(self, message: Any) -> str:
        """What Python says about a syntax error, without its place."""
        said = re.sub(r" \([^()]*\bline \d+\)", "", message) if isinstance(message, str) else ""
        if self._messages and said:
            return said
        return next((sentence for sentence in _SYNTAX if said.startswith(sentence)), "invalid syntax")

    def _innermost(self, places: Any) -> str:
        """The last of `places` that is in a file handed in: its file, number and text; else an empty text."""
        for place in reversed(places[-MAX_PLACES:] if isinstance(places, list) else []):
            match place:
                case [str(file), int(line)]:
                    if text := self._lines.get(file, line):
                        return f"{file}, line {line}: `{text[:120]}`"
        return ""


class _Lines:
    """The lines of the files handed in."""

    def __init__(self, files: dict[str, str]) -> None:
        self._files = files

    def get(self, file: str, line: int) -> str:
        """The line of this number; an empty text where there is none, or where there are more than `MAX_LINES`."""
        lines = self._split.get(file, [])
        return lines[line - 1].strip() if 1 <= line <= len(lines) else ""

    @cached_property
    def _split(self) -> dict[str, list[str]]:
        """The lines of each file, as Python counts them."""
        split = {file: re.split(r"\r\n|\r|\n", text, maxsplit=MAX_LINES) for file, text in self._files.items()}
        return split if sum(map(len, split.values())) <= MAX_LINES else {}


def _read(frame: bytes, ticket: str, request: Request) -> list[tuple[_Answer, float]]:
    """The answers in the reply to a request that was sent with this ticket, and the seconds that each call took."""
    if not fits(frame, request.largest_reply):
        raise TooLarge("sent a reply that is far too large")
    malformed = ProtocolError("sent a reply that is not in the kit's format")
    try:
        reply = decode(frame)
    except ValueError:
        raise malformed from None
    match reply:
        case {"answers": list(answers)} if reply.keys() <= {"ticket", "answers"} and all(map(_is_answer, answers)):
            pass
        case _:
            raise malformed
    if reply.get("ticket") != ticket or len(answers) != len(request.calls):
        raise ProtocolError("answered what it was not asked")
    return [(_Answer(answer.get("value"), answer.get("error")), answer["seconds"]) for answer in answers]


def _is_answer(answer: Any) -> bool:
    if not isinstance(answer, dict) or answer.keys() not in ({"value", "seconds"}, {"error", "seconds"}):
        return False
    seconds = answer["seconds"]
    return type(seconds) is float and math.isfinite(seconds) and isinstance(answer.get("error", {}), dict)
