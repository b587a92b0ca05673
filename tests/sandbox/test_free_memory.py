"""The memory that is free is also what a container or a job has left, and a shortage is said with what to do."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest
from click.testing import CliRunner

from autograder.cli import main as autograder
from autograder.sandbox import free_memory, selftest
from autograder.sandbox.free_memory import GIB, free_bytes, shortage
from autograder.sandbox.outside import Sandbox, SandboxProcess


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with 8 GiB of free memory, and a function that writes what is known of a cgroup."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=8 * GIB))
    monkeypatch.setattr(free_memory, "ROOT", tmp_path)
    monkeypatch.setattr(free_memory, "MEMBERSHIP", tmp_path / "membership")
    (tmp_path / "membership").write_text("")

    def write(membership, group, **files):
        (tmp_path / "membership").write_text(membership)
        (tmp_path / group).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (tmp_path / group / name.replace("_", ".", 1)).write_text(f"{text}\n")

    return write


def test_without_a_limit_it_is_that_of_the_machine(machine):
    assert free_bytes() == 8 * GIB
    machine("0::/\n", ".", memory_max="max", memory_current=GIB, memory_stat="inactive_file 0")
    assert free_bytes() == 8 * GIB


@pytest.mark.parametrize("group", ["jobs/1", "jobs", "."])
def test_a_cgroup_or_one_above_it_limits_the_memory(machine, group):
    stat = f"anon 5\ninactive_file {GIB}\nactive_file {GIB}"
    machine("0::/jobs/1\n", group, memory_max=4 * GIB, memory_current=3 * GIB, memory_stat=stat)
    assert free_bytes() == 3 * GIB


def test_a_container_with_cgroups_of_the_first_version_finds_its_own_at_the_top(machine):
    stat = f"inactive_file 0\ntotal_inactive_file {GIB}\ntotal_active_file 0"
    names = {"memory_limit_in_bytes": 3 * GIB, "memory_usage_in_bytes": 2 * GIB, "memory_stat": stat}
    machine("5:cpu:/x\n4:memory:/docker/ab\n0::/\n", "memory", **names)
    assert free_bytes() == 2 * GIB


def test_a_shortage_says_how_much_there_is_how_much_is_needed_and_what_to_do(machine):
    assert shortage(8 * GIB) == ""
    said = shortage(10 * GIB)
    assert "8.0 GiB are free, and 10.0 GiB are needed. End other programs" in said


def test_the_self_test_says_so_before_it_begins(machine, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=GIB // 2))
    done = CliRunner().invoke(autograder, ["selftest"])
    assert done.exit_code == 1 and done.stdout == ""
    assert "The sandbox was not tested. This machine has too little free memory: 0.5 GiB are free" in done.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("needs_sandbox")
def test_a_limit_of_the_shell_is_named_and_not_taken_for_a_lack_of_rights():
    command = f"ulimit -v 4000000; {sys.executable} -m autograder.cli selftest"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 1 and "user namespaces" not in done.stderr
    assert "is limited to 3.8 GiB" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("needs_sandbox")
def test_an_attempt_whose_process_is_killed_proves_nothing_and_the_reason_is_said(machine, monkeypatch):
    (proof,) = (proof for proof in selftest.PROOFS if proof.attempt is selftest.attempts.sockets)
    ask = SandboxProcess.ask

    def killed(self, frame, seconds):
        try:
            return ask(self, frame, seconds)
        finally:
            self.was_killed = True

    monkeypatch.setattr(SandboxProcess, "ask", killed)
    with Sandbox() as sandbox:
        assert "killed 3 times from outside. Does this machine" in (selftest._try(sandbox, proof)[1] or "")
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=GIB // 2))
        assert "killed 3 times from outside. This machine has too little" in (selftest._try(sandbox, proof)[1] or "")
