"""The cgroup of a sandbox, on a file system that looks like the kernel's."""

import os
import subprocess

import pytest

from autograder.sandbox import cgroup


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The cgroup of this process, below a slice in which this user may make others."""
    own = tmp_path / "user.slice" / "app.slice" / "run-1.scope"
    own.mkdir(parents=True)
    membership = tmp_path / "membership"
    membership.write_text("4:memory:/elsewhere\n0::/user.slice/app.slice/run-1.scope\n")
    monkeypatch.setattr(cgroup, "ROOT", tmp_path)
    monkeypatch.setattr(cgroup, "MEMBERSHIP", membership)
    return own


def test_a_process_joins_a_new_cgroup_with_a_limit_beside_its_own(own):
    group = cgroup.create(2**20)
    assert group is not None and group.parent == own.parent
    assert int((group / "memory.max").read_text()) == 2**20 + cgroup.LIBRARY_BYTES
    process = subprocess.Popen(cgroup.join(group, ["echo", "$HOME", "two words"]), stdout=subprocess.PIPE, text=True)
    assert process.communicate()[0] == "$HOME two words\n"
    assert int((group / "cgroup.procs").read_text()) == process.pid


def test_without_a_cgroup_of_version_2_there_is_none_and_nothing_changes(own):
    cgroup.MEMBERSHIP.write_text("4:memory:/elsewhere\n0::/\n")
    assert cgroup.create(2**20) is None
    assert cgroup.join(None, ["true"]) == ["true"]


def test_a_cgroup_that_cannot_be_limited_or_joined_is_removed(own, monkeypatch):
    monkeypatch.setattr(cgroup, "_JOIN", "exit 1")
    monkeypatch.setattr(os, "rmdir", lambda path: subprocess.run(["rm", "-r", path], check=True))  # as the kernel does
    assert cgroup.create(2**20) is None
    assert [path.name for path in own.parent.iterdir()] == [own.name]


def test_what_killed_graders_left_is_removed_and_what_living_ones_use_is_not(own):
    ended = subprocess.Popen(["true"])
    ended.wait()
    for name in (f"autograder-{ended.pid}-0a", f"autograder-{os.getppid()}-0b", "another"):
        (own.parent / name).mkdir()
    group = cgroup.create(2**20)
    assert group is not None
    left = {path.name for path in own.parent.iterdir()}
    assert left == {own.name, group.name, f"autograder-{os.getppid()}-0b", "another"}
