"""The kernel of a notebook as the place of its checks: asked at any moment, and afterwards as it was."""

import os
import random
import signal
import subprocess
import sys
import types

import numpy as np
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell

from ebmcourse.checking.observation import decode, encode
from ebmcourse.checking.observer import MAX_LINES, TimedOut
from ebmcourse.checking.untrusted.kernel import KernelProcess


@pytest.fixture
def main(monkeypatch):
    """What a notebook has defined."""
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    exec("factor = 2\ndef double(x):\n    return factor * x\n", vars(main))
    return main


def ask(body, seconds=20.0):
    source = "def f(student):\n" + "".join(f"    {line}\n" for line in body.splitlines())
    request = {"ticket": "", "source": source, "values": [], "questions": [{"probe": "f", "inputs": [], "seed": 0}]}
    return decode(KernelProcess("note").ask(encode(request), seconds))["answers"][0]


def test_functions_are_asked_as_they_are_defined_now(main):
    assert ask("return student.note.double(4)")["value"] == 8
    main.factor = 3
    assert ask("return student.note.double(4)")["value"] == 12


def test_the_kernel_is_as_it_was_afterwards(main):
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    expected = torch.rand(1), np.random.rand(), random.random()
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    before, threads = dict(vars(main)), torch.get_num_threads()
    ask("import torch\ntorch.rand(3)\nstudent.note.double = len\nstudent.note.factor = 9\nstudent.note.more = 1")
    assert vars(main) == before and torch.get_num_threads() == threads
    assert (torch.rand(1), np.random.rand(), random.random()) == expected


def test_a_loop_ends_in_time(main):
    exec(
        "def loop():\n    while True:\n        try:\n            pass\n        except Exception:\n            pass",
        vars(main),
    )
    with pytest.raises(TimedOut):
        ask("student.note.loop()", 0.3)
    assert ask("return student.note.double(1)")["value"] == 2


def test_a_loop_that_forgives_everything_is_stopped_again_and_again(main):
    body = "n = 0\ndef loop():\n    global n\n    while n < 3:\n        try:\n            while True: pass\n"
    exec(body + "        except: n += 1", vars(main))
    with pytest.raises(TimedOut):
        ask("student.note.loop()", 0.3)


def test_sleep_counts(main):
    with pytest.raises(TimedOut):
        ask("import time\ntime.sleep(60)", 0.3)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system cannot stop processes")
def test_time_in_which_the_machine_lets_the_program_wait_does_not_count(main):
    code = f"import os, time; time.sleep(0.2); os.kill({os.getpid()}, {signal.SIGSTOP}); time.sleep(2); "
    other = subprocess.Popen([sys.executable, "-c", code + f"os.kill({os.getpid()}, {signal.SIGCONT})"])
    body = "import time\nstart = time.process_time()\nwhile time.process_time() < start + 0.5: pass\nreturn 1"
    try:
        assert ask(body, 1.5)["value"] == 1
    finally:
        assert other.wait() == 0


def test_an_error_is_told_with_its_message(main):
    error = ask("student.note.double(undefined)")["error"]
    assert error["type"] == "NameError" and "undefined" in error["message"]


def test_an_error_has_the_place_that_ipython_shows(main, monkeypatch, tmp_path):
    shell = InteractiveShell(user_module=main, ipython_dir=str(tmp_path))
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    for cell in ("1", "def broken(x):\n    y = x\n    return y + z"):
        shell.run_cell(cell, store_history=True)
    assert ask("student.note.broken(1)")["error"]["places"] == [["cell In[2]", 3]]
    assert KernelProcess("note").cells["cell In[2]"].splitlines()[2] == "    return y + z"
    shell.run_cell("# long\n" * (MAX_LINES - 20) + "1", store_history=True)
    assert "cell In[2]" in KernelProcess("note").cells
    shell.run_cell("# long\n" * 30 + "1", store_history=True)
    assert [*KernelProcess("note").cells] == ["cell In[4]"]


def test_an_interrupt_is_for_the_person_at_the_keyboard(main):
    with pytest.raises(KeyboardInterrupt):
        ask("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nwhile True: pass")


def test_exit_is_an_exception_and_does_not_end_the_kernel(main, monkeypatch):
    exiter = types.SimpleNamespace()
    exec("def ends():\n    exit()\ndef quits():\n    quit()\n", vars(main))
    shell = types.SimpleNamespace(user_ns=vars(main), exiter=exiter)
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    monkeypatch.setattr(KernelProcess, "_hidden", set())
    vars(main).update(exit=exiter, quit=exiter)
    assert ask("student.note.ends()")["error"]["type"] == "SystemExit"
    assert ask("student.note.quits()")["error"]["type"] == "SystemExit"
    assert main.exit is exiter and main.quit is exiter
    main.exit = lambda: 1 / 0
    assert ask("student.note.ends()")["error"]["type"] == "ZeroDivisionError"


def test_input_asks_nobody_during_a_check(main, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda prompt="": "7")
    exec("def asks():\n    return input('How many? ')\n", vars(main))
    assert ask("student.note.asks()")["error"]["kind"] == "input"
    assert input() == "7"


def test_a_function_whose_cell_was_not_run_is_named_and_the_cell_is_to_be_run(main):
    before = dict(vars(main))
    error = ask("return student.note.triple(1)")["error"]
    assert error["kind"] == "not run" and error["from_check"]
    assert error["message"].startswith("`triple` is not defined: its cell was not run, or stopped with an error.")
    assert ask("return hasattr(student.note, 'triple')")["value"] is False
    assert vars(main) == before


OLD, NEW = "def double(x):\n    return 2 * x", "def double(x):\n    return 3 * x"


@pytest.mark.parametrize(
    ("cells", "outdated"),
    [
        ([OLD], []),
        ([OLD, "def double(x:\n    return 3 * x"], ["double"]),
        ([OLD, f"1 / 0\n{NEW}"], ["double"]),
        ([f"%time\n@torch.no_grad()\n{OLD}\n", f"1 / 0\n{NEW}\n"], ["double"]),
        ([OLD, f"1 / 0\n{NEW}", OLD], []),
        ([f"1 / 0\n{NEW}", OLD, f"1 / 0\n{NEW}"], ["double"]),
        ([OLD, f"{NEW}\n1 / 0"], []),
        ([OLD, f"1 / 0\n{NEW}", NEW], []),
        ([OLD, f"if 1 / 0:\n    pass\n{NEW}", "if True:\n    def double(x):\n        return 4 * x"], []),
        ([OLD, f"1 / 0\n{NEW}", "double = len"], []),
        ([OLD, f"%%capture\n{NEW}"], []),
        (["def double(x)\n    return x", "double(1)", OLD], []),
        ([OLD, "def triple(x)\n    return x"], []),  # that one was never defined
        ([f"!ls\n{OLD}", "%%time\ndouble(1)"], []),
        (["class Pair:\n    def swap(self): pass", "1 / 0\nclass Pair:\n    def swap(self): return 1"], ["Pair"]),
        (["class Empty:\n    pass", "1 / 0\nclass Empty:\n    x = 1"], []),  # nothing tells where it is from
    ],
)
def test_a_definition_is_outdated_where_the_last_cell_with_it_stopped_before(
    main, monkeypatch, tmp_path, cells, outdated
):
    main.torch = torch
    shell = InteractiveShell(user_module=main, ipython_dir=str(tmp_path))
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    for cell in cells:
        shell.run_cell(cell, store_history=True)
    assert KernelProcess("note").outdated == outdated


def test_a_function_that_grading_would_not_define_is_not_said_to_be_not_run(main, monkeypatch):
    monkeypatch.setattr(KernelProcess, "_hidden", {"double"})
    error = ask("return student.note.double(1)")["error"]
    assert error["kind"] == "error" and error["message"] == "the notebook does not define 'double'"
