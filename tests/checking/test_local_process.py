"""The process on a student's own machine: nothing hostile there, but loops, crashes and forgotten children."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from ebmcourse.checking import local
from ebmcourse.checking.local import LocalProcess
from ebmcourse.checking.observation import decode, encode
from ebmcourse.checking.observer import Died, TimedOut
from ebmcourse.checking.untrusted.server import CAN_FORK

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("program")


@pytest.fixture(scope="module")
def process(folder):
    process = LocalProcess(folder)
    yield process
    process.close()


def ask(process, body, seconds=30.0):
    source = "def f(student):\n" + "".join(f"    {line}\n" for line in body.splitlines())
    request = {"ticket": "", "source": source, "values": [], "questions": [{"probe": "f", "inputs": [], "seed": 0}]}
    return decode(process.ask(encode(request), seconds))["answers"][0]


def test_what_a_call_does_to_its_inputs_no_other_call_sees(process):
    source = "def changed(student, x, more):\n    return [x.mul_(2), more['x'].add_(1), more.pop('word')]"
    numbers = torch.arange(3.0)
    question = {"probe": "changed", "inputs": [0, 1], "seed": 0}
    values = [numbers, {"x": numbers, "word": "once"}]
    request = {"ticket": "", "source": source, "values": values, "questions": [question] * 3}
    answers = decode(process.ask(encode(request), 30.0))["answers"]
    for doubled, raised, word in (answer["value"] for answer in answers):
        assert doubled.tolist() == [0, 2, 4] and raised.tolist() == [1, 2, 3] and word == "once"


def test_prints_do_not_mix_with_answers(process):
    assert ask(process, "print('hello', flush=True)\nreturn [1, 'two']")["value"] == [1, "two"]


def test_a_loop_ends_in_time_and_the_next_question_is_answered(process):
    with pytest.raises(TimedOut):
        ask(process, "while True: pass", 1.0)
    assert ask(process, "return 1")["value"] == 1


def test_a_program_that_sleeps_ends_in_time(process):
    with pytest.raises(TimedOut):
        ask(process, "import time; time.sleep(1000)", 0.5)


@pytest.mark.parametrize(
    ("status", "computed", "used"),
    [
        (psutil.STATUS_RUNNING, 0.0, 0.0),  # waits for a processor
        (psutil.STATUS_DISK_SLEEP, 0.0, 0.0),  # imports a package from a slow disk
        (psutil.STATUS_SLEEPING, 0.0, 5.0),
        (psutil.STATUS_RUNNING, 2.0, 2.0),
        (psutil.STATUS_SLEEPING, 2.0, 2.0),
    ],
)
def test_time_limits_count_what_a_program_computes_or_sleeps(monkeypatch, status, computed, used):
    """In five seconds, a process computes for some of them, and has this status when it is looked at."""
    times = SimpleNamespace(user=1.0, system=0.0, children_user=0.5, children_system=0.0)
    process = SimpleNamespace(children=lambda recursive: [], cpu_times=lambda: times, status=lambda: status)
    now = 100.0
    monkeypatch.setattr(local.psutil, "Process", lambda pid: process)
    monkeypatch.setattr(local.time, "monotonic", lambda: now)
    watched = local._Used(1)
    now, times.user = 105.0, 1.0 + computed
    assert watched.seconds() == pytest.approx(used)


def test_a_process_that_ends_is_started_again(process):
    with pytest.raises(Died):
        ask(process, "import os; os._exit(0)")
    assert ask(process, "return 1")["value"] == 1


CHILD = """
import os, time
child = os.fork()
if child == 0:
    time.sleep(1000)
    os._exit(0)
with open("child", "w") as file:
    file.write(str(child))
"""


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


ABANDONED = """
import sys
from pathlib import Path
from ebmcourse.checking.local import LocalProcess
from ebmcourse.checking.observation import encode

source = "import os\\ndef f(student):\\n    open('loop', 'w').write(str(os.getpid()))\\n    while True: pass"
request = {"ticket": "", "source": source, "values": [], "questions": [{"probe": "f", "inputs": [], "seed": 0}]}
LocalProcess(Path(sys.argv[1])).ask(encode(request), 1000.0)
"""


@pytest.mark.skipif(not CAN_FORK, reason="without a fork, a loop cannot be told that the check was killed")
def test_a_loop_ends_when_the_check_is_killed(tmp_path):
    asking = subprocess.Popen([sys.executable, "-c", ABANDONED, str(tmp_path)], stdout=subprocess.PIPE)
    while not (tmp_path / "loop").exists() or not (tmp_path / "loop").read_text():
        assert asking.poll() is None
        time.sleep(0.05)
    loop = psutil.Process(int((tmp_path / "loop").read_text()))
    server = loop.parent()
    asking.terminate()
    _, alive = psutil.wait_procs([loop, server], 600)
    assert not alive
    assert asking.communicate()[0] == b""  # nobody holds its output open


@pytest.mark.skipif(not hasattr(os, "fork") or not Path("/proc/self/stat").exists(), reason="needs fork and /proc")
def test_children_that_hold_on_to_the_channel_are_ended_too(process, folder):
    """Loaders of data are such children; nobody may wait for them to end by themselves."""
    for end in ("time-out", "close"):
        if end == "time-out":
            with pytest.raises(TimedOut):
                ask(process, CHILD + "while True: pass", 1.0)
        else:
            assert ask(process, CHILD + "return 1")["value"] == 1
            process.close()
        child = int((folder / "child").read_text())
        for _ in range(100):  # the kernel ends it a little later
            if not lives(child):
                break
            time.sleep(0.05)
        assert not lives(child), end
