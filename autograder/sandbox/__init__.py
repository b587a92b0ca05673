"""Confinement of submissions: a sandbox with a warm process, which forks a container for every submission.

Runs in the grader, and never with student code: `outside`, `bubblewrap`, `visible`, `syscalls`, `cgroup`, `limits`,
`selftest`.
Runs in the sandbox: `inside`, which the grader never imports, and the functions of `selftest_inside`.
Runs on both sides: `huge_pages`.
"""
