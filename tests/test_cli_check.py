"""`ebmcourse check`: the public checks while a student works."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import pytest
from click.testing import CliRunner
from rich.console import Console

from autograder.cli import main as autograder
from ebmcourse import summary
from ebmcourse.checking.outcome import NOT_IMPLEMENTED, Outcome
from ebmcourse.checking.public import PublicChecks
from ebmcourse.cli import main as ebmcourse

STUB = """
def double(x):
    raise NotImplementedError("Exercise 1a: Return twice x.")


def plus(x, y):
    raise NotImplementedError("Exercise 1b: Return x + y.")
"""


@pytest.fixture
def folder(tiny_course):
    """The released tiny assignment, with an additional public check for part 1b."""
    checks = tiny_course / "solutions" / "tiny" / "checks" / "test_1.py"
    hidden = checks.read_text()
    public = hidden.replace("### BEGIN HIDDEN TESTS\n", "").replace("### END HIDDEN TESTS\n", "")
    public = public.replace("points=1, hint", "points=1, public=True, hint")
    checks.write_text(public.replace("public=True", "public=True, seconds=120"))  # the machine may be busy
    released = CliRunner().invoke(autograder, ["--course", str(tiny_course), "release"])
    assert released.exit_code == 0, released.output
    return tiny_course / "assignments" / "tiny"


@pytest.fixture
def unloaded(tiny_course):
    """A folder that is an assignment as far as is known before its checks are loaded, which fails."""
    folder = tiny_course / "solutions" / "tiny"
    (folder / "assignment.toml").rename(folder / "checks" / "assignment.toml")
    return folder


def check(folder, *options, expect):
    result = CliRunner().invoke(ebmcourse, ["check", str(folder), *options])
    assert result.exit_code == expect, result.output
    return [line.strip() for line in result.output.splitlines()]


@pytest.mark.slow
def test_only_the_first_failing_part_is_shown_in_detail(folder):
    program = folder / "tiny.py"
    program.write_text("def double(x):\n    return 2 * x\n\n\ndef plus(x, y):\n    return x - y\n")
    said = check(folder, expect=1)
    assert "✓ 1a  Doubling  2/2" in said and "✗ 1b  Adding  0/1  failed" in said
    assert "This is the difference of both." in said and "Hint: Add." in said
    assert f"Continue with 1b: `ebmcourse check {folder} --part 1b` runs only its checks." in " ".join(said)
    assert not any("`double` doubles" in line for line in said)


@pytest.mark.slow
def test_what_is_not_written_is_listed_in_one_line_and_what_is_written_is_explained(folder):
    program = folder / "tiny.py"
    program.write_text(STUB)
    said = check(folder, expect=1)
    assert "· Not implemented yet: 1a, 1b" in said and not any("Hint" in line for line in said)
    assert "Next is 1a, Doubling: search your files for `TODO (1a)`." in said

    program.write_text(STUB + "\n\ndef plus(x, y):\n    return x - y\n")
    said = check(folder, expect=1)
    assert "· Not implemented yet: 1a" in said and "✗ 1b  Adding  0/1  failed" in said
    assert "This is the difference of both." in said and "Hint: Add." in said


@pytest.mark.slow
def test_all_shows_every_part_and_part_shows_one(folder):
    (folder / "tiny.py").write_text(STUB)
    said = check(folder, "--all", expect=1)
    assert "· 1a  Doubling  0/2  not implemented yet" in said and not any("Hint" in line for line in said)
    (folder / "tiny.py").write_text("def double(x):\n    return x\n\n\ndef plus(x, y):\n    return x - y\n")
    said = check(folder, "--all", expect=1)
    assert "Hint: Multiply by two." in said and "Hint: Add." in said
    (folder / "tiny.py").write_text(STUB)
    said = check(folder, "--part", "1b", expect=1)
    assert "Hint: Add." in said and not any("1a" in line for line in said)
    (folder / "tiny.py").write_text("def double(x):\n    return 2 * x\n")
    assert "2 of 2 points of the public checks; grading adds hidden ones." in check(folder, "--part", "1a", expect=0)


@pytest.mark.slow
def test_a_part_may_stand_for_several_exercises(folder):
    (folder / "tiny.py").write_text("def double(x):\n    return 2 * x\n\n\ndef plus(x, y):\n    return x + y\n")
    said = check(folder, "--part", "1", expect=0)
    assert "✓ 1a  Doubling  2/2" in said and "✓ 1b  Adding  1/1" in said
    for part in ("", "2", "1.1", "a"):
        assert "there are checks of 1a, 1b." in " ".join(check(folder, "--part", part, expect=2))


def outcome(number, status, **others):
    points = float(status == "passed")
    return Outcome(f"1a/{number}", "1a", f"Check {number}", status, points, 1.0, True, **others)


def test_of_a_failing_exercise_only_the_checks_that_did_not_pass_are_listed_and_the_others_counted(capsys):
    endless = outcome(3, "timeout", diagnosis="No answer within 2 seconds: is there an endless loop?")
    found = [outcome(1, "passed"), outcome(2, "passed"), endless, outcome(4, "skipped")]
    summary.show(Console(highlight=False), {"1a": "Doubling"}, found, everything=False)
    said = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert said[0] == "✗ 1a  Doubling  2/4  2 passed, 1 ran out of time, 1 not run"
    assert said[1:4] == ["✗ Check 3  0/1", endless.diagnosis, "– Check 4  0/1"]

    summary.show(Console(highlight=False), {"1a": "Doubling"}, [endless], everything=False)
    assert capsys.readouterr().out.splitlines()[0] == "✗ 1a  Doubling  0/1  ran out of time"

    summary.show(Console(highlight=False), {"1a": "Doubling"}, found, everything=True)
    assert "✓ Check 1  1/1" in capsys.readouterr().out


def test_where_to_write_the_next_exercise_is_said(capsys):
    unwritten = [outcome(1, "failed", diagnosis=NOT_IMPLEMENTED)]
    summary.show(Console(highlight=False), {"1a": "Doubling"}, unwritten, everything=False, where="the notebook")
    assert "search the notebook for `TODO (1a)`" in capsys.readouterr().out


def test_a_syntax_error_is_shown_before_anything_is_imported(unloaded):
    (unloaded / "good.py").write_text("import nothing_like_that\n")
    (unloaded / "zero.py").write_text("def double(x):\n    if x = 1:\n        return 2 * x\n")
    command = "import sys; sys.modules['torch'] = None; from ebmcourse.cli import main; main(['check', sys.argv[1]])"
    done = subprocess.run([sys.executable, "-c", command, unloaded], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == ""
    assert done.stdout.splitlines()[0].startswith("✗ zero.py, line 2: invalid syntax")
    assert done.stdout.splitlines()[1:3] == ["    if x = 1:", "       ^"]


@pytest.mark.parametrize("text", ["a = '", "x = (1,\n", "\x00", "def f():\nreturn 1\n", "if x:\n\treturn\n  y\n"])
def test_every_kind_of_invalid_file_gives_one_message(unloaded, text):
    (unloaded / "broken.py").write_text(text)
    said = check(unloaded, expect=1)
    assert said[0].startswith("✗ broken.py, line ") and said[-1].startswith("Fix this first")


@pytest.mark.parametrize(("content", "said"), [(b'{"cells": [', "cannot be used"), (None, "is missing")])
def test_a_notebook_that_cannot_be_read_gives_one_message_before_anything_is_imported(note_course, content, said):
    folder = note_course / "solutions" / "note"
    (folder / "assignment.toml").rename(folder / "checks" / "assignment.toml")
    if content is not None:
        (folder / "note.ipynb").write_bytes(content)
    command = "import sys; sys.modules['torch'] = None; from ebmcourse.cli import main; main(['check', sys.argv[1]])"
    done = subprocess.run([sys.executable, "-c", command, folder], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].startswith("✗ The file `note.ipynb`") and said in " ".join(lines)
    assert lines[-1].startswith("Fix this first")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["nosuch"], "nosuch: check the name"), (["--part", "9z"], "no checks of the part '9z'")],
)
def test_wrong_arguments_are_reported_first_and_alone(unloaded, monkeypatch, arguments, message):
    monkeypatch.chdir(unloaded)
    (unloaded / "tiny.py").write_text("x = (")
    result = CliRunner().invoke(ebmcourse, ["check", *arguments])
    assert result.exit_code == 2 and message in " ".join(result.stderr.split())
    assert result.stderr.startswith("Usage: ") and result.stdout == ""


@pytest.mark.slow
def test_ctrl_c_during_a_check_reaches_the_caller(folder):
    class Process:
        def start(self):
            pass

        def ask(self, frame, seconds):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        PublicChecks(folder).outcomes(Process())


@pytest.mark.slow
def test_watch_does_not_miss_a_file_that_is_saved_during_a_check(folder, monkeypatch):
    shown = []

    def show(out, parts, outcomes, **options):
        shown.append([outcome.passed for outcome in outcomes])
        if len(shown) == 2:
            raise KeyboardInterrupt
        (folder / "tiny.py").write_text("def double(x):\n    return 2 * x\n")

    monkeypatch.setattr(summary, "show", show)
    check(folder, "--part", "1a", "--watch", expect=130)
    assert shown == [[False], [True]]


@pytest.mark.slow
def test_watch_checks_again_whenever_a_file_is_saved_until_ctrl_c(folder):
    program = folder / "tiny.py"
    program.write_text(STUB)
    command = [sys.executable, "-m", "ebmcourse.cli", "check", str(folder), "--part", "1a", "--watch"]
    default = signal.getsignal(signal.SIGINT)
    watching = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        # a shell that starts the tests in the background lets its children ignore SIGINT
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert signal.getsignal(signal.SIGINT) == default
    watchdog = threading.Timer(600, watching.kill)
    watchdog.start()

    def said() -> str:
        """What is printed until it waits for the next file."""
        lines = []
        for line in watching.stdout:
            lines.append(line)
            if "Waiting for a file" in line:
                break
        return "".join(lines)

    try:
        assert "0 of 2 points" in said()
        program.write_text("def double(x):\n    return 2 * x\n")
        assert "2 of 2 points" in said()
        program.write_text("def double(x):\n    return 2 * x)\n")
        assert "tiny.py, line 2: unmatched" in said()
        program.write_text("import os\n\n\ndef double(x):\n    os._exit(0)\n")
        assert "ended the process" in said()
        loops = f"def double(x):\n    open({str(folder / 'begun')!r}, 'w')\n    while True: pass\n"
        program.write_text(loops)
        while not (folder / "begun").exists():  # the watchdog ends this, too
            assert watching.poll() is None
            time.sleep(0.1)
        program.write_text("def double(x):\n    return 2 * x\n")
        assert "points" not in said(), "of the loop, which would take the whole time of the check"
        assert "2 of 2 points" in said()
        program.write_text("def double(x):\n    return x + x\n")
        assert "2 of 2 points" in said()
        watching.send_signal(signal.SIGINT)
        assert watching.wait() == 130
    finally:
        watchdog.cancel()
        watching.kill()
