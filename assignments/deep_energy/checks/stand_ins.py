"""Stand-ins for what a check is not about, so that a mistake in one exercise does not cost points in another.

They run in the student's process and are released, so none is the function that it replaces: they return given tensors
or compute something else. A stand-in is sent to a submission only with a check of a later exercise than the one it
replaces.
"""

from contextlib import contextmanager

import torch
from torch import nn

from ebmcourse.checking import probe, require


@probe
@contextmanager
def replaced(module, **stand_ins):
    """Replace the module's names by stand-ins, inside a `with` block."""
    own = {name: vars(module)[name] for name in stand_ins if name in vars(module)}
    vars(module).update(stand_ins)
    try:
        yield
    finally:
        for name in stand_ins:
            vars(module).pop(name, None)
        vars(module).update(own)


@probe
class Hill(nn.Module):
    """f(x) = -½ w Σ steep · (x - top)², with the gradient steep · (top - x) for w = 1; steep, top: (C, H, W).

    It has a frozen parameter and a part in another mode. For each call, it records whether the image requires gradients
    and whether the parameter does, its mode and that of its part.
    """

    def __init__(self, steep, top):
        super().__init__()
        self.register_buffer("steep", steep)
        self.register_buffer("top", top)
        self.w = nn.Parameter(torch.ones(()))
        self.other = nn.Parameter(torch.ones(()), requires_grad=False)
        self.part = nn.Identity()
        self.calls = []

    def forward(self, x):
        on = bool(x.requires_grad and torch.is_grad_enabled())
        self.calls.append([on, not self.w.requires_grad, not self.training, not self.part.training])
        return -0.5 * self.w * (self.steep * (x - self.top).square()).flatten(1).sum(1)


@probe
class Levels(nn.Module):
    """f(x) = w · (c[0] + c[1] · mean(x) + c[2] · mean(x²)), and 1 more in train mode.

    It records the images of each call, whether gradients were enabled, and the mode.
    """

    def __init__(self, c, penalty=1.0):
        super().__init__()
        self.register_buffer("c", c)
        self.w = nn.Parameter(torch.ones(()))
        self.penalty = penalty
        self.images, self.gradients_on, self.modes = [], [], []

    def forward(self, x):
        self.images.append(x.detach().clone())
        self.gradients_on.append(torch.is_grad_enabled())
        self.modes.append(self.training)
        flat = x.flatten(1)
        f = self.c[0] + self.c[1] * flat.mean(1) + self.c[2] * flat.square().mean(1)
        return self.w * f + self.penalty * self.training


@probe
class OnMeta(nn.Module):
    """f of images on the device `meta`: it exists on every machine, and its tensors have no values.

    It records the devices of the images.
    """

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros((), device="meta"))
        self.devices = []

    def forward(self, x):
        self.devices.append(x.device.type)
        return self.w * x.flatten(1).sum(1)

    def misses(self, attempt):
        """Whether the attempt has tensors on another device. It may also fail because tensors have no values."""
        try:
            attempt()
        except Exception as error:
            if "expected device" in str(error) or "same device" in str(error):  # as on `meta`, or as on a GPU
                return True
        return "cpu" in self.devices


@probe
class GivenSampler:
    """Returns the given images, and records the arguments of each call."""

    def __init__(self, images):
        self.given = images
        self.examples = images
        self.steps, self.step_sizes = [], []

    def sample_new_exmps(self, steps=60, step_size=10):
        self.steps.append(float(steps))
        self.step_sizes.append(float(step_size))
        return self.given.clone()

    def start_images(self, *args):
        require(False, "`start_images` only says where chains start. Call self.sampler.sample_new_exmps for samples.")


@probe
def energy_model(student, cnn, sampler, **options):
    """The student's DeepEnergyModel with the given network and sampler, and a record of what it logs."""
    module = student.deep_energy
    with replaced(module, CNNModel=lambda *args, **kwargs: cnn, Sampler=lambda *args, **kwargs: sampler):
        model = module.DeepEnergyModel((1, 8, 8), 4, **options)
    model.cnn, model.sampler = cnn, sampler
    model.records = {}

    def log(name, value, *args, **kwargs):
        model.records[name] = torch.as_tensor(value).detach().float()

    model.log = log
    model.log_dict = lambda values, *args, **kwargs: [log(name, value) for name, value in values.items()]
    return model


@probe
def marked(marks, states):
    """`marks` (N,) where the states are false and twice as large where they are true.

    What is sent is different for each seed in this way, so that it cannot be known in advance.
    """
    return marks * (1 + torch.tensor([bool(state) for state in states]).float())


@probe
def other_frames(order):
    """A stand-in for `pick_frames` that is no solution of 5a: the first of the entries whose numbers are in `order`."""

    def pick_frames(imgs_per_step, vis_steps):
        chosen = order[: vis_steps + 1]
        return imgs_per_step[chosen], (chosen + 1).tolist()

    return pick_frames
