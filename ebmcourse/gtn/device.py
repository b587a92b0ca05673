"""The devices that code for later versions of gtn names. Graphs of this engine are always on the CPU."""

from dataclasses import dataclass
from enum import Enum

import numpy as np


class DeviceType(Enum):
    CPU = "cpu"
    CUDA = "cuda"


CPU, CUDA = DeviceType.CPU, DeviceType.CUDA


@dataclass(frozen=True)
class Device:
    """A device: `Device(gtn.CPU)`, or the GPU of number `index`. ValueError for another type."""

    type: DeviceType
    index: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.type, DeviceType):
            raise ValueError(f"A device is of type gtn.CPU or gtn.CUDA, not {self.type!r}.")


def wants_grad(device: Device | bool, calc_grad: bool) -> bool:
    """Whether a new graph needs a gradient, from the last two arguments of `linear_graph` and `scalar_graph`.

    gtn 0.0.0 has calc_grad in the place where later versions have the device, so `device` may be either.
    ValueError for a GPU, and for what is neither.
    """
    if isinstance(device, Device):
        if device.type is not CPU:
            raise ValueError("Graphs are always on the CPU: give gtn.Device(gtn.CPU), or no device.")
        return bool(calc_grad)
    if not isinstance(device, int | np.bool_):
        raise ValueError(
            f"The device must be a gtn.Device (or True or False: calc_grad), not a {type(device).__name__}."
        )
    return bool(device)
