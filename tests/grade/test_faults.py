"""Whatever happens to a grading, nothing is lost, nothing is graded twice, and the results are the same bytes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from click.testing import CliRunner

from autograder import Failure
from autograder import assignment as assignments
from autograder.cli import main as autograder
from autograder.grade import workers
from autograder.grade.job import Job
from autograder.grade.results_folder import LOCK, reserved
from autograder.grade.seed import given
from autograder.grade.submissions import handed_in
from autograder.grade.workers import is_graded
from autograder.results import Result, write_result
from benchmarks.faults import kill_at_random
from ebmcourse.checking.outcome import Outcome

GRADE = [sys.executable, "-m", "autograder.cli"]


@pytest.fixture
def job(tiny_course: Path) -> Job:
    return Job.of(assignments.load("tiny", tiny_course), given(0), confined=False)


@pytest.fixture
def submitted(tiny_course: Path, tmp_path: Path) -> Path:
    for student in ("s001", "s002"):
        (tmp_path / "submitted" / student / "tiny").mkdir(parents=True)
        shutil.copy(tiny_course / "solutions" / "tiny" / "tiny.py", tmp_path / "submitted" / student / "tiny")
    return tmp_path / "submitted"


def graded_by_hand(job: Job, submitted: Path, out: Path) -> list[Path]:
    """The results that the job would give, without running anything."""
    checks = [Outcome("1a/double", "1a", "Doubles.", "passed", 2.0, 2.0, True)]
    paths = []
    for folder in sorted(submitted.iterdir()):
        digest = handed_in(folder / job.assignment.name, job.assignment).sha256
        marks = {"submission_sha256": digest, "checks_sha256": job.checks_sha256, "seed": job.seed.label}
        result = Result(job.assignment.name, folder.name, 2.0, 2.0, checks=checks, confined=job.confined, **marks)
        paths.append(write_result(out, result))
    return paths


@pytest.mark.slow
@pytest.mark.usefixtures("needs_sandbox")
def test_after_random_kills_the_results_are_those_of_an_undisturbed_grading(tmp_path):
    report = kill_at_random(tmp_path, 6, seed=3, students=8, seconds=0.1)
    assert report.kills.total() == 6 and report.compared
    assert report.complaints == []


def test_a_result_that_was_cut_off_is_graded_again(job, submitted, tmp_path):
    path, other = graded_by_hand(job, submitted, tmp_path / "out")
    whole = path.read_bytes()
    assert is_graded(job, tmp_path / "out", submitted, "s001")
    for length in range(len(whole) - 1):
        path.write_bytes(whole[:length])
        assert not is_graded(job, tmp_path / "out", submitted, "s001"), f"{length} bytes of {len(whole)}"
    path.write_bytes(b"\0" * len(whole))  # what some file systems leave after a power failure
    assert not is_graded(job, tmp_path / "out", submitted, "s001")
    path.write_bytes(other.read_bytes())
    assert not is_graded(job, tmp_path / "out", submitted, "s001"), "it is another student's"


def test_no_time_of_a_file_decides_what_is_graded(job, submitted, tmp_path):
    """The clock may have jumped back since the results were written, or since the submission was."""
    program = submitted / "s001" / "tiny" / "tiny.py"
    for path in graded_by_hand(job, submitted, tmp_path / "out"):
        os.utime(path, (2**32, 2**32))
    os.utime(program, (0, 0))
    assert is_graded(job, tmp_path / "out", submitted, "s001")
    about = program.stat()
    program.write_text(program.read_text().replace("alpha=1", "alpha=2"))
    os.utime(program, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert not is_graded(job, tmp_path / "out", submitted, "s001")
    assert is_graded(job, tmp_path / "out", submitted, "s002")


@pytest.mark.slow
def test_checks_are_those_on_disk_even_if_the_clock_has_jumped_back(tiny_course, submitted):
    """Python compares time and size of a file with those of its compiled form, not the content."""
    from autograder.grade.grader import Grader

    tiny = assignments.load("tiny", tiny_course)
    checks = tiny.checks / "test_1.py"
    points = []
    for number in (2, 4):
        about = checks.stat()
        checks.write_text(checks.read_text().replace("points=2", f"points={number}"))
        os.utime(checks, ns=(about.st_atime_ns, about.st_mtime_ns))
        grader = Grader(Job.of(tiny, given(0), confined=False))
        points.append(sum(outcome.max_points for outcome in grader._judge.of_reference))
        grader.close()
    assert points == [3, 5]


@pytest.mark.slow
def test_checks_that_change_during_a_grading_stop_it(tiny_course, job):
    from autograder.grade.grader import Grader

    checks = tiny_course / "solutions" / "tiny" / "checks" / "test_1.py"
    checks.write_text(checks.read_text() + "# another line\n")
    with pytest.raises(Failure, match=r"is not the same on .* as when grading began"):
        Grader(job)


def test_a_second_grader_is_refused_until_the_first_has_ended_however_it_ends(tiny_course, submitted, tmp_path):
    program = "import sys, time; from pathlib import Path; from autograder.grade.results_folder import reserved\n"
    program += "with reserved(Path(sys.argv[1])):\n    print('ready', flush=True)\n    time.sleep(600)\n"
    folder = tmp_path / "out" / "tiny"
    first = subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, text=True)
    assert first.stdout and first.stdout.readline() == "ready\n"
    words = ["--course", tiny_course, "grade", "tiny", submitted, "--out", tmp_path / "out", "--unconfined"]
    refused = CliRunner().invoke(autograder, [*map(str, words), "--seed", "0"])
    assert refused.exit_code == 1 and f"Another grader is writing to {folder}" in refused.output
    first.kill()
    first.wait()
    with reserved(folder):
        assert [path.name for path in folder.iterdir()] == [LOCK]


def test_what_a_killed_grader_left_unfinished_is_removed_and_nothing_else(tmp_path):
    (tmp_path / "drawings").mkdir()
    left = [tmp_path / f".{'0a' * 8}.tmp", tmp_path / "drawings" / f".{'1b' * 8}.tmp"]
    kept = [tmp_path / "s001.json", tmp_path / ".notes.tmp", tmp_path / "drawings" / "s001.json"]
    for path in (*left, *kept):
        path.write_text("")
    with reserved(tmp_path):
        assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted([*kept, tmp_path / LOCK])


@pytest.mark.slow
def test_a_full_disk_leaves_whole_results_and_grading_goes_on_when_there_is_room(tiny_course, submitted, tmp_path):
    (tmp_path / "disk").mkdir()
    options = f"--course {tiny_course} grade tiny {submitted} --seed 0 --unconfined --workers 1"
    command = f"""
        mount -t tmpfs -o size=16k,nr_inodes=16 tmpfs {tmp_path}/disk || exit 77
        {" ".join(GRADE)} {options} --out {tmp_path}/disk/out
        echo "exit code $?"
        {sys.executable} -c "import json, pathlib; [json.loads(p.read_bytes())
            for p in pathlib.Path('{tmp_path}/disk/out/tiny').glob('*.json')]; print('all whole')"
        mount -o remount,size=1m,nr_inodes=99 {tmp_path}/disk
        {" ".join(GRADE)} {options} --out {tmp_path}/disk/out
        {" ".join(GRADE)} {options} --out {tmp_path}/undisturbed
        cd {tmp_path}/disk/out/tiny && for file in s00?.json; do cmp $file {tmp_path}/undisturbed/tiny/$file; done
        echo "differences: $?, files: $(LC_ALL=C ls -A | grep -v timings | tr '\\n' ' ')"
    """
    run = subprocess.run(["unshare", "-rm", "sh", "-c", command], capture_output=True, text=True)
    if run.returncode == 77:
        pytest.skip("this machine does not let tests mount a small disk")
    assert "exit code 2" in run.stdout and "all whole" in run.stdout, run.stdout + run.stderr
    assert "No space left" in run.stderr and "Traceback" not in run.stderr
    assert f"differences: 0, files: .fingerprints {LOCK} s001.json s002.json " in run.stdout, run.stdout + run.stderr


def test_a_results_folder_that_is_read_only_is_named_before_anything_is_graded(tiny_course, submitted, tmp_path):
    (tmp_path / "out").mkdir()
    command = (
        f"mount --bind -o ro {tmp_path}/out {tmp_path}/out && mount -o remount,bind,ro {tmp_path}/out || exit 77; "
    )
    command += f"{' '.join(GRADE)} --course {tiny_course} grade tiny {submitted} --out {tmp_path}/out --seed 0"
    run = subprocess.run(["unshare", "-rm", "sh", "-c", command], capture_output=True, text=True)
    if run.returncode == 77:
        pytest.skip("this machine does not let tests mount a folder")
    assert run.returncode == 2 and f"{tmp_path}/out/tiny: Read-only file system" in run.stderr, run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.usefixtures("needs_sandbox")
@pytest.mark.parametrize("name", ["tiny", "note"])
def test_a_class_that_has_not_changed_costs_no_import_of_torch(request, tmp_path, name):
    course: Path = request.getfixturevalue(f"{name}_course")
    (tmp_path / "submitted" / "s001" / name).mkdir(parents=True)
    assignment = assignments.load(name, course)
    (tmp_path / "submitted" / "s001" / name / assignment.files[0]).write_text("{}")
    (path,) = graded_by_hand(Job.of(assignment, given(0), confined=True), tmp_path / "submitted", tmp_path / "out")
    before = path.stat().st_mtime_ns
    program = "import sys; from autograder.cli import main; main(sys.argv[1:], standalone_mode=False)\n"
    program += "print(sorted({'torch', 'numpy', 'nbgrader'} & sys.modules.keys()))"
    words = ["--course", course, "grade", name, tmp_path / "submitted", "--out", tmp_path / "out", "--seed", "0"]
    run = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True)
    assert run.stdout.endswith("[]\n"), run.stdout + run.stderr
    assert path.stat().st_mtime_ns == before and "s001" in run.stdout


def test_workers_end_with_their_grader():
    program = "import os, time; from autograder.grade.workers import _pool\n"
    program += "if __name__ == '__main__':\n    with _pool(1) as pool:\n"
    program += (
        "        print(pool.submit(os.getpid).result(), flush=True)\n        pool.submit(time.sleep, 600).result()\n"
    )
    grader = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert grader.stdout
    worker = psutil.Process(int(grader.stdout.readline()))
    grader.kill()
    grader.wait()
    assert psutil.wait_procs([worker], 60)[1] == []


@pytest.mark.slow
def test_sigterm_ends_a_grading_as_ctrl_c_does_and_it_goes_on(tiny_course, submitted, tmp_path):
    """Without a message of multiprocessing about semaphores that were not released."""
    program, go_on = submitted / "s002" / "tiny" / "tiny.py", tmp_path / "go on"
    wait = f"import pathlib, time\nwhile not pathlib.Path({str(go_on)!r}).exists():\n    time.sleep(0.1)\n"
    program.write_text(wait + program.read_text())
    out = tmp_path / "out"
    words = ["--course", tiny_course, "grade", "tiny", submitted, "--out", out, "--seed", "0", "--unconfined"]
    command = [*GRADE, *map(str, words), "--workers", "2"]
    grading = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not (out / "tiny" / "s001.json").exists() and grading.poll() is None:
        time.sleep(0.05)
    children = psutil.Process(grading.pid).children(recursive=True)
    grading.terminate()
    said = grading.communicate()[1]
    assert grading.returncode == 130 and said.endswith("Interrupted. Run the same command again to continue.\n")
    assert "semaphore" not in said and "Traceback" not in said
    assert psutil.wait_procs(children, 60)[1] == []
    go_on.touch()
    subprocess.run(command, check=True, capture_output=True)
    assert sorted(path.name for path in (out / "tiny").glob("s00?.json")) == ["s001.json", "s002.json"]


def dies(job: Job, folder: Path, student: str) -> object:
    os.kill(os.getpid(), signal.SIGKILL)
    return time.sleep(600)


def test_a_machine_without_memory_for_workers_is_reported_before_every_student_was_tried(job, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "grade_folder", dies)
    students = [f"s{number:03}" for number in range(50)]
    with pytest.raises(Failure, match=r"50 submissions are not graded.*out of memory"):
        workers.grade_class(job, tmp_path / "submitted", tmp_path / "out", students, workers=2)


@pytest.mark.parametrize(("gibibytes", "count"), [(0.5, 1), (2, 1), (7, 2), (500, 4)])
def test_as_many_workers_as_the_memory_allows(monkeypatch, gibibytes, count):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=int(gibibytes * 2**30)))
    assert workers.default_workers() == count
