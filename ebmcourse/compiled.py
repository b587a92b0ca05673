"""Functions compiled by numba, with a cache on disk that other users can read and that costs nobody an exception."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit
from numba.core.caching import IndexDataCacheFile


class _SharedFiles(IndexDataCacheFile):
    """Cache files that everybody can read, whatever the umask is: a grader's sandbox reads them as another user.

    Files that cannot be read or written are as good as none: the function is compiled again.
    """

    def load(self, key: Any) -> Any:
        with contextlib.suppress(OSError):
            return super().load(key)
        return None

    def save(self, key: Any, data: Any) -> None:
        with contextlib.suppress(OSError):
            super().save(key, data)
            index = Path(self._index_path)
            for file in index.parent.glob(f"{index.stem}.*"):
                file.chmod(0o644)


def kernel(function: Callable[..., Any]) -> Any:
    """`function` compiled; without a disk cache where no folder for one can be written (as in a sandbox)."""
    try:
        compiled: Any = njit(function, cache=True, nogil=True)
    except RuntimeError:
        return njit(function, nogil=True)
    compiled._cache._cache_file.__class__ = _SharedFiles
    return compiled
