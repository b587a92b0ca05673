"""Compiled functions: their cache serves other users, and never costs an exception."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

from ebmcourse.compiled import kernel

PROGRAM = "from ebmcourse.compiled import kernel\n\n@kernel\ndef double(x):\n    return 2 * x\n"


@pytest.fixture
def program(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    return tmp_path / "program.py"


def double(program):
    """The function of a fresh import of the program."""
    spec = importlib.util.spec_from_file_location("program", program)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.double


def test_others_can_read_the_cache_of_a_user_with_private_files(program):
    before = os.umask(0o077)
    try:
        assert double(program)(3) == 6
    finally:
        os.umask(before)
    files = [*program.parent.glob("__pycache__/*.nb?")]
    assert len(files) == 2 and all(file.stat().st_mode & 0o777 == 0o644 for file in files)


@pytest.mark.parametrize("broken", ["index", "data"])
def test_a_cache_that_cannot_be_read_is_as_good_as_none(program, broken):
    assert double(program)(3) == 6
    (file,) = program.parent.glob({"index": "__pycache__/*.nbi", "data": "__pycache__/*.nbc"}[broken])
    file.unlink()
    file.mkdir()  # cannot be opened as a file, also not by root
    assert double(program)(3) == 6 and double(program)(1.5) == 3.0


def test_a_function_without_a_file_is_compiled_too():
    namespace = {}
    exec("def double(x):\n    return 2 * x", namespace)
    assert kernel(namespace["double"])(3) == 6


EVERY_SIZE = """
from ebmcourse import gtn
from ebmcourse.gtn import kernels, ready

def compiled():
    return {name: list(map(str, f.signatures)) for name, f in vars(kernels).items() if hasattr(f, "signatures")}

before = compiled()
for letters in ([], [1], [1, 1], [1, 2, 3]):
    target = gtn.linear_graph(len(letters), 4) if letters else gtn.Graph()
    if not letters:
        target.add_node(True, True)
    g = gtn.compose(gtn.linear_graph(6, 4), gtn.ctc_graph(letters))
    for score in (gtn.forward_score, gtn.viterbi_score):
        score(g).item()
    gtn.viterbi_path(g)
    for same in (gtn.closure(target), gtn.union([target, target]), gtn.concat(target, target), gtn.remove(target)):
        gtn.intersect(target, same)
assert compiled() == before, {name: set(s) - set(before[name]) for name, s in compiled().items()}
"""


@pytest.mark.slow
def test_no_graph_has_to_wait_for_the_compiler():
    """A sandbox imports `ready` first; a kernel that is compiled later takes seconds of a student's time."""
    done = subprocess.run([sys.executable, "-c", EVERY_SIZE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
