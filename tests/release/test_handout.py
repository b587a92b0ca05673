"""`autograder release --handout`: one zip file with all that students need, and nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from autograder import assignment as assignments
from autograder.cli import main as autograder
from autograder.release import handout
from autograder.release.gate import hidden_values
from ebmcourse.checking.observation import decode, encode

ROOT = Path(__file__).resolve().parents[2]


def write(course: Path, target: Path) -> Path:
    done = CliRunner().invoke(autograder, ["--course", str(course), "release", "--handout", str(target)])
    assert done.exit_code == 0, done.output
    return target


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """The hand-out of this course, as it is released now."""
    target = tmp_path_factory.mktemp("handout") / "course.zip"
    everything = [assignments.load(name) for name in assignments.names()]
    handout.write_handout(target, everything, everything)
    return target


@pytest.fixture
def unpacked(packed, tmp_path):
    zipfile.ZipFile(packed).extractall(tmp_path)
    return tmp_path / handout.TOP


@pytest.mark.slow
def test_it_contains_the_release_as_it_is_and_equal_sources_give_equal_bytes(tiny_course, tmp_path):
    one, two = (write(tiny_course, tmp_path / name).read_bytes() for name in ("one.zip", "sub/two.zip"))
    assert one == two
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        released = {name.partition("/")[2]: name for name in archive.namelist() if "/tiny/" in name}
        for path in (tiny_course / "assignments" / "tiny").rglob("*.*"):
            name = path.relative_to(tiny_course / "assignments").as_posix()
            assert archive.read(released.pop(name)) == path.read_bytes()
        assert not released


@pytest.mark.slow
def test_what_takes_long_is_said(tiny_course, tmp_path):
    command = ["--course", str(tiny_course), "release", "--handout", str(tmp_path / "course.zip")]
    said = CliRunner().invoke(autograder, command).stderr.splitlines()
    first = said.index("Building and testing course.zip (takes up to a minute): 0 of 3")
    assert said[first + 1 :] == [f"Building and testing course.zip (takes up to a minute): {n} of 3" for n in (1, 2, 3)]


@pytest.mark.slow
def test_a_student_can_install_it_and_check_an_assignment(tiny_course, tmp_path):
    """The packages that are installed here are those that the hand-out asks for, so nothing is downloaded."""
    zipfile.ZipFile(write(tiny_course, tmp_path / "course.zip")).extractall(tmp_path / "student")
    folder = tmp_path / "student" / handout.TOP
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", ".venv"], cwd=folder, check=True)
    (packages,) = folder.glob(".venv/lib/python*/site-packages")
    (packages / "installed_here.pth").write_text(sysconfig.get_path("purelib"))
    python = folder / ".venv" / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "-r", "requirements.txt"]
    done = subprocess.run(install, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    command = [folder / ".venv" / "bin" / "ebmcourse", "check", "tiny"]
    (folder / "tiny" / "tiny.py").write_text("def double(x):\n    return 2 * x\n")
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "2 of 2 points" in done.stdout, done.stdout + done.stderr
    assert str(ROOT) not in subprocess.check_output(
        [python, "-c", "import ebmcourse; print(ebmcourse.__file__)"], cwd=folder, env=environment, text=True
    )


@pytest.mark.slow
def test_the_gate_accepts_the_hand_out_of_this_course(unpacked):
    everything = [assignments.load(name) for name in assignments.names()]
    assert handout.complaints(unpacked, everything, everything) == []
    guide = (unpacked / "README.md").read_text("utf-8")
    assert (
        guide.startswith("# ") and "<!--" not in guide and "](" not in guide
    )  # the pages it could link to are not here
    for name in re.findall(r"\b[\w/]+\.(?:txt|yml|sbatch)\b", guide):
        assert (unpacked / name).is_file() or (unpacked / "jem" / name).is_file(), f"the guide names {name}"


@pytest.mark.slow
def test_the_gate_finds_what_does_not_belong_in_a_hand_out(tiny_course, tmp_path):
    zipfile.ZipFile(write(tiny_course, tmp_path / "course.zip")).extractall(tmp_path / "student")
    folder, tiny = tmp_path / "student" / handout.TOP, assignments.load("tiny", tiny_course)
    assert handout.complaints(folder, [tiny], [tiny]) == []
    for name, text, complaint in (
        ("notes.txt", "", "notes.txt is not a part"),
        ("slurm/grade.py", "", "slurm/grade.py is not a part"),
        ("other/README.md", "", "other/README.md is not a part"),
        ("README.md", "secret_factor = torch.tensor(2.0, dtype=x.dtype)", "README.md contains a line of the solution"),
        ("tiny/tiny.py", "return torch.add(x, y, alpha=1)", "tiny.py contains a line of the solution"),
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
        assert any(found.startswith(complaint) for found in handout.complaints(folder, [tiny], [tiny])), name


@pytest.mark.slow
def test_the_gate_looks_into_the_wheel(unpacked):
    everything = [assignments.load(name) for name in assignments.names()]
    (wheel,) = unpacked.glob(handout.WHEEL)
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("autograder/__init__.py", "")
    found = handout.complaints(unpacked, everything, everything)
    assert "wheel/autograder/__init__.py is not a part of the hand-out" in found


def test_the_gate_finds_a_value_of_a_hidden_check_in_a_recording(tmp_path):
    shutil.copytree(ROOT / "assignments" / "jem", tmp_path / "jem")
    assert hidden_values(tmp_path / "jem") == []
    file = tmp_path / "jem" / "checks" / "recorded.safetensors"
    recorded = decode(file.read_bytes())
    recorded["observations"]["3.2a/a-hidden-check#0"] = 1.0
    file.write_bytes(encode(recorded))
    assert ["3.2a/a-hidden-check#0" in found for found in hidden_values(tmp_path / "jem")] == [True]


def test_check_and_hand_out_exclude_each_other(tiny_course, tmp_path):
    command = ["--course", str(tiny_course), "release", "--check", "--handout", str(tmp_path / "course.zip")]
    done = CliRunner().invoke(autograder, command)
    assert done.exit_code == 2 and "--check writes nothing" in done.output
