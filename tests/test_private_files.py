"""Other users of the machine cannot read what the commands write about students."""

from __future__ import annotations

import os
from pathlib import Path

from click.testing import CliRunner

from autograder.cli import main


def test_others_cannot_read_submissions(tmp_path: Path) -> None:
    source, out = tmp_path / "clones", tmp_path / "submitted"
    (source / "s001").mkdir(parents=True)
    (source / "s001" / "ex_main.py").write_text("x = 1\n")
    before = os.umask(0o022)
    try:
        result = CliRunner().invoke(main, ["collect", str(source), "jem", "--out", str(out)])
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
    assert "1 new" in result.output
    assert [path for path in (out, *out.rglob("*")) if path.stat().st_mode & 0o007] == []
