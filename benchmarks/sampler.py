"""Langevin steps per second of several samplers with the same network, ShallowCNN with 42 classes and images of 56×56.

`python -m benchmarks sampler`. The peers are the loops of the exercise's template and of the tutorial, as published but
written anew; `torchebm`, if it is installed (the project does not need it: `pip install --no-deps torchebm`); and the
readable `MCMCSampler` of the reference solution.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path
from time import process_time

import torch
from torch import Tensor, nn

from benchmarks.timing import print_table, row
from ebmcourse.sampling import FastSampler, native_dtype

sys.path.insert(0, str(Path(__file__).parents[1] / "solutions" / "jem"))
from ex_main import MCMCSampler
from ex_model import ShallowCNN

SHAPE, CLASSES, STEPS = (1, 56, 56), 42, 10


class ListSampler:
    """The loop that circulates: noise in place, `backward`, a buffer that is a list of images on the CPU.

    per_class: one list per class and fresh chains from Gaussian noise, as in the exercise's template; otherwise one
    list and uniform noise, as in the tutorial.
    """

    def __init__(self, model: nn.Module, per_class: bool, max_len: int = 256) -> None:
        self.model, self.per_class, self.max_len = model, per_class, max_len
        self.lists: dict[int, list[Tensor]] = {}

    def fresh(self) -> Tensor:
        return 0.01 * torch.randn(1, *SHAPE) if self.per_class else 2 * torch.rand(1, *SHAPE) - 1

    def synthesize_samples(self, labels: Tensor, steps: int) -> Tensor:
        keys = [int(label) if self.per_class else 0 for label in labels]
        starts = [
            random.choice(self.lists[key]) if key in self.lists and random.random() > 0.05 else self.fresh()
            for key in keys
        ]
        x = self.run(torch.cat(starts), labels if self.per_class else None, steps)
        for key, image in zip(keys, x.cpu().chunk(len(labels)), strict=True):
            self.lists[key] = [image, *self.lists.get(key, [])][: self.max_len]
        return x

    def run(self, x: Tensor, labels: Tensor | None, steps: int) -> Tensor:
        self.model.eval()
        for parameter in self.model.parameters():
            parameter.requires_grad = False
        x.requires_grad = True
        noise = torch.randn_like(x)
        for _ in range(steps):
            noise.normal_(0, 0.005)
            x.data.add_(noise).clamp_(-1, 1)
            energy = -self.model(x, labels)
            energy.sum().backward()
            assert x.grad is not None
            x.grad.clamp_(-0.03, 0.03)
            x.data.add_(-10 * x.grad).clamp_(-1, 1)
            x.grad.detach_().zero_()
        for parameter in self.model.parameters():
            parameter.requires_grad = True
        self.model.train()
        return x.detach()


def torchebm_loop(model: nn.Module) -> Callable[[Tensor, int], Tensor] | None:
    """Return a function that runs torchebm's Langevin sampler, or None if it is not installed."""
    try:
        from torchebm.core import BaseModel
        from torchebm.samplers import LangevinDynamics
    except ImportError:
        return None

    class Energy(BaseModel):
        def __init__(self) -> None:
            super().__init__()
            self.network = model

        def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
            return -self.network(x, y)

    sampler = LangevinDynamics(Energy(), step_size=10.0, noise_scale=0.005, clamp=(-1.0, 1.0), device="cpu")
    return lambda labels, steps: sampler.sample(0.01 * torch.randn(len(labels), *SHAPE), n_steps=steps, y=labels)


def networks() -> tuple[nn.Module, nn.Module]:
    """The same network twice: in the layout channels_last, as in the reference, and in torch's default layout."""
    torch.manual_seed(0)
    ours, plain = ShallowCNN(num_classes=CLASSES), ShallowCNN(num_classes=CLASSES)
    plain.load_state_dict(ours.state_dict())
    return ours, plain.to(memory_format=torch.contiguous_format)


def steps_per_second(loops: dict[str, Callable[[Tensor, int], Tensor]], batch: int, rounds: int) -> dict[str, float]:
    """The most steps per second of CPU time of each loop, measured in turns."""
    labels = torch.randint(0, CLASSES, (batch,))
    least = dict.fromkeys(loops, float("inf"))
    for _ in range(rounds):
        for name, loop in loops.items():
            start = process_time()
            loop(labels, STEPS)
            least[name] = min(least[name], process_time() - start)
    return {name: STEPS / seconds for name, seconds in least.items()}


def run(quick: bool = False) -> list[dict]:
    """All rows, measured on one thread; the times are milliseconds of one step."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = []
    try:
        for batch in (32,) if quick else (32, 64, 128):
            ours, plain = networks()
            fast = {torch.float32: FastSampler(ours, SHAPE, batch, CLASSES, 16, torch.float32)}
            native = native_dtype(torch.device("cpu"))
            fast.setdefault(native, FastSampler(ours, SHAPE, batch, CLASSES, 16, native))
            peers = {
                "the template's loop": ListSampler(plain, per_class=True).synthesize_samples,
                "the tutorial's loop": ListSampler(plain, per_class=False).synthesize_samples,
                "torchebm": torchebm_loop(plain),
                "our readable sampler": MCMCSampler(ours, SHAPE, batch, CLASSES, 16).synthesize_samples,
            }
            loops = {name: loop for name, loop in peers.items() if loop is not None}
            own = {str(dtype).removeprefix("torch."): sampler.synthesize_samples for dtype, sampler in fast.items()}
            speed = steps_per_second(loops | own, batch, 2 if quick else 6)
            for dtype in own:
                for peer in loops:
                    rows.append(row(f"a step of {batch} chains, {dtype}", 1e3 / speed[dtype], peer, 1e3 / speed[peer]))
    finally:
        torch.set_num_threads(threads)
    return rows


if __name__ == "__main__":
    print_table("Langevin steps on one thread", run())
    if torchebm_loop(networks()[0]) is None:
        print("torchebm was not measured, because it is not installed.")
