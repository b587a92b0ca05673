"""The self-test plants files in folders that everybody may write to, where somebody may replace them by links."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from autograder.sandbox.selftest import planted


def test_a_link_in_the_place_of_a_planted_file_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private, folder = tmp_path / "private", tmp_path / "exchange"
    private.write_text("private")
    private.chmod(0o600)
    folder.mkdir()
    real_open = os.open

    def open_and_replace(path: Path, flags: int, mode: int = 0o777) -> int:
        descriptor = real_open(path, flags, mode)
        path.unlink()
        path.symlink_to(private)
        return descriptor

    monkeypatch.setattr(os, "open", open_and_replace)
    with planted([folder]) as plants:
        assert len(plants) == 1
    assert (private.read_text(), private.stat().st_mode & 0o777) == ("private", 0o600)
    assert list(folder.iterdir()) == []


def test_a_folder_in_the_place_of_a_planted_file_stops_nothing(tmp_path: Path) -> None:
    with planted([tmp_path]) as plants:
        os.unlink(plants[0])
        os.mkdir(plants[0])
