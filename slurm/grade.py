"""Grade on a SLURM cluster: jobs with a Dask worker each, and `autograder grade --scheduler` with the rest of the line.

    python slurm/grade.py --jobs 8 --queue cpu -- jem submitted --out results

The workers need bubblewrap and this folder, at the same path. The jobs end when the grading does. If it is stopped, the
same line goes on where it was.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from dask_jobqueue import SLURMCluster


def main() -> int:
    parser = argparse.ArgumentParser(description="Grade on a SLURM cluster.")
    parser.add_argument("--jobs", type=int, default=4, help="jobs, with one worker each; default: %(default)s")
    parser.add_argument("--queue", help="partition of the cluster; default: the cluster's own")
    parser.add_argument("--memory", default="4GiB", help="of each job; default: %(default)s")
    parser.add_argument("--walltime", default="01:00:00", help="of each job; default: %(default)s")
    parser.add_argument("--course", help="folder of the course, where it is not this checkout")
    parser.add_argument("grade", nargs="+", metavar="ARGUMENT", help="what follows `autograder grade`")
    args = parser.parse_args()
    # One core per worker, and no nanny: SLURM watches the memory, and the sandbox that of a submission.
    cluster = SLURMCluster(
        queue=args.queue,
        cores=1,
        processes=1,
        nanny=False,
        memory=args.memory,
        walltime=args.walltime,
        job_script_prologue=["export OMP_NUM_THREADS=1"],
        scheduler_options={"dashboard_address": ":0"},
    )
    with cluster:
        cluster.scale(jobs=args.jobs)
        course = ["--course", args.course] if args.course else []
        command = [sys.executable, "-m", "autograder.cli", *course, "grade", *args.grade]
        return subprocess.run([*command, "--scheduler", cluster.scheduler_address]).returncode


if __name__ == "__main__":
    sys.exit(main())
