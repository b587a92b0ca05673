"""Gather the memory of a process in huge pages. Runs on both sides: in the judge, and in the sandbox."""

import ctypes
from pathlib import Path

MADV_COLLAPSE, HUGE_PAGE = 25, 2 * 2**20


def use_huge_pages() -> None:
    """Let the kernel gather this process's memory in pages of 2 MiB, as far as it can.

    A fork copies the table of pages, and an exit frees it. For half a gigabyte in pages of 4 KiB, that takes longer
    than most submissions compute. Kernels before Linux 6.1 refuse, and nothing changes.
    """
    madvise = ctypes.CDLL(None, use_errno=True).madvise
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, rights, _, _, _, *name = line.split()
        begin, end = (int(address, 16) for address in addresses.split("-"))
        begin, end = -(-begin // HUGE_PAGE) * HUGE_PAGE, end // HUGE_PAGE * HUGE_PAGE
        if rights == "rw-p" and name in ([], ["[heap]"]) and begin < end:
            madvise(begin, end - begin, MADV_COLLAPSE)
