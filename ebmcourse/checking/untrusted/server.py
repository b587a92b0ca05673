"""Runs probes on a submission and replies with what they observe, in the sandbox or on a student's machine.

It knows no expected values: a submission that tampers with it can only change what is reported about itself.
"""

import contextlib
import importlib
import os
import re
import select
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from ebmcourse.checking.observation import MAX_BYTES, Encoder, copied, decode
from ebmcourse.checking.untrusted.cells import NOT_DEFINED
from ebmcourse.checking.untrusted.student import Missing, NotRun, Refused, Student, reset_state

_LENGTH = struct.Struct("<Q")
CAN_FORK = sys.platform == "linux"  # elsewhere, frameworks of the system do not survive a fork
_PROBE = "<probe>"  # the name of the file that the source of a probe is compiled as
CLOSING_SECONDS = 5  # in which a process may end by itself when the trusted side has ended
NO_INPUT = "EOF when reading a line"  # what `input` says where nobody can answer
_NEXT = 75  # exit status of a process that makes way for a fresh one


def write_frame(stream: IO[bytes], payload: bytes) -> None:
    """Send one message: its length in eight bytes, then itself."""
    stream.write(_LENGTH.pack(len(payload)) + payload)
    stream.flush()


def read_frame(stream: IO[bytes]) -> bytes | None:
    """Receive one message; None at the end of the stream. Raises ValueError for one that is too large or cut off."""
    head = stream.read(_LENGTH.size)
    if not head:
        return None
    if len(head) < _LENGTH.size or (size := _LENGTH.unpack(head)[0]) > MAX_BYTES:
        raise ValueError("a message is malformed or too large")
    payload = stream.read(size)
    if len(payload) < size:
        raise ValueError("a message was cut off")
    return payload


def serve(reader: IO[bytes], writer: IO[bytes], folder: Path) -> bool:
    """Answer requests about the submission in `folder` (see `answer`), until an empty message or the end of the stream.

    Return whether it was an empty message.
    """
    student = Student(folder)
    namespaces: dict[str, dict[str, Any]] = {}

    def own_name(file: str) -> str:
        return Path(file).name if Path(file).parent == folder else ""

    while frame := read_frame(reader):
        write_frame(writer, answer(decode(frame), student, namespaces, own_name))
    return frame is not None


def answer(
    request: dict[str, Any], student: Any, namespaces: dict[str, dict[str, Any]], own_name: Callable[[str], str]
) -> bytes:
    """Run the probes of a request on `student`, one after the other, and return the encoded reply.

    A request is the observation ``{"ticket", "source", "values", "questions": [{"probe", "inputs", "seed"}, …]}``.
    Inputs are indices into the values; every question gets its own copies of them. The reply is ``{"ticket",
    "answers"}`` with one answer per question, ``{"value", "seconds"}`` or ``{"error", "seconds"}``. The ticket
    identifies the request. `namespaces` keeps what each source of probes defines from one request to the next;
    `own_name` tells how a file in a traceback is called in the submission; it is empty for other files.
    """
    reply = Encoder()
    answers = []
    for question in request["questions"]:
        inputs = [copied(request["values"][place]) for place in question["inputs"]]
        reset_state(question["seed"])
        begin = time.perf_counter()
        try:
            probe = _namespace(request["source"], namespaces)[question["probe"]]
            value = probe(student, *inputs)
            seconds = time.perf_counter() - begin
            answers.append({"value": reply.add(value), "seconds": seconds})
        except BaseException as error:  # a submission may raise SystemExit or pytest's outcomes, too
            answers.append({"error": describe(error, own_name), "seconds": time.perf_counter() - begin})
    return reply.finish({"ticket": request["ticket"], "answers": answers})


def _namespace(source: str, namespaces: dict[str, dict[str, Any]]) -> dict[str, Any]:
    if source not in namespaces:
        namespaces[source] = {"__name__": "probes"}
        exec(compile(source, _PROBE, "exec"), namespaces[source])
    return namespaces[source]


def describe(error: BaseException, own_name: Callable[[str], str]) -> dict[str, Any]:
    """What went wrong: kind, name of the builtin exception, message, missing file, places from outer to inner.

    `from_check` says that the check's own code raised the exception, or called what raised it.
    """
    lines = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        lines.append((error.filename, error.lineno))
    places = [[name, line or 0] for file, line in lines if (name := own_name(file))]
    missing = f"{error.name}.py" if isinstance(error, ModuleNotFoundError) else ""
    origin = next((file for file, _ in reversed(lines) if file == _PROBE or own_name(file)), "")
    return {
        "kind": _kind(error),
        "type": next(cls.__name__ for cls in type(error).__mro__ if cls.__module__ == "builtins"),
        "message": str(error)[:500],
        "missing": str(error) if isinstance(error, Missing) else missing,
        "places": places[-16:],
        "from_check": origin == _PROBE,
    }


def _kind(error: BaseException) -> str:
    message = str(error)
    if isinstance(error, NotImplementedError) and message.startswith("Exercise"):  # torch raises such errors too
        return "todo"
    if isinstance(error, Missing):
        return "missing"
    if isinstance(error, Refused):
        return "refused"
    if isinstance(error, NotRun):
        return "not run"
    if isinstance(error, NameError) and error.name in NOT_DEFINED:
        return "undefined"
    if isinstance(error, EOFError) and message == NO_INPUT:
        return "input"
    if isinstance(error, MemoryError) or re.search("allocate memory|out of memory|bad_alloc", message):
        return "memory"
    if re.search("CUDA|NVIDIA|not linked with support|on the same device", message):
        return "gpu"
    if "numpy() on Tensor that requires grad" in message:
        return "numpy"
    return "error"


def _wait(child: int, stream: int) -> int:
    """Wait for a child and return its exit status; kill it if it goes on after the trusted side, for example in a loop.

    The trusted side has ended, perhaps by a signal, when nobody can write to `stream` any more.
    """
    events = select.poll()
    events.register(ended := os.pidfd_open(child), select.POLLIN)
    events.register(stream, 0)  # reports only that it is closed
    if all(descriptor != ended for descriptor, _ in events.poll()):
        events.unregister(stream)
        if not events.poll(1000 * CLOSING_SECONDS):
            os.kill(child, signal.SIGKILL)
    os.close(ended)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    """``python -m ebmcourse.checking.untrusted.server FOLDER MODULE…``: serve on standard input and output.

    An empty message asks for a process in which nothing of the submission has run, and the reply to it is empty. The
    modules, as far as they are installed, are imported before the first reply. What the submission prints goes to
    standard error, so that it cannot mix with the replies.
    """
    reader, writer = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    for module in sys.argv[2:]:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    read_frame(reader)
    while CAN_FORK and (child := os.fork()):
        if _wait(child, reader.fileno()) != _NEXT:  # the submission ended its process, or the stream ended
            return
    with contextlib.suppress(BrokenPipeError):  # the trusted side has ended
        write_frame(writer, b"")
        if serve(reader, writer, Path(sys.argv[1]).resolve()):
            os._exit(_NEXT)


if __name__ == "__main__":
    main()
