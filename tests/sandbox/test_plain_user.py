"""A grader who is not root: the self-test, the tests of the sandbox and a class, with several kinds of Python.

Root runs this as another user. Where the tests are run by a plain user, all others are run by one, too.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from plain_user import DEBIAN, HOME, PYTHON, Machine, distribution_has_this_version

pytestmark = [
    pytest.mark.usefixtures("needs_sandbox"),
    pytest.mark.skipif(os.getuid() != 0, reason="these tests run as a plain user already"),
]

RIGHT = "def double(x):\n    return 2 * x\n\n\ndef plus(x, y):\n    return x + y\n"
EXCHANGE = Path("/usr/local/share/nbgrader/exchange")
COPIED = f"exec(open({str(EXCHANGE / 'course' / 'inbound' / 's001+tiny' / 'tiny.py')!r}).read())\n"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    (tmp_path / "home").mkdir()
    return Machine(tmp_path / "home")


def python_of_a_course(machine: Machine) -> Path:
    """Debian's Python where its version fits, or one in /usr/local, in a virtual environment in the home."""
    base = DEBIAN if distribution_has_this_version() else machine.interpreter(Path("/usr/local"))
    return machine.environment(HOME / "env", base)


@pytest.mark.slow
def test_the_selftest_and_the_tests_of_the_sandbox_pass(machine):
    python = python_of_a_course(machine)
    done = machine.run(python, "-m", "autograder.cli", "selftest")
    assert done.returncode == 0 and "BROKEN" not in done.stdout, done.stdout + done.stderr
    assert "tests passed: submissions can be graded on this machine" in done.stdout
    tests = HOME / "course" / "tests"
    names = ("test_protocol.py", "test_confinement.py")
    done = machine.run(python, "-m", "pytest", "-q", "-m", "not slow", *(tests / "sandbox" / name for name in names))
    assert done.returncode == 0 and "skipped" not in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
def test_a_class_is_graded_and_the_exchange_of_the_grader_tells_a_submission_nothing(machine, tiny_course):
    python = python_of_a_course(machine)
    shutil.copytree(tiny_course, machine.home / "tiny")
    exchange = machine.home.parent / "share" / "nbgrader" / "exchange"
    files = {
        machine.home / "submitted" / "s001" / "tiny" / "tiny.py": RIGHT,
        machine.home / "submitted" / "s002" / "tiny" / "tiny.py": COPIED,
        exchange / "course" / "inbound" / "s001+tiny" / "tiny.py": RIGHT,
    }
    for path, text in files.items():
        path.parent.mkdir(parents=True)
        path.write_text(text)
    for path in (exchange, *exchange.rglob("*")):
        os.chown(path, 65534, 65534)
    machine.shown[EXCHANGE.parents[1]] = exchange.parents[1]
    words = ["--course", HOME / "tiny", "grade", "tiny", HOME / "submitted", "--out", HOME / "results"]
    done = machine.run(python, "-m", "autograder.cli", *words, "--seed", 0, "--workers", 1)
    assert done.returncode == 0, done.stdout + done.stderr
    for student, score in {"s001": 3.0, "s002": 0.0}.items():
        result = json.loads((machine.home / "results" / "tiny" / f"{student}.json").read_text())
        assert (result["score"], result["confined"]) == (score, True)


SANDBOX_BELOW_TMP = """
from autograder.sandbox.outside import Sandbox, SandboxProcess
from ebmcourse.checking.observation import encode
source = "import os, wave, scipy.signal\\ndef look(student): return sorted(os.listdir('/tmp'))"
request = {"ticket": "", "source": source, "values": [], "questions": [{"probe": "look", "inputs": [], "seed": 0}]}
with Sandbox() as sandbox:
    print(SandboxProcess(sandbox, {}).ask(encode(request), 60.0))
"""


@pytest.mark.slow
def test_an_environment_below_tmp_stays_visible_in_the_private_tmp(machine):
    base = machine.interpreter(Path("/tmp/ci/python"))
    done = machine.run(machine.environment(Path("/tmp/ci/env"), base), "-c", SANDBOX_BELOW_TMP)
    assert r'[\\"ci\\", \\"submission\\"]' in done.stdout, done.stdout + done.stderr


def debian(machine: Machine) -> Path:
    return python_of_a_course(machine)


def usr_local(machine: Machine) -> Path:
    return machine.environment(HOME / "env", machine.interpreter(Path("/usr/local")))


def pyenv(machine: Machine) -> Path:
    """The Python is in a hidden folder of the home, and the virtual environment in the course."""
    base = machine.interpreter(HOME / ".pyenv" / "versions" / "3")
    return machine.environment(HOME / "course" / ".venv", base)


def conda(machine: Machine) -> Path:
    """The environment is the prefix of a Python, with packages in it, and shared objects beside its library."""
    prefix = HOME / "miniconda3" / "envs" / "ebm"
    (machine.home / prefix.relative_to(HOME) / "conda-meta").mkdir(parents=True)
    (machine.home / prefix.relative_to(HOME) / "share" / "jupyter").mkdir(parents=True)
    (machine.home / prefix.relative_to(HOME) / "lib").mkdir()
    shutil.copy("/etc/ld.so.cache", machine.home / prefix.relative_to(HOME) / "lib" / "libneeded.so")
    python = machine.interpreter(prefix)
    machine.packages(prefix / "lib" / PYTHON / "site-packages")
    return python


# Starts Python as `outside.py` does, in a sandbox that shows what `visible.py` lists, and prints what is seen there.
LOOK = """
import subprocess, sys
from autograder.sandbox.visible import bind_arguments, needed_paths
command = ["bwrap", "--unshare-user", "--unshare-pid", "--proc", "/proc", "--tmpfs", "/tmp", "--clearenv"]
command += [*bind_arguments(needed_paths()), sys.executable, "-I", "-c", sys.argv[1]]
sys.exit(subprocess.run(command).returncode)
"""
SEEN = """
import bz2, ctypes, json, lzma, os, sqlite3, ssl, numpy
seen = []
for folder, folders, names in os.walk("/"):
    folders[:] = [name for name in folders if name not in ("proc", "site-packages")]
    seen += [os.path.join(folder, name) for name in names]
print(json.dumps(seen))
"""


@pytest.mark.slow
@pytest.mark.parametrize("python_of", [debian, usr_local, pyenv, conda])
def test_only_python_the_packages_and_the_library_are_visible(machine, python_of):
    python = python_of(machine)
    (machine.home / ".config" / "ebmcourse").mkdir(parents=True)
    (machine.home / ".config" / "ebmcourse" / "seed").write_text("secret")
    done = machine.run(python, "-c", LOOK, SEEN)
    assert done.returncode == 0, done.stderr
    seen = [Path(path) for path in json.loads(done.stdout)]
    packages = next(place for place in machine.shown if place.name == "site-packages")
    system = map(Path, ("/lib", "/lib64", "/usr/lib", "/usr/lib64"))
    allowed = [HOME / "course" / "ebmcourse", packages, *system, Path("/etc/ld.so.cache")]
    allowed += [place for place in machine.shown if place.name == PYTHON or ".so" in place.name]
    allowed += [python, python.parents[1] / "pyvenv.cfg", python.parents[1] / "lib" / "libneeded.so"]
    allowed += [DEBIAN, DEBIAN.with_name(PYTHON)]
    assert [path for path in seen if not {path, *path.parents} & {*allowed}] == []
    assert not [path for path in seen if path.is_relative_to("/usr/lib/python3")]
    if python_of is conda:
        assert python.parents[1] / "lib" / "libneeded.so" in seen
