"""3.4: the losses and the training step."""

import numpy as np
import torch
import torch.nn.functional as F
from stand_ins import GivenSampler, Lines, jem, slope_of
from torchmetrics.functional.classification import multiclass_average_precision

from ebmcourse.checking import assert_close, exercise, fail, inputs, probe

ALPHA, LMBD = 0.3, 0.45
STEPS, EPOCH, DECAY = 7, 2, 0.5
LOGGED = ("val_contrastive_divergence", "val_MulticlassAveragePrecision")
DETACHED = "The loss is right, but its gradient is not. Check whether some values are detached from the network."


def grey_images(rng, low, high, count=4):
    """Constant images: the stand-in network depends only on the mean of an image."""
    levels = rng.uniform(low, high, (count, 1, 1, 1)) + np.zeros((count, 1, 24, 24))
    return torch.from_numpy(levels.astype(np.float32))


@inputs
def images(rng):
    return grey_images(rng, -0.9, -0.1)


@inputs
def chains(rng):
    return grey_images(rng, 0.2, 0.9)


@inputs
def lines(rng):
    """Slopes and offsets of three classes. f is larger for brighter images, such as the chains."""
    levels = rng.permutation(np.array([0.5, 1.2, 1.9])) + rng.uniform(0, 0.3, 3)
    return torch.from_numpy(np.stack([rng.uniform(0.7, 1.6, 3), levels]).astype(np.float32))


@inputs
def labels(rng):
    return torch.from_numpy(rng.permutation(np.array([0, 1, 2, 2])))


@inputs
def parts(rng):
    return torch.from_numpy(rng.uniform(0.5, 3.0, 3).astype(np.float32))


@inputs
def validation_images(rng):
    return grey_images(rng, -0.9, -0.1, 24)


@inputs
def validation_chains(rng):
    return grey_images(rng, 0.2, 0.9, 24)


@inputs
def validation_labels(rng):
    return torch.from_numpy(rng.permutation(np.arange(24) % 3))


@probe
def px_loss(student, images, chains, labels, lines, conditional):
    """The loss of log q(x), its derivative with respect to the network's scale, and the arguments of the sampler."""
    network, sampler = Lines(lines), GivenSampler(chains)
    model = jem(student, network, sampler, epoch=EPOCH, alpha=ALPHA, steps=STEPS, step_size_decay=DECAY)
    loss = model.px_step((images.clone(), labels), ccond_sample=conditional)
    asked = {"labels": sampler.labels, "steps": sampler.steps, "step_sizes": sampler.step_sizes}
    return {"loss": loss, "slope": slope_of(loss, network.w), "asked": asked}


def judge_asked(asked, labels):
    """Check the arguments of the sampler: these labels, and steps and step size from the hyperparameters."""
    if not all(asked.values()):
        fail("The sampler is not used. Sample the chains with self.sampler.synthesize_samples(…).")
    ignored = {"The labels are not passed to the sampler.": -torch.ones_like(labels)}
    assert_close(asked["labels"][0], labels, mistakes=ignored)
    if asked["steps"][0] != STEPS:
        fail("The hyperparameter `steps` is ignored. Pass steps=self.hparams.steps to the sampler.")
    constant = {"The step size does not decay. Pass step_size=self.step_size to the sampler.": 10.0}
    assert_close(asked["step_sizes"][0], 10 * DECAY**EPOCH, mistakes=constant)


def loss_of(data, fake):
    return fake.mean() - data.mean() + ALPHA * (data.square().mean() + fake.square().mean())


def judge_px(got, want, images, chains, labels, lines, conditional):
    def mistakes():
        free = [Lines(lines)(x).detach() for x in (images, chains)]
        classwise = [Lines(lines)(x, labels).detach() for x in (images, chains)]
        (data, fake), other = (classwise, free) if conditional else (free, classwise)
        labels_wrong = (
            "The labels are ignored. With `ccond_sample`, compute f(x, y) of data and chains."
            if conditional
            else "The labels are used. Without `ccond_sample`, compute f(x) of data and chains."
        )
        gap, l2 = fake.mean() - data.mean(), data.square().mean() + fake.square().mean()
        return {
            "The sign of the contrastive term is wrong. It should be mean f(chains) - mean f(x).": -gap + ALPHA * l2,
            "The sign of the loss is wrong.": -gap - ALPHA * l2,
            "The L2 term is subtracted. Add it, because it is a penalty.": gap - ALPHA * l2,
            "The whole loss is multiplied by α. Multiply only the L2 term by α.": ALPHA * (gap + l2),
            "The contrastive term is multiplied by α. Multiply the L2 term by α instead.": ALPHA * gap + l2,
            "The L2 term is missing, and the contrastive term is multiplied by α. Multiply the L2 term by α instead.": (
                ALPHA * gap
            ),
            "The L2 term is missing. Add α (mean f(x)² + mean f(chains)²).": gap,
            "The contrastive term is missing. Add mean f(chains) - mean f(x).": ALPHA * l2,
            "The L2 term is not multiplied by α.": gap + l2,
            "The L2 term does not include the chains. Add mean f(chains)².": gap + ALPHA * data.square().mean(),
            "The L2 term does not include the data. Add mean f(x)².": gap + ALPHA * fake.square().mean(),
            "The L2 term is only half as large. It is the sum of two means, not their mean.": gap + ALPHA * l2 / 2,
            "The values in the L2 term are not squared.": gap + ALPHA * (data.mean() + fake.mean()),
            "The L2 term contains the square of a difference. Square f(x) and f(chains) separately.": (
                gap + ALPHA * (fake - data).square().mean()
            ),
            "The L2 term contains the squares of the means. Square first, then compute the means.": (
                gap + ALPHA * (data.mean().square() + fake.mean().square())
            ),
            labels_wrong: loss_of(*other),
            "The contrastive term is the difference of pixels. Use f of the chains and of the data.": (
                chains.mean() - images.mean() + ALPHA * l2
            ),
            "This is the sum over the batch. Compute the mean.": 4 * (gap + ALPHA * l2),
            "This is one number per image. Compute the mean over the batch.": fake - data + ALPHA * l2,
        }

    # A solution may add noise to the data, which changes the loss by 0.0005 (standard deviation).
    assert_close(got["loss"], want["loss"], rtol=0, atol=0.004, mistakes=mistakes)
    if difference_of_slopes(got, want) > 0.01:
        fail(DETACHED)


def difference_of_slopes(got, want):
    """The largest difference between the derivatives of the two losses."""
    return (got["slope"] - want["slope"]).abs().max().item() if got["slope"].shape == want["slope"].shape else np.inf


@exercise("3.4a", points=2, public=True, hint="Return mean f(chains) - mean f(x) + α (mean f(x)² + mean f(chains)²).")
def test_loss_of_the_images(run, images, chains, labels, lines):
    """`px_step` returns the contrastive divergence plus α times the L2 term."""
    got, want = run(px_loss, images, chains, labels, lines, False)
    judge_px(got, want, images, chains, labels, lines, False)


### BEGIN HIDDEN TESTS
@exercise(
    "3.4a", points=1, hint="Pass labels, steps and step size to the sampler, and labels to both calls of the network."
)
def test_loss_of_the_images_with_classes(run, images, chains, labels, lines):
    """With `ccond_sample`, `px_step` uses the labels for the chains and for f."""
    got, want = run(px_loss, images, chains, labels, lines, True)
    judge_asked(got["asked"], labels)
    judge_px(got, want, images, chains, labels, lines, True)


### END HIDDEN TESTS


@probe
def pyx_loss(student, images, labels, lines):
    """The loss of the classifier and its derivative with respect to the network's scale."""
    network = Lines(lines)
    model = jem(student, network, GivenSampler(images)).eval()
    loss = model.pyx_step((images.clone(), labels))
    return {"loss": loss, "slope": slope_of(loss, network.w)}


@exercise(
    "3.4b",
    points=1.5,
    public=True,
    hint="Return torch.nn.functional.cross_entropy of the logits and the labels.",
)
def test_loss_of_the_classes(run, images, labels, lines):
    """`pyx_step` returns the mean cross-entropy of the logits and the labels."""
    got, want = run(pyx_loss, images, labels, lines)
    logits = Lines(lines).get_logits(images).detach()
    assert_close(
        got["loss"],
        want["loss"],
        mistakes=lambda: {
            "This is the sum over the batch. Compute the mean.": F.cross_entropy(logits, labels, reduction="sum"),
            "The softmax is applied twice. Pass the logits to cross_entropy.": F.cross_entropy(
                logits.softmax(1), labels
            ),
            "The sign is wrong. The loss is -log q(y|x).": -F.cross_entropy(logits, labels),
            "This is one number per image. Compute the mean.": F.cross_entropy(logits, labels, reduction="none"),
            "This is the negative logit of the class. Apply log_softmax to the logits first.": (
                F.nll_loss(logits, labels)
            ),
            "This is the negative probability of the class. Use its logarithm.": F.nll_loss(logits.softmax(1), labels),
            "The softmax is computed over the batch. Compute it over the classes.": (
                F.nll_loss(logits.log_softmax(0), labels)
            ),
        },
    )
    if difference_of_slopes(got, want) > 1e-4:
        fail(DETACHED)


@probe
def joint_loss(student, images, labels, lines, parts, conditional):
    """The loss of a training step for given results of px_step and pyx_step."""
    model = jem(student, Lines(lines), GivenSampler(images), lmbd=LMBD, ccond_sample=conditional)
    numbers = parts.clone().requires_grad_()
    model.px_step = lambda batch, ccond_sample=True: numbers[2] if ccond_sample else numbers[1]
    model.pyx_step = lambda batch: 1.0 * numbers[0]
    loss = model.training_step((images.clone(), labels), 0)
    loss = loss["loss"] if isinstance(loss, dict) else loss
    return {"loss": loss, "slope": slope_of(loss, numbers)}


@exercise("3.4c", points=1, public=True, hint="Return pyx_step(batch) + lmbd · px_step(batch, …).")
def test_joint_loss(run, images, labels, lines, parts):
    """`training_step` returns the loss of log q(y|x) plus `lmbd` times the loss of log q(x)."""
    got, want = run(joint_loss, images, labels, lines, parts, False)
    pyx, px, other = parts
    assert_close(
        got["loss"],
        want["loss"],
        mistakes={
            "`lmbd` is ignored. Multiply the result of `px_step` by it.": pyx + px,
            "The wrong loss is multiplied by `lmbd`. Multiply the result of `px_step` by it.": LMBD * pyx + px,
            "Both losses are multiplied by `lmbd`. Multiply only the result of `px_step` by it.": LMBD * (pyx + px),
            "The loss of `pyx_step` is multiplied by 1 - lmbd. Its weight is 1.": (1 - LMBD) * pyx + LMBD * px,
            "The loss of `pyx_step` is missing.": LMBD * px,
            "The loss of `px_step` is missing.": pyx,
            "The losses are subtracted. Add them.": pyx - LMBD * px,
            "The hyperparameter `ccond_sample` is not passed to `px_step`.": pyx + LMBD * other,
        },
    )
    if difference_of_slopes(got, want) > 1e-4:
        fail(DETACHED)


### BEGIN HIDDEN TESTS
@exercise("3.4c", points=0.5, hint="Call px_step(batch, ccond_sample=self.hparams.ccond_sample).")
def test_joint_loss_with_classes(run, images, labels, lines, parts):
    """`training_step` passes `ccond_sample` to `px_step`."""
    got, _ = run(joint_loss, images, labels, lines, parts, True)
    # The weight is checked above. This is only about which of the two losses was used.
    if got["slope"].shape != (3,) or got["slope"][1] == got["slope"][2] == 0:
        fail("The loss of `px_step` is missing.")
    if got["slope"][2] == 0 or got["slope"][1] != 0:
        fail("The hyperparameter `ccond_sample` is not passed to `px_step`.")
    if got["slope"].abs().max() > 100:
        fail("The weights of the losses are too large. Use 1 for `pyx_step` and `lmbd` for `px_step`.")
    # The loss is linear in its parts, so it is the sum of the parts times its derivatives, whatever their weights.
    assert_close(torch.as_tensor(got["loss"]).float(), got["slope"] @ parts, rtol=1e-3)


### END HIDDEN TESTS


@probe
def validation_logs(student, images, labels, lines, chains):
    """What a validation step logs, and how often it sampled chains."""
    sampler = GivenSampler(chains)
    model = jem(student, Lines(lines), sampler).eval()
    with torch.no_grad():
        model.validation_step((images.clone(), labels), 0)
        model.on_validation_epoch_end()  # some solutions log here
    logged = {name: model.logged.get(name, torch.tensor(float("nan"))) for name in LOGGED}
    return {"logged": logged, "samplings": len(sampler.steps)}


@exercise("3.4c", points=1, public=True, hint="Log both values with self.log, with exactly these names.")
def test_validation_logs(run, validation_images, validation_labels, lines, validation_chains):
    """`validation_step` logs `val_contrastive_divergence` and `val_MulticlassAveragePrecision`."""
    got, want = run(validation_logs, validation_images, validation_labels, lines, validation_chains)
    for name in LOGGED:
        if got["logged"][name].isnan().all():
            fail(f"No value with the name `{name}` is logged.")
    if not 0 < got["samplings"] <= len(validation_images):  # at most one call for each image
        fail("The contrastive divergence is not computed with chains of the sampler.")
    network = Lines(lines)
    data, fake = network(validation_images).detach(), network(validation_chains).detach()
    gap = fake.mean() - data.mean()
    assert_close(
        got["logged"]["val_contrastive_divergence"],
        gap,
        rtol=0,
        atol=0.004,
        mistakes=lambda: {
            "The sign of the contrastive divergence is wrong. It is mean f(chains) - mean f(x).": -gap,
            "The contrastive divergence contains the L2 term. It is only mean f(chains) - mean f(x).": (
                gap + 0.1 * (data.square().mean() + fake.square().mean())
            ),
            "The contrastive divergence is the difference of pixels. Use f of the chains and of the data.": (
                validation_chains.mean() - validation_images.mean()
            ),
        },
    )
    logits = network.get_logits(validation_images).detach()
    assert_close(
        got["logged"]["val_MulticlassAveragePrecision"],
        want["logged"]["val_MulticlassAveragePrecision"],
        mistakes=lambda: {
            "This is the accuracy. Log the average precision of the logits.": (
                (logits.argmax(1) == validation_labels).float().mean()
            ),
            "The softmax is computed over the batch. Compute it over the classes, or use the logits.": (
                multiclass_average_precision(logits.softmax(0), validation_labels, 3)
            ),
        },
    )
