"""The criteria of gtn's public applications, run by their own tests on this engine.

GTN_APPLICATIONS names a local copy of https://github.com/facebookresearch/gtn_applications.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

# `transducer_test` still imports modules from before they became the package `criterions`, and gives
# `linear_graph` a Graph where its own criteria give a Device.
PROGRAM = """
import sys, types, unittest
from pathlib import Path
from ebmcourse import gtn

sys.modules["gtn"] = gtn
folder, name = Path(sys.argv[1]), sys.argv[2]
sys.path[:0] = [str(folder), "."]
from criterions import asg, ctc, transducer

sys.modules["transducer"] = transducer
sys.modules["utils"] = types.SimpleNamespace(**(vars(asg) | vars(ctc)))
source = Path(f"{name}.py").read_text("utf-8").replace("gtn.Graph(gtn.CPU)", "gtn.Device(gtn.CPU)")
module = types.ModuleType(name)
exec(compile(source, name, "exec"), vars(module))
suite = unittest.defaultTestLoader.loadTestsFromModule(module)
sys.exit(not unittest.TextTestRunner().run(suite).wasSuccessful())
"""
# How many tests each file has, and how many of them its authors skip: those that need twice differentiable graphs.
TESTS = {
    "tests/gtn_ctc_test": (4, 1),
    "tests/gtn_asg_test": (3, 1),
    "tests/gtn_stc_test": (2, 0),
    "tests/transducer_test": (13, 0),
    "scripts/test_transitions": (4, 0),
}


@pytest.fixture(scope="module")
def folder() -> Path:
    """The local copy."""
    if "GTN_APPLICATIONS" not in os.environ:
        pytest.skip("GTN_APPLICATIONS does not name a copy of github.com/facebookresearch/gtn_applications")
    folder = Path(os.environ["GTN_APPLICATIONS"]).resolve()
    assert (folder / "criterions").is_dir(), f"GTN_APPLICATIONS names {folder}, which has no folder `criterions`"
    return folder


@pytest.mark.parametrize("name", TESTS)
def test_their_own_tests_pass(folder, name):
    where, module = name.split("/")
    command = [sys.executable, "-B", "-c", PROGRAM, folder, module]
    done = subprocess.run(command, cwd=folder / where, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    run, skipped = (re.search(pattern, done.stderr) for pattern in (r"Ran (\d+) test", r"skipped=(\d+)"))
    assert (int(run[1]), int(skipped[1]) if skipped else 0) == TESTS[name]
