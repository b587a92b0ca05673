"""The scripts for a SLURM cluster, with stand-ins for `srun`, `sbatch`, `scancel` and `scontrol`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from autograder import assignment as assignments
from autograder.cli import main as autograder
from autograder.quality.cases import load

ROOT = Path(__file__).resolve().parent.parent
TRAIN = ROOT / "slurm" / "train.sbatch"

# Runs the step at once; where STOP_WHEN names a file, sends TERM as soon as it is there, as SLURM does.
SRUN = """#!/usr/bin/env bash
echo "srun $*" >> "$CALLS"
shift
"$@" &
step=$!
if [ -n "${STOP_WHEN:-}" ]; then
    while [ ! -e "$STOP_WHEN" ] && kill -0 $step 2>/dev/null; do sleep 0.1; done
    kill -TERM $step
fi
wait $step
"""
# Starts the job at once and says its number, which is also that of its process.
SBATCH = """#!/usr/bin/env bash
echo "sbatch $*" >> "$CALLS"
cp "${@: -1}" "$CALLS.script"
bash "$CALLS.script" > "$CALLS.log" 2>&1 < /dev/null &
echo "Submitted batch job $!"
"""
SCANCEL = '#!/usr/bin/env bash\necho "scancel $*" >> "$CALLS"\nkill "$@" 2>/dev/null || true\n'
SCONTROL = '#!/usr/bin/env bash\necho "scontrol $*" >> "$CALLS"\n'

PROGRAM = """
import os, sys
from pathlib import Path

out = Path(sys.argv[sys.argv.index("--out") + 1])
if "WRITES" in os.environ:
    out.mkdir(parents=True, exist_ok=True)
    (out / "last.ckpt").touch()
sys.exit(int(os.environ["ENDS_WITH"]))
"""


@pytest.fixture
def cluster(tmp_path):
    """The environment of a machine with SLURM's commands; what was called stands in `calls`."""
    (tmp_path / "bin").mkdir()
    for name, text in {"srun": SRUN, "sbatch": SBATCH, "scancel": SCANCEL, "scontrol": SCONTROL}.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    path = os.pathsep.join([str(tmp_path / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    return os.environ | {
        "PATH": path,
        "CALLS": str(tmp_path / "calls"),
        "SLURM_JOB_ID": "7",
        "SLURM_CPUS_PER_TASK": "2",
        "OMP_NUM_THREADS": "1",
    }


def calls(cluster) -> list[str]:
    path = Path(cluster["CALLS"])
    return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def program(tmp_path):
    """A folder with a program that takes the same options, trains nothing, and leaves the same file."""
    folder = tmp_path / "work"
    (folder / "data" / "glyphs").mkdir(parents=True)
    (folder / "ex_main.py").write_text(PROGRAM)
    return folder


def train(folder, cluster, *arguments, **settings):
    command = ["bash", str(TRAIN), *arguments]
    done = subprocess.run(command, cwd=folder, env=cluster | settings, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_job_that_was_stopped_is_put_back_and_one_that_failed_is_not(cluster, program):
    assert train(program, cluster, "--preset", "full", ENDS_WITH="0")[0] == 0
    assert calls(cluster) == ["srun --cpus-per-task=2 python ex_main.py train --out runs/jem --preset full"]

    code, said = train(program, cluster, ENDS_WITH="130")
    assert code == 130 and "before the first checkpoint" in said
    assert train(program, cluster, ENDS_WITH="1", WRITES="1")[0] == 1
    assert not any(call.startswith("scontrol") for call in calls(cluster))

    assert train(program, cluster, ENDS_WITH="130")[0] == 0
    assert calls(cluster)[-2:] == [
        "srun --cpus-per-task=2 python ex_main.py train --out runs/jem --resume runs/jem/last.ckpt",
        "scontrol requeue 7",
    ]
    code, said = train(program, cluster, ENDS_WITH="130", SLURM_RESTART_COUNT="50")
    assert code == 130 and "after 50 restarts" in said and not calls(cluster)[-1].startswith("scontrol")


def test_another_run_is_kept_apart(cluster, program):
    assert train(program, cluster, ENDS_WITH="0", OUT="runs/other", WRITES="1")[0] == 0
    assert (program / "runs" / "other" / "last.ckpt").exists()
    assert "--out runs/other" in calls(cluster)[-1]


@pytest.mark.slow
def test_a_real_training_that_is_stopped_goes_on_where_it_was(cluster, tmp_path):
    from ebmcourse.data import glyphs

    work = tmp_path / "work"
    work.mkdir()
    for path in (ROOT / "solutions" / "jem").glob("ex_*.py"):
        (work / path.name).write_bytes(path.read_bytes())
    glyphs.generate(work / "data" / "glyphs", "small", 0)
    options = ["--preset", "smoke", "--train_batches", "4", "--warmup_epochs", "1", "--steps", "2"]
    code, said = train(work, cluster, *options, STOP_WHEN="runs/jem/samples/epoch_000.png")
    assert code == 0 and "epoch 1/3" in said, said
    assert calls(cluster)[-1] == "scontrol requeue 7"
    code, said = train(work, cluster, *options)
    assert code == 0 and "epoch 3/3" in said and "epoch 1/3" not in said, said
    assert "--resume runs/jem/last.ckpt" in calls(cluster)[-1]


@pytest.mark.slow
@pytest.mark.usefixtures("needs_sandbox")
def test_a_class_is_graded_by_jobs_of_a_cluster(cluster, tmp_path):
    course = tmp_path / "course"
    for arguments in ["new", "fresh"], ["release", "fresh"]:
        assert CliRunner().invoke(autograder, ["--course", str(course), *arguments]).exit_code == 0
    fresh = assignments.load("fresh", course)
    for case in load(fresh, "class"):
        case.write(fresh, tmp_path / "submitted" / case.name / "fresh")
    command = [sys.executable, ROOT / "slurm" / "grade.py", "--jobs", "1", "--course", course, "--"]
    command += ["fresh", tmp_path / "submitted", "--out", tmp_path / "results"]
    done = subprocess.run(command, env=cluster, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    log = Path(cluster["CALLS"] + ".log")
    assert done.returncode == 0, done.stdout + done.stderr + (log.read_text() if log.exists() else "")
    scores = [
        json.loads(path.read_text())["score"] for path in sorted((tmp_path / "results" / "fresh").glob("s00?.json"))
    ]
    assert scores == [3.0, 0.0, 0.0]
    assert [call.split()[0] for call in calls(cluster)][:1] == ["sbatch"] and "scancel" in calls(cluster)[-1]
