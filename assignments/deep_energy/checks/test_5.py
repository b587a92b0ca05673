"""5: frames and callbacks. A stand-in for the trainer calls the hooks of a callback as Lightning 2 does."""

from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import torch
from pytorch_lightning.callbacks import Callback
from stand_ins import Levels, OnMeta, other_frames, replaced
from torch import nn
from uniform import judge_uniform

from ebmcourse.checking import (
    Mismatch,
    assert_close,
    assert_either_way,
    difference,
    exercise,
    fail,
    inputs,
    probe,
    require,
    ways,
)

SHAPE = (1, 4, 6)
NONE = 9.0  # in the place of the mean of no pixels
FRAMES = ((24, 4), (30, 5))  # numbers of steps, and how many are shown
HOOKS = ("on_train_epoch_start", "on_validation_epoch_end", "on_validation_end", "on_train_epoch_end")
NEVER = (
    "No picture is recorded after a training epoch. Lightning 2 calls on_train_epoch_end(trainer, pl_module); it no "
    "longer calls on_epoch_end."
)


@inputs
def marks(rng):
    """A value for each step and chain."""
    return torch.from_numpy(rng.permutation(np.linspace(-0.9, 0.9, 60)).reshape(30, 2).astype(np.float32))


@probe
def frames(student, marks, count, vis_steps):
    """The values of the frames, (S, B), their steps, and their shape."""
    images = marks[:count, :, None, None, None].expand(-1, -1, *SHAPE).clone()
    found, steps = student.deep_energy.pick_frames(images, vis_steps)
    require(isinstance(found, torch.Tensor) and found.dim() == 5, "The frames must have the shape (S, B, C, H, W).")
    return {"frames": found[:, :, 0, 0, 0], "steps": torch.as_tensor([int(step) for step in steps])}


@inputs
def wrong_frames(_, marks):
    """What known mistakes return in the two calls of the public check."""


def judge_frames(got, want, wrong):
    assert_close(got["frames"], want["frames"], mistakes=wrong["frames"])
    assert_close(got["steps"], want["steps"], mistakes=wrong["steps"])


@exercise("5a", points=0.5, public=True, hint="The steps 1, n, 2n, …, and step s is imgs_per_step[s - 1].")
def test_first_and_every_nth_frame(run, marks, wrong_frames):
    """`pick_frames` returns the images after the steps 1, n, 2n, …, and these steps."""
    for (count, vis_steps), wrong in zip(FRAMES, wrong_frames, strict=True):
        judge_frames(*run(frames, marks, count, vis_steps), wrong)


@probe
class Lightning:
    """Calls the hooks of a callback in `epochs` epochs, and records what it shows and logs."""

    def __init__(self, callback, module, epochs):
        self.callback, self.module, self.epochs = callback, module, epochs
        self.pictures, self.values = [], []
        self.current_epoch = self.global_step = 0
        self.max_epochs, self.sanity_checking = epochs, False
        experiment = SimpleNamespace(add_scalar=lambda name, value, *args, **kwargs: self.log(name, value))
        self.logger = SimpleNamespace(
            experiment=experiment, log_metrics=lambda values, *args, **kwargs: [self.log(*v) for v in values.items()]
        )
        module.log = self.log
        module.log_dict = lambda values, *args, **kwargs: [self.log(*item) for item in values.items()]
        module.trainer = self

    def log(self, name, value, *args, **kwargs):
        self.values.append((self.current_epoch, str(name), torch.as_tensor(value).detach().float()))

    def record_images(self, trainer, name, images, columns):
        require(trainer is self, "The first argument of record_images is the trainer.")
        require(isinstance(images, torch.Tensor) and images.dim() == 4, "record_images needs images (N, 1, H, W).")
        require(not images.requires_grad, "The images that are recorded are not detached.")
        self.pictures.append((self.current_epoch, str(name), images.detach().float().cpu(), int(columns)))

    def fit(self, hooks, module, base):
        """Run all epochs. Hooks that the callback does not define do nothing."""
        with replaced(module, record_images=self.record_images):
            for epoch in range(self.epochs):
                self.current_epoch = epoch
                for hook in hooks:
                    method = getattr(self.callback, hook, None)
                    if method is not None and getattr(type(self.callback), hook, None) is not getattr(base, hook, None):
                        method(self, self.module)
        return self


@probe
def a_module(cnn, examples=None):
    """In the place of a DeepEnergyModel. By default, the images of the buffer are equal."""
    examples = torch.full((40, *SHAPE), 0.5) if examples is None else examples
    hparams = type("Hparams", (dict,), {"__getattr__": dict.__getitem__})(img_shape=SHAPE)
    module = nn.Module()
    module.cnn, module.hparams, module.device = cnn, hparams, next(cnn.parameters()).device

    def start_images(*args):
        require(False, "A callback does not call `start_images`: its docstring says which images it takes.")

    module.sampler = SimpleNamespace(examples=examples, sample_new_exmps=None, start_images=start_images)
    module.forward = cnn.forward
    return module.train()


@inputs
def c(rng):
    return torch.from_numpy(rng.uniform(0.5, 1.5, 3).astype(np.float32))


@inputs
def levels(rng):
    """The value of each step and chain of a generation: 13 steps of 3 chains."""
    return torch.from_numpy(rng.permutation(np.linspace(-0.9, 0.9, 39)).reshape(13, 3).astype(np.float32))


@inputs
def order(rng):
    """The numbers of the entries that the stand-in for `pick_frames` takes, in order."""
    return torch.from_numpy(rng.permutation(13))


@probe
class Generation:
    """In the place of `generate_samples`: returns images of the given levels, and records its arguments."""

    def __init__(self, levels, model):
        self.levels, self.model = levels, model
        self.starts, self.asked, self.devices = [], [], []

    def __call__(self, model, inp_imgs, steps=60, step_size=10.0, return_img_per_step=False):
        self.devices.append(inp_imgs.device.type)
        self.starts.append(inp_imgs.detach().clone())
        self.asked.append([float(steps), float(step_size), float(model is self.model)])
        images = self.levels[:, :, None, None, None].expand(-1, -1, *SHAPE).clone()
        return images if return_img_per_step else images[-1]

    def stand_ins(self, module):
        """For `replaced`: the functions and the class of the module that generate images."""
        own_class = type("Sampler", (module.Sampler,), {"generate_samples": staticmethod(self)})
        return {"generate_samples": self, "Sampler": own_class}


@probe
def generations(student, levels, order, c, vis_steps, every_n_epochs, epochs):
    """The pictures of GenerateCallback: values of the images, names, columns and epochs.

    They are made by the program as it is, and with a stand-in for `pick_frames`.
    """
    module, (count, chains) = student.deep_energy, levels.shape

    def attempt(**stand_ins):
        pl_module = a_module(Levels(c))
        callback = module.GenerateCallback(
            batch_size=chains, vis_steps=vis_steps, num_steps=count, every_n_epochs=every_n_epochs
        )
        with replaced(module, **stand_ins, **Generation(levels, pl_module.cnn).stand_ins(module)):
            pictures = Lightning(callback, pl_module, epochs).fit(HOOKS, module, Callback).pictures
        return {
            "images": [images[:, 0, 0, 0] for _, _, images, _ in pictures],
            "names": [name for _, name, _, _ in pictures],
            "columns": [columns for _, _, _, columns in pictures],
            "epochs": [epoch for epoch, _, _, _ in pictures],
        }

    return ways(isolated=lambda: attempt(pick_frames=other_frames(order)), whole=attempt)


@probe
def generated(student, levels, c, times, training):
    """What `generate_imgs` returns, what its chains started from in several calls, and the mode of the module."""
    module, (count, chains) = student.deep_energy, levels.shape
    on_meta = Generation(levels, None)
    with suppress(Exception), replaced(module, **on_meta.stand_ins(module)):
        module.GenerateCallback(batch_size=chains).generate_imgs(a_module(OnMeta()))
    require("cpu" not in on_meta.devices, "The chains do not start on the device of the module. Move the noise there.")
    pl_module = a_module(Levels(c)).train(training)
    callback = module.GenerateCallback(batch_size=chains, num_steps=count)
    generation = Generation(levels, pl_module.cnn)
    with replaced(module, **generation.stand_ins(module)):
        for _ in range(times):
            direct = callback.generate_imgs(pl_module)
    require(
        isinstance(direct, torch.Tensor) and direct.dim() == 5,
        "`generate_imgs` returns the images after each step, (num_steps, batch_size, C, H, W).",
    )
    require(
        all(start.shape[1:] == SHAPE for start in generation.starts),
        "The initial images have another shape than pl_module.hparams['img_shape'].",
    )
    return {
        "direct": direct[:, :, 0, 0, 0].detach(),
        "starts": torch.stack(generation.starts) if generation.starts else torch.zeros(0),
        "asked": torch.tensor(generation.asked),
        "training": c * (1 + torch.tensor([pl_module.training, pl_module.cnn.training, True]).float()),
    }


def judge_epochs(got, want, name, every, epochs):
    """Check when and under which name pictures were recorded."""
    if not got["epochs"]:
        fail(NEVER)
    if any(len(got[key]) != len(got["epochs"]) for key in ("images", "names", "columns")):
        raise Mismatch("The pictures could not be observed.")
    first = list(range(0, epochs, every))
    known = {
        "Pictures are recorded after every epoch. Use every_n_epochs.": list(range(epochs)),
        "The first picture comes after N epochs. It should come after epoch 0.": first[1:],
        "Pictures are recorded in the epochs N - 1, 2N - 1, … They should be 0, N, 2N, …": list(
            range(every - 1, epochs, every)
        ),
        "Pictures are recorded in all epochs but 0, N, 2N, …": [epoch for epoch in range(epochs) if epoch % every],
        "Only the picture of epoch 0 is recorded. Compare current_epoch % every_n_epochs with 0.": [0],
        "Several pictures are recorded in each epoch. Record one with all images.": (
            got["epochs"] if sorted(set(got["epochs"])) == first else None
        ),
        "`every_n_epochs` is ignored: it is always 5.": list(range(0, epochs, 5)),
    }
    if got["epochs"] != first:
        for sentence, wrong in known.items():
            if got["epochs"] == wrong:
                fail(sentence)
        fail("Pictures are recorded in other epochs than 0, N, 2N, …, N = every_n_epochs.")
    if any(each != name for each in got["names"]):
        fail(f'The name of the pictures must be "{name}".')


@exercise("5b", points=1, public=True, hint="In epochs 0, N, 2N, …: pick_frames of generate_imgs, then record_images.")
def test_pictures_of_a_generation(run, levels, order, c):
    """In the epochs 0, N, 2N, …, a picture has a row with the frames of each image."""
    got, want = run(generations, levels, order, c, 4, 3, 8)
    assert_either_way(got, want, lambda got, want: judge_pictures(got, want, levels))


def judge_pictures(got, want, levels):
    judge_epochs(got, want, "generation", 3, 8)
    right = want["images"][0]
    chosen = right.reshape(3, -1)
    for images, columns in zip(got["images"], got["columns"], strict=True):
        assert_close(
            images,
            right,
            mistakes={
                "The rows are the steps. Each row should show one image: transpose the first two axes.": (
                    chosen.T.flatten()
                ),
                "The axes are not transposed but reshaped: each row should show one image.": (
                    chosen.T.reshape(3, -1).T.flatten()
                ),
                "All steps are shown. Use pick_frames.": levels.T.flatten(),
                "All steps are shown, in rows of the same step. Use pick_frames, and a row for each image.": (
                    levels.flatten()
                ),
                "Only the last step is shown. Show the frames of pick_frames.": levels[-1],
                "Only the last frame is shown. Show all frames of pick_frames.": chosen[:, -1],
                "Only the first image is shown. There is a row for each image.": chosen[0],
            },
        )
        if columns != chosen.shape[1]:
            fail("The number of columns must be the number of frames, so that each image has its own row.")


def judge_generation(got, want, levels, c, training):
    assert_close(
        got["direct"],
        levels,
        mistakes={
            "Only the images after the last step are returned. Set return_img_per_step=True.": levels[-1:],
            "The axes of steps and chains are swapped.": levels.T,
        },
    )
    starts = got["starts"]
    if starts.numel() == 0:
        fail("The images are not generated with generate_samples.")
    if starts.dim() != 5 or starts.shape[1:] != (3, *SHAPE):
        fail("The number of initial images is not `batch_size`.")
    if got["asked"].shape[1:] != (3,) or (got["asked"][:, 2] != 1).any():
        fail("The model of the chains must be pl_module.cnn.")
    assert_close(
        got["asked"][0],
        torch.tensor([float(len(levels)), 10.0, 1.0]),
        mistakes={
            "`num_steps` is ignored: 60 steps are taken.": torch.tensor([60.0, 10.0, 1.0]),
            "`num_steps` is ignored: 256 steps are taken.": torch.tensor([256.0, 10.0, 1.0]),
            "`vis_steps` steps are taken, not `num_steps`.": torch.tensor([8.0, 10.0, 1.0]),
        },
    )
    if (starts == 0.5).all():
        fail("The chains start from images of the buffer. They should start from uniform noise.")
    if len(starts) > 1 and torch.equal(starts[0], starts[1]):
        fail("All generations start from the same noise. Draw new noise in each of them.")
    # 30 × 72 numbers: mean 0 ± 0.012, mean square 0.333 ± 0.006.
    judge_uniform(starts.mean().item(), starts.square().mean().item())
    if not starts.abs().max() <= 1 or starts.std((2, 3, 4)).min() < 0.1:
        fail("The chains must start from uniform noise in [-1, 1]: uniform_images.")
    if training and (got["training"].shape != c.shape or (got["training"] / c < 1.5).any()):
        fail("The module is left in eval mode. Restore the mode from before.")
    if not training and (got["training"] / c > 1.5)[:2].any():
        fail("The module is put into train mode, although it was in eval mode. Restore the mode from before.")
    assert_close(got["training"], want["training"])


@inputs
def examples(rng):
    """The value of each image in a buffer: 25, and all of them different."""
    values = np.linspace(-0.9, 0.9, 25) + rng.uniform(-0.03, 0.03, 25)
    return torch.from_numpy(rng.permutation(values).astype(np.float32))


@probe
def buffer_pictures(student, examples, c, num_imgs, every_n_epochs, epochs):
    """The pictures of SamplerCallback, and the buffer afterwards; the buffer is a tensor or a list of images."""
    module, hooks = student.deep_energy, HOOKS

    def attempt(is_list):
        images = examples[:, None, None, None].expand(-1, *SHAPE).clone()
        pl_module = a_module(Levels(c), list(images.split(1)) if is_list else images)
        callback = module.SamplerCallback(num_imgs=num_imgs, every_n_epochs=every_n_epochs)
        pictures = Lightning(callback, pl_module, epochs).fit(hooks, module, Callback).pictures
        kept = pl_module.sampler.examples
        return {
            "images": [images[:, 0, 0, 0] for _, _, images, _ in pictures],
            "names": [name for _, name, _, _ in pictures],
            "columns": [columns for _, _, _, columns in pictures],
            "epochs": [epoch for epoch, _, _, _ in pictures],
            "kept": (torch.cat(kept) if is_list else kept)[:, 0, 0, 0],
        }

    try:
        return ways(tensor=lambda: attempt(False), list=lambda: attempt(True))
    except Exception:
        if num_imgs <= len(examples):
            raise
        num_imgs = len(examples)
        ways(tensor=lambda: attempt(False), list=lambda: attempt(True))  # fails, too, unless the number is the reason
        require(False, "It fails if the buffer has fewer than `num_imgs` images. Show all of them then.")


def judge_buffer_pictures(got, want, examples, num_imgs, every, epochs):
    # Only one of the two kinds of buffers must work; a callback that works for both is judged by the first.
    way = next((name for name in ("tensor", "list") if got[name] is not None), None)
    if way is None:
        raise Mismatch("Nothing could be observed.")
    got, want = got[way], want["tensor"]
    judge_epochs(got, want, "sampler", every, epochs)
    count = min(num_imgs, len(examples))
    for images in got["images"]:
        near = (images[:, None] - examples).abs().min(1).values if images.dim() == 1 else torch.ones(1)
        if len(near) == 0 or near.max() > 1e-4:
            fail("The picture shows other images than those in pl_module.sampler.examples.")
        if len(images) != count:
            fail("The number of images must be `num_imgs`, or that of the buffer if it has fewer.")
        if len(images.unique()) < count:
            fail("The picture shows some images several times. Choose them without replacement.")
    if any(columns != 8 for columns in got["columns"]):
        fail("The picture must have 8 columns.")
    if difference(got["kept"], examples, 0, 1e-5):
        fail("The buffer is changed. Only look at it.")
    return got


@exercise(
    "5c", points=0.5, public=True, hint="torch.randperm(len(examples))[: self.num_imgs] chooses different images."
)
def test_pictures_of_the_buffer(run, examples, c):
    """In the epochs 0, N, 2N, …, a picture shows `num_imgs` different images of the buffer."""
    got, want = run(buffer_pictures, examples, c, 10, 2, 5)
    judge_buffer_pictures(got, want, examples, 10, 2, 5)


@probe
def logged_noise(student, c, batch_size, training, epochs):
    """What OutlierCallback logs, and what it gave to the network: the images, the grad mode and the mode.

    noise: mean and mean square of the pixels of each epoch
    """
    module, hooks = student.deep_energy, HOOKS
    on_meta = OnMeta()
    callback = module.OutlierCallback(batch_size=batch_size)
    require(
        not on_meta.misses(lambda: Lightning(callback, a_module(on_meta), 1).fit(hooks, module, Callback)),
        "The noise is not on the device of the module. Move it there.",
    )
    network = Levels(c)
    pl_module = a_module(network).train(training)
    lightning = Lightning(module.OutlierCallback(batch_size=batch_size), pl_module, epochs).fit(hooks, module, Callback)
    values = [(epoch, value) for epoch, name, value in lightning.values if name == "rand_out"]
    require(
        all(images.shape[1:] == SHAPE for images in network.images),
        "The noise has another shape than pl_module.hparams['img_shape'].",
    )
    marks = c[0] * (1 + torch.tensor([any(network.gradients_on), any(network.modes)]).float())
    pixels = torch.cat(network.images) if network.images else torch.zeros(0, *SHAPE)
    return {
        "epochs": [epoch for epoch, _ in values],
        "values": torch.stack([value for _, value in values]) if values else torch.zeros(0),
        "noise": torch.stack([pixels.mean(), pixels.square().mean()]) if len(pixels) else torch.full((2,), NONE),
        "states": marks,
        "after": c[1] * (1 + torch.tensor([network.training, pl_module.training]).float()),
        "count": len(pixels) / epochs,
    }


@exercise("5d", points=0.5, public=True, hint='pl_module.log("rand_out", the mean of pl_module.cnn of uniform noise).')
def test_energy_of_noise_is_logged(run, c):
    """After each epoch, the mean of f over uniform noise is logged as "rand_out"."""
    got, want = run(logged_noise, c, 500, True, 4)
    if not got["epochs"]:
        fail("No value with the name `rand_out` is logged after a training epoch, in on_train_epoch_end.")
    if got["epochs"] != want["epochs"]:
        fail("The value must be logged once after each epoch.")
    # 4 × 500 × 24 pixels: the mean and the mean square have standard deviations below 0.003.
    if got["noise"].shape != (2,) or (got["noise"] == NONE).all():
        fail("The network is not applied to noise after a training epoch.")
    judge_uniform(*got["noise"].tolist())
    right = (c[0] + c[2] / 3).expand(4)
    if difference(got["values"].reshape(-1)[:1].expand(4), got["values"], 0, 0) is None:
        fail("The value is exactly the same in each epoch. Draw new noise.")
    in_train_mode = right + 1
    if got["values"].shape == right.shape and (got["values"] - in_train_mode).abs().max() < 0.05:
        return  # the mode is checked below
    # 500 × 24 pixels: the mean of f has a standard deviation of about 0.01.
    if any(not difference(got["values"] / 500, mean, 0, 0.05) for mean in (right, in_train_mode)):
        fail("This is the sum of f. Log the mean.")
    wrong = {"These are energies -f. Log f, the output of the network.": -right}
    assert_close(got["values"], right, rtol=0, atol=0.05, mistakes=wrong)
