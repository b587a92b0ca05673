"""What a submission may send on its channel, and what happens to other submissions when it sends something else."""

import contextlib
import json
import os
import signal
import socket
import struct
import time
from threading import Thread

import psutil
import pytest

from autograder.sandbox import outside
from autograder.sandbox.outside import Sandbox, SandboxProcess, Unavailable
from autograder.sandbox.selftest import SMALL
from ebmcourse.checking import probe
from ebmcourse.checking.observation import encode
from ebmcourse.checking.observer import Died, NoObservation, ProtocolError, TimedOut

FRAME = """
import json, os, struct, sys

def frame(tree):
    header = json.dumps({"__metadata__": {"tree": tree}}).encode()
    body = struct.pack("<Q", len(header)) + header
    return struct.pack("<Q", len(body)) + body

def say(data):
    for number in range(256):
        try:
            os.write(number, data)
        except OSError:
            pass

def ticket():
    caller = sys._getframe()
    while not isinstance(caller.f_locals.get("request"), dict):
        caller = caller.f_back
    return caller.f_locals["request"]["ticket"]
"""


@probe
def answer(student):
    return student.work.answer()


@probe
def constant(student):
    return 42


def lost(made, question=answer, **limits):
    with pytest.raises(NoObservation) as found:
        made.ask(question, **limits)
    return found.value


NONSENSE = "sent a reply that is not in the kit's format"
UNASKED = "answered what it was not asked"


@pytest.mark.parametrize(
    ("program", "flag"),
    [
        ('say(frame(\'{"answers": [{"value": 7, "seconds": 0.0}]}\'))', UNASKED),
        ('say(frame(\'{"answers": [{"value": 7, "seconds": 0.0}], "ticket": ""}\'))', UNASKED),
        ("say(struct.pack('<Q', 2**60))", "announced an answer of more than 32 MiB"),
        ("say(struct.pack('<Q', 0))", NONSENSE),
        ("say(struct.pack('<Q', 99) + os.urandom(99))", NONSENSE),
        ("say(frame('[' * 10**5 + ']' * 10**5))", NONSENSE),
        ('say(frame(\'{"answers": [{"value": 7, "seconds": NaN}]}\'))', NONSENSE),
        ('say(frame(\'{"answers": [{"value": 7, "seconds": 1e999}]}\'))', NONSENSE),
        ("say(frame('{\"answers\": [{\"value\": 7, \"seconds\": ' + '9' * 400 + '}]}'))", NONSENSE),
        ('say(frame(\'{"answers": [{"value": {"$tensor": "0"}, "seconds": 0.0}]}\'))', NONSENSE),
        ('say(frame(\'{"answers": [{"error": 5, "seconds": 0.0}]}\'))', NONSENSE),
        ("os._exit(0)", "was ended from inside"),
        ("os.kill(os.getpid(), 9); os.abort()", "was ended from inside"),
        ("os.closerange(0, 256)", "was ended from inside"),
    ],
)
def test_a_reply_that_is_not_an_answer_costs_its_check_and_is_flagged(submission, program, flag):
    made = submission(work=f"{FRAME}\ndef answer():\n    {program}\n    return 7\n")
    assert lost(made).status == "error"
    assert [flag in found for found in made.flags] == [True]
    assert made.ask(constant) == 42, "the next check starts afresh"


def test_a_second_answer_to_one_question_costs_the_next_check(submission):
    forged = 'say(frame(\'{"answers": [{"value": 7, "seconds": 0.0}], "ticket": "\' + ticket() + \'"}\'))'
    made = submission(work=f"{FRAME}\ndef answer():\n    {forged}\n    return 8\n")
    assert made.ask(answer) == 7
    assert lost(made, constant).status == "error"
    assert made.flags == ["1a/check: the submission's process answered what it was not asked"]
    assert made.ask(constant) == 42


def test_an_answer_that_comes_byte_by_byte_is_cut_off_in_time(submission):
    made = submission(
        work=f"{FRAME}\nimport time\ndef answer():\n    while True:\n        say(bytes(1))\n        time.sleep(0.2)\n"
    )
    begin = time.monotonic()
    assert lost(made, seconds=1.0).status == "timeout"
    assert time.monotonic() - begin < 10


def test_an_endless_loop_is_killed_and_the_next_check_is_asked(submission):
    made = submission(
        work="def answer():\n    while True:\n        try:\n            while True: pass\n        except: pass\n"
    )
    assert lost(made, seconds=1.0).status == "timeout"
    assert made.ask(constant) == 42


def test_after_timeouts_less_time_is_given_until_there_is_an_answer(submission):
    made = submission(work="import time\ndef answer():\n    time.sleep(100)\n")
    begin = time.monotonic()
    reasons = [lost(made, seconds=1.0).reason for _ in range(3)]
    assert time.monotonic() - begin < 10
    assert [f"within {limit} seconds" in reason for limit, reason in zip(("1", "0.5", "0.25"), reasons, strict=True)]
    assert made.ask(constant, seconds=20) == 42
    assert "within 0.5 seconds" in lost(made, seconds=0.5).reason


def test_the_budget_counts_our_clock_and_not_the_submission_s(submission):
    lie = "import time\nt = 0.0\ntime.perf_counter = lambda: t\n"
    made = submission(work=lie + "def answer():\n    time.sleep(1.2)\n    return 7\n", budget=1.0)
    assert lost(made, seconds=5.0).status == "timeout"
    assert "used up" in lost(made, constant).reason


def test_a_memory_error_and_an_exception_cost_one_check(submission):
    made = submission(work="def answer():\n    return bytearray(2**50)\n", other="")
    assert lost(made).status == "memory"
    assert made.ask(constant) == 42 and made.flags == []


def test_feedback_repeats_nothing_that_a_submission_can_choose(submission):
    made = submission(
        work="class Secret(ValueError): pass\ndef answer():\n    raise Secret(f'hidden input {1.2345 / 5}')\n"
    )
    reason = lost(made).reason
    assert "ValueError in work.py, line 3" in reason and "0.24" not in reason and "Secret(" in reason
    forged = {"kind": "error", "type": "__import__", "message": "1.2345", "places": [["../../1.2345", 1]]}
    tree = json.dumps({"answers": [{"error": forged, "seconds": 0.0}]})[:-1] + ', "ticket": "'
    made = submission(work=f"{FRAME}\ndef answer():\n    say(frame({tree!r} + ticket() + '\"}}'))\n")
    assert lost(made).reason == "Your program stopped with an exception."


def test_nothing_is_ever_unpickled_here(submission, tmp_path):
    marker = tmp_path / "gotcha"
    evil = f"""
import os, pickle, struct

class Evil:
    def __reduce__(self):
        return (open, ({str(marker)!r}, "w"))

def answer():
    poison = pickle.dumps(Evil())
    for number in range(3, 256):
        try:
            os.write(number, struct.pack("<Q", len(poison)) + poison)
        except OSError:
            pass
    return {{"value": Evil(), "list": [Evil]}}
"""
    assert lost(submission(work=evil)).status == "error"
    assert not marker.exists()
    plain = submission(work=evil.replace("range(3, 256)", "()")).ask(answer)
    assert [type(plain["value"]).__name__, type(plain["list"][0]).__name__] == ["Opaque", "Opaque"]


def test_descriptors_sent_along_are_not_kept(monkeypatch):
    """The filter of system calls lets no submission send any; the judge would not take them either."""
    ours, theirs = socket.socketpair()
    sandbox = Sandbox()
    monkeypatch.setattr(sandbox, "open_container", lambda: ours)
    with ours, theirs:
        before = len(os.listdir("/proc/self/fd"))
        socket.send_fds(theirs, [struct.pack("<Q", 2) + b"42"], [0, 1, 2])
        assert SandboxProcess(sandbox, {}).ask(b"", 5.0) == b"42"
        assert len(os.listdir("/proc/self/fd")) == before


def asked(probe, source):
    """A request for one call of a probe without inputs."""
    questions = [{"probe": probe, "inputs": [], "seed": 0}]
    return encode({"ticket": "", "source": source, "values": [], "questions": questions})


def test_the_process_says_how_a_request_ended(sandbox):
    request = asked("nothing", "")
    process = SandboxProcess(sandbox, {})
    try:
        assert b"KeyError" in process.ask(request, 20.0)
        with pytest.raises((Died, ProtocolError)):
            process.ask(b"no request", 20.0)
        with pytest.raises(TimedOut):
            process.ask(asked("f", "import time\ndef f(s): time.sleep(9)"), 0.3)
        assert b"KeyError" in process.ask(request, 20.0)
    finally:
        process.close()


@pytest.mark.slow
def test_a_sandbox_that_was_killed_is_started_again(needs_sandbox):
    with Sandbox() as sandbox:
        process = SandboxProcess(sandbox, {})
        request = asked("f", "def f(s): return 1")
        first = process.ask(request, 20.0)
        assert sandbox._process is not None
        sandbox._process.kill()
        sandbox._process.wait()
        time.sleep(0.5)  # until the kernel has ended what was inside
        with pytest.raises(Died):
            process.ask(request, 20.0)
        assert len(process.ask(request, 120.0)) >= len(first) - 32
        process.close()


def test_only_the_latest_process_is_open(sandbox):
    """One that was replaced says that it ended, and does not end its successor when it is closed."""
    request = asked("f", "def f(s): return 1")
    first, second = SandboxProcess(sandbox, {}), SandboxProcess(sandbox, {})
    try:
        first.ask(request, 20.0)
        second.ask(request, 20.0)
        first.close()
        assert b'"value' in second.ask(request, 20.0)
    finally:
        first.close()
        second.close()


@pytest.mark.slow
def test_a_machine_on_which_no_container_can_be_made_is_reported(needs_sandbox):
    with pytest.raises(Unavailable, match="no container can be made"):
        Sandbox(limits=SMALL | {"tmp_bytes": -1}).start()


SLEEPS = """
import ctypes, time

def answer():
    ctypes.CDLL(None).prctl(15, b"to-be-killed", 0, 0, 0)  # PR_SET_NAME
    time.sleep(600)
"""


def kill_above(generations):
    """Kill the process that has named itself, or one that it descends from."""
    found = []
    while not found:
        time.sleep(0.05)
        found = [process for process in psutil.process_iter(["name"]) if process.info["name"] == "to-be-killed"]
    victim = found[0]
    for _ in range(generations):
        victim = victim.parent()
    victim.kill()
    assert psutil.wait_procs(found, 60)[1] == [], "it outlived the process that holds it"


@pytest.mark.parametrize("generations", [0, 1, 2], ids=["itself", "the holder of its container", "the warm process"])
def test_a_process_that_something_else_killed_is_told_from_one_that_ended_itself(submission, generations):
    made = submission(work=SLEEPS)
    killer = Thread(target=kill_above, args=(generations,))
    killer.start()
    assert lost(made, seconds=300.0).status == "error"
    killer.join()
    assert made.process.was_killed
    assert made.ask(constant, seconds=300.0) == 42


@pytest.mark.parametrize("program", ["os._exit(0)", "os.kill(os.getpid(), 9); os.abort()", "ctypes.string_at(0)"])
def test_a_process_that_ended_itself_was_not_killed(submission, program):
    made = submission(work=f"import ctypes, os\ndef answer():\n    {program}\n")
    assert lost(made).status == "error"
    assert not made.process.was_killed


def test_limits_hold_for_the_submissions_of_a_context_and_no_others(needs_sandbox, sandbox):
    memory = asked("f", "import resource\ndef f(s): return list(resource.getrlimit(resource.RLIMIT_NPROC))")
    seen = []
    for limits in (SMALL | {"threads": 5}, SMALL | {"threads": 7}):
        with sandbox.limited(limits):
            seen += [SandboxProcess(sandbox, {}).ask(memory, 20.0) for _ in range(2)]
    seen.append(SandboxProcess(sandbox, {}).ask(memory, 20.0))
    counts = [5, 5, 7, 7, SMALL["threads"]]
    assert all(b"[%d, %d]" % (count, count) in reply for count, reply in zip(counts, seen, strict=True)), seen


def test_a_machine_that_is_too_busy_is_named_as_the_reason(monkeypatch):
    ready = Sandbox._receive_channel

    def late(sandbox):
        ready(sandbox)
        raise TimeoutError

    monkeypatch.setattr(Sandbox, "_receive_channel", late)
    with pytest.raises(Unavailable, match=r"not ready after .* too busy"), Sandbox():
        pass


def alive(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("leaves_the_group", [False, True])
def test_an_orphan_that_holds_standard_error_keeps_nobody_waiting(monkeypatch, tmp_path, leaves_the_group):
    """Such a child remains if bubblewrap is killed within milliseconds of its start."""
    orphan = f"{'setsid' * leaves_the_group} sh -c 'echo $$ >pid; exec sleep 600'"
    script = f"cd {tmp_path}; {orphan} & until [ -s pid ]; do sleep 0.05; done; kill -9 $$"
    monkeypatch.setattr(outside, "bubblewrap_command", lambda settings: ["sh", "-c", script])
    monkeypatch.setattr(outside, "CLOSING_SECONDS", 2)
    sandbox = Sandbox()
    sandbox.launch()
    assert sandbox._process
    os.waitid(os.P_PID, sandbox._process.pid, os.WEXITED | os.WNOWAIT)
    pid = int((tmp_path / "pid").read_text())
    begin = time.monotonic()
    try:
        sandbox.close()
        assert time.monotonic() - begin < 60
        while not leaves_the_group and alive(pid) and time.monotonic() - begin < 60:
            time.sleep(0.01)  # what was killed closes its files before it is gone
        assert alive(pid) == leaves_the_group
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
