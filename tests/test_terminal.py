"""The commands print on terminals whose encoding lacks some characters."""

import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from autograder.cli import main as autograder
from ebmcourse.cli import main as ebmcourse


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
@pytest.mark.parametrize("text", ["✓ α → β", "Jörg\N{BLACK HEART SUIT}"])
def test_what_an_encoding_lacks_is_replaced_and_the_rest_is_kept(encoding, text):
    program = f"from ebmcourse.terminal import replace_unknown_characters as r; r(); print({text!r}, end='')"
    printed = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        check=True,
        env=os.environ | {"PYTHONIOENCODING": encoding},
    ).stdout.decode(encoding)
    for character in text:
        assert character in printed or character.encode(encoding, "ignore") == b""
    assert printed.isascii() or encoding != "ascii"


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
@pytest.mark.parametrize(
    "command",
    [("ebmcourse", "doctor"), ("ebmcourse", "check", "."), ("autograder", "grade", "none", ".", "--out", "o")],
)
def test_commands_print_with_any_encoding(encoding, command, tiny_course, monkeypatch):
    monkeypatch.chdir(tiny_course)
    run = subprocess.run(
        [sys.executable, "-m", f"{command[0]}.cli", *command[1:]],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": encoding},
    )
    assert run.returncode in (0, 1, 2)
    assert b"Traceback" not in run.stderr and b"UnicodeEncodeError" not in run.stderr
    assert run.stdout or run.stderr


@pytest.mark.parametrize("main", [autograder, ebmcourse])
def test_the_summaries_of_the_commands_are_not_cut(main):
    result = CliRunner().invoke(main, ["--help"], terminal_width=80)
    _, summaries = result.output.split("Commands:")
    assert "..." not in summaries
