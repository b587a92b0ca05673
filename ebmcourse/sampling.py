"""A fast Langevin sampler, which draws the same chains as the samplers that the assignments ask for.

A Langevin step of a chain x is, with f = -E,

    x ← clip(x + step_size · clamp(∂f(x)/∂x) + noise)

Four things make it fast. It works with a frozen copy of the network, so no gradient of a parameter is computed. In this
copy, the first convolution is replaced, because the gradient with respect to an image of one channel is slow. The copy
computes in bfloat16 where the processor does so natively, while the images stay in float32. On a GPU, all steps are
one CUDA graph.
"""

import copy
from collections.abc import Callable
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STEP_SIZE = 10.0
NOISE_STD = 0.005
GRADIENT_CLAMP = 0.03
START_STD = 0.01
FRESH_SHARE = 0.05

Network = Callable[..., Tensor]  # network(x) or network(x, y) -> f = -E, one number per image


def native_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16 if the device computes convolutions faster in bfloat16 than in float32, else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float32
    has_instructions = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return torch.bfloat16 if device.type == "cpu" and has_instructions else torch.float32


class BlockConv(nn.Module):
    """A convolution of one channel with stride 2, computed as a convolution of the blocks of 2×2 pixels with stride 1.

    The output is the same, but on a CPU, the gradient with respect to the image takes less than half of the time. The
    height and the width of the images must be even.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        channels, _, height, width = conv.weight.shape
        rows, columns = (height + 1) // 2, (width + 1) // 2  # the size of the kernel in blocks
        kernel = F.pad(conv.weight.detach(), (0, 2 * columns - width, 0, 2 * rows - height))
        kernel = kernel.reshape(channels, rows, 2, columns, 2).permute(0, 2, 4, 1, 3).flatten(1, 2)
        self.weight = nn.Parameter(kernel.contiguous(memory_format=torch.channels_last))
        self.bias = conv.bias
        self.padding = [int(size) // 2 for size in conv.padding]

    @staticmethod
    def can_replace(module: nn.Module) -> TypeGuard[nn.Conv2d]:
        return (
            isinstance(module, nn.Conv2d)
            and (module.in_channels, module.stride, module.dilation) == (1, (2, 2), (1, 1))
            and module.padding_mode == "zeros"
            and not isinstance(module.padding, str)
            and all(size % 2 == 0 for size in module.padding)
        )

    def forward(self, x: Tensor) -> Tensor:
        blocks = F.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last)
        return F.conv2d(blocks, self.weight, self.bias, padding=self.padding)


def frozen_copy(model: nn.Module, img_shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return a copy of the network for sampling: in eval mode, without gradients of parameters, in `dtype`.

    img_shape: the shape (C, H, W) of an image.
    """
    frozen = copy.deepcopy(model).eval().requires_grad_(False)
    if next(frozen.parameters(), torch.empty(0)).device.type == "cpu" and all(size % 2 == 0 for size in img_shape[1:]):
        for parent in list(frozen.modules()):
            for name, child in parent.named_children():
                if BlockConv.can_replace(child):
                    setattr(parent, name, BlockConv(child).requires_grad_(False))
    return frozen.to(dtype).to(memory_format=torch.channels_last)


def langevin_step(network: Network, x: Tensor, labels: Tensor | None, step_size: float, dtype: torch.dtype) -> Tensor:
    """Return the chains after one step: x (B, C, H, W) in float32 -> (B, C, H, W), detached."""
    pixels = x.to(dtype).detach().requires_grad_()
    f = network(pixels) if labels is None else network(pixels, labels)
    (gradient,) = torch.autograd.grad(f.sum(), pixels)
    x = x.add(gradient.to(x.dtype).clamp_(-GRADIENT_CLAMP, GRADIENT_CLAMP), alpha=step_size)
    return x.add_(torch.randn_like(x), alpha=NOISE_STD).clamp_(-1, 1)


@torch.enable_grad()
def langevin(
    model: nn.Module,
    x: Tensor,
    labels: Tensor | None = None,
    steps: int = 60,
    step_size: float = STEP_SIZE,
    dtype: torch.dtype | None = None,
    every_step: bool = False,
) -> Tensor:
    """Continue chains by `steps` Langevin steps: (B, C, H, W) -> (B, C, H, W), or (steps, B, C, H, W).

    model: called as `model(x)` or, if there are labels, `model(x, labels)` -> f = -E. It is not changed.
    x: the chains in [-1, 1], float32. labels: their classes (B,), or None.
    dtype: of the network during sampling; None means `native_dtype`.
    every_step: return the chains after each step.
    """
    dtype = dtype or native_dtype(x.device)
    network = frozen_copy(model, tuple(x.shape[1:]), dtype)
    x, history = x.detach(), []
    for _ in range(steps):
        x = langevin_step(network, x, labels, step_size, dtype)
        if every_step:
            history.append(x)
    return torch.stack(history) if every_step else x


class CapturedChains:
    """The steps of `langevin` as one CUDA graph, for chains and labels of fixed shapes.

    A graph reads and writes the same memory in each run, so the parameters, the chains and the labels are copied there.
    """

    def __init__(
        self, model: nn.Module, x: Tensor, labels: Tensor | None, steps: int, step_size: float, dtype: torch.dtype
    ) -> None:
        self.network = frozen_copy(model, tuple(x.shape[1:]), dtype)
        self.x, self.labels = x.clone(), None if labels is None else labels.clone()
        self.graph = torch.cuda.CUDAGraph()

        def run(count: int) -> Tensor:
            chains = self.x
            for _ in range(count):
                chains = langevin_step(self.network, chains, self.labels, step_size, dtype)
            return chains

        warm_up = torch.cuda.Stream()
        warm_up.wait_stream(torch.cuda.current_stream())
        with torch.enable_grad(), torch.cuda.stream(warm_up):
            run(3)
        torch.cuda.current_stream().wait_stream(warm_up)
        with torch.enable_grad(), torch.cuda.graph(self.graph):
            self.result = run(steps)

    def __call__(self, model: nn.Module, x: Tensor, labels: Tensor | None) -> Tensor:
        with torch.no_grad():
            for mine, new in zip(self.network.state_dict().values(), model.state_dict().values(), strict=True):
                mine.copy_(new)
            self.x.copy_(x)
            if self.labels is not None and labels is not None:
                self.labels.copy_(labels)
        self.graph.replay()
        return self.result.clone()


class FastSampler:
    """Draws images from the model by Langevin dynamics with a replay buffer, with the interface of `MCMCSampler`.

    model: a module that is called as `model(x)` or `model(x, y)` -> f = -E (B,).
    img_shape: the shape (C, H, W) of an image.
    sample_size: the number of chains if no labels are given.
    num_classes: the number of classes K; 0 if there are no labels.
    cbuffer_size: the number of chains per class in the buffer.
    dtype: of the network during sampling; None means `native_dtype`.
    start: makes fresh chains of the shape (B, C, H, W); by default, from N(0, START_STD²).
    """

    def __init__(
        self,
        model: nn.Module,
        img_shape: tuple[int, ...],
        sample_size: int,
        num_classes: int = 0,
        cbuffer_size: int = 256,
        dtype: torch.dtype | None = None,
        start: Callable[..., Tensor] | None = None,
    ) -> None:
        self.model, self.img_shape = model, tuple(img_shape)
        self.sample_size, self.num_classes, self.cbuffer_size = sample_size, num_classes, cbuffer_size
        self.dtype = dtype
        self.start = start or (lambda *shape, device: START_STD * torch.randn(*shape, device=device))
        self.graphs: dict[Any, CapturedChains] = {}
        rows = self.num_classes + 1
        fresh = self.start(rows * cbuffer_size, *self.img_shape, device=self.device)
        self.chains = fresh.unflatten(0, (rows, cbuffer_size))

    @property
    def buffer(self) -> Tensor:
        """The chains, (K + 1, cbuffer_size, C, H, W). Row y is for class y, the last row for chains without a class.

        Chains that have not started are fresh ones. A buffer of another sampler, from a checkpoint for example, is
        ignored.
        """
        return self.chains

    @buffer.setter
    def buffer(self, buffer: Any) -> None:
        if self.has_format(buffer):
            self.chains = buffer.to(self.device)

    def has_format(self, buffer: Any) -> bool:
        """Tell whether `buffer` may be a buffer of this sampler."""
        return isinstance(buffer, Tensor) and buffer.shape == self.chains.shape

    @property
    def device(self) -> torch.device:
        """The device of the model; the CPU if the model has no parameters."""
        return next(self.model.parameters(), torch.empty(0)).device

    def run(self, x: Tensor, labels: Tensor | None, steps: int, step_size: float, every_step: bool) -> Tensor:
        """Continue chains, on a GPU with a CUDA graph."""
        if x.device.type != "cuda" or every_step or steps < 2:
            return langevin(self.model, x, labels, steps, step_size, self.dtype, every_step)
        key = tuple(x.shape), labels is None, steps, step_size
        if key not in self.graphs:
            dtype = self.dtype or native_dtype(x.device)
            self.graphs = {key: CapturedChains(self.model, x, labels, steps, step_size, dtype)}
        return self.graphs[key](self.model, x, labels)

    def synthesize_samples(
        self,
        clabel: Tensor | None = None,
        steps: int = 60,
        step_size: float = STEP_SIZE,
        return_img_per_step: bool = False,
    ) -> Tensor:
        """Continue chains of the buffer, or start fresh ones, by `steps` steps, and write them to the buffer.

        clabel: the classes (B,) of the chains, or None for `sample_size` chains without a class.
        Returns the chains after the last step, (B, C, H, W), or after each step, (steps, B, C, H, W), if
        `return_img_per_step` is set; detached, on the model's device.
        """
        labels = None if clabel is None else clabel.to(self.device)
        count = self.sample_size if labels is None else len(labels)
        rows = torch.full((count,), self.num_classes, device=self.device) if labels is None else labels
        columns = torch.randint(self.cbuffer_size, (count,), device=self.device)
        self.chains = self.chains.to(self.device)
        fresh = self.start(count, *self.img_shape, device=self.device)
        starts_fresh = (torch.rand(count, device=self.device) < FRESH_SHARE)[:, None, None, None]
        x = torch.where(starts_fresh, fresh, self.chains[rows, columns])
        chains = self.run(x, labels, steps, step_size, return_img_per_step)
        last = chains[-1] if return_img_per_step else chains
        finite = last.isfinite().flatten(1).all(dim=1)[:, None, None, None]
        self.chains[rows, columns] = torch.where(finite, last, fresh)
        return chains
