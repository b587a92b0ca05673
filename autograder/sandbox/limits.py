"""What the process of a submission may use while it lives. Wall time is limited per check, from outside."""

from __future__ import annotations

MIB = 2**20

LIMITS: dict[str, int] = {
    "memory_bytes": 2048 * MIB,  # address space beyond that of the warm process with torch in it
    "cpu_seconds": 300,  # all threads together; a loop is ended by its check's wall time long before
    "threads": 64,
    "file_bytes": 64 * MIB,  # any one file
    "open_files": 256,
    "tmp_bytes": 128 * MIB,  # the private /tmp, which is memory
    "tmp_files": 4096,
}
