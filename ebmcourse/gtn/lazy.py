"""`kernels`, the compiled inner loops, imported when one of them is first used."""

from typing import Any


class _Kernels:
    def __getattr__(self, name: str) -> Any:
        from . import kernels as module

        # Kept as plain attributes, so that later calls do not come through here.
        self.__dict__.update({key: value for key, value in vars(module).items() if not key.startswith("_")})
        return getattr(module, name)


kernels = _Kernels()
