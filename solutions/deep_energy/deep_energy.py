# %% [markdown]
# # A deep energy-based model of digits
#
# In this assignment you train a convolutional network $E_\theta(x)$ that gives handwritten digits a low energy and all
# other images a high one. The network is never told what the other images look like. It finds them itself: images are
# sampled from the model with Langevin dynamics, and wherever the samples differ from digits, training raises their
# energy. A trained model generates digits from noise, and detects images that are not digits.
#
# **How to work.** Everything is in this notebook. In each part, write what the `TODO`s ask for. The cell below your
# code shows it at work, and you may change it as you like. The cell `check_part("…")` runs the public checks of the
# exercise on your functions as they are currently defined. Grading runs further, hidden checks with other inputs.
#
# | part | what to write |
# |---|---|
# | 1 | the energy network |
# | 2 | Langevin dynamics |
# | 3 | the replay buffer |
# | 4 | the contrastive loss and the training step |
# | 5 | callbacks that show the training |
# | 6 | training and generation (questions) |
# | 7 | detecting images that are not digits |
# | 8 | instability |
#
# The assignment follows Tutorial 7 of the deep learning course of the University of Amsterdam, by P. Lippe. Where the
# code of the tutorial has an error or does not run with Lightning 2, the text says what is different here and why.

# %% nbgrader={"grade_id": "setup", "locked": true}
# %matplotlib inline
import math
import os
from contextlib import contextmanager
from pathlib import Path
from string import ascii_lowercase

import numpy as np
import pytorch_lightning as pl
import torch
import torchvision
from IPython.display import HTML, Image, display
from matplotlib.figure import Figure
from pytorch_lightning.callbacks import Callback
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from ebmcourse import plots
from ebmcourse.checking.notebook import check_part, once_written
from ebmcourse.data import amounts
from ebmcourse.data.digits import mnist
from ebmcourse.data.words import CustomWordsDataset
from ebmcourse.training import DivergenceRollback, fit, to_plain

IMG_RANGE = (-1.0, 1.0)
FRESH_SHARE = 0.05  # fraction of the chains that start from noise; the others continue images of the buffer
NOISE_STD = 0.005  # standard deviation of the noise in one Langevin step
GRADIENT_CLAMP = 0.03  # the gradient with respect to a pixel is clamped to ±GRADIENT_CLAMP
STEP_SIZE = 10.0  # of Langevin dynamics
LOST_GAP = -2.0  # below this mean f(samples) - mean f(data), the sampler can no longer follow the model
BLOW_UP = 2.0  # above it, the network no longer separates samples from data

# %% [markdown]
# ### Data and presets
#
# Two environment variables, set before Jupyter starts, choose what the training cells do:
#
# | variable | value | meaning |
# |---|---|---|
# | `EBM_PRESET` | `small` | seconds: shows that everything runs; the images stay noise |
# | | `cpu` (default) | readable digits in less than ten minutes on two cores |
# | | `full` | the settings of the tutorial, 60 epochs of MNIST: for a GPU |
# | `EBM_DATA` | `digits` (default) | the 8 × 8 digits of scikit-learn, enlarged to 28 × 28; needs no download |
# | | `mnist` | MNIST from `$EBM_DATA_DIR` (default: `data`); it is downloaded if it is not there |
#
# Images are float32 tensors (N, 1, 28, 28) in [-1, 1], with bright ink on black. Because of the fixed range, samples
# can be clipped to the range of the data.


# %% nbgrader={"grade_id": "tools", "locked": true}
PRESETS = {
    "small": {"epochs": 2, "batches": 3, "batch_size": 16, "lr": 1e-4, "steps": 5, "clip": 0.1, "num_steps": 32},
    "cpu": {"epochs": 12, "batches": 100, "batch_size": 32, "lr": 1e-3, "steps": 40, "clip": 0.1, "num_steps": 256},
    "full": {"epochs": 60, "batches": 468, "batch_size": 128, "lr": 1e-4, "steps": 60, "clip": 0.1, "num_steps": 256},
}
UNSTABLE = {"epochs": 3, "batches": 100, "batch_size": 16, "lr": 1e-2, "steps": 3, "clip": 1.0, "num_steps": 32}
DATA_DIR = Path(os.environ.get("EBM_DATA_DIR", "data"))


def load_images(data, split):
    """The images (N, 1, 28, 28) in [-1, 1] of one split, "train" or "test".

    data: "digits", the digits of scikit-learn, or "mnist"
    """
    if data == "digits":
        small = torch.from_numpy(amounts.digits(split)[0])  # (N, 8, 8) in [0, 1]
        large = nn.functional.interpolate(small.unsqueeze(1), size=(22, 22), mode="bicubic").clamp(0, 1)
        return 2 * nn.functional.pad(large, (3, 3, 3, 3)) - 1
    try:
        images = torch.from_numpy(mnist(DATA_DIR, split)[0])
    except FileNotFoundError:
        images = torchvision.datasets.MNIST(DATA_DIR, train=split == "train", download=True).data
    return images.unsqueeze(1) / 127.5 - 1


def letters():
    """Letters a to z in two handwritings, eight of each: (416, 1, 28, 28) in [-1, 1], as large as the digits."""
    drawing = CustomWordsDataset(1, seed=0)
    images = []
    for letter in ascii_lowercase * 16:
        image = drawing.draw_text(letter)
        rows, columns = image.nonzero().T
        ink = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        height, width = (max(1, round(22 * size / max(ink.shape))) for size in ink.shape)
        ink = nn.functional.interpolate(ink[None, None], size=(height, width), mode="bicubic").clamp(0, 1)
        left, top = (28 - width) // 2, (28 - height) // 2
        images.append(nn.functional.pad(ink[0], (left, 28 - width - left, top, 28 - height - top)))
    return 2 * torch.stack(images) - 1


def other_images():
    """Images that are not digits by name, (N, 1, 28, 28) in [-1, 1].

    KMNIST and notMNIST are among them if $EBM_DATA_DIR/ood has kmnist_test_images.npz and notmnist_t10k_images.npz,
    each with an array `images` of bytes (N, 28, 28).
    """
    found = {"letters": letters()}
    for name, file in ("KMNIST", "kmnist_test_images.npz"), ("notMNIST", "notmnist_t10k_images.npz"):
        if (DATA_DIR / "ood" / file).is_file():
            images = np.load(DATA_DIR / "ood" / file)["images"][:1000]
            found[name] = torch.from_numpy(images).unsqueeze(1) / 127.5 - 1
    return found


def uniform_images(count, img_shape):
    """Noise: `count` images of this shape (C, H, W), each pixel uniform in [-1, 1]."""
    return 2 * torch.rand(count, *img_shape) - 1


def sheet(images, columns):
    """Images (N, 1, H, W) as one picture (3, height, width) in [0, 1], row by row, with `columns` images in a row."""
    return torchvision.utils.make_grid(
        images.detach().cpu(), nrow=columns, normalize=True, value_range=IMG_RANGE, pad_value=0.5
    )


class Live:
    """One output of a cell for each name, which is replaced when something new is shown under this name."""

    def __init__(self):
        self.handles = {}

    def show(self, name, shown):
        if name in self.handles:
            self.handles[name].update(shown)
        else:
            self.handles[name] = display(shown, display_id=True)


live = Live()


def record_images(trainer, name, images, columns):
    """Show images (N, 1, H, W), `columns` in a row, while the model trains.

    They go to the TensorBoard log, to the file pictures/<name>_<epoch>.png in the folder of the training, and to the
    output of the cell.
    """
    picture = sheet(images, columns)
    trainer.logger.experiment.add_image(name, picture, global_step=trainer.current_epoch)
    file = Path(trainer.log_dir).parent / "pictures" / f"{name}_{trainer.current_epoch:03d}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    torchvision.utils.save_image(picture, file)
    live.show(name, Image(file.read_bytes(), width=2 * picture.shape[2]))


def plot_gaps(gaps, window=50):
    """Mean f(samples) - mean f(data) of each step, its mean over a window of steps, and the bounds of the rollback."""
    gaps = torch.as_tensor(gaps)
    figure = Figure(figsize=(7, 2.8), layout="constrained")
    axes = figure.subplots()
    axes.plot(range(1, len(gaps) + 1), gaps, color="#BBBBBB", linewidth=0.8, label="each step")
    if len(gaps) >= window:
        axes.plot(
            range(window, len(gaps) + 1),
            gaps.unfold(0, window, 1).mean(1),
            color=plots.COLOURS[0],
            label=f"mean of {window} steps",
        )
    for bound in (LOST_GAP, BLOW_UP):
        axes.axhline(bound, color=plots.COLOURS[1], linestyle="--", linewidth=1)
    plots.clean(axes, xlabel="step", ylabel="mean f(samples) - mean f(data)")
    axes.set_ylim(-5, 5)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


class NotebookProgress(Callback):
    """A progress bar in the notebook, with the time that is left."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        total, done = trainer.estimated_stepping_batches, trainer.global_step
        if done % 10 == 0 or done == total:
            gap = float(trainer.callback_metrics.get("loss_contrastive_divergence", math.nan))
            live.show(
                "progress",
                HTML(
                    f'<progress value="{done}" max="{total}"></progress> step {done} of {total}, '
                    f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}, contrastive divergence {gap:.3f}"
                ),
            )


# %%
PRESET = os.environ.get("EBM_PRESET", "cpu")
if "NBGRADER_EXECUTION" in os.environ:  # nbgrader runs the notebook only for its tested cells
    PRESET = "small"
DATA = os.environ.get("EBM_DATA", "digits")
if PRESET not in PRESETS or DATA not in ("digits", "mnist"):
    raise ValueError("Set EBM_PRESET to small, cpu or full, and EBM_DATA to digits or mnist.")
train_images, test_images = load_images(DATA, "train"), load_images(DATA, "test")
print(f"preset {PRESET}, data {DATA}: {len(train_images)} images for training, {len(test_images)} for testing")
display(plots.sample_sheet(train_images[:40], columns=20))

# %% [markdown]
# ## 1 The energy network
#
# A density over images must not be negative, and its integral must be 1. An energy-based model satisfies both with any
# network $E_\theta$ that returns one number:
#
# $$q_\theta(x) = \frac{e^{-E_\theta(x)}}{Z_\theta}, \qquad Z_\theta = \int e^{-E_\theta(x)}\,dx .$$
#
# Images of low energy are likely. The normalisation $Z_\theta$ is an integral over all images, and cannot be computed.
# Nothing below needs it: ratios of probabilities, the gradient $\nabla_x\log q_\theta = -\nabla_x E_\theta$, and
# comparisons with a threshold do not depend on it.
#
# **The sign.** The network of this notebook returns $f = -E$, as in the tutorial, where its output is called the score
# of an image. So *high $f$ means likely*. The outlier score of part 7 is $E = -f$: *high means outlier*. The tutorial
# reports $f \approx -17.9$ for noise and $-0.01$ for digits; these are outlier scores of $17.9$ and $0.01$.
#
# **1a** Write `CNNModel`. With $h$ = `hidden_features`, its layers are
#
# | layer | kernel, stride, padding | output |
# |---|---|---|
# | convolution to $h/2$ channels | 5, 2, 4 | 16 × 16 |
# | convolution to $h$ channels | 3, 2, 1 | 8 × 8 |
# | convolution to $2h$ channels | 3, 2, 1 | 4 × 4 |
# | convolution to $2h$ channels | 3, 2, 1 | 2 × 2 |
# | flatten, linear layer to $2h$ values | | |
# | linear layer to `out_dim` values | | |
#
# with the activation SiLU (Swish), $u\cdot\sigma(u)$, after each layer but the last one. It is smooth. The sampler
# follows the gradient with respect to the image, and with ReLU that gradient would be constant almost everywhere. There
# is no batch normalisation: the energy of an image must not depend on the other images of the batch.


# %% nbgrader={"grade_id": "network", "solution": true}
class CNNModel(nn.Module):
    """f = -E of images: x (B, 1, 28, 28) -> (B,), or (B, out_dim) if out_dim > 1.

    Create the layers in the order of the table, and no others: the checks rely on the order of the parameters.
    """

    def __init__(self, hidden_features=32, out_dim=1, **kwargs):
        super().__init__()
        ### BEGIN SOLUTION 1a
        # TODO Create the layers of the table.
        # nn.Sequential applies modules one after the other. nn.Flatten makes (B, 2h, 2, 2) to (B, 8h).
        h = hidden_features
        self.layers = nn.Sequential(
            nn.Conv2d(1, h // 2, kernel_size=5, stride=2, padding=4),
            nn.SiLU(),
            nn.Conv2d(h // 2, h, kernel_size=3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(h, 2 * h, kernel_size=3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(2 * h, 2 * h, kernel_size=3, stride=2, padding=1),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(8 * h, 2 * h),
            nn.SiLU(),
            nn.Linear(2 * h, out_dim),
        )
        ### END SOLUTION

    def forward(self, x):
        """x: images (B, 1, 28, 28) -> (B,), or (B, out_dim) if out_dim > 1."""
        ### BEGIN SOLUTION 1a
        # TODO Return f of each image: shape (B,) if out_dim is 1, also for a single image.
        # squeeze(dim=-1) removes the last axis if its size is 1. Do not squeeze other axes.
        return self.layers(x).squeeze(dim=-1)
        ### END SOLUTION


# %%
with once_written():
    torch.manual_seed(0)
    network = CNNModel()
    print(f"{sum(parameter.numel() for parameter in network.parameters())} parameters")
    print("f of four digits before training:", network(train_images[:4]).tolist())

# %% nbgrader={"grade_id": "test-1a", "grade": true, "locked": true}
check_part("1a")

# %% [markdown]
# **1b** (1 point) Someone adds 100 to the bias of the last layer. What happens to $f$, to $Z_\theta$ and to
# $q_\theta(x)$? By which factor is an image with $E = 1$ more likely than one with $E = 4$? What does $f(x) = 3$ alone
# say about an image?

# %% [markdown] nbgrader={"grade_id": "answer-1b", "grade": true, "solution": true, "points": 1}
# $f$ grows by 100 everywhere and $Z_\theta$ by the factor $e^{100}$, so $q_\theta$ stays the same. The factor is
# $e^{-1} / e^{-4} = e^3 \approx 20$, without $Z_\theta$. The number 3 alone says nothing: only differences of energies
# have a meaning.
#
# ### BEGIN MARK SCHEME
# ½ point: q is unchanged, because Z absorbs the constant. ½ point: e³, and only differences matter.
# ### END MARK SCHEME

# %% [markdown]
# ## 2 Langevin dynamics
#
# Training and generation need samples of $q_\theta$. Langevin dynamics gets them with the gradient alone. Starting from
# any image, repeat
#
# $$x \leftarrow \operatorname{clip}(x + \text{noise}), \qquad
#     x \leftarrow \operatorname{clip}\bigl(x + \eta\cdot\operatorname{clamp}(\nabla_x f(x))\bigr) .$$
#
# The gradient leads to images of higher $f$, and the noise lets the chain leave small maxima. In theory, the step size
# and the variance of the noise belong together, and the chain needs infinitely many steps. In practice, $K$ steps with
# $\eta = 10$, noise of standard deviation 0.005, and the gradient of each pixel clamped to ±0.03 work well. The images
# are clipped to [-1, 1].
#
# While sampling, only gradients with respect to the *images* are needed. The parameters are frozen, so that no time is
# lost on their gradients and training does not receive them, and the network is in eval mode. Afterwards, everything
# must be as before. The tutorial sets `requires_grad = True` for all parameters, which also unfreezes those that were
# frozen before, and restores nothing if sampling stops with an exception, for example by Ctrl-C.
#
# **2a** Write the context manager `frozen`.


# %% nbgrader={"grade_id": "frozen", "solution": true}
@contextmanager
def frozen(model):
    """In the `with` block, only gradients with respect to images are computed.

    In the block, no parameter requires a gradient, all modules are in eval mode, and gradients are enabled, also if the
    caller uses `torch.no_grad()`. On exit, the state from before is restored, also after an exception.
    """
    ### BEGIN SOLUTION 2a
    # TODO Store the state of each parameter and each module, freeze the model, yield, and restore the state.
    # Use try, yield and finally. Parameters and modules may have different states: model.parameters(), model.modules().
    requires_grad = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    training = [(module, module.training) for module in model.modules()]
    try:
        model.eval().requires_grad_(False)
        with torch.enable_grad():
            yield
    finally:
        for parameter, flag in requires_grad:
            parameter.requires_grad_(flag)
        for module, mode in training:
            module.training = mode
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-2a", "grade": true, "locked": true}
check_part("2a")

# %% [markdown]
# **2b** Write `image_gradient`. The images do not influence each other, so the gradient of the *sum* of $f$ over the
# batch consists of the gradients of the single images. It works on a copy: the tutorial turns the caller's own tensor
# into a variable that requires gradients.


# %% nbgrader={"grade_id": "image-gradient", "solution": true}
def image_gradient(model, images):
    """∂f/∂x of each image, clamped to ±GRADIENT_CLAMP: images (B, C, H, W) -> (B, C, H, W), detached.

    model: returns f = -E, shape (B,). The caller has frozen it, and enabled gradients. `images` is not changed.
    """
    ### BEGIN SOLUTION 2b
    # TODO Return the clamped gradient of f with respect to the images.
    # Let a detached copy of the images require gradients, and differentiate the sum of f over the batch. Clamp each
    # value of the gradient.
    images = images.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(images).sum(), images)
    return gradient.clamp(-GRADIENT_CLAMP, GRADIENT_CLAMP)
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-2b", "grade": true, "locked": true}
check_part("2b")

# %% [markdown]
# **2c** Write `langevin_step`.


# %% nbgrader={"grade_id": "langevin-step", "solution": true}
def langevin_step(model, images, step_size):
    """One step of Langevin dynamics towards higher f: images (B, C, H, W) -> (B, C, H, W) in IMG_RANGE, detached.

    `images` is not changed.
    """
    ### BEGIN SOLUTION 2c
    # TODO Return the images after one step.
    # Add Gaussian noise with standard deviation NOISE_STD and clip to IMG_RANGE. Then add step_size times the result of
    # image_gradient and clip again. Methods that end with _ work in place: use the others. The given images may require
    # gradients: detach them.
    images = images.detach()
    noisy = (images + NOISE_STD * torch.randn_like(images)).clamp(*IMG_RANGE)
    return (noisy + step_size * image_gradient(model, noisy)).clamp(*IMG_RANGE)
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-2c", "grade": true, "locked": true}
check_part("2c")

# %% [markdown]
# **2d** Write `generate_samples`.


# %% nbgrader={"grade_id": "generate-samples", "solution": true}
def generate_samples(model, inp_imgs, steps=60, step_size=STEP_SIZE, return_img_per_step=False):
    """Run `steps` steps of Langevin dynamics, with the model frozen.

    inp_imgs: the images (B, C, H, W) to start from; they are not changed
    returns: the images after the last step, (B, C, H, W), or after each step, (steps, B, C, H, W), if
        `return_img_per_step` is set; detached
    """
    ### BEGIN SOLUTION 2d
    # TODO Return the images after the last step, or after each step.
    # Use frozen and langevin_step. The first entry of the steps is the images after the first step.
    images, history = inp_imgs.detach(), []
    with frozen(model):
        for _ in range(steps):
            images = langevin_step(model, images, step_size)
            history.append(images)
    return torch.stack(history) if return_img_per_step else images
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-2d", "grade": true, "locked": true}
check_part("2d")

# %% [markdown]
# A test with an energy that we know: $E(x) = \frac12\lVert x - d\rVert^2 / 100$, where $d$ is the digit nearest to $x$.
# Each chain must walk from noise to a digit. The titles are the numbers of steps.


# %%
class NearestDigit(nn.Module):
    """f = -E, where E grows with the squared distance to the nearest of the given digits."""

    def __init__(self, digits):
        super().__init__()
        self.register_buffer("digits", digits)

    def forward(self, x):
        squares = (x.unsqueeze(1) - self.digits).square().flatten(2).sum(2)  # (B, number of digits)
        return -squares.min(dim=1).values / 200


with once_written():
    torch.manual_seed(0)
    shown = [1, 2, 5, 10, 20, 40, 80]
    chains = generate_samples(
        NearestDigit(train_images[:10]), uniform_images(4, (1, 28, 28)), 80, return_img_per_step=True
    )
    display(plots.generation_strip(chains[[step - 1 for step in shown]], shown))

# %% [markdown]
# **2e** (1 point) What do the chains do without the gradient, and what without the noise? Why is the gradient clamped?
# Why must the images be clipped to the range of the data, when the network is defined for all of $\mathbb{R}^{784}$?

# %% [markdown] nbgrader={"grade_id": "answer-2e", "grade": true, "solution": true, "points": 1}
# Without the gradient, they are a random walk that knows nothing of the model. Without noise, they climb to the next
# local maximum of $f$ and stay there, so they are no samples and the same start gives the same image. A single step
# with a huge gradient would move the image far beyond the maximum; clamped, it moves by at most 0.3 per pixel. Outside
# of the range of the data $f$ is not trained, and can be as high as it likes: clipping keeps the chains where
# $q_\theta$ is meant to be a density.
#
# ### BEGIN MARK SCHEME
# ½ point: the roles of gradient and noise. ½ point: clamping limits the step, clipping keeps the chains in the domain.
# ### END MARK SCHEME

# %% [markdown]
# ## 3 The replay buffer
#
# A chain that starts from noise needs hundreds of steps to become a digit, too many for each training step. But the
# network changes little from step to step, so the samples of the last steps are nearly samples of the current model.
# They are kept in a *replay buffer*. About 95 % of the new chains continue random images of the buffer; the others
# start from uniform noise, so that new places are explored. `self.examples` is a tensor (N, C, H, W) on the CPU, newest
# images first, of at most `max_len` images. At first, it contains noise.
#
# **3a** Write `start_images`: what the chains start from. **3b** Write `store`: the new samples enter the buffer.


# %% nbgrader={"grade_id": "sampler", "solution": true}
class Sampler:
    """Samples images from the model with Langevin dynamics and a replay buffer.

    model: returns f = -E; its device is used. img_shape: (C, H, W). sample_size: the number of chains.
    max_len: the largest number of images in the buffer
    """

    generate_samples = staticmethod(generate_samples)

    def __init__(self, model, img_shape, sample_size, max_len=8192):
        self.model = model
        self.img_shape = tuple(img_shape)
        self.sample_size = sample_size
        self.max_len = max_len
        self.examples = uniform_images(min(sample_size, max_len), img_shape)

    def start_images(self):
        """The images (sample_size, C, H, W) that the chains start from, on the device of the model."""
        ### BEGIN SOLUTION 3a
        # TODO Return `sample_size` images.
        # Each of them is noise, uniform in [-1, 1], with probability FRESH_SHARE, and otherwise a random image of
        # self.examples. The buffer may contain fewer images than there are chains, so choose with replacement.
        chosen = torch.randint(len(self.examples), (self.sample_size,))
        is_fresh = torch.rand(self.sample_size, 1, 1, 1) < FRESH_SHARE
        images = torch.where(is_fresh, uniform_images(self.sample_size, self.img_shape), self.examples[chosen])
        return images.to(next(self.model.parameters()).device)
        ### END SOLUTION

    def store(self, images):
        """Put copies of the images (B, C, H, W) into the buffer, in front of the others; drop the oldest ones."""
        ### BEGIN SOLUTION 3b
        # TODO Update self.examples: the new images first, on the CPU, and at most `max_len` images in all.
        self.examples = torch.cat([images.detach().cpu(), self.examples])[: self.max_len]
        ### END SOLUTION

    def sample_new_exmps(self, steps=60, step_size=STEP_SIZE):
        """New samples (sample_size, C, H, W) after `steps` steps, which also enter the buffer."""
        images = self.generate_samples(self.model, self.start_images(), steps=steps, step_size=step_size)
        self.store(images)
        return images


# %% nbgrader={"grade_id": "test-3a", "grade": true, "locked": true}
check_part("3a")

# %% nbgrader={"grade_id": "test-3b", "grade": true, "locked": true}
check_part("3b")

# %% [markdown]
# The buffer at work, with the known energy and ten steps per call: the images in the buffer become digits within a few
# calls, although no chain has more than ten steps of its own per call. The fresh chains are still noisy.

# %%
with once_written():
    torch.manual_seed(0)
    known = NearestDigit(train_images[:10])
    known.register_parameter("unused", nn.Parameter(torch.zeros(1)))  # tells the sampler the device
    sampler = Sampler(known, (1, 28, 28), sample_size=20, max_len=200)
    for calls in range(1, 9):
        samples = sampler.sample_new_exmps(steps=10)
        if calls in (1, 2, 8):
            print(f"after {calls} {'call' if calls == 1 else 'calls'}, {len(sampler.examples)} images in the buffer:")
            display(plots.sample_sheet(samples, columns=20))

# %% [markdown]
# **3c** (1 point) What would go wrong with 0 % fresh chains, and what with 100 %? `max_len` is 8192. What is different
# with a buffer of 128 images, when 128 chains are sampled in each step?

# %% [markdown] nbgrader={"grade_id": "answer-3c", "grade": true, "solution": true, "points": 1}
# With 0 %, the chains never leave the regions that they have found: regions of high $f$ elsewhere are not noticed, and
# generation from noise, which training has not seen for a long time, fails. With 100 %, each chain has only 60 steps
# and never comes near a mode, so training pushes $f$ down only on the way from noise to digits. A buffer of 128 images
# contains the last samples only: the chains are the same ones again and again, and soon show a few images each.
#
# ### BEGIN MARK SCHEME
# ½ point: exploration against the length of the chains. ½ point: diversity of the buffer.
# ### END MARK SCHEME

# %% [markdown]
# ## 4 The contrastive loss
#
# The gradient of the negative log-likelihood is a difference of two expectations,
#
# $$-\nabla_\theta\,\mathbb{E}_{\text{data}}[\log q_\theta(x)]
#     = \mathbb{E}_{\text{data}}[\nabla_\theta E_\theta(x)] - \mathbb{E}_{q_\theta}[\nabla_\theta E_\theta(x)] ,$$
#
# so the *contrastive divergence*, with samples $\tilde x$ of the model as constants,
#
# $$L_{\text{CD}} = \frac1{B'}\sum_j f(\tilde x_j) - \frac1B\sum_i f(x_i)$$
#
# has this gradient. Minimising it makes data more likely, and the model's own samples less likely. It determines $f$
# only up to a constant, and $f$ would drift. A *regularisation* with a small weight α keeps it near 0:
#
# $$L_{\text{reg}} = \alpha\,\Bigl(\frac1B\sum_i f(x_i)^2 + \frac1{B'}\sum_j f(\tilde x_j)^2\Bigr) .$$
#
# **4a** Write `loss_terms`, **4b** `training_step`, **4c** `validation_step` and **4d** `configure_optimizers`. Three
# things are different from the tutorial. The step does not add its noise to the images of the batch in place, which
# would change the data set if it is in memory. It does not cut the network's output in two *halves*: the last batch may
# be smaller than the number of samples, and then samples would count as data. The buffer is in the checkpoint.


# %% nbgrader={"grade_id": "model", "solution": true}
class DeepEnergyModel(pl.LightningModule):
    """A deep energy-based model of images.

    img_shape: (C, H, W). batch_size: the number of samples in each training step. alpha: the weight of the
    regularisation. lr, beta1: of Adam. steps: of Langevin dynamics in a training step. CNN_args: of CNNModel
    """

    def __init__(self, img_shape, batch_size, alpha=0.1, lr=1e-4, beta1=0.0, steps=60, **CNN_args):
        super().__init__()
        self.save_hyperparameters()
        self.cnn = CNNModel(**CNN_args)
        self.sampler = Sampler(self.cnn, img_shape, batch_size)

    def forward(self, x):
        """f = -E of images: (B, C, H, W) -> (B,)."""
        return self.cnn(x)

    def loss_terms(self, f_real, f_fake):
        """The contrastive divergence and the regularisation, two tensors of shape ().

        f_real: (B,), f of data. f_fake: (B',), f of samples
        """
        ### BEGIN SOLUTION 4a
        # TODO Return both terms; the second one includes the factor self.hparams.alpha.
        contrastive = f_fake.mean() - f_real.mean()
        regularisation = self.hparams.alpha * (f_real.square().mean() + f_fake.square().mean())
        return contrastive, regularisation
        ### END SOLUTION

    def training_step(self, batch, batch_idx):
        """The loss of one batch, shape (), the sum of both terms.

        Logs `loss`, `loss_regularization`, `loss_contrastive_divergence`, `metrics_avg_real` (the mean of f over the
        data) and `metrics_avg_fake` (over the samples).
        """
        real_imgs, _ = batch  # (B, C, H, W), and something that is not used
        ### BEGIN SOLUTION 4b
        # TODO Return the loss, and log the five values with self.log or self.log_dict.
        # Add Gaussian noise with standard deviation NOISE_STD to a copy of the images, and clip to IMG_RANGE. The
        # samples contain such noise, and it must not tell them from data. Sample with self.sampler.sample_new_exmps,
        # with self.hparams.steps and STEP_SIZE. Compute f with self.cnn and the terms with self.loss_terms. There may
        # be fewer images than samples.
        real_imgs = (real_imgs + NOISE_STD * torch.randn_like(real_imgs)).clamp(*IMG_RANGE)
        fake_imgs = self.sampler.sample_new_exmps(steps=self.hparams.steps, step_size=STEP_SIZE)
        f = self.cnn(torch.cat([real_imgs, fake_imgs]))
        f_real, f_fake = f[: len(real_imgs)], f[len(real_imgs) :]
        contrastive, regularisation = self.loss_terms(f_real, f_fake)
        loss = contrastive + regularisation
        self.log_dict(
            {
                "loss": loss,
                "loss_regularization": regularisation,
                "loss_contrastive_divergence": contrastive,
                "metrics_avg_real": f_real.mean(),
                "metrics_avg_fake": f_fake.mean(),
            }
        )
        return loss
        ### END SOLUTION

    def validation_step(self, batch, batch_idx):
        """Log `val_contrastive_divergence`, `val_fake_out` and `val_real_out`: noise compared with images.

        As in the tutorial, the fake images are uniform noise here, as many as there are images.
        """
        real_imgs, _ = batch
        ### BEGIN SOLUTION 4c
        # TODO Log the mean of f over the noise minus its mean over the images, and the two means.
        f_fake = self.cnn(2 * torch.rand_like(real_imgs) - 1).mean()
        f_real = self.cnn(real_imgs).mean()
        self.log_dict({"val_contrastive_divergence": f_fake - f_real, "val_fake_out": f_fake, "val_real_out": f_real})
        ### END SOLUTION

    def configure_optimizers(self):
        """Adam with `lr` and (`beta1`, 0.999), and a scheduler that multiplies the learning rate by 0.97 each epoch.

        Returns ([optimizer], [scheduler]). By default there is no momentum, because the samples, and with them the
        loss, change in each step.
        """
        ### BEGIN SOLUTION 4d
        # TODO Return ([optimizer], [scheduler]): torch.optim.Adam and torch.optim.lr_scheduler.StepLR.
        optimizer = torch.optim.Adam(self.parameters(), lr=self.hparams.lr, betas=(self.hparams.beta1, 0.999))
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.97)
        return [optimizer], [scheduler]
        ### END SOLUTION

    def on_save_checkpoint(self, checkpoint):
        checkpoint["examples"] = to_plain(self.sampler.examples)

    def on_load_checkpoint(self, checkpoint):
        self.sampler.examples = checkpoint["examples"]


# %% nbgrader={"grade_id": "test-4a", "grade": true, "locked": true}
check_part("4a")

# %% nbgrader={"grade_id": "test-4b", "grade": true, "locked": true}
check_part("4b")

# %% nbgrader={"grade_id": "test-4c", "grade": true, "locked": true}
check_part("4c")

# %% nbgrader={"grade_id": "test-4d", "grade": true, "locked": true}
check_part("4d")

# %% [markdown]
# **4e** (1 point) In a good training, $L_{\text{CD}}$ is near 0 from the first epochs on, and yet the samples become
# better and better. Why does it not fall, as the loss of a classifier does? The tutorial keeps the checkpoint with the
# lowest `val_contrastive_divergence`. What does this number measure, and why does it not tell which model generates the
# best digits?

# %% [markdown] nbgrader={"grade_id": "answer-4e", "grade": true, "solution": true, "points": 1}
# Both the network and the samples change: as soon as $f$ is lower for the samples than for the data, the chains climb
# to where it is not. $L_{\text{CD}} \approx 0$ means that the sampler keeps up with the network, not that both are
# good. `val_contrastive_divergence` compares data with uniform noise. Every network soon tells these apart, and it does
# so best when $f$ is large; it does not see samples at all.
#
# ### BEGIN MARK SCHEME
# ½ point: the samples follow the network. ½ point: the validation compares with noise, not with samples.
# ### END MARK SCHEME

# %% [markdown]
# ## 5 Watching the training
#
# Since the loss says little, the training is judged by its pictures: generated images, the buffer, and the mean of $f$
# over noise. Lightning calls the methods of *callbacks* at certain points of the training. The callbacks of the
# tutorial define `on_epoch_end`, which Lightning 2 no longer calls, so they never run there and nobody notices. The
# hook is `on_train_epoch_end(self, trainer, pl_module)`; `trainer.current_epoch` is 0 in the first epoch. The given
# function `record_images(trainer, name, images, columns)` writes a picture to the TensorBoard log, to a PNG file and to
# the output of the training cell.
#
# **5a** Write `pick_frames`: of 256 steps, show the steps 1, 32, 64, …, 256.


# %% nbgrader={"grade_id": "pick-frames", "solution": true}
def pick_frames(imgs_per_step, vis_steps):
    """Of the images after each step, the first one and those after every n-th step, n = num_steps // vis_steps.

    imgs_per_step: (num_steps, B, C, H, W), the images after the steps 1, 2, …; num_steps ≥ vis_steps
    returns: the chosen images (S, B, C, H, W), and the list of their S steps, counted from 1, without repetitions
    """
    ### BEGIN SOLUTION 5a
    # TODO Return the images after the steps 1, n, 2n, 3n, … up to num_steps, and the list of these steps.
    # Step s is entry s - 1. If n is 1, step 1 occurs only once.
    every = len(imgs_per_step) // vis_steps
    steps = sorted({1, *range(every, len(imgs_per_step) + 1, every)})
    return imgs_per_step[[step - 1 for step in steps]], steps
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-5a", "grade": true, "locked": true}
check_part("5a")

# %% [markdown]
# **5b** Write `GenerateCallback`, **5c** `SamplerCallback` and **5d** `OutlierCallback`.


# %% nbgrader={"grade_id": "callbacks", "solution": true}
class GenerateCallback(Callback):
    """Generates `batch_size` images from noise in `num_steps` steps, after the epochs 0, N, 2N, …, N = every_n_epochs.

    Records a picture "generation" with a row for each image, which shows the frames of `pick_frames`.
    """

    def __init__(self, batch_size=8, vis_steps=8, num_steps=256, every_n_epochs=5):
        super().__init__()
        self.batch_size = batch_size
        self.vis_steps = vis_steps
        self.num_steps = num_steps
        self.every_n_epochs = every_n_epochs

    def generate_imgs(self, pl_module):
        """Images from noise after each step, (num_steps, batch_size, C, H, W). The state of the module is kept."""
        ### BEGIN SOLUTION 5b
        # TODO Return the images after each step, with chains that start from uniform noise.
        # The shape (C, H, W) is pl_module.hparams["img_shape"], the network pl_module.cnn, the device pl_module.device.
        # The buffer of pl_module.sampler is not involved.
        start = uniform_images(self.batch_size, pl_module.hparams["img_shape"]).to(pl_module.device)
        return generate_samples(pl_module.cnn, start, steps=self.num_steps, return_img_per_step=True)
        ### END SOLUTION

    def on_train_epoch_end(self, trainer, pl_module):
        """Record frames of new images, if it is time for a picture."""
        ### BEGIN SOLUTION 5b
        # TODO In the epochs 0, N, 2N, … call record_images with the name "generation" and the frames.
        # The images are all frames of the first chain, then all frames of the second one, …; the number of columns is
        # that of the frames. trainer.current_epoch is the number of the epoch.
        if trainer.current_epoch % self.every_n_epochs == 0:
            frames, steps = pick_frames(self.generate_imgs(pl_module), self.vis_steps)
            record_images(trainer, "generation", frames.transpose(0, 1).flatten(0, 1), columns=len(steps))
        ### END SOLUTION


class SamplerCallback(Callback):
    """Records a picture "sampler" of `num_imgs` different images of the buffer, after the epochs 0, N, 2N, …

    If the buffer has fewer images, all are shown.
    """

    def __init__(self, num_imgs=32, every_n_epochs=5):
        super().__init__()
        self.num_imgs = num_imgs
        self.every_n_epochs = every_n_epochs

    def on_train_epoch_end(self, trainer, pl_module):
        """Record images of the buffer, if it is time for a picture."""
        ### BEGIN SOLUTION 5c
        # TODO In the epochs 0, N, 2N, … call record_images with the name "sampler", the images, and 8 columns.
        # Choose random images of pl_module.sampler.examples, without replacement.
        if trainer.current_epoch % self.every_n_epochs == 0:
            examples = pl_module.sampler.examples
            chosen = torch.randperm(len(examples))[: self.num_imgs]
            record_images(trainer, "sampler", examples[chosen], columns=8)
        ### END SOLUTION


class OutlierCallback(Callback):
    """Logs "rand_out", the mean of f over `batch_size` images of uniform noise, after each epoch."""

    def __init__(self, batch_size=1024):
        super().__init__()
        self.batch_size = batch_size

    def on_train_epoch_end(self, trainer, pl_module):
        """Log the mean of f over new noise."""
        ### BEGIN SOLUTION 5d
        # TODO Log "rand_out" with pl_module.log.
        # Compute f with pl_module.cnn in eval mode and without gradients, and restore the mode.
        was_training = pl_module.cnn.training
        pl_module.cnn.eval()
        with torch.no_grad():
            noise = uniform_images(self.batch_size, pl_module.hparams["img_shape"]).to(pl_module.device)
            pl_module.log("rand_out", pl_module.cnn(noise).mean())
        pl_module.cnn.train(was_training)
        ### END SOLUTION


# %% nbgrader={"grade_id": "test-5b", "grade": true, "locked": true}
check_part("5b")

# %% nbgrader={"grade_id": "test-5c", "grade": true, "locked": true}
check_part("5c")

# %% nbgrader={"grade_id": "test-5d", "grade": true, "locked": true}
check_part("5d")

# %% [markdown]
# ## 6 Training and generation
#
# The next cell is given. `train_model` puts everything together. In place of the tutorial's "best" checkpoint it uses
# the last one, and the callback `DivergenceRollback` of the course's library, which part 8 is about.


# %% nbgrader={"grade_id": "train-model", "locked": true}
RUNS = {}  # the trained model, and the values of each step


class History(Callback):
    """Keeps the loss, the contrastive divergence and the learning rate of each step."""

    def __init__(self):
        self.losses, self.gaps = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"]))
        self.gaps.append(float(trainer.callback_metrics["loss_contrastive_divergence"]))


def train_model(train_images, test_images, out, *, epochs, batches, batch_size, lr, steps, clip, num_steps):
    """Train a model on images (N, 1, 28, 28), `batches` random batches per epoch; returns it with its `History`.

    out: folder for the log, the pictures and the checkpoint. steps: of Langevin dynamics in a training step.
    num_steps: of the generated images that are shown. clip: the largest norm of the gradient of the parameters
    """
    pl.seed_everything(42, verbose=False)
    live.handles.clear()
    train_set, test_set = (TensorDataset(images, torch.zeros(len(images))) for images in (train_images, test_images))
    chosen = RandomSampler(train_set, replacement=True, num_samples=batches * batch_size)
    model = DeepEnergyModel(tuple(train_images.shape[1:]), batch_size, lr=lr, steps=steps)
    history = History()
    fit(
        model,
        DataLoader(train_set, batch_size, sampler=chosen),
        DataLoader(test_set, 256),
        Path(out),
        epochs,
        callbacks=[
            NotebookProgress(),
            history,
            GenerateCallback(batch_size=6, num_steps=num_steps),
            SamplerCallback(),
            OutlierCallback(),
            DivergenceRollback("loss_contrastive_divergence", low=LOST_GAP, high=BLOW_UP),
        ],
        gradient_clip_val=clip,
    )
    return model.eval(), history


def trained():
    """The model that the training cell has trained."""
    if "model" not in RUNS:
        raise NotImplementedError("this cell uses the model that the training cell trains")
    return RUNS["model"]


# %%
with once_written():
    RUNS["model"], RUNS["history"] = train_model(train_images, test_images, "runs/deep_energy", **PRESETS[PRESET])

# %% [markdown]
# The contrastive divergence of each step. A healthy training stays near 0. The dashed lines are the bounds at which
# `DivergenceRollback` restores an earlier state.

# %%
with once_written():
    trained()
    display(plot_gaps(RUNS["history"].gaps))

# %% [markdown]
# Generation from noise, in more steps than in training, because these chains do not start from the buffer:

# %%
with once_written():
    pl.seed_everything(43, verbose=False)
    callback = GenerateCallback(batch_size=8, vis_steps=8, num_steps=PRESETS[PRESET]["num_steps"])
    imgs_per_step = callback.generate_imgs(trained()).cpu()
    frames, steps = pick_frames(imgs_per_step, callback.vis_steps)
    display(plots.generation_strip(frames, steps))

# %% [markdown]
# Forty images from the buffer: the chains of the last training steps.

# %%
with once_written():
    pl.seed_everything(43, verbose=False)
    examples = trained().sampler.examples[:2000]
    display(plots.sample_sheet(examples[torch.randperm(len(examples))[:40]], columns=20))

# %% [markdown]
# **6a** (1 point) Describe your generated digits: after how many steps can you recognise the first ones, and what still
# changes later? Are all ten digits among them? Name two reasons why some kinds of digits may be missing or frequent,
# although all of them are equally frequent in the data.

# %% [markdown] nbgrader={"grade_id": "answer-6a", "grade": true, "solution": true, "points": 1}
# Strokes appear within about 30 steps. Later, stray strokes vanish, and the shapes become smoother or change into
# another digit. Usually some digits are missing. Short chains reach the modes next to the noise from which they start,
# not those with the largest probability; and barriers of low $f$ between the modes keep the chains from mixing, so the
# shares are those of the regions from which the modes are reached.
#
# ### BEGIN MARK SCHEME
# ½ point: a description that fits the pictures. ½ point: chains are short and do not mix (or: local maxima).
# ### END MARK SCHEME

# %% [markdown]
# ## 7 Images that are not digits
#
# An image with a high energy is unlikely under the model. The outlier score is $E(x) = -f(x)$, so *larger means more
# outlying*. The tutorial compares the network's output $f$ itself, where outliers are *low*. Both are common, and with
# the wrong one of them an excellent detector has an AUROC near 0.
#
# **7a** Write `outlier_score`.


# %% nbgrader={"grade_id": "outlier-score", "solution": true}
def outlier_score(model, images, batch_size=256):
    """E = -f of all images, larger for outliers: (N, C, H, W) -> (N,) on the CPU, without a graph.

    model: a module that returns f (B,). It is applied to at most `batch_size` images at a time, in eval mode, on its
    own device; afterwards, it is in the mode from before.
    """
    ### BEGIN SOLUTION 7a
    # TODO Return the energies of all N images, in their order.
    # Take the device of the model's parameters. The last batch may be smaller.
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    with torch.no_grad():
        scores = torch.cat([-model(part.to(device)).cpu() for part in images.split(batch_size)])
    model.train(was_training)
    return scores
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-7a", "grade": true, "locked": true}
check_part("7a")

# %% [markdown]
# **7b** Write `changed`: three ways to make an image that is not quite a digit.


# %% nbgrader={"grade_id": "changed", "solution": true}
def changed(images, noise):
    """Changed copies of images (N, 1, H, W) in [-1, 1], H and W even; a dict of three tensors of the same shape.

    "noise": with 0.3 · `noise` added, clipped to IMG_RANGE; noise: (N, 1, H, W), standard normal
    "flipped": turned upside down and left to right
    "shrunk": every second row and column, in the lower right quarter of a black image (-1)
    """
    ### BEGIN SOLUTION 7b
    # TODO Return the dict. The given images must not change.
    shrunk = torch.full_like(images, -1)
    shrunk[:, :, images.shape[2] // 2 :, images.shape[3] // 2 :] = images[:, :, ::2, ::2]
    return {
        "noise": (images + 0.3 * noise).clamp(*IMG_RANGE),
        "flipped": images.flip(2, 3),
        "shrunk": shrunk,
    }
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-7b", "grade": true, "locked": true}
check_part("7b")

# %% [markdown]
# The next cell is given: `compare_images` shows an image and a changed one, with their outlier scores.


# %% nbgrader={"grade_id": "compare-images", "locked": true}
def compare_images(model, image, other):
    """The outlier scores of two images (1, H, W), and a figure of both with the scores as titles."""
    scores = outlier_score(model, torch.stack([image, other])).tolist()
    return scores, plots.sample_sheet(torch.stack([image, other]), [f"E = {score:.3f}" for score in scores], columns=2)


# %%
with once_written():
    torch.manual_seed(1)
    image = test_images[:1]
    for name, other in changed(image, torch.randn_like(image)).items():
        scores, figure = compare_images(trained(), image[0], other[0])
        print(f"{name}: E = {scores[0]:.3f} of the image, {scores[1]:.3f} after the change")
        display(figure)

# %% [markdown]
# Single images say little. The *AUROC* is the probability that a random outlier has a larger score than a random digit:
#
# $$\text{AUROC} = \frac1{N M}\sum_{i=1}^N\sum_{j=1}^M
#     \Bigl([\,s_j^{\text{out}} > s_i^{\text{in}}\,] + \tfrac12\,[\,s_j^{\text{out}} = s_i^{\text{in}}\,]\Bigr) .$$
#
# It is 1 for a perfect detector, ½ for chance, and near 0 for a detector whose sign is wrong.
#
# **7c** Write `auroc`. You may use `roc_auc_score` of scikit-learn, which is imported.


# %% nbgrader={"grade_id": "auroc", "solution": true}
def auroc(scores_in, scores_out):
    """The area under the ROC curve, a float; outliers are the positive class.

    scores_in: (N,), outlier scores of digits. scores_out: (M,), of other images
    """
    ### BEGIN SOLUTION 7c
    # TODO Return the AUROC.
    labels = torch.cat([torch.zeros(len(scores_in)), torch.ones(len(scores_out))])
    return float(roc_auc_score(labels, torch.cat([scores_in, scores_out])))
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-7c", "grade": true, "locked": true}
check_part("7c")

# %%
with once_written():
    torch.manual_seed(2)
    groups = {"uniform noise": uniform_images(len(test_images), (1, 28, 28))}
    groups |= changed(test_images, torch.randn_like(test_images)) | other_images()
    digit_scores = outlier_score(trained(), test_images)
    scores = {name: outlier_score(trained(), images) for name, images in groups.items()}
    for name, values in scores.items():
        print(f"{name:14} mean E {values.mean():8.3f}   AUROC {auroc(digit_scores, values):.3f}")
    print(f"{'test digits':14} mean E {digit_scores.mean():8.3f}")
    rows = torch.cat([images[:: max(1, len(images) // 10)][:10] for images in groups.values()])
    figure = plots.sample_sheet(rows, columns=10)
    for row, name in enumerate(groups):
        figure.axes[10 * row].set_ylabel(name, rotation=0, ha="right", va="center", color=plots.GREY)
    display(figure)
    display(plots.roc_curves({name: (digit_scores, values) for name, values in scores.items()}))

# %% [markdown]
# **7d** (1 point) Which changes does your model detect, and which not? Uniform noise is easy to detect: why is this
# almost guaranteed by the training? Why are flipped digits hard, and which of the ten digits could not be detected by
# any model?

# %% [markdown] nbgrader={"grade_id": "answer-7d", "grade": true, "solution": true, "points": 1}
# Noise, shrunk digits and other characters are detected almost perfectly, flipped digits worse. Fresh chains start from
# uniform noise in each training step, so $f$ is pushed down there. A flipped digit has the same strokes as a digit, and
# a small network mostly judges strokes. 0, 1 and 8 look nearly the same upside down, and 6 and 9 become each other:
# they are digits, and have a high density.
#
# ### BEGIN MARK SCHEME
# ½ point: noise is what the chains start from. ½ point: flipped digits have the same strokes, and 0, 1, 6, 8, 9 remain
# digits when flipped.
# ### END MARK SCHEME

# %% [markdown]
# ## 8 Instability
#
# Energy-based models diverge easily: with a larger learning rate, fewer Langevin steps or a larger network. There are
# three kinds of failure.
#
# * **not finite**: a loss is NaN or infinite.
# * **blow up**: mean $f(\tilde x) - $ mean $f(x)$ is large and positive. The samples are far more likely than the data,
#   and the network does not follow.
# * **sampler lost**: the same difference is large and negative. This one is silent: the loss is low, and $f$ tells data
#   from samples perfectly. But the chains no longer find the regions of high $f$. They are noise or stripes, training
#   learns nothing from them, and generation fails. The difference approaches its minimum $-1/\alpha$, where
#   regularisation and contrastive divergence are in balance.
#
# A single step says nothing, because the difference is noisy. Its mean over a window of steps does.
#
# **8a** Write `diagnose`.


# %% nbgrader={"grade_id": "diagnose", "solution": true}
def diagnose(losses, gaps, low=LOST_GAP, high=BLOW_UP, window=50):
    """What is wrong with a training: "not finite", "blow up", "sampler lost" or "healthy".

    losses: list of floats, the losses of all steps so far; "not finite" if any of them is NaN or infinite
    gaps: list of floats, mean f(samples) - mean f(data) of all steps so far. If their mean over the last `window`
        steps is above `high`, the network blows up; if it is below `low`, the sampler is lost. With fewer steps than
        `window`, it is too early to tell, and the training counts as healthy.
    """
    ### BEGIN SOLUTION 8a
    # TODO Return one of the four texts.
    # A loss that is not finite is looked for first: see math.isfinite.
    if not all(math.isfinite(loss) for loss in losses):
        return "not finite"
    if len(gaps) < window:
        return "healthy"
    mean = sum(gaps[-window:]) / window
    if mean > high:
        return "blow up"
    return "sampler lost" if mean < low else "healthy"
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-8a", "grade": true, "locked": true}
check_part("8a")

# %% [markdown]
# The tutorial advises to reload an earlier checkpoint by hand. `DivergenceRollback` does so while the model trains. It
# restores network, optimizer and replay buffer, lowers the learning rate, and says so. The next cell provokes a
# divergence with a learning rate that is much too high and too few Langevin steps. For each step, `diagnose` judges the
# last 50 steps.

# %%
with once_written():
    trained()
    _, history = train_model(train_images, test_images, "runs/unstable", **UNSTABLE)
    ends = range(1, len(history.gaps) + 1)
    found = [diagnose(history.losses[:end][-50:], history.gaps[:end][-50:]) for end in ends]
    for name in sorted(set(found)):
        print(f"{name}: {found.count(name)} of {len(found)} steps, first at step {found.index(name) + 1}")
    display(plot_gaps(history.gaps))

# %% [markdown]
# **8b** (1 point) Why is it not enough to watch the loss? Why does the rollback also restore the replay buffer, and why
# does it lower the learning rate? Name two settings, other than the learning rate, that make a lost sampler less
# likely.

# %% [markdown] nbgrader={"grade_id": "answer-8b", "grade": true, "solution": true, "points": 1}
# A lost sampler has a low loss, lower than that of a healthy training. The images in the buffer were sampled from the
# diverged network; with them, the restored network would diverge again at once. With the old learning rate it would
# take much the same way again. More Langevin steps per training step, a larger share of chains from the buffer, a
# larger α, or a smaller network help the chains to keep up.
#
# ### BEGIN MARK SCHEME
# ½ point: the loss is low when the sampler is lost. ½ point: buffer, learning rate, and two sensible settings.
# ### END MARK SCHEME

# %% [markdown]
# ## Handing in
#
# Restart the kernel, run all cells once more, and save the notebook. Then run `ebmcourse check` in a terminal: it
# repeats the public checks of all exercises on the saved notebook. Hand in this notebook.
#
# ## References
#
# * P. Lippe, *UvA Deep Learning Tutorials*, Tutorial 7: Deep energy-based generative models: the exercise.
# * Y. Du, I. Mordatch, *Implicit generation and modeling with energy-based models*, NeurIPS 2019: buffer and
#   regularisation.
# * M. Welling, Y. W. Teh, *Bayesian learning via stochastic gradient Langevin dynamics*, ICML 2011.
