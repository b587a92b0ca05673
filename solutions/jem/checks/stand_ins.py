"""Stand-ins for code that a check is not about, so that a mistake in one exercise does not cost points in another.

They run in the student's process, so they contain no part of the reference solution: they return given tensors, or use
a formula that is part of the exercise. A student's program need not have the methods of the template, so each
observation with stand-ins for these methods is also made without them.
"""

from collections import deque
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from ebmcourse.checking import probe, require

BATCH_SIZE = 5  # of the hyperparameters; no batch in the checks has as many images


@probe
def held(value, depth=0):
    """The total size of all tensors and arrays that can be reached from `value`, except those of the network."""
    if isinstance(value, torch.Tensor):
        return value.numel()
    if isinstance(value, np.ndarray):
        return value.size
    if depth > 5 or isinstance(value, Slope):
        return 0
    items = list(value.values()) if isinstance(value, dict) else []
    items += value if isinstance(value, list | tuple | set | deque) else []
    items += vars(value).values() if hasattr(value, "__dict__") else []
    return sum(held(item, depth + 1) for item in items)


@probe
def slope_of(loss, parameter):
    """The derivative of a loss with respect to a parameter; zero if the loss does not depend on it."""
    if not (isinstance(loss, torch.Tensor) and loss.requires_grad and loss.dim() == 0):
        return torch.zeros_like(parameter)
    (slope,) = torch.autograd.grad(loss, parameter, allow_unused=True)
    return torch.zeros_like(parameter) if slope is None else slope


@probe
class Slope(nn.Module):
    """f(x, y) = w · Σ (slopes[y] · x + 0 · x²), whose gradient is slopes[y] for w = 1; f(x) uses the last slope.

    slopes: (K + 1, C, H, W). Because of the square, a gradient that is not detached has a graph, as with any network.
    It records for each call whether gradients were enabled, whether any module was in train mode, whether the parameter
    was frozen, and whether all parameters were, also those of modules that are added to it.
    """

    def __init__(self, slopes):
        super().__init__()
        self.register_buffer("slopes", slopes)
        self.w = nn.Parameter(torch.ones(()))
        self.gradients_on, self.in_training, self.is_frozen, self.all_frozen = [], [], [], []

    def get_logits(self, x):
        return self.w * torch.einsum("bchw,kchw->bk", x, self.slopes[:-1])

    def forward(self, x, y=None):
        self.gradients_on.append(bool(x.requires_grad and torch.is_grad_enabled()))
        self.in_training.append(any(module.training for module in self.modules()))
        self.is_frozen.append(not self.w.requires_grad)
        self.all_frozen.append(not any(parameter.requires_grad for parameter in self.parameters()))
        slopes = self.slopes[-1:].expand(len(x), -1, -1, -1) if y is None else self.slopes[y]
        return self.w * (slopes * x + 0 * x * x).flatten(1).sum(1)


@probe
class Lines(nn.Module):
    """Logits w · (slope · mean(x) + offset), a linear function of the mean of the image for each class.

    lines: (2, K), the slopes and offsets. f is computed from the logits as in the exercise. It records whether it was
    ever called with labels.
    """

    def __init__(self, lines):
        super().__init__()
        self.register_buffer("lines", lines)
        self.w = nn.Parameter(torch.ones(()))
        self.has_labels = False

    def get_logits(self, x):
        return self.w * (self.lines[0] * x.flatten(1).mean(1, keepdim=True) + self.lines[1])

    def forward(self, x, y=None):
        if y is None:
            return torch.logsumexp(self.get_logits(x), 1)
        self.has_labels = True
        return self.w * (self.lines[0, y] * x.flatten(1).mean(1) + self.lines[1, y])


@probe
class GivenSampler:
    """Returns the given chains, with labels as many as there are labels, and records the arguments of each call.

    If every step is asked for, these are the chains after the last step; before, they are nearer to 0.
    """

    def __init__(self, chains):
        self.chains = chains
        self.labels, self.steps, self.step_sizes = [], [], []
        self.buffer = chains

    def synthesize_samples(self, clabel=None, steps=60, step_size=10, return_img_per_step=False):
        self.labels.append(torch.full((len(self.chains),), -1) if clabel is None else clabel.detach().clone())
        self.steps.append(float(steps))
        self.step_sizes.append(float(step_size))
        chains = self.chains.clone() if clabel is None else self.chains[: len(clabel)].clone()
        way = torch.arange(1, steps + 1).view(-1, 1, 1, 1, 1) / steps
        return way * chains if return_img_per_step else chains


@probe
def isolate(sampler, start, *, keep=(), gradient=None):
    """Replace the methods of `sampler` that the template has by stand-ins, except those named in `keep`."""
    replacements = {
        "initial_chains": lambda *args, **kwargs: (start.clone(), None),
        "store": lambda *args, **kwargs: None,
        "sampling_mode": nullcontext,
        "gradient": lambda x, *args, **kwargs: torch.zeros_like(x) if gradient is None else gradient.expand_as(x),
        "update": lambda x, *args, **kwargs: x,
    }
    for name, replacement in replacements.items():
        if name not in keep and hasattr(type(sampler), name):
            setattr(sampler, name, replacement)
    return sampler


@probe
def jem(student, cnn=None, sampler=None, *, epoch=0, shape=(1, 8, 8), **options):
    """The student's JEM with the given network and sampler instead of its own. `logged` returns what it logs."""
    defaults = dict(num_classes=3, cbuffer_size=8, hidden_features=2)
    model = student.ex_main.JEM(shape, BATCH_SIZE, **(defaults | options))
    if epoch:
        model.trainer = SimpleNamespace(current_epoch=epoch, global_step=0, logger=None)
    model.records, model.length = {}, 1  # what is logged, and the number of images in the batch

    def log(name, value, *args, **kwargs):
        value = value if hasattr(value, "compute") else torch.as_tensor(value).detach().float()
        model.records.setdefault(name, []).append((value, model.length))

    model.log = log
    model.log_dict = lambda values, *args, **kwargs: [log(name, value) for name, value in values.items()]
    if cnn is not None:
        model.cnn = cnn
    if sampler is not None:
        model.sampler = sampler
    return model


@probe
def logged(model):
    """The values of an epoch as Lightning computes them: a metric at the end, otherwise the mean over all images."""

    def value_of(records):
        if hasattr(records[-1][0], "compute"):
            require(
                getattr(records[-1][0], "update_called", True),
                "A metric is logged that is never updated. Update self.average_precision with each batch.",
            )
            return records[-1][0].compute().detach().float()
        return sum(value * length for value, length in records) / sum(length for _, length in records)

    return {name: value_of(records) for name, records in model.records.items()}
