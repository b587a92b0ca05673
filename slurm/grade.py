"""Grade on a SLURM cluster: jobs with a Dask worker each, and `autograder grade --scheduler` with the other arguments.

    python slurm/grade.py --jobs 8 --queue cpu -- jem submitted --out results

The workers need bubblewrap and this folder, at the same path. Scheduler, workers and grader talk over TLS with a
certificate of this run: whoever else reaches the port cannot connect. The jobs end when the grading does. After an
interrupt, the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from tempfile import TemporaryDirectory

from dask_jobqueue import SLURMCluster
from distributed.security import Security

_TLS = "DASK_DISTRIBUTED__COMM__TLS__"  # how Dask reads its configuration from the environment


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
    security = Security.temporary()
    own = security.get_tls_config_for_role("client")
    tls = {"CA_FILE": own["ca_file"], "CLIENT__CERT": own["cert"], "CLIENT__KEY": own["key"]}
    folder = TemporaryDirectory(dir=".", prefix=".tls-")  # for the jobs, on the disk that they share; mode 0700
    cluster = SLURMCluster(
        queue=args.queue,
        cores=1,
        processes=1,
        nanny=False,
        memory=args.memory,
        walltime=args.walltime,
        job_script_prologue=["export OMP_NUM_THREADS=1"],
        protocol="tls://",
        security=security,
        shared_temp_directory=folder.name,
        scheduler_options={"dashboard": False, "dashboard_address": None},
    )
    with folder, cluster:
        cluster.scale(jobs=args.jobs)
        course = ["--course", args.course] if args.course else []
        command = [sys.executable, "-m", "autograder.cli", *course, "grade", *args.grade]
        command += ["--scheduler", cluster.scheduler_address]
        return subprocess.run(
            command, env=os.environ | {_TLS + name: value for name, value in tls.items()}, check=False
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
