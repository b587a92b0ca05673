"""5: frames and callbacks. A stand-in for the trainer calls the hooks of a callback as Lightning 2 does."""

from types import SimpleNamespace

import numpy as np
import torch
from pytorch_lightning.callbacks import Callback
from stand_ins import Levels, every_nth, replaced
from torch import nn

from ebmcourse.checking import Mismatch, assert_close, exercise, fail, inputs, probe, require, ways

SHAPE = (1, 4, 6)
HOOKS = ("on_train_epoch_start", "on_validation_epoch_end", "on_validation_end", "on_train_epoch_end")
NEVER = (
    "The callback does nothing after a training epoch. Lightning 2 calls on_train_epoch_end(trainer, pl_module); it no "
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


def judge_frames(got, want, marks, count, vis_steps):
    n = count // vis_steps
    right = want["steps"]
    multiples = torch.arange(n, count + 1, n)
    from_zero = torch.arange(0, count, n)
    after_first = torch.arange(1, count + 1, n)

    def of(steps):
        return marks[steps - 1]

    assert_close(
        got["frames"],
        want["frames"],
        mistakes={
            "The images after step 1 are missing.": of(multiples),
            "The images after the last step are missing.": of(right[:-1]),
            "The steps are 1, n + 1, 2n + 1, … They should be 1, n, 2n, …; step s is entry s - 1.": of(after_first),
            "The images after step 1 are there twice, because n is 1.": of(
                torch.cat([torch.ones(1).long(), multiples])
            ),
            "Every image is returned. Choose every n-th one.": marks[:count],
            "The axes of steps and chains are swapped.": want["frames"].T,
            "The frames are spread evenly from the first to the last step. They should be 1, n, 2n, …": of(
                torch.linspace(1, count, len(right)).round().long()
            ),
        },
    )
    assert_close(
        got["steps"],
        right,
        mistakes={
            "The steps are counted from 0. The images after the first step are those of step 1.": right - 1,
            "The steps begin with 0. The images after the first step are those of step 1.": torch.cat(
                [torch.zeros(1).long(), right[1:]]
            ),
            "The steps are 0, n, 2n, … They should be 1, n, 2n, …": from_zero,
            "The step 1 is missing in the list of steps.": multiples,
        },
    )


@exercise("5a", points=0.5, public=True, hint="The steps 1, n, 2n, …, and step s is imgs_per_step[s - 1].")
def test_first_and_every_nth_frame(run, marks):
    """`pick_frames` returns the images after the steps 1, n, 2n, …, and these steps."""
    for count, vis_steps in ((24, 4), (30, 5)):
        got, want = run(frames, marks, count, vis_steps)
        judge_frames(got, want, marks, count, vis_steps)


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
    """In the place of a DeepEnergyModel."""
    hparams = type("Hparams", (dict,), {"__getattr__": dict.__getitem__})(img_shape=SHAPE)
    module = nn.Module()
    module.cnn, module.hparams, module.device = cnn, hparams, torch.device("cpu")
    module.sampler = SimpleNamespace(examples=examples, sample_new_exmps=None)
    module.forward = cnn.forward
    return module.train()


@inputs
def c(rng):
    return torch.from_numpy(rng.uniform(0.5, 1.5, 3).astype(np.float32))


@inputs
def levels(rng):
    """The value of each step and chain of a generation: 13 steps of 3 chains."""
    return torch.from_numpy(rng.permutation(np.linspace(-0.9, 0.9, 39)).reshape(13, 3).astype(np.float32))


@probe
class Generation:
    """In the place of `generate_samples`: returns images of the given levels, and records its arguments."""

    def __init__(self, levels, model):
        self.levels, self.model = levels, model
        self.starts, self.asked = [], []

    def __call__(self, model, inp_imgs, steps=60, step_size=10.0, return_img_per_step=False):
        self.starts.append(inp_imgs.detach().clone())
        self.asked.append([float(steps), float(step_size), float(model is self.model)])
        images = self.levels[:, :, None, None, None].expand(-1, -1, *SHAPE).clone()
        return images if return_img_per_step else images[-1]

    def stand_ins(self, module):
        """For `replaced`: the functions and the class of the module that generate images."""
        own_class = type("Sampler", (module.Sampler,), {"generate_samples": staticmethod(self)})
        return {"generate_samples": self, "Sampler": own_class}


@probe
def generations(student, levels, c, vis_steps, every_n_epochs, epochs):
    """The pictures of GenerateCallback: values of the images, names, columns and epochs."""
    module, hooks, (count, chains) = student.deep_energy, HOOKS, levels.shape
    pl_module = a_module(Levels(c))
    callback = module.GenerateCallback(
        batch_size=chains, vis_steps=vis_steps, num_steps=count, every_n_epochs=every_n_epochs
    )
    stand_ins = Generation(levels, pl_module.cnn).stand_ins(module)
    with replaced(module, pick_frames=every_nth, **stand_ins):
        pictures = Lightning(callback, pl_module, epochs).fit(hooks, module, Callback).pictures
    return {
        "images": [images[:, 0, 0, 0] for _, _, images, _ in pictures],
        "names": [name for _, name, _, _ in pictures],
        "columns": [columns for _, _, _, columns in pictures],
        "epochs": [epoch for epoch, _, _, _ in pictures],
    }


@probe
def generated(student, levels, c, times, training):
    """What `generate_imgs` returns, what its chains started from in several calls, and the mode of the module."""
    module, (count, chains) = student.deep_energy, levels.shape
    pl_module = a_module(Levels(c)).train(training)
    callback = module.GenerateCallback(batch_size=chains, num_steps=count)
    generation = Generation(levels, pl_module.cnn)
    with replaced(module, **generation.stand_ins(module)):
        for _ in range(times):
            direct = callback.generate_imgs(pl_module)
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
def test_pictures_of_a_generation(run, levels, c):
    """In the epochs 0, N, 2N, …, a picture has a row with the frames of each image."""
    got, want = run(generations, levels, c, 4, 3, 8)
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
    if starts.shape[1:] != (3, *SHAPE):
        fail("There must be `batch_size` initial images of the shape hparams['img_shape'].")
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
    if len(starts) > 1 and torch.equal(starts[0], starts[1]):
        fail("All generations start from the same noise. Draw new noise in each of them.")
    # 30 × 72 numbers: mean 0 ± 0.012, standard deviation 0.577 ± 0.006.
    if starts.min() > -1e-6:
        fail("The chains start from noise in [0, 1]. It should be uniform in [-1, 1]: uniform_images.")
    if not starts.abs().max() <= 1 or abs(starts.mean()) > 0.08 or not 0.5 < starts.std() < 0.65:
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

    return ways(tensor=lambda: attempt(False), list=lambda: attempt(True))


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
    if got["kept"].shape != examples.shape or (got["kept"].sort()[0] - examples.sort()[0]).abs().max() > 1e-5:
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
    """What OutlierCallback logs, and what it gave to the network: the images, the grad mode and the mode."""
    module, hooks = student.deep_energy, HOOKS
    network = Levels(c)
    pl_module = a_module(network).train(training)
    lightning = Lightning(module.OutlierCallback(batch_size=batch_size), pl_module, epochs).fit(hooks, module, Callback)
    values = [(epoch, value) for epoch, name, value in lightning.values if name == "rand_out"]
    marks = c[0] * (1 + torch.tensor([any(network.gradients_on), any(network.modes)]).float())
    return {
        "epochs": [epoch for epoch, _ in values],
        "values": torch.stack([value for _, value in values]) if values else torch.zeros(0),
        "states": marks,
        "after": c[1] * (1 + torch.tensor([network.training, pl_module.training]).float()),
        "count": len(network.images[0]) if network.images else 0,
    }


@exercise("5d", points=0.5, public=True, hint='pl_module.log("rand_out", the mean of pl_module.cnn of uniform noise).')
def test_energy_of_noise_is_logged(run, c):
    """After each epoch, the mean of f over uniform noise is logged as "rand_out"."""
    got, want = run(logged_noise, c, 500, True, 4)
    if not got["epochs"]:
        fail("No value with the name `rand_out` is logged after a training epoch, in on_train_epoch_end.")
    if got["epochs"] != want["epochs"]:
        fail("The value must be logged once after each epoch.")
    kinds = {
        "": (0, 1 / 3),
        "The noise is uniform in [0, 1]. It should be uniform in [-1, 1]: uniform_images.": (1 / 2, 1 / 3),
        "The noise is Gaussian. It should be uniform in [-1, 1]: uniform_images.": (0, 1),
    }
    means = {sentence: c[0] + c[1] * first + c[2] * second for sentence, (first, second) in kinds.items()}
    right = means.pop("").expand(4)
    wrong = {sentence: value.expand(4) for sentence, value in means.items()}
    wrong["These are energies -f. Log f, the output of the network."] = -right
    wrong["This is the sum of f. Log the mean."] = got["values"] if got["values"].min() > 50 else right
    if got["values"].shape == right.shape and (got["values"] == got["values"][0]).all():
        fail("The noise is the same in each epoch. Draw new noise.")
    in_train_mode = right + 1
    if got["values"].shape == right.shape and (got["values"] - in_train_mode).abs().max() < 0.05:
        return  # the mode is checked below
    # 500 × 24 pixels: the mean of f has a standard deviation of about 0.01.
    assert_close(got["values"], right, rtol=0, atol=0.05, mistakes=wrong)
