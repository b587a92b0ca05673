"""Importing this module compiles the kernels of `gtn` and `lattice`, or loads them from numba's cache.

A grader imports it before it forks, so that every fork has the compiled kernels. In a sandbox the cache next to the
sources is read-only, and numba by itself would ignore it.
"""

import os

import torch
from numba.core import caching

from ebmcourse.gtn.warm import warm_up


class _ReadOnlyLocator(caching.InTreeCacheLocator):
    """The cache folder next to the source, whether or not it can be written."""

    def ensure_cache_path(self) -> None:
        if not os.path.isdir(self.get_cache_path()):
            raise OSError("there is no cache folder")


place = caching.CacheImpl._locator_classes.index(caching.InTreeCacheLocator) + 1
caching.CacheImpl._locator_classes.insert(place, _ReadOnlyLocator)

from ebmcourse import lattice  # noqa: E402  (its kernels look for their cache when they are imported)

warm_up()
lattice.viterbi(torch.zeros(1, 2, 2), torch.zeros(1, 1, dtype=torch.long))
