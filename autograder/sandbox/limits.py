"""The limits on the process of a submission. Wall time is limited for each check, from outside."""

MIB = 2**20
NEEDED_BYTES = 1536 * MIB  # that must be free: for the warm process, the judge, and a submission with usual needs

LIMITS: dict[str, int] = {
    "memory_bytes": 2048 * MIB,  # beyond what the warm process, with torch in it, has
    "cpu_seconds": 300,  # of all threads together; the wall time of a check ends an endless loop long before
    "threads": 64,
    "file_bytes": 64 * MIB,  # any one file
    "open_files": 256,
    "tmp_bytes": 128 * MIB,  # the private /tmp, which is memory
    "tmp_files": 4096,
}
