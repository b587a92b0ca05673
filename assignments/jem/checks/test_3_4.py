"""3.4: the losses and the training step."""

from functools import partial
from itertools import combinations, product

import numpy as np
import torch
import torch.nn.functional as F
from stand_ins import BATCH_SIZE, GivenSampler, Lines, jem, logged, slope_of
from torchmetrics.functional.classification import multiclass_average_precision
from wrong_values import nearest, proven

from ebmcourse.checking import assert_close, difference, exercise, fail, inputs, probe, require

ALPHA, LMBD = 0.3, 0.45
STEPS, EPOCH, DECAY = 7, 2, 0.5
HINGE, M_IN, M_OUT = 0.2, 0.5, -0.8  # not -M_IN: exchanged values would have the penalty of energies
BATCH = 16  # of the 24 validation images
BRIGHTER = 0.3  # the effect of the stand-in for the augmentation
LARGE = 1000  # times the logits; their exponentials are 0 or infinite
ARGUMENT, HYPERPARAMETER = "the argument `ccond_sample` of `px_step`", "the hyperparameter `ccond_sample`"
LOGGED = ("val_contrastive_divergence", "val_MulticlassAveragePrecision")
OTHER_CCOND = (
    "`px_step` gets another value of `ccond_sample` than that of the hyperparameter. Pass self.hparams.ccond_sample."
)
NO_SAMPLER = "The sampler is not used. Sample the chains with self.sampler.synthesize_samples(…)."
DETACHED_PX = "The loss of `px_step` has no gradient. Add it to the other loss as it is."
TERMS = ("mean f(chains)", "mean f(x)", "mean f(chains)²", "mean f(x)²")
FACTORS = (1.0, -1.0, ALPHA, ALPHA)
DETACHED_TERMS = "must not be detached. Use no detach, no_grad or item there."
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
    """More chains than images: without labels, their number is `sample_size`."""
    return grey_images(rng, 0.2, 0.9, 6)


@inputs
def lines(rng):
    """Slopes and offsets of three classes. f is larger for brighter images, such as the chains."""
    levels = rng.permutation(np.array([0.5, 1.2, 1.9])) + rng.uniform(0, 0.3, 3)
    return torch.from_numpy(np.stack([rng.uniform(0.7, 1.6, 3), levels]).astype(np.float32))


@inputs
def labels(rng):
    return torch.from_numpy(rng.permutation(np.array([0, 1, 2, 2])))


@inputs
def decay(rng):
    """The factor of the step size."""
    return float(rng.uniform(0.4, 0.9))


@inputs
def parts(rng):
    return torch.from_numpy(rng.uniform(0.5, 3.0, 3).astype(np.float32))


@inputs
def validation_images(rng):
    return grey_images(rng, -0.9, -0.1, 24)


@inputs
def validation_chains(rng):
    return grey_images(rng, 0.2, 0.9, 20)


@inputs
def validation_labels(rng):
    return torch.from_numpy(rng.permutation(np.repeat([0, 1, 2], [6, 7, 11])))


@probe
def px_loss(student, images, chains, labels, lines, decay, conditional, hinge):
    """The loss of log q(x), its derivative with respect to the network's scale, and the arguments of the sampler.

    The steps and the step size are among these only with labels or a hinge.

    For the diagnosis of a wrong loss: `plain`, the loss for alpha = 0, and `f`, what the given method `margins` gets.
    """
    options = dict(step_size_decay=decay, hinge=hinge, m_in=M_IN, m_out=M_OUT, ccond_sample=not conditional)

    def loss_for(alpha, chains, network):
        sampler = GivenSampler(chains)
        model = jem(student, network, sampler, epoch=EPOCH, alpha=alpha, steps=STEPS, **options)
        own, found = getattr(model, "margins", None), {}

        def margins(f_data, f_chains):
            found.update(data=f_data.detach(), chains=f_chains.detach())
            return own(f_data, f_chains)

        if own is not None:
            model.margins = margins
        return model.px_step((images.clone(), labels), ccond_sample=conditional), sampler, found

    def attempt(chains, network):
        loss, sampler, found = loss_for(ALPHA, chains, network)
        plain = loss_for(0.0, chains, network)[0].detach()
        f = {name: found.get(name, torch.zeros(0)) for name in ("data", "chains")}
        asked = {"labels": sampler.labels}
        asked |= {"steps": sampler.steps, "step_sizes": sampler.step_sizes} if conditional or hinge else {}
        return {"loss": loss, "slope": slope_of(loss, network.w), "plain": plain, "f": f, "asked": asked}

    network = Lines(lines)
    try:
        return attempt(chains, network)
    except (RuntimeError, IndexError):
        seen = attempt(torch.cat([chains, chains])[: len(images)], network)
        require(
            conditional or not network.has_labels,
            "f is computed with labels, although the argument `ccond_sample` of `px_step` is not set. "
            "Without it, call self.cnn for the images and for the chains without labels.",
        )
        require(
            conditional, "`px_step` fails if there are more or fewer chains than images. Without labels, there may be."
        )
        return seen  # the chains were sampled without the labels, which `asked` shows


def judge_labels(asked, labels, count, setting):
    """Check the labels that the sampler got: the given ones, or None for `count` chains without a class.

    setting: what decides whether there are labels.
    """
    if not all(asked.values()):
        fail(NO_SAMPLER)
    seen = asked["labels"][0]
    if labels is None:
        if seen.shape != (count,) or (seen != -1).any():
            fail(
                f"The chains are sampled with labels, although {setting} is not set. "
                "Without `ccond_sample`, pass no labels to the sampler."
            )
    else:
        if (seen == -1).all():
            fail(f"The labels are not passed to the sampler, although {setting} is set.")
        if not seen.equal(labels):
            fail("The labels of the chains are not those of the batch. Pass y to the sampler.")


def judge_settings(asked, decay):
    """Check that the steps and the step size of the sampler are those of the hyperparameters."""
    size = asked["step_sizes"][0]
    if asked["steps"][0] != STEPS:
        is_right_size = difference(size, 10 * decay**EPOCH, 1e-4, 1e-5) is None
        fail(
            "The number of steps is not the hyperparameter `steps`. Pass steps=self.hparams.steps to the sampler."
            if is_right_size
            else "The number of steps is not the hyperparameter `steps`, and the step size is not that of the epoch. "
            "Pass steps=self.hparams.steps and step_size=self.step_size to the sampler."
        )
    wrong = {
        "The step size does not decay. Pass step_size=self.step_size to the sampler.": 10.0,
        "The step size is not that of the epoch. Pass step_size=self.step_size to the sampler.": size,
    }
    assert_close(size, 10 * decay**EPOCH, mistakes=wrong)


def loss_of(data, fake, alpha=ALPHA):
    return fake.mean() - data.mean() + alpha * (data.square().mean() + fake.square().mean())


def margins(data, fake):
    """The penalty that the given code adds to the loss."""
    return HINGE * ((M_IN - data).relu().square().mean() + (fake - M_OUT).relu().square().mean())


def terms_of(images, chains, labels, lines):
    """The terms of the loss and the rest, (5,), and their derivatives with respect to the network's scale, (5,)."""
    with torch.enable_grad():
        network = Lines(lines)
        data, fake = network(images, labels), network(chains, labels)
        values = torch.stack([fake.mean(), data.mean(), fake.square().mean(), data.square().mean()])
        rest = margins(data, fake) if labels is not None else 0 * fake.mean()
        values = torch.cat([values, rest[None]])
        slopes = torch.stack([torch.autograd.grad(value, network.w, retain_graph=True)[0] for value in values])
    return values.detach(), slopes


def fit_terms(total, slope, values, slopes, choices):
    """The ratios of the factors in `total` to those in the loss, (4,), of which most are 1; None if there are none."""
    ratios = torch.tensor(list(product(choices, repeat=4)))
    factors = torch.cat([ratios * torch.tensor(FACTORS), torch.ones(len(ratios), 1)], dim=1)
    found = (factors @ slopes - slope).abs() < 1e-4 * (1 + slope.abs())
    if total is not None:
        found &= (factors @ values - total).abs() < 1e-4 * (1 + total.abs())
    return max(ratios[found], key=lambda ratio: (ratio == 1).sum().item(), default=None)


def wrong_factors(got, images, chains, labels, lines):
    """At most one sentence about the terms with a wrong factor. The loss and its derivative determine the factors."""
    if got["loss"].dim() or got["slope"].dim() or not got["loss"].isfinite() or not got["slope"].isfinite():
        return []
    choices = [1, 0, -1, 2, -2, 0.5, -0.5, ALPHA, -ALPHA, 1 / ALPHA, -1 / ALPHA, 0.1 / ALPHA, 4, 0.25]
    ratios = fit_terms(got["loss"], got["slope"], *terms_of(images, chains, labels, lines), choices)
    if ratios is None:
        return []
    what = {0.0: "is missing", -1.0: "has the wrong sign"}
    parts = [
        f"{term} {what.get(ratio, 'has the wrong factor')}"
        for term, ratio in zip(TERMS, ratios.tolist(), strict=True)
        if ratio != 1
    ]
    return [f"In the loss, {', '.join(parts)}."] if parts else []


def wrong_f(seen, right, other, conditional):
    """At most one sentence about f of the data or of the chains, as the given method `margins` gets it.

    right, other: both of them with the labels that they should have, and without these or with labels.
    """
    for name, its, another in zip(("data", "chains"), right, other, strict=True):
        found = seen[name]
        if found.numel() == 0:
            continue
        if found.shape != its.shape:
            each = "image of the batch" if name == "data" else "chain, which is its image after the last step"
            return [f"`f_{name}` has another number of values than one for each {each}."]
        if difference(found, its, 0, 0.01) is None:
            continue
        if difference(found, another, 1e-4, 1e-4) is None:
            if conditional:
                return [f"`f_{name}` is f without the labels, although `ccond_sample` is set. Pass them to self.cnn."]
            return [f"`f_{name}` is f with the labels, although `ccond_sample` is not set. Use none there."]
        if difference(found, right[0] if name == "chains" else right[1], 1e-4, 1e-4) is None:
            return ["`f_data` and `f_chains` are exchanged. `margins` gets f of the data and then f of the chains."]
        each = "image x" if name == "data" else "chain after the last step"
        return [
            f"`f_{name}` is wrong. It should be the value of self.cnn for each {each}, with its own label if "
            "`ccond_sample` is set, and otherwise without labels."
        ]
    return []


def wrong_term(loss, plain, right):
    """One sentence about the term of the loss that is wrong; plain: the observed loss for alpha = 0."""
    if difference(loss, plain, 1e-5, 1e-5) is None:
        return ["The loss does not depend on the hyperparameter `alpha`. Multiply the L2 term by self.hparams.alpha."]
    if difference(plain, right, 0, 0.004) is None:
        return ["The L2 term is wrong: for alpha = 0, the loss is right. Add α (mean f(x)² + mean f(chains)²)."]
    return [
        "For alpha = 0, the loss is wrong, too. It should be mean f(chains) - mean f(x), plus the penalty of `margins`."
    ]


def detached_terms(got, images, chains, labels, lines):
    """At most one sentence about the terms without a gradient, for a loss with the right value."""
    if got["slope"].dim() or not got["slope"].isfinite():
        return []
    ratios = fit_terms(None, got["slope"], *terms_of(images, chains, labels, lines), [1, 0])
    lost = [] if ratios is None else [term for term, ratio in zip(TERMS, ratios.tolist(), strict=True) if ratio == 0]
    return [f"The loss is right, but its gradient is not: {', '.join(lost)} {DETACHED_TERMS}"] if lost else []


def judge_px(got, want, images, chains, labels, lines, conditional):
    chains = chains[: len(labels)] if conditional else chains

    def mistakes():
        network = Lines(lines)
        free = [network(x).detach() for x in (images, chains)]
        own = [network(x, labels).detach() for x in (images, chains[: len(labels)])]
        (data, fake), other = (own, free) if conditional else (free, own)
        gap, l2 = fake.mean() - data.mean(), data.square().mean() + fake.square().mean()
        total = torch.cat([data, fake])
        cut = total.chunk(2)
        relu = (
            "A negative contrastive term counts as 0. Add mean f(chains) - mean f(x) as it is, without relu or clamp."
        )
        count, seen = len(images), got["loss"] - (margins(data, fake) if conditional else 0)
        logits = [network.get_logits(x).detach() for x in (images, chains)]
        doubled = (2 * images).clamp(-1, 1)
        few = min(len(data), len(fake))
        wrong = {
            "This is the absolute value of the contrastive term. It may be negative.": gap.abs() + ALPHA * l2,
            "The sign of the contrastive term is wrong. It should be mean f(chains) - mean f(x).": -gap + ALPHA * l2,
            "The sign of the loss is wrong.": -gap - ALPHA * l2,
            "The L2 term is subtracted. Add it, because it is a penalty.": gap - ALPHA * l2,
            "The whole loss is multiplied by α. Multiply only the L2 term by α.": ALPHA * (gap + l2),
            "The contrastive term is multiplied by α. Multiply the L2 term by α instead.": ALPHA * gap + l2,
            "The L2 term is missing, and the contrastive term is multiplied by α. Multiply the L2 term by α instead.": (
                ALPHA * gap
            ),
            "The L2 term is missing. Add α (mean f(x)² + mean f(chains)²).": gap,
            relu: gap.relu() + ALPHA * l2,
            "The contrastive term is missing. Add mean f(chains) - mean f(x).": ALPHA * l2,
            "The L2 term is not multiplied by α.": gap + l2,
            "The hyperparameter `alpha` is ignored: the L2 term is multiplied by 0.1. Use self.hparams.alpha.": (
                gap + 0.1 * l2
            ),
            "In the L2 term, only mean f(x)² is multiplied by α. Use parentheses around both means.": (
                gap + ALPHA * data.square().mean() + fake.square().mean()
            ),
            "In the L2 term, only mean f(chains)² is multiplied by α. Use parentheses around both means.": (
                gap + data.square().mean() + ALPHA * fake.square().mean()
            ),
            "The L2 term does not include the chains. Add mean f(chains)².": gap + ALPHA * data.square().mean(),
            "The L2 term does not include the data. Add mean f(x)².": gap + ALPHA * fake.square().mean(),
            "The L2 term is only half as large as it should be. It is α times the sum of both means.": gap
            + ALPHA * l2 / 2,
            "The L2 term is the mean over data and chains together. Add the two means.": (
                gap + ALPHA * total.square().mean()
            ),
            "The L2 term is a sum over the batch. Compute the means.": (
                gap + ALPHA * (data.square().sum() + fake.square().sum())
            ),
            "The values in the L2 term are not squared.": gap + ALPHA * (data.mean() + fake.mean()),
            "The L2 term contains the square of a difference. Square f(x) and f(chains) separately.": (
                gap + ALPHA * (fake[:few] - data[:few]).square().mean()
            ),
            "The L2 term is the square of the contrastive term. Square f(x) and f(chains) separately.": (
                gap + ALPHA * gap.square()
            ),
            "The L2 term contains the square of a sum. Square f(x) and f(chains) separately.": (
                gap + ALPHA * (fake[:few] + data[:few]).square().mean()
            ),
            "The L2 term contains the squares of the means. Square first, then compute the means.": (
                gap + ALPHA * (data.mean().square() + fake.mean().square())
            ),
            "The L2 term contains all logits. Square f(x) and f(chains).": (
                gap + ALPHA * sum(each.square().mean() for each in logits)
            ),
            "The L2 term does not depend on f: it is just α, or that of the weights. Square f(x) and f(chains).": (
                gap + ALPHA
            ),
            "The L2 term contains norms. Compute the means of the squares, without a root.": nearest(
                seen,
                gap + ALPHA * (data.norm() + fake.norm()),
                gap + ALPHA * (data.square().mean().sqrt() + fake.square().mean().sqrt()),
            ),
            "The L2 term contains absolute values. Square f(x) and f(chains).": (
                gap + ALPHA * (data.abs().mean() + fake.abs().mean())
            ),
            "The L2 term contains the variance of f. Use the mean of f², without subtracting the mean of f.": nearest(
                seen,
                *(
                    gap + ALPHA * sum(each.var(correction=correction) for each in groups)
                    for correction in (0, 1)
                    for groups in ((data, fake), (total,))
                ),
            ),
            "The L2 term contains the standard deviation of f. Use the mean of f².": nearest(
                seen, *(gap + ALPHA * (data.std(correction=n) + fake.std(correction=n)) for n in (0, 1))
            ),
            "The contrastive term is squared. Add mean f(chains) - mean f(x) as it is.": gap.square() + ALPHA * l2,
            "The contrastive term contains medians. Compute the means.": fake.median() - data.median() + ALPHA * l2,
            "The contrastive term contains sums over the batch. Compute the means.": nearest(
                seen,
                *((fake.sum() - data.sum()) / number + ALPHA * l2 for number in (1, BATCH_SIZE, count, len(fake))),
            ),
            "Softplus is applied to the contrastive term. Add mean f(chains) - mean f(x) as it is.": (
                F.softplus(gap) + ALPHA * l2
            ),
            "1 is added to the contrastive term, as a margin. Add mean f(chains) - mean f(x) as it is.": (
                (1 + gap).relu() + ALPHA * l2
            ),
            "The contrastive term is multiplied by 1 - α. Multiply only the L2 term, by α.": (1 - ALPHA) * gap
            + ALPHA * l2,
            "The L2 term is divided by α. Multiply it by α.": gap + l2 / ALPHA,
            "The L2 term is also multiplied by 0.1, the value of `lmbd` in this test. Multiply it by α only.": (
                gap + 0.1 * ALPHA * l2
            ),
            "Some chains or images are left out. Use all of them.": loss_of(data[:few], fake[:few]),
            "Some chains are counted as data. There may be more or fewer chains than images.": loss_of(*cut),
            "The data are changed before f is computed. Use the images of the batch.": loss_of(
                network(doubled, labels if conditional else None).detach(), fake
            ),
            "The contrastive term is the difference of pixels. Use f of the chains and of the data.": (
                chains.mean() - images.mean() + ALPHA * l2
            ),
            "This is the sum over the batch. Compute the mean.": len(data) * (gap + ALPHA * l2),
            "This is one number per image. Compute the mean over the batch.": fake[:few] - data[:few] + ALPHA * l2,
        }
        if conditional:
            penalty = margins(data, fake)
            wrong = {sentence: value + penalty for sentence, value in wrong.items()}
            ignored = {
                "The labels are ignored. With `ccond_sample`, compute f(x, y) of data and chains.": other,
                "The labels are missing in f of the chains. Pass them to both calls of the network.": (data, other[1]),
                "The labels are missing in f of the data. Pass them to both calls of the network.": (other[0], fake),
            }
            wrong |= {sentence: loss_of(*values) + margins(*values) for sentence, values in ignored.items()}
            wrong["The penalty of `margins` is missing. Keep the last line, which adds it."] = loss_of(data, fake)
            wrong["The penalty of `margins` is added twice. The last line adds it."] = loss_of(data, fake) + 2 * penalty
            wrong["`f_data` and `f_chains` are energies. They should be the values f of the network."] = loss_of(
                data, fake
            ) + margins(-data, -fake)
        else:
            sentence = "The labels are used. Without `ccond_sample`, compute f(x) of data and chains."
            wrong[sentence] = loss_of(*other)
        # The tolerance below is so large that two of these mistakes, or a mistake and an unknown one, may be equal.
        exact = {sentence: value for sentence, value in wrong.items() if not difference(got["loss"], value, 1e-5, 1e-4)}
        if exact:
            return exact
        about = wrong_f(got["f"], (data, fake), other, conditional)
        about = about or wrong_factors(got, images, chains, labels if conditional else None, lines)
        about = about or wrong_term(got["loss"], got["plain"], gap + (margins(data, fake) if conditional else 0))
        return {sentence: got["loss"] for sentence in about}

    # A solution may add noise to the data, which changes the loss by 0.0005 (standard deviation).
    assert_close(got["loss"], want["loss"], rtol=0, atol=0.004, mistakes=mistakes)
    if difference_of_slopes(got, want) > 0.01:
        about = detached_terms(got, images, chains, labels if conditional else None, lines)
        fail(about[0] if about else DETACHED)


def difference_of_slopes(got, want):
    """The largest difference between the derivatives of the two losses, relative to derivatives above 1."""
    if got["slope"].shape != want["slope"].shape:
        return np.inf
    return ((got["slope"] - want["slope"]).abs() / want["slope"].abs().clamp(min=1)).max().item()


@exercise("3.4a", points=2, public=True, hint="Return mean f(chains) - mean f(x) + α (mean f(x)² + mean f(chains)²).")
def test_loss_of_the_images(run, images, chains, labels, lines, decay):
    """`px_step` returns the contrastive divergence plus α times the L2 term."""
    for data, fake in ((images, chains), (chains[:4], images)):  # f of the chains is larger, then smaller
        got, want = run(px_loss, data, fake, labels, lines, decay, False, 0.0)
        judge_labels(got["asked"], None, len(fake), ARGUMENT)
        judge_px(got, want, data, fake, labels, lines, False)


@probe
def pyx_loss(student, images, labels, lines, augment):
    """The loss of the classifier and its derivative with respect to the network's scale, and that of single images.

    With `augment`, a stand-in for the augmentation makes the images brighter.
    """
    module, network = student.ex_main, Lines(lines)
    model = jem(student, network, GivenSampler(images), augment=augment).train(augment)
    own = vars(module).get("random_affine")
    module.random_affine = lambda x, *args, **kwargs: x + BRIGHTER
    try:
        loss = model.pyx_step((images.clone(), labels))
        batches = zip(images.split(1), labels.split(1), strict=True)
        single = [model.pyx_step((image.clone(), label)).detach().flatten() for image, label in batches]
    finally:
        module.random_affine = own
    return {"loss": loss, "slope": slope_of(loss, network.w), "single": torch.cat(single)}


def is_smoothed(got, x, labels, lines):
    """Whether the loss and its derivative are those of smoothed labels, whatever the amount of smoothing."""
    if got["loss"].dim() or got["slope"].dim():
        return False
    with torch.enable_grad():
        network = Lines(lines)
        logits = network.get_logits(x)
        values = F.cross_entropy(logits, labels), -logits.log_softmax(1).mean()
        (sharp, flat), slopes = values, [torch.autograd.grad(each, network.w, retain_graph=True)[0] for each in values]
    share = ((got["loss"] - sharp) / (flat - sharp)).item()
    slope = (1 - share) * slopes[0] + share * slopes[1]
    return 1e-3 < share < 0.95 and (got["slope"] - slope).abs().item() < 1e-4 * (1 + slope.abs().item())


@exercise(
    "3.4b",
    points=1.5,
    public=True,
    hint="Return torch.nn.functional.cross_entropy of the logits and the labels.",
)
def test_loss_of_the_classes(run, images, labels, lines):
    """`pyx_step` returns the mean cross-entropy of the logits and the labels."""

    def mistakes(got, want, x, lines, is_large):
        network = Lines(lines)
        logits = network.get_logits(x).detach()
        one_hot = F.one_hot(labels, 3).float()
        probabilities = logits.softmax(1)
        own = probabilities[torch.arange(len(labels)), labels]
        loss, right, single = got["loss"], want["loss"], got["single"]
        counts = labels.bincount(minlength=3).float()
        of_batch = (
            "The loss of a single image is right, but that of a batch is not the mean over its images. "
            "Use all images, each with its own label and the same weight."
        )
        is_single = difference(single, want["single"], 1e-4, 1e-4) is None
        losses = -own.log()

        def is_without(number):
            """Whether the loss of a single image is right just for the images of other classes."""
            if single.shape != labels.shape:
                return False
            return ((single - want["single"]).abs() < 1e-3).equal(labels != number)

        of_images = {
            "The classes have different weights in the loss. Use cross_entropy without `weight`.": nearest(
                loss, *(F.cross_entropy(logits, labels, weight=each) for each in (1 / counts, counts))
            ),
            "This is the loss of one image, for example the median or the largest. Compute the mean.": (
                nearest(loss, *losses)
            ),
        }
        some = [losses[chosen].mean() for size in (1, 2, 3) for chosen in map(list, combinations(range(4), size))]
        limits = {
            "A small number is added to the probabilities, or limits them. Use cross_entropy of the logits.": nearest(
                loss,
                *(-(own + 10.0**-power).log().mean() for power in range(1, 21)),
                *(-own.clamp(min=10.0**-power).log().mean() for power in range(1, 21)),
            ),
        }
        if is_large:  # other mistakes are found with small logits, and here, many of them have the same values
            large = "The loss is wrong for large logits. Use their cross_entropy, without limits."
            return limits | {large: proven(loss.shape == right.shape, loss, right)}
        return {
            "This is the sum over the batch. Compute the mean.": F.cross_entropy(logits, labels, reduction="sum"),
            "The softmax is applied twice. Pass the logits to cross_entropy.": F.cross_entropy(
                logits.softmax(1), labels
            ),
            "The sign is wrong. The loss is -log q(y|x).": -F.cross_entropy(logits, labels),
            "This is one number per image. Compute the mean.": F.cross_entropy(logits, labels, reduction="none"),
            "This is the sum divided by `batch_size`. A batch may be smaller: compute the mean of the images in it.": (
                F.cross_entropy(logits, labels, reduction="sum") / BATCH_SIZE
            ),
            "This is the negative logit of the class. Apply log_softmax to the logits first.": (
                F.nll_loss(logits, labels)
            ),
            "This is the negative probability of the class. Use its logarithm.": F.nll_loss(logits.softmax(1), labels),
            "The softmax is computed over the batch. Compute it over the classes.": (
                F.nll_loss(logits.log_softmax(0), labels)
            ),
            "This is the binary cross-entropy of each class. Use cross_entropy, whose softmax is over all classes.": (
                F.binary_cross_entropy_with_logits(logits, one_hot)
            ),
            **{
                f"Class {number} is ignored. Leave out no class, and use no ignore_index.": proven(
                    is_without(number), F.cross_entropy(logits, labels, ignore_index=number), right
                )
                for number in range(3)
            },
            "The augmented images are not used. Compute the logits of x, not of batch[0].": F.cross_entropy(
                network.get_logits(images).detach(), labels
            ),
            "The images are augmented by your code, too. The given code does this where it is asked for.": (
                F.cross_entropy(network.get_logits(x + BRIGHTER).detach(), labels)
            ),
            "The logits have the wrong sign. Pass f itself to cross_entropy.": F.cross_entropy(-logits, labels),
            "The mean is computed before the logarithm. Compute the mean of the logarithms.": -own.mean().log(),
            "This is the mean squared error of the probabilities. Use cross_entropy.": nearest(
                loss, F.mse_loss(probabilities, one_hot), (probabilities - one_hot).square().sum(1).mean()
            ),
            "This is the entropy of the probabilities. Use cross_entropy with the labels.": (
                -(probabilities * logits.log_softmax(1)).sum(1).mean()
            ),
            **limits,
            "The logits are multiplied by a number before the softmax. Pass them as they are.": nearest(
                loss, *(F.cross_entropy(factor * logits, labels) for factor in (0.1, 0.2, 0.25, 0.5, 2, 4, 5, 10))
            ),
            "The loss is also divided by the number of classes. Divide it by the number of images only.": right / 3,
            **(of_images if is_single else {}),
            "This is the multi-class hinge loss. Use the cross-entropy of the logits.": nearest(
                loss, *(F.multi_margin_loss(logits, labels, p=p) for p in (1, 2))
            ),
            "This is the focal loss. Use the cross-entropy without further factors.": nearest(
                loss, *(-((1 - own) ** power * own.log()).mean() for power in (1, 2, 5))
            ),
            "The labels are replaced by the predicted classes. Use the labels of the batch.": (
                F.cross_entropy(logits, logits.argmax(1))
            ),
            "The labels are smoothed. Use cross_entropy without label_smoothing.": proven(
                is_smoothed(got, x, labels, lines), loss, right
            ),
            "The loss is multiplied by a number. Compute the mean over the images.": proven(
                loss.shape == right.shape
                and (right - want["slope"]).abs() > 0.01 * right  # a loss that is linear in the logits equals its slope
                and got["slope"].shape == want["slope"].shape
                and (loss * want["slope"] - right * got["slope"]).abs() < 1e-4 * (right * want["slope"]).abs(),
                loss,
                right,
            ),
            "Some images are left out. Compute the mean over all images of the batch.": nearest(loss, *some),
            of_batch: proven(is_single and loss.shape == right.shape, loss, right),
            "This is not the cross-entropy -log q(y|x). Use cross_entropy of the logits and the labels alone.": (
                proven(not is_single and loss.shape == right.shape, loss, right)
            ),
        }

    for augment, x, scale in ((False, images, 1), (True, images + BRIGHTER, 1), (False, images, LARGE)):
        got, want = run(pyx_loss, images, labels, scale * lines, augment)
        if scale > 1 and not got["loss"].isfinite().all():
            fail("The loss is infinite or NaN for large logits. Use cross_entropy or log_softmax of the logits.")
        assert_close(got["loss"], want["loss"], mistakes=partial(mistakes, got, want, x, scale * lines, scale > 1))
        if difference_of_slopes(got, want) > 1e-4:
            fail(DETACHED)
        assert_close(
            got["single"],
            want["single"],
            rtol=1e-2,
            atol=1e-2,
            mistakes={"The loss of a batch of one image is wrong. Compute it as for larger batches.": got["single"]},
        )


@probe
def joint_loss(student, images, labels, lines, parts, conditional):
    """The loss of a training step for given results of px_step and pyx_step, and all values that it logs.

    `passed` tells whether both of them get the batch.
    """
    options = dict(alpha=ALPHA, lmbd=LMBD, ccond_sample=conditional)
    model = jem(student, Lines(lines), GivenSampler(images), **options)
    numbers = parts.clone().requires_grad_()
    passed = []

    def given(batch, number):
        tensors = isinstance(batch, list | tuple) and [torch.is_tensor(each) for each in batch] == [True, True]
        passed.append(tensors and batch[0].equal(images) and batch[1].equal(labels))
        return number

    model.px_step = lambda batch, ccond_sample=True: given(batch, numbers[2] if ccond_sample else numbers[1])
    model.pyx_step = lambda batch: given(batch, 1.0 * numbers[0])
    loss = model.training_step((images.clone(), labels), 0)
    loss = loss["loss"] if isinstance(loss, dict) else loss
    values = [value.flatten() for value in logged(model).values()]
    return {
        "loss": loss,
        "slope": slope_of(loss, numbers),
        "logged": torch.cat([torch.zeros(0), *values]),
        "passed": all(passed),
    }


def wrong_weights(got, parts):
    """At most one wrong value: the observed one, if it is the sum of the parts with the weights in its derivative."""
    slope, loss = got["slope"], got["loss"]
    if slope.shape != (3,) or difference(loss, slope @ parts, 1e-4, 1e-4):
        return {}
    wrong = [abs(slope[0].item() - 1) > 1e-3, (slope[1] + slope[2] - LMBD).abs().item() > 1e-3]
    rules = "that of `pyx_step` should be 1", "that of `px_step` should be `lmbd`"
    names = [rule for rule, is_wrong in zip(rules, wrong, strict=True) if is_wrong]
    sentence = f"The weight of a loss is wrong: {', and '.join(names)}."
    return {sentence: loss} if names else {}


@exercise("3.4c", points=1, public=True, hint="Return pyx_step(batch) + lmbd · px_step(batch, …).")
def test_joint_loss(run, images, labels, lines, parts):
    """`training_step` returns the loss of log q(y|x) plus `lmbd` times the loss of log q(x)."""
    got, want = run(joint_loss, images, labels, lines, parts, False)
    if got["passed"] is not True:
        fail("`px_step` or `pyx_step` does not get the batch. Pass `batch` to both of them.")
    pyx, px, other = parts
    assert_close(
        got["loss"],
        want["loss"],
        mistakes=lambda: {
            "`lmbd` is ignored. Multiply the result of `px_step` by it.": pyx + px,
            "The wrong loss is multiplied by `lmbd`. Multiply the result of `px_step` by it.": LMBD * pyx + px,
            "Both losses are multiplied by `lmbd`. Multiply only the result of `px_step` by it.": LMBD * (pyx + px),
            "The loss of `pyx_step` is multiplied by 1 - lmbd. Its weight is 1.": (1 - LMBD) * pyx + LMBD * px,
            "The loss of `pyx_step` is missing.": LMBD * px,
            "The loss of `px_step` does not count. Add `lmbd` times its result.": pyx,
            "The losses are subtracted. Add them.": pyx - LMBD * px,
            "The loss of `px_step` is multiplied by `alpha`. Multiply it by `lmbd`.": pyx + ALPHA * px,
            OTHER_CCOND: pyx + LMBD * other,
            **wrong_weights(got, parts),
        },
    )
    if difference_of_slopes(got, want) > 1e-4:
        fail(DETACHED)


@probe
def validation_logs(student, images, labels, lines, chains, conditional):
    """What two validation steps log, and the arguments of the sampler."""
    sampler = GivenSampler(chains)
    options = dict(steps=STEPS, step_size_decay=DECAY, ccond_sample=conditional, alpha=ALPHA, lmbd=LMBD)
    model = jem(student, Lines(lines), sampler, epoch=EPOCH, **options).eval()
    with torch.no_grad():
        for number, batch in enumerate(zip(images.split(BATCH), labels.split(BATCH), strict=True)):
            model.length = len(batch[0])
            model.validation_step(list(batch), number)
        model.on_validation_epoch_end()  # some solutions log here
    values = logged(model)
    asked = {"labels": sampler.labels[:1], "steps": sampler.steps[:1], "step_sizes": sampler.step_sizes[:1]}
    return {"logged": {name: values.get(name, torch.tensor(float("nan"))) for name in LOGGED}, "asked": asked}


@exercise("3.4c", points=1, public=True, hint="Log both values with self.log, with exactly these names.")
def test_validation_logs(run, validation_images, validation_labels, lines, validation_chains):
    """`validation_step` logs `val_contrastive_divergence` and `val_MulticlassAveragePrecision`."""
    labels, network = validation_labels, Lines(lines)
    first, last = slice(BATCH), slice(BATCH, None)

    def gap(batch, conditional):
        given = labels[batch] if conditional else None
        fake = chains[: len(labels[batch])] if conditional else chains
        return (network(fake, given).mean() - network(images[batch], given).mean()).detach()

    def wrong_gaps_of(batch, conditional):
        given = labels[batch] if conditional else None
        fake, data = chains[: len(labels[batch])] if conditional else chains, images[batch]
        values = [network(x, given).detach() for x in (data, fake)]
        right, l2 = gap(batch, conditional), sum(each.square().mean() for each in values)
        known = {
            "The contrastive divergence is its absolute value. It may be negative.": right.abs(),
            "A negative contrastive divergence is replaced by 0. It may be negative.": right.relu(),
            "Some chains or images are left out of the contrastive divergence. Use all of them.": (
                values[1][: len(data)].mean() - values[0][: len(fake)].mean()
            ),
            "The contrastive divergence contains medians. Compute the means.": values[1].median() - values[0].median(),
            "The contrastive divergence is squared. It is mean f(chains) - mean f(x).": right.square(),
            "The sign of the contrastive divergence is wrong. It is mean f(chains) - mean f(x).": -right,
            "The contrastive divergence contains the L2 term. It is only mean f(chains) - mean f(x).": (
                right + ALPHA * l2
            ),
            "The contrastive divergence is the difference of pixels. Use f of the chains and of the data.": (
                fake.mean() - data.mean()
            ),
            "The contrastive divergence lacks f of the data. It is mean f(chains) - mean f(x).": values[1].mean(),
            "The contrastive divergence lacks f of the chains. It is mean f(chains) - mean f(x).": nearest(
                divergence, values[0].mean(), -values[0].mean()
            ),
            "The contrastive divergence is a sum over the batch. Compute the means.": nearest(
                divergence, values[1].sum() - values[0].sum(), len(data) * right, len(fake) * right
            ),
            "The values f are added. The contrastive divergence is mean f(chains) - mean f(x).": (
                values[1].mean() + values[0].mean()
            ),
            "The contrastive divergence is multiplied by `alpha`. It is mean f(chains) - mean f(x).": ALPHA * right,
            "The contrastive divergence is multiplied by `lmbd`. It is mean f(chains) - mean f(x).": LMBD * right,
        }
        if conditional:
            free = [network(x).detach().mean() for x in (data, fake)]
            lacking = "The labels are missing in f of the {}. Pass them to both calls of the network."
            known |= {
                lacking.format("data"): values[1].mean() - free[0],
                lacking.format("chains"): free[1] - values[0].mean(),
                "The labels are ignored. With `ccond_sample`, compute f(x, y) of data and chains.": free[1] - free[0],
            }
        else:
            own = network(data, labels[batch]).detach().mean()
            known["f of the data is computed with labels. Without `ccond_sample`, use none."] = values[1].mean() - own
        return known

    def wrong_gaps(conditional):
        one, two = (wrong_gaps_of(batch, conditional) for batch in (first, last))
        share = BATCH / len(labels)
        known = {
            name: nearest(divergence, value, share * value + (1 - share) * two[name]) for name, value in one.items()
        }
        known["The contrastive divergence of the first batch is missing. Its number `batch_idx` is 0."] = gap(
            last, conditional
        )
        return known | {
            "`val_contrastive_divergence` is wrong. Log mean f(chains) - mean f(x), with f of self.cnn.": divergence
        }

    def wrong_precisions():
        logits = network.get_logits(images).detach()
        hard = F.one_hot(logits.argmax(1), 3).float()

        def precision(scores, batch):
            return multiclass_average_precision(scores[batch], labels[batch], 3)

        whole, one, two = (precision(logits, batch) for batch in (slice(None), first, last))
        share = BATCH / len(labels)
        return {
            "This is the accuracy. Log the average precision of the logits.": (
                (logits.argmax(1) == labels).float().mean()
            ),
            "The softmax is computed over the batch. Compute it over the classes, or use the logits.": (
                multiclass_average_precision(torch.cat([each.softmax(0) for each in logits.split(BATCH)]), labels, 3)
            ),
            "These are hard predictions. Pass the logits to the metric.": precision(hard, slice(None)),
            "The average precision is that of the first batch. Update the metric with every batch.": one,
            "The average precision is that of the last batch. Update the metric with every batch, without reset.": two,
            "This is the mean over the batches. Update self.average_precision, and log the metric itself.": (
                share * one + (1 - share) * two
            ),
            "The metric is computed after each batch. Log self.average_precision itself, without compute().": (
                share * one + (1 - share) * whole
            ),
            "The logits have the wrong sign. Pass f(x)[y] itself to the metric.": precision(-logits, slice(None)),
            "`val_MulticlassAveragePrecision` is wrong. Update self.average_precision with the logits and labels.": (
                seen
            ),
        }

    for conditional, sign in ((False, 1), (True, -1)):  # f of the chains is larger, then smaller
        images, chains = sign * validation_images, sign * validation_chains
        got, want = run(validation_logs, images, labels, lines, chains, conditional)
        for name in LOGGED:
            if got["logged"][name].isnan().all():
                fail(f"No value with the name `{name}` is logged, or it is NaN.")
        judge_labels(got["asked"], labels[first] if conditional else None, len(chains), HYPERPARAMETER)
        judge_settings(got["asked"], DECAY)
        # The divergence is that of the first batch, or the mean over both batches.
        both = (BATCH * gap(first, conditional) + (len(labels) - BATCH) * gap(last, conditional)) / len(labels)
        divergence, seen = (got["logged"][name] for name in LOGGED)
        if difference(divergence, both, 0, 0.0005):
            wrong = partial(wrong_gaps, conditional)
            assert_close(divergence, gap(first, conditional), rtol=0, atol=0.0005, mistakes=wrong)
        assert_close(seen, want["logged"][LOGGED[1]], mistakes=wrong_precisions)
