"""`kernels`, the compiled inner loops, imported when one of them is first used."""

from typing import Any


class _Kernels:
    def __getattr__(self, name: str) -> Any:
        from . import kernels as module

        # As plain attributes, so that later calls do not need __getattr__.
        self.__dict__.update({key: value for key, value in vars(module).items() if not key.startswith("_")})
        return getattr(module, name)


kernels = _Kernels()
