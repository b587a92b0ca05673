"""4: the loss terms, the steps and the optimizer."""

import numpy as np
import torch
from stand_ins import GivenSampler, Levels, OnMeta, energy_model
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

ALPHA = 0.3
SHAPE = (1, 8, 8)
STEPS = 13
NOISE = 0.005
MISSING = -98765.0  # in the place of a value that is not logged
LOGGED = ("loss", "loss_regularization", "loss_contrastive_divergence", "metrics_avg_real", "metrics_avg_fake")


@inputs
def f_real(rng):
    return torch.from_numpy(rng.uniform(-1.5, 2.0, 5).astype(np.float32))


@inputs
def f_fake(rng):
    """More samples than images."""
    return torch.from_numpy(rng.uniform(-2.5, 0.5, 8).astype(np.float32))


@probe
def terms(student, f_real, f_fake, alpha):
    """Both terms, and their gradients with respect to f."""
    model = energy_model(student, Levels(torch.zeros(3)), GivenSampler(torch.zeros(4, *SHAPE)), alpha=alpha)
    real, fake = f_real.clone().requires_grad_(), f_fake.clone().requires_grad_()
    try:
        found = model.loss_terms(real, fake)
    except Exception:
        few = min(len(real), len(fake))
        model.loss_terms(real[:few], fake[:few])  # fails, too, unless the sizes are the reason
        require(False, "The terms fail if there are not as many samples as images. Take the mean of each first.")
    require(isinstance(found, tuple | list) and len(found) == 2, "`loss_terms` returns two tensors.")
    require(all(isinstance(term, torch.Tensor) for term in found), "`loss_terms` returns two tensors.")
    require(all(term.requires_grad for term in found), "A term has no gradient: use neither detach() nor item().")
    slopes = [torch.autograd.grad(term.sum(), [real, fake], retain_graph=True, allow_unused=True) for term in found]
    return {
        "contrastive": found[0].detach(),
        "regularisation": found[1].detach(),
        "slopes": [torch.zeros(()) if slope is None else slope for pair in slopes for slope in pair],
    }


def judge_terms(got, want, real, fake, alpha):
    gap, squares = fake.mean() - real.mean(), real.square().mean() + fake.square().mean()
    both = torch.cat([real, fake])
    few = min(len(real), len(fake))
    if not difference(got["contrastive"], alpha * squares, 1e-4, 1e-5) and not difference(
        got["regularisation"], gap, 1e-4, 1e-5
    ):
        fail("The terms are in the wrong order: first the contrastive divergence.")
    assert_close(
        got["contrastive"],
        want["contrastive"],
        mistakes={
            "The sign of the contrastive divergence is wrong. It is mean f(samples) - mean f(data).": -gap,
            "The contrastive divergence is multiplied by α. Only the regularisation is.": alpha * gap,
            "The contrastive divergence is a sum over the batch. Use means.": fake.sum() - real.sum(),
            "The contrastive divergence is the absolute value. It may be negative.": gap.abs(),
            "The contrastive divergence contains the regularisation.": gap + alpha * squares,
            "The contrastive divergence is the square of the difference.": gap.square(),
            "The contrastive divergence is that of f without sign.": fake.abs().mean() - real.abs().mean(),
            "The contrastive divergence is a ratio of exponentials. It is a difference of means of f.": (
                fake.exp().mean() / real.exp().mean()
            ),
            "The mean of f over data is missing.": fake.mean(),
            "The mean of f over samples is missing.": -real.mean(),
            "Some values are left out. There need not be as many samples as images.": (
                fake[:few].mean() - real[:few].mean()
            ),
            "The contrastive divergence is the regularisation.": alpha * squares,
        },
    )
    assert_close(
        got["regularisation"],
        want["regularisation"],
        mistakes={
            "The regularisation is not multiplied by α.": squares,
            "`alpha` is ignored. Use self.hparams.alpha.": 0.1 * squares,
            "The regularisation does not include the samples.": alpha * real.square().mean(),
            "The regularisation does not include the data.": alpha * fake.square().mean(),
            "Only the data are multiplied by α. Use parentheses.": alpha * real.square().mean() + fake.square().mean(),
            "The regularisation is half as large. It is the sum of two means, not their mean.": alpha * squares / 2,
            "The regularisation is the mean over data and samples together. Add the two means.": (
                alpha * both.square().mean()
            ),
            "The regularisation is twice the mean over data and samples together. Add the two means.": (
                2 * alpha * both.square().mean()
            ),
            "The regularisation is a sum over the batch. Use means.": alpha * both.square().sum(),
            "The regularisation has the squares of the means. Square first.": (
                alpha * (real.mean().square() + fake.mean().square())
            ),
            "The regularisation is the square of the difference. Square f of data and of samples.": (
                alpha * gap.square()
            ),
            "The values in the regularisation are not squared.": alpha * (real.mean() + fake.mean()),
            "The regularisation has absolute values in place of squares.": alpha
            * (real.abs().mean() + fake.abs().mean()),
            "The regularisation is subtracted. It is a penalty.": -alpha * squares,
            "Samples are subtracted in the regularisation. Add both means.": (
                alpha * (real.square().mean() - fake.square().mean())
            ),
            "The regularisation is multiplied by α².": alpha**2 * squares,
            "Some values are left out. There need not be as many samples as images.": (
                alpha * (real[:few].square().mean() + fake[:few].square().mean())
            ),
            "The regularisation is the contrastive divergence.": gap,
        },
    )


@exercise("4a", points=1, public=True, hint="mean f(samples) - mean f(data), and α (mean f(data)² + mean f(samples)²).")
def test_both_terms(run, f_real, f_fake):
    """`loss_terms` returns the contrastive divergence and α times the regularisation."""
    got, want = run(terms, f_real, f_fake, ALPHA)
    judge_terms(got, want, f_real, f_fake, ALPHA)


@inputs
def c(rng):
    """The coefficients of f = c₀ + c₁ · mean(x) + c₂ · mean(x²)."""
    return torch.from_numpy(rng.uniform(0.5, 1.5, 3).astype(np.float32))


@inputs
def images(rng):
    """A full batch of dark images."""
    return torch.from_numpy((rng.uniform(-0.9, -0.2, (4, 1, 1, 1)) + np.zeros((4, *SHAPE))).astype(np.float32))


@inputs
def samples(rng):
    """Bright samples, with noise of their own."""
    levels = rng.uniform(0.1, 0.8, (6, 1, 1, 1)) + rng.uniform(-0.1, 0.1, (6, *SHAPE))
    return torch.from_numpy(levels.astype(np.float32))


@inputs
def extreme(rng):
    """Many images at the ends of the range, to measure the noise that is added and clipped."""
    return torch.from_numpy(rng.choice([-1.0, 0.0, 1.0], (40, *SHAPE)).astype(np.float32))


@probe
def training(student, images, samples, c, alpha):
    """A training step on these images: the loss, its slope, the logs, and what network and sampler were given.

    isolated: with two other terms of the loss, so that those of 4a do not matter. The first image is given as a last,
    smaller batch by passing fewer images.
    """

    def attempt(isolated):
        network, sampler = Levels(c, penalty=0.0), GivenSampler(samples)
        model = energy_model(student, network, sampler, alpha=alpha, steps=STEPS)
        if isolated:
            model.loss_terms = lambda real, fake, *args: (
                2 * real.mean() + 3 * fake.mean(),
                alpha * (real.exp().mean() + 5 * fake.mean()),
            )
        batch = [images.clone(), torch.zeros(len(images))]
        loss = model.training_step(batch, 0)
        loss = loss["loss"] if isinstance(loss, dict) else loss
        require(loss is not None, "`training_step` returns nothing. Return the loss.")
        require(isinstance(loss, torch.Tensor) and loss.dim() == 0, "The loss must be a tensor of shape ().")
        (slope,) = torch.autograd.grad(loss, network.w, allow_unused=True) if loss.requires_grad else (None,)
        seen = torch.cat(network.images)
        missing = torch.tensor(MISSING)
        return {
            "loss": loss.detach(),
            "slope": torch.zeros(()) if slope is None else slope,
            "logged": {name: model.records.get(name, missing) for name in LOGGED},
            "asked": torch.tensor(
                [[*sampler.steps, -1.0][0], [*sampler.step_sizes, -1.0][0], float(len(sampler.steps))]
            ),
            "batch": batch[0],
            "seen": seen,
        }

    return ways(isolated=lambda: attempt(True), whole=lambda: attempt(False))


@probe
def two_steps(student, images, samples, c):
    """Two training steps on the same images: how often the sampler was asked in each, and what the network was given.

    The terms of the loss do not matter.
    """
    network, sampler = Levels(c, penalty=0.0), GivenSampler(samples)
    model = energy_model(student, network, sampler)
    model.loss_terms = lambda real, fake, *args: (real.mean(), fake.mean())
    asked, seen = [], []
    for number in range(2):
        network.images.clear()
        sampler.steps.clear()
        model.training_step([images.clone(), torch.zeros(len(images))], number)
        asked.append(len(sampler.steps))
        seen.append(torch.cat(network.images))
    return {"asked": asked, "seen": seen}


@probe
def two_steps_on_the_device(student, images, samples, c):
    """`two_steps`, of a model whose noise must be on the device of the images."""
    network = OnMeta()
    model = energy_model(student, network, GivenSampler(samples.to("meta"))).to("meta")
    model.loss_terms = lambda real, fake, *args: (real.mean(), fake.mean())
    batch = [images.to("meta"), torch.zeros(len(images))]
    require(
        not network.misses(lambda: model.training_step(batch, 0)),
        "The noise is not on the device of the images. Use torch.randn_like.",
    )
    return two_steps(student, images, samples, c)


def distances(one, other):
    """The distances between all rows of (N, D) and (M, D), exact for equal rows; leading axes are kept."""
    return torch.cdist(one, other, compute_mode="donot_use_mm_for_euclid_dist")


def losses(way_is_isolated, real, fake, alpha):
    """The two terms of f of data and samples."""
    if way_is_isolated:
        return 2 * real.mean() + 3 * fake.mean(), alpha * (real.exp().mean() + 5 * fake.mean())
    return fake.mean() - real.mean(), alpha * (real.square().mean() + fake.square().mean())


def f_of(x, c):
    flat = x.flatten(1)
    return c[0] + c[1] * flat.mean(1) + c[2] * flat.square().mean(1)


def judge_training(run, images, samples, c, judge):
    got, want = run(training, images, samples, c, ALPHA)

    def judge_way(way, right):
        isolated = right is want["isolated"]
        try:
            judge(way, right, lambda real, fake: losses(isolated, real, fake, ALPHA))
        except Mismatch as mismatch:
            if not mismatch.diagnosis and has_strong_noise(way["seen"], images, samples):
                fail("The noise of the images is so strong that it changes f: its standard deviation is 0.005.")
            raise

    assert_either_way(got, want, judge_way)


def has_strong_noise(seen, images, samples):
    """Whether images whose pixels were equal are given to the network with much more noise than they should have."""
    if seen.shape[1:] != SHAPE or images.flatten(1).std(1).max() > 1e-6:
        return False
    noisy = seen[distances(seen.flatten(1), samples.flatten(1)).min(1).values > 1e-4]
    return len(noisy) == len(images) and noisy.flatten(1).std(1).max().item() > 3 * NOISE


def wrong_splits(real, fake):
    """What counts as f of data and of samples, by mistake."""
    both, few = torch.cat([real, fake]), min(len(real), len(fake))
    less, more = len(both) // 2, (len(both) + 1) // 2
    return {
        "Some samples are left out. There may be more samples than images.": (real, fake[:few]),
        "The output of the network is cut in halves, so samples count as data if there are more samples.": (
            both[:more],
            both[more:],
        ),
        "The output of the network is not cut after the images of the batch, so samples count as data.": (
            both[:less],
            both[less:],
        ),
    }


def judge_loss(way, right, of, images, samples, c):
    real, fake = f_of(images, c), f_of(samples, c)
    first, second = of(real, fake)
    # The noise changes the loss by about 0.0005.
    assert_close(
        way["loss"],
        right["loss"],
        rtol=0,
        atol=0.01,
        mistakes=lambda: (
            {
                "The regularisation is missing in the loss.": first,
                "The contrastive divergence is missing in the loss.": second,
                "The regularisation is subtracted. Add both terms.": first - second,
                "The contrastive divergence is subtracted. Add both terms.": second - first,
                "The regularisation is multiplied by α twice: `loss_terms` contains the factor.": (
                    first + ALPHA * second
                ),
                "The whole loss is multiplied by α. Add both terms.": ALPHA * (first + second),
                "The loss is the mean of both terms. Add them.": (first + second) / 2,
                "The terms are multiplied. Add them.": first * second,
                "The sign of the loss is wrong.": -first - second,
                "Data and samples are swapped.": sum(of(fake, real)),
                "The samples are data: f of the images is used twice.": sum(of(real, real)),
                "The images are not used: f of the samples is used twice.": sum(of(fake, fake)),
                "The energies -f are used. Use f, the output of the network.": sum(of(-real, -fake)),
            }
            | {sentence: sum(of(*split)) for sentence, split in wrong_splits(real, fake).items()}
        ),
    )

    def slope(of_data=True, of_samples=True, terms=slice(None)):
        w = torch.ones((), requires_grad=True)
        loss = sum(of(w * real if of_data else real, w * fake if of_samples else fake)[terms])
        return torch.autograd.grad(loss, w)[0]

    assert_close(
        way["slope"],
        right["slope"],
        rtol=0,
        atol=0.03,
        mistakes={
            "The loss is right, but it has no gradient with respect to the network: it is detached.": torch.zeros(()),
            "The loss is right, but f of the samples has no gradient. Only the samples are constants.": slope(
                of_samples=False
            ),
            "The loss is right, but f of the images has no gradient: it is detached.": slope(of_data=False),
            "The loss is right, but the regularisation has no gradient: it is detached.": slope(terms=slice(0, 1)),
            "The loss is right, but the contrastive divergence has no gradient: it is detached.": slope(
                terms=slice(1, 2)
            ),
        },
    )


@exercise("4b", points=1, public=True, hint="Sample, compute f of data and samples, and add both terms of loss_terms.")
def test_loss_of_a_batch(run, images, samples, c):
    """`training_step` returns the sum of both terms for the images and the samples."""
    for data in (images, samples[:4] - 0.9):
        judge_training(
            run, data, samples, c, lambda way, right, of, data=data: judge_loss(way, right, of, data, samples, c)
        )


@exercise("4b", points=0.5, public=True, hint="Log the five values with exactly these names.")
def test_logs_of_a_batch(run, images, samples, c):
    """`training_step` logs the loss, both terms, and the means of f over data and over samples."""

    def judge(way, right, of):
        logged = way["logged"]
        for name in LOGGED:
            if (logged[name] == MISSING).all():
                fail(f"No value with the name `{name}` is logged.")

        def values(real, fake):
            first, second = of(real, fake)
            return dict(zip(LOGGED, (first + second, second, first, real.mean(), fake.mean()), strict=True))

        def is_close(name, value):
            return difference(logged[name], value, 0, 0.008) is None

        real, fake = f_of(images, c), f_of(samples, c)
        known, splits = values(real, fake), wrong_splits(real, fake)
        # `loss` is compared with the loss that is returned: a wrong loss costs points in another check.
        if difference(logged["loss"], way["loss"], 0, 0.02):
            fail("The value that is logged as `loss` is not the loss that is returned.")
        for one, other, sentence in (
            (*LOGGED[1:3], "The two terms have each other's names."),
            (*LOGGED[3:], "The means of f over data and over samples have each other's names."),
        ):
            if not is_close(one, known[one]) and is_close(one, known[other]) and is_close(other, known[one]):
                fail(sentence)
        for name in LOGGED[1:]:
            wrong = {f"`{name}` has the value of `{other}`.": known[other] for other in LOGGED if other != name}
            if name.startswith("metrics"):
                wrong["The logged mean is that of the energies. Log the mean of f."] = -known[name]
            else:
                wrong["The regularisation is logged without α."] = known["loss_regularization"] / ALPHA
            if name.startswith("metrics"):
                wrong[f"`{name}` is the sum of f. Log the mean."] = len(real if "real" in name else fake) * known[name]
            wrong |= {sentence: values(*split)[name] for sentence, split in splits.items()}
            assert_close(logged[name], right["logged"][name], rtol=0, atol=0.008, mistakes=wrong)

    judge_training(run, images, samples, c, judge)


@inputs
def validation_images(rng):
    levels = rng.uniform(-0.9, -0.3, (12, 1, 1, 1)) + np.zeros((12, 1, 28, 28))
    return torch.from_numpy(levels.astype(np.float32))


@probe
def validation(student, images, samples, c):
    """What a validation step logs, in eval mode, and mean and mean square of the images that the network was given.

    The hyperparameter `batch_size` is another number than that of the images.
    """
    on_meta = OnMeta()
    model = energy_model(student, on_meta, GivenSampler(samples.to("meta"))).eval().to("meta")
    batch = [images.to("meta"), torch.zeros(len(images))]
    require(
        not on_meta.misses(lambda: model.validation_step(batch, 1)),
        "The noise is not on the device of the images. Use torch.rand_like.",
    )
    network = Levels(c)
    model = energy_model(student, network, GivenSampler(samples)).eval()
    with torch.no_grad():
        model.validation_step([images.clone(), torch.zeros(len(images))], 1)
    missing = torch.tensor(MISSING)
    names = ("val_contrastive_divergence", "val_fake_out", "val_real_out")
    logged = {name: model.records.get(name, missing) for name in names}
    flat = [images.flatten(1) for images in network.images]
    means = [torch.stack([images.mean(1), images.square().mean(1)]) for images in flat]
    return {"logged": logged, "seen": torch.cat(means, 1) if means else torch.zeros(2, 0)}


@exercise(
    "4c", points=1, public=True, hint="Compare f of uniform noise, as many images as in the batch, with f of them."
)
def test_validation_compares_with_noise(run, validation_images, samples, c):
    """`validation_step` logs the means of f over noise and images, and their difference."""
    got, _ = run(validation, validation_images, samples, c)
    logged, seen = got["logged"], got["seen"]
    for name, value in logged.items():
        if (value == MISSING).all():
            fail(f"No value with the name `{name}` is logged.")
    if seen.dim() != 2 or len(seen) != 2:
        raise Mismatch("What the network is given could not be observed.")
    # What the network was given: all images, whose pixels are equal, and as many images of noise, with a mean of
    # 0 ± 0.02.
    flat = validation_images.flatten(1)
    is_image = distances(seen.T, torch.stack([flat.mean(1), flat.square().mean(1)], 1)).min(1).values < 1e-3
    others = seen[:, ~is_image]
    if is_image.sum() < len(flat):
        fail("The network is not given all images of the batch as they are.")
    if others.numel() == 0:
        fail("The network is given no noise. Compute f of uniform noise in the shape of the images.")
    if not difference(others[0].sort()[0], samples.flatten(1).mean(1).sort()[0], 0, 1e-3):
        fail("The fake images are samples of the model. They should be uniform noise.")
    if (others[0] - others[0].mean()).abs().max() > 0.15:
        fail("The pixels of a noise image are not independent of each other. Use torch.rand_like.")
    judge_uniform(*others.mean(1).tolist())
    if others.shape[1] != len(flat):
        fail("The number of noise images is not that of the images in the batch, which may differ from `batch_size`.")
    real, fake = f_of(validation_images, c).mean(), c[0] + c[2] / 3
    # 12 × 784 pixels: the mean of f has a standard deviation of about 0.01.
    loose = {"rtol": 0, "atol": 0.05}
    is_swapped = not difference(logged["val_real_out"], fake, **loose)
    if is_swapped and not difference(logged["val_fake_out"], real, **loose):
        fail("The means over noise and over images have each other's names.")
    energies = "These are energies. Log f, the output of the network."
    for name, right, other in (("val_real_out", real, fake), ("val_fake_out", fake, real)):
        wrong = {f"`{name}` is the other mean.": other, energies: -right}
        wrong[f"`{name}` is the difference of the means."] = fake - real
        wrong[f"`{name}` is the sum of f. Log the mean."] = len(flat) * right
        assert_close(logged[name], right, **loose, mistakes=wrong)
    assert_close(
        logged["val_contrastive_divergence"],
        fake - real,
        **loose,
        mistakes={
            "The sign is wrong. It is mean f(noise) - mean f(images).": real - fake,
            "The mean over the images is missing.": fake,
            "The mean over the noise is missing.": -real,
        },
    )


@inputs
def pushes(rng):
    """Gradients of a parameter of three values, of 6 steps in each of 3 epochs."""
    return torch.from_numpy(rng.standard_normal((3, 6, 3)).astype(np.float32))


@inputs
def settings(rng):
    """lr and beta1."""
    return torch.from_numpy(np.array([rng.uniform(0.02, 0.05), rng.uniform(0.3, 0.6)]).astype(np.float32))


@probe
class Three(nn.Module):
    """A network whose only parameter has three values."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(3))

    def forward(self, x):
        return x.flatten(1).sum(1) * self.w.sum()


@probe
def training_path(student, pushes, settings):
    """The parameter after each step with given gradients; schedulers are called as Lightning does."""
    lr, beta1 = settings.tolist()
    network = Three()
    model = energy_model(student, network, GivenSampler(torch.zeros(4, *SHAPE)), lr=lr, beta1=beta1)
    made = model.configure_optimizers()
    if isinstance(made, dict):
        scheduler = made.get("lr_scheduler")
        optimizers, schedulers = [made["optimizer"]], [scheduler] if scheduler else []
    elif isinstance(made, tuple | list) and len(made) == 2 and isinstance(made[0], tuple | list):
        optimizers, schedulers = made
    else:
        optimizers, schedulers = [made], []
    require(len(optimizers) == 1, "There must be one optimizer.")

    def end(interval, number):
        for scheduler in schedulers:
            settings = scheduler if isinstance(scheduler, dict) else {"scheduler": scheduler}
            if settings.get("interval", "epoch") == interval and number % settings.get("frequency", 1) == 0:
                settings["scheduler"].step()

    path = []
    for number, epoch in enumerate(pushes, 1):
        for push in epoch:
            optimizers[0].zero_grad()
            network.w.grad = push.clone()
            optimizers[0].step()
            path.append(network.w.detach().clone())
            end("step", len(path))
        end("epoch", number)
    return torch.stack(path)


def walked(pushes, make, *, every=1, gamma=0.97, per_step=False):
    """The path of a parameter with this optimizer and schedule."""
    w = torch.zeros(3, requires_grad=True)
    optimizer = make([w])
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, every, gamma=gamma)
    path = []
    for epoch in pushes:
        for push in epoch:
            w.grad = push.clone()
            optimizer.step()
            path.append(w.detach().clone())
            if per_step:
                scheduler.step()
        if not per_step:
            scheduler.step()
    return torch.stack(path)


@exercise(
    "4d", points=1, public=True, hint="Adam with lr and betas=(beta1, 0.999), and StepLR(optimizer, 1, gamma=0.97)."
)
def test_optimizer_and_scheduler(run, pushes, settings):
    """The parameters move as with Adam, and the learning rate is multiplied by 0.97 after each epoch."""
    got, want = run(training_path, pushes, settings)
    lr, beta1 = settings.tolist()

    def adam(lr=lr, betas=(beta1, 0.999), kind=torch.optim.Adam, **options):
        return lambda parameters: kind(parameters, lr=lr, betas=betas, **options)

    def mistakes():
        return {
            "The learning rate never changes: there is no scheduler, or its step_size is too large.": walked(
                pushes, adam(), gamma=1.0
            ),
            "The learning rate is multiplied by 0.1 after each epoch. Use gamma=0.97.": walked(
                pushes, adam(), gamma=0.1
            ),
            "The learning rate is multiplied by 0.03 after each epoch. Use gamma=0.97.": walked(
                pushes, adam(), gamma=0.03
            ),
            "The learning rate is multiplied by 0.97 only every second epoch. Use step_size=1.": walked(
                pushes, adam(), every=2
            ),
            'The learning rate is multiplied by 0.97 after each batch. Use the interval "epoch".': walked(
                pushes, adam(), per_step=True
            ),
            "`beta1` is ignored. Use betas=(self.hparams.beta1, 0.999).": walked(pushes, adam(betas=(0.9, 0.999))),
            "`beta1` is ignored: it is always 0. Use self.hparams.beta1.": walked(pushes, adam(betas=(0.0, 0.999))),
            "`beta1` is the second beta. Use betas=(self.hparams.beta1, 0.999).": walked(
                pushes, adam(betas=(0.9, beta1))
            ),
            "The order of the betas is wrong: `beta1` is the first one.": walked(pushes, adam(betas=(0.999, beta1))),
            "`lr` is ignored: it is that of Adam, 0.001. Use self.hparams.lr.": walked(pushes, adam(lr=1e-3)),
            "`lr` is ignored: it is always 0.0001. Use self.hparams.lr.": walked(pushes, adam(lr=1e-4)),
            "This is gradient descent. Use Adam.": walked(pushes, lambda w: torch.optim.SGD(w, lr=lr)),
            "This is gradient descent with momentum. Use Adam.": walked(
                pushes, lambda w: torch.optim.SGD(w, lr=lr, momentum=beta1)
            ),
            "This is RMSprop. Use Adam.": walked(pushes, lambda w: torch.optim.RMSprop(w, lr=lr)),
            "This is AdamW. Use Adam, without weight decay.": walked(pushes, adam(kind=torch.optim.AdamW)),
            "The second beta is 0.99. Use 0.999.": walked(pushes, adam(betas=(beta1, 0.99))),
        }

    close, epoch = {"rtol": 1e-3, "atol": 1e-5}, pushes.shape[1]
    try:
        assert_close(got, want, **close, mistakes=mistakes)
    except Mismatch as mismatch:
        if mismatch.diagnosis or got.shape != want.shape:
            raise
        if not difference(got[:epoch], want[:epoch], **close):
            fail("The first epoch is right, the next ones are not. Multiply `lr` by 0.97 after each epoch.")
        if not difference(got[:1], want[:1], **close):
            fail("The first step is right, the next ones are not. Check the kind of optimizer, and its betas.")
        raise
