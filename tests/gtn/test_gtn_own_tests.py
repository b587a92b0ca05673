"""gtn's own Python tests, run on this engine.

They come out of gtn's source package, are fetched when first needed, and stay in a cache folder: `.cache` in
the project's root, or the folder that EBMCOURSE_CACHE names.
"""

import hashlib
import importlib.util
import os
import subprocess
import sys
import tarfile
import tempfile
import unittest
from pathlib import Path

import pytest

from ebmcourse import gtn

PACKAGE, ARCHIVE = "gtn==0.0.0", "gtn-0.0.0.tar.gz"
SHA256 = "72fece9ca51df161c1274e570d6f5f933e76f4cac9d8d6dd543a3fe0383f7268"
TESTS = {
    "test_autograd": 9,
    "test_bindings": 17,
    "test_creations": 2,
    "test_criterions": 3,
    "test_functions": 11,
    "test_utils": 5,
}


def genuine(archive: Path) -> bool:
    return archive.is_file() and hashlib.sha256(archive.read_bytes()).hexdigest() == SHA256


@pytest.fixture(scope="module")
def folder() -> Path:
    """The folder of gtn's tests."""
    default = Path(__file__).parents[2] / ".cache"
    cache = Path(os.environ.get("EBMCOURSE_CACHE", default)).resolve() / "gtn"
    archive = cache / ARCHIVE
    if not genuine(archive):
        cache.mkdir(parents=True, exist_ok=True)
        # pip knows which package index this machine uses. It asks setup.py for the package's name and
        # version, but compiles nothing.
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        command += ["--no-deps", "--no-binary", ":all:", "--retries", "1", "--dest", str(cache), PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if not archive.is_file():
            reason = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
            pytest.skip(f"pip cannot fetch {PACKAGE} from the package index: {reason[0]}")
        assert genuine(archive), f"{ARCHIVE} from the package index is not the one these tests are meant for"
    with tarfile.open(archive) as files:
        members = [m for m in files.getmembers() if "/test/" in m.name]
        files.extractall(cache, members, filter="data")
    return cache / "gtn-0.0.0" / "test"


@pytest.mark.parametrize("name", TESTS)
def test_gtns_own_tests_pass(name, folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gtn", gtn)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for module in ("test_helpers", name):
        spec = importlib.util.spec_from_file_location(module, folder / f"{module}.py")
        loaded = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, module, loaded)
        spec.loader.exec_module(loaded)
    suite = unittest.defaultTestLoader.loadTestsFromModule(loaded)
    result = suite.run(unittest.TestResult())
    failures = [f"{test}\n{trace}" for test, trace in result.failures + result.errors]
    assert not failures, "\n".join(failures)
    assert (result.testsRun, len(result.skipped)) == (TESTS[name], 0)
