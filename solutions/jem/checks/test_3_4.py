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
DETACHED = "The loss has the right value, but its gradient does not reach the network: is something detached?"


def grey_images(rng, low, high, count=4):
    """Images of one tone each: the stand-in network only looks at their brightness."""
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
    """Rises and levels of three classes: brighter images, such as the chains, have the larger f."""
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
    """The loss of log p(x), its derivative by the network's scale, and what the sampler was asked for."""
    network, sampler = Lines(lines), GivenSampler(chains)
    model = jem(student, network, sampler, epoch=EPOCH, alpha=ALPHA, steps=STEPS, step_size_decay=DECAY)
    loss = model.px_step((images.clone(), labels), ccond_sample=conditional)
    asked = {"labels": sampler.labels, "steps": sampler.steps, "step_sizes": sampler.step_sizes}
    return {"loss": loss, "slope": slope_of(loss, network.w), "asked": asked}


def judge_asked(asked, labels):
    """Whether the sampler was asked for these labels, with the steps of the hyperparameters."""
    if not all(asked.values()):
        fail("The sampler is not used: the chains come from self.sampler.synthesize_samples(…).")
    ignored = {"The sampler is not given the labels, so its chains have no class.": -torch.ones_like(labels)}
    assert_close(asked["labels"][0], labels, mistakes=ignored)
    if asked["steps"][0] != STEPS:
        fail("The hyperparameter `steps` is ignored: pass steps=self.hparams.steps to the sampler.")
    constant = {"The step size does not decay: pass step_size=self.step_size to the sampler.": 10.0}
    assert_close(asked["step_sizes"][0], 10 * DECAY**EPOCH, mistakes=constant)


def loss_of(data, fake):
    return fake.mean() - data.mean() + ALPHA * (data.square().mean() + fake.square().mean())


def judge_px(got, want, images, chains, labels, lines, conditional):
    def mistakes():
        free = [Lines(lines)(x).detach() for x in (images, chains)]
        classwise = [Lines(lines)(x, labels).detach() for x in (images, chains)]
        (data, fake), other = (classwise, free) if conditional else (free, classwise)
        other_way = "The labels are ignored: with" if conditional else "The labels are used: without"
        gap, l2 = fake.mean() - data.mean(), data.square().mean() + fake.square().mean()
        return {
            "The contrastive term has the wrong sign: this loss makes chains more likely and data less.": (
                -gap + ALPHA * l2
            ),
            "The sign of the whole loss is wrong.": -gap - ALPHA * l2,
            "The L2 term is subtracted; it is a penalty, so add it.": gap - ALPHA * l2,
            "α is the weight of the L2 term; here it weighs the contrastive term (too).": ALPHA * (gap + l2),
            "α is the weight of the L2 term; here it weighs the contrastive term.": ALPHA * gap + l2,
            "α is the weight of the L2 term, which is missing; here it weighs the contrastive term.": ALPHA * gap,
            "The L2 term is missing: add α (mean f(x)² + mean f(chains)²).": gap,
            "The contrastive term is missing: mean f(chains) - mean f(x).": ALPHA * l2,
            "α is missing in front of the L2 term.": gap + l2,
            "The L2 term lacks the chains.": gap + ALPHA * data.square().mean(),
            "The L2 term lacks the data.": gap + ALPHA * fake.square().mean(),
            "The L2 term is only half as large: it is the sum of the two means.": gap + ALPHA * l2 / 2,
            "The L2 term is not squared.": gap + ALPHA * (data.mean() + fake.mean()),
            "The L2 term is that of the difference; square both energies.": gap + ALPHA * (fake - data).square().mean(),
            "The L2 term is that of the mean energies; square first, then take the mean.": (
                gap + ALPHA * (data.mean().square() + fake.mean().square())
            ),
            f"{other_way} ccond_sample, f is that of {'the class' if conditional else 'no class'}.": loss_of(*other),
            "The contrastive term compares pixels; compare the energies of data and chains.": (
                chains.mean() - images.mean() + ALPHA * l2
            ),
            "This is the sum over the batch; take the mean.": 4 * (gap + ALPHA * l2),
            "This is one number per image; take the mean over the batch.": fake - data + ALPHA * l2,
        }

    # Noise on the data, which is allowed, changes the loss by 0.0005 (standard deviation).
    assert_close(got["loss"], want["loss"], rtol=0, atol=0.004, mistakes=mistakes)
    if difference_of_slopes(got, want) > 0.01:
        fail(DETACHED)


def difference_of_slopes(got, want):
    """How far the derivatives of the two losses lie apart."""
    return (got["slope"] - want["slope"]).abs().max().item() if got["slope"].shape == want["slope"].shape else np.inf


@exercise(
    "3.4a", points=2, public=True, hint="mean f(chains) - mean f(x) + α (mean f(x)² + mean f(chains)²), with f = -E."
)
def test_loss_of_the_images(run, images, chains, labels, lines):
    """`px_step` returns contrastive divergence plus α times the L2 term of the energies."""
    got, want = run(px_loss, images, chains, labels, lines, False)
    judge_px(got, want, images, chains, labels, lines, False)


### BEGIN HIDDEN TESTS
@exercise(
    "3.4a", points=1, hint="The labels go to the sampler and into both energies; steps and step size to the sampler."
)
def test_loss_of_the_images_with_classes(run, images, chains, labels, lines):
    """With `ccond_sample`, chains and energies are those of the classes of the batch."""
    got, want = run(px_loss, images, chains, labels, lines, True)
    judge_asked(got["asked"], labels)
    judge_px(got, want, images, chains, labels, lines, True)


### END HIDDEN TESTS


@probe
def pyx_loss(student, images, labels, lines):
    """The classifier's loss and its derivative by the network's scale."""
    network = Lines(lines)
    model = jem(student, network, GivenSampler(images)).eval()
    loss = model.pyx_step((images.clone(), labels))
    return {"loss": loss, "slope": slope_of(loss, network.w)}


@exercise(
    "3.4b",
    points=1.5,
    public=True,
    hint="torch.nn.functional.cross_entropy of the logits and the labels, the mean over the batch.",
)
def test_loss_of_the_classes(run, images, labels, lines):
    """`pyx_step` returns the cross-entropy of the logits, the mean over the batch."""
    got, want = run(pyx_loss, images, labels, lines)
    logits = Lines(lines).get_logits(images).detach()
    assert_close(
        got["loss"],
        want["loss"],
        mistakes=lambda: {
            "This is the sum over the batch; take the mean.": F.cross_entropy(logits, labels, reduction="sum"),
            "cross_entropy takes logits: no softmax before it.": F.cross_entropy(logits.softmax(1), labels),
            "The sign is wrong: the loss is -log p(y|x).": -F.cross_entropy(logits, labels),
            "This is one number per image; take the mean.": F.cross_entropy(logits, labels, reduction="none"),
            "This is minus the logit of the class; take the log_softmax of the logits first.": F.nll_loss(
                logits, labels
            ),
            "This is minus the probability of the class; take its logarithm.": F.nll_loss(logits.softmax(1), labels),
            "The softmax is taken over the batch, not over the classes.": F.nll_loss(logits.log_softmax(0), labels),
        },
    )
    if difference_of_slopes(got, want) > 1e-4:
        fail(DETACHED)


@probe
def joint_loss(student, images, labels, lines, parts, conditional):
    """The loss of a training step where px_step and pyx_step return given numbers."""
    model = jem(student, Lines(lines), GivenSampler(images), lmbd=LMBD, ccond_sample=conditional)
    numbers = parts.clone().requires_grad_()
    model.px_step = lambda batch, ccond_sample=True: numbers[2] if ccond_sample else numbers[1]
    model.pyx_step = lambda batch: 1.0 * numbers[0]
    loss = model.training_step((images.clone(), labels), 0)
    loss = loss["loss"] if isinstance(loss, dict) else loss
    return {"loss": loss, "slope": slope_of(loss, numbers)}


@exercise("3.4c", points=1, public=True, hint="-log p(y|x) plus lmbd times -log p(x): pyx_step + lmbd · px_step.")
def test_joint_loss(run, images, labels, lines, parts):
    """`training_step` returns the classifier's loss plus `lmbd` times the loss of log p(x)."""
    got, want = run(joint_loss, images, labels, lines, parts, False)
    pyx, px, other = parts
    assert_close(
        got["loss"],
        want["loss"],
        mistakes={
            "`lmbd` is ignored: it weighs the loss of log p(x).": pyx + px,
            "`lmbd` weighs the wrong loss: it belongs to px_step.": LMBD * pyx + px,
            "`lmbd` weighs both losses: it belongs to px_step only.": LMBD * (pyx + px),
            "The two weights add up to 1 here; the loss of the classifier has the weight 1.": (
                (1 - LMBD) * pyx + LMBD * px
            ),
            "The loss of the classifier is missing.": LMBD * px,
            "The loss of log p(x) is missing.": pyx,
            "The losses are subtracted; add them.": pyx - LMBD * px,
            "The hyperparameter `ccond_sample` is not passed on to `px_step`.": pyx + LMBD * other,
        },
    )
    if difference_of_slopes(got, want) > 1e-4:
        fail(DETACHED)


### BEGIN HIDDEN TESTS
@exercise("3.4c", points=0.5, hint="px_step(batch, ccond_sample=self.hparams.ccond_sample).")
def test_joint_loss_with_classes(run, images, labels, lines, parts):
    """`training_step` passes `ccond_sample` on."""
    got, _ = run(joint_loss, images, labels, lines, parts, True)
    # The weight of the loss is asked for above; here only which of the two losses was taken.
    if got["slope"].shape != (3,) or got["slope"][1] == got["slope"][2] == 0:
        fail("The loss of log p(x) is missing.")
    if got["slope"][2] == 0 or got["slope"][1] != 0:
        fail("The hyperparameter `ccond_sample` is not passed on to `px_step`.")


### END HIDDEN TESTS


@probe
def validation_logs(student, images, labels, lines, chains):
    """What a validation step logs, and how often it drew chains."""
    sampler = GivenSampler(chains)
    model = jem(student, Lines(lines), sampler).eval()
    with torch.no_grad():
        model.validation_step((images.clone(), labels), 0)
        model.on_validation_epoch_end()  # some log there
    logged = {name: model.logged.get(name, torch.tensor(float("nan"))) for name in LOGGED}
    return {"logged": logged, "samplings": len(sampler.steps)}


@exercise("3.4c", points=1, public=True, hint="self.log the two names of the sheet exactly as they are written there.")
def test_validation_logs(run, validation_images, validation_labels, lines, validation_chains):
    """`validation_step` logs `val_contrastive_divergence` and `val_MulticlassAveragePrecision`."""
    got, want = run(validation_logs, validation_images, validation_labels, lines, validation_chains)
    for name in LOGGED:
        if got["logged"][name].isnan().all():
            fail(f"Nothing is logged under the name `{name}`.")
    if got["samplings"] == 0:
        fail("The contrastive divergence compares data with something else than the sampler's chains.")
    network = Lines(lines)
    data, fake = network(validation_images).detach(), network(validation_chains).detach()
    gap = fake.mean() - data.mean()
    assert_close(
        got["logged"]["val_contrastive_divergence"],
        gap,
        rtol=0,
        atol=0.004,
        mistakes=lambda: {
            "The contrastive divergence has the wrong sign: mean f(chains) - mean f(x).": -gap,
            "This is the whole loss with its L2 term; the contrastive divergence is the difference of the means.": (
                gap + 0.1 * (data.square().mean() + fake.square().mean())
            ),
            "The contrastive divergence compares pixels; compare the energies.": validation_chains.mean()
            - validation_images.mean(),
        },
    )
    logits = network.get_logits(validation_images).detach()
    assert_close(
        got["logged"]["val_MulticlassAveragePrecision"],
        want["logged"]["val_MulticlassAveragePrecision"],
        mistakes=lambda: {
            "This is the accuracy; log the average precision of the logits.": (
                (logits.argmax(1) == validation_labels).float().mean()
            ),
            "The softmax is taken over the batch, not over the classes.": (
                multiclass_average_precision(logits.softmax(0), validation_labels, 3)
            ),
        },
    )
