"""3.6: detection of out-of-distribution images. A score is larger for outliers, and OOD is the positive class."""

import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score, roc_curve
from torch import nn
from wrong_values import NEARLY, multiple, nearest, nearly, proven

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

SQUEEZED = "The batch axis is missing for a single image: the shape is (), not (1,). Use no squeeze() of all axes."
IGNORED = "The labels are ignored. If labels are given, return E(x, y)."
IGNORED_ZEROS = "Labels that are all 0 are ignored. Test `y is None` instead of the value of y."


@inputs
def images(rng):
    """Images of two channels that are not square."""
    return torch.from_numpy(rng.uniform(-1, 1, (5, 2, 6, 4)).astype(np.float32))


@inputs
def centres(rng):
    return torch.from_numpy(rng.uniform(-1, 1, (4, 2, 6, 4)).astype(np.float32))


@inputs
def labels(rng):
    return torch.from_numpy(rng.permutation(np.array([0, 1, 2, 3, 1])))


@inputs
def norms(rng):
    return torch.from_numpy(rng.uniform(0.5, 2, 5).astype(np.float32))


@inputs
def scores(rng):
    """Scores of both groups, whose location, scale and separation depend on the seed.

    They are as large as energies are, so a sigmoid makes many of them equal.
    """
    location, scale, separation = rng.uniform(20, 40), rng.uniform(0.5, 2), rng.uniform(0.5, 2)
    groups = {"id": rng.normal(0.0, 1.0, 240), "ood": rng.normal(separation, 1.5, 250)}
    return {name: torch.from_numpy((location + scale * group).astype(np.float32)) for name, group in groups.items()}


@pytest.fixture
def pairs(scores):
    """Scores of both groups: different ones, rounded ones of which many are equal, and few outliers around 0."""
    centre = scores["id"].mean()  # so that many scores are negative
    few = scores["id"] - centre, scores["ood"][:33] - centre
    return [(scores["id"], scores["ood"]), (scores["id"].round(), scores["ood"].round()), few]


@pytest.fixture
def misleading(scores):
    """Scores that are larger for in-distribution images."""
    return scores["ood"], scores["id"]


@inputs
def ties(rng):
    """Scores with 30 levels, each of which one outlier and two in-distribution images have."""
    levels = 30 + np.arange(30.0)
    return {
        "id": torch.from_numpy(rng.permutation(np.repeat(levels, 2)).astype(np.float32)),
        "ood": torch.from_numpy(rng.permutation(levels).astype(np.float32)),
    }


@pytest.fixture
def scores_id(scores):
    return scores["id"]


@pytest.fixture
def scores_ood(scores):
    return scores["ood"]


@probe
class Bowls(nn.Module):
    """Logits level - ‖x - centre‖² / 8, a paraboloid for each class. f is computed from them as in the exercise.

    A part of it is in the other mode, train or eval, than the whole, and contains a module in the mode of the whole.
    One parameter of each of them is frozen.
    """

    def __init__(self, centres, training=False, level=0.0):
        super().__init__()
        self.centres = nn.Parameter(centres.clone())
        self.frozen = nn.Parameter(torch.ones(()), requires_grad=False)
        self.gradients_off = False
        self.train(training)
        self.part = nn.Sequential(nn.Linear(1, 1)).train(not training)
        self.part[0].train(training).bias.requires_grad_(False)
        self.level = level

    def get_logits(self, x):
        return self.level - (x[:, None] - self.centres[None]).flatten(2).square().sum(2) / 8

    def forward(self, x, *labels, **named):
        require(not named, "Call the model with positional arguments, `model(x)` or `model(x, y)`, not by name.")
        (y,) = labels or (None,)
        if y is None:
            f = torch.logsumexp(self.get_logits(x), 1)
        else:
            f = self.level - (x - self.centres[y]).flatten(1).square().sum(1) / 8
        self.gradients_off = not f.requires_grad
        return f


@probe
def state_of(model, images, is_same):
    """What scores must not change: requires_grad and modes of the network, and the images.

    is_same: whether the images and labels have the same values as before.
    """
    return {
        "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
        "training": model.training,
        "part": [module.training for module in model.part.modules()],
        "images": images.requires_grad,
        "same": is_same,
    }


@probe
def norm_of_gradient(student, images, centres, labels):
    """The norms inside and then outside of `torch.no_grad()`, for the same images, and what the calls change."""
    model, x = Bowls(centres, training=labels is not None), images.clone()
    y = None if labels is None else labels.clone()
    model.centres.grad = torch.full_like(centres, 0.5)  # of a loss, for example
    try:
        with torch.no_grad():  # as scores are often computed
            norms = student.ex_ood.grad_norm(model, x, y)
            enabled = torch.is_grad_enabled()
    except RuntimeError:
        if not model.gradients_off:
            raise
        norms, enabled = torch.zeros(0), False
    gradients_off = model.gradients_off
    try:
        again = student.ex_ood.grad_norm(model, x, y)
    except RuntimeError:  # x may require a gradient now
        again = torch.zeros(0)
    return {
        "norms": norms,
        "again": again.detach(),
        "off": gradients_off,
        "graph": again.requires_grad,
        "enabled": enabled,
        "gradients": torch.zeros_like(centres) if model.centres.grad is None else model.centres.grad,
        "state": state_of(model, x, x.equal(images) and (y is None or y.equal(labels))),
    }


def judge_state(got, want, function):
    """Check that the function did not change the state of the network and of the images."""
    after = f"After `{function}`, "
    sentences = {
        "requires_grad": f"{after}requires_grad of the parameters is not as before. Do not change it, or restore it.",
        "training": f"{after}the network is in another mode, train or eval. Do not change the mode, or restore it.",
        "part": f"{after}a submodule is in another mode, train or eval. Do not change the mode of any module.",
        "images": f"{after}the given images require a gradient. Use a copy of x.",
        "same": f"{after}the given images or labels have other values. Use copies of them.",
    }
    for name, sentence in sentences.items():
        if got["state"][name] != want["state"][name]:
            fail(sentence)


@exercise(
    "3.6a",
    points=1,
    public=True,
    hint="Differentiate f with respect to each image, and compute the norm over its pixels.",
)
def test_norm_of_the_gradient(run, images, centres, labels):
    """`grad_norm` returns ‖∂f/∂x‖₂ of each image and does not change gradients of the network."""

    def mistakes(got, images, given, norms):
        # f(x, y) is a paraboloid around the centre of y. The gradient of f(x) is a mean weighted by q(y|x).
        offsets = images[:, None] - centres[None]
        logits = -offsets.flatten(2).square().sum(2) / 8
        weights = logits.softmax(1)
        f = logits.logsumexp(1) if given is None else logits.gather(1, given[:, None])[:, 0]
        chosen = F.one_hot(given, len(centres)) if given is not None else weights
        gradient = -(chosen[:, :, None, None, None] * offsets).sum(1) / 4
        free = (weights[:, :, None] * offsets.flatten(2) / 4).sum(1).norm(dim=1)
        largest = offsets.flatten(2)[torch.arange(len(images)), weights.argmax(1)].norm(dim=1) / 4
        mean_offset = (weights[:, :, None, None, None] * offsets).sum(1)
        all_logits = offsets.sum(1).flatten(1).norm(dim=1) / 4

        def norms_at(x):
            with torch.enable_grad():
                x = x.clone().requires_grad_()
                value = Bowls(centres)(x) if given is None else Bowls(centres)(x, given)
                return torch.autograd.grad(value.sum(), x)[0].flatten(1).norm(dim=1)

        single = {} if len(images) > 1 else {SQUEEZED: norms.squeeze()}
        return single | {
            "This is the square of the norm. Compute the square root.": norms.square(),
            "This is the sum of absolute values. Compute the Euclidean norm.": gradient.abs().flatten(1).sum(1),
            "This is the gradient. Return its norm for each image, shape (B,).": gradient,
            IGNORED_ZEROS
            if given is not None and not given.any()
            else "The labels are ignored. Pass them to the model.": (free),
            "This is the norm over the whole batch. Compute one norm per image.": norms.square().sum().sqrt(),
            "Each value is the norm over the whole batch. Compute one norm per image.": (
                norms.square().sum().sqrt().expand(len(images))
            ),
            "The sign is wrong: this is the negative norm.": -norms,
            "The norms are divided by the batch size. Differentiate the sum of f over the batch, not the mean.": (
                norms / len(images)
            ),
            "This is the root of the mean square. Use the sum of the squares.": norms / gradient[0].numel() ** 0.5,
            "This is a sum of norms of rows or channels. Compute one norm over all pixels of an image.": nearest(
                got, *(gradient.norm(dim=axis).flatten(1).sum(1) for axis in (1, 2, 3))
            ),
            "This is a mean of norms of rows or channels. Compute one norm over all pixels of an image.": nearest(
                got, *(gradient.norm(dim=axis).flatten(1).mean(1) for axis in (1, 2, 3))
            ),
            "This is a sum of norms of channels. Compute one norm over all pixels of an image.": (
                gradient.flatten(2).norm(dim=2).sum(1)
            ),
            "This is a mean of norms of channels. Compute one norm over all pixels of an image.": (
                gradient.flatten(2).norm(dim=2).mean(1)
            ),
            "This is a matrix norm of each channel. Compute the Euclidean norm over all pixels of an image.": nearest(
                got,
                *(
                    reduced(torch.linalg.matrix_norm(gradient, ord=order))
                    for order in (2, "nuc", 1, torch.inf)
                    for reduced in (lambda each: each.norm(dim=1), lambda each: each.sum(1), lambda each: each.mean(1))
                ),
            ),
            (
                "These are norms of each channel, row, column or pixel. "
                "Compute one norm over all pixels and channels of an image, for example after flatten(1)."
            ): nearest(got, *(gradient.norm(dim=axes) for axes in ((2, 3), 1, 2, 3, (1, 2), (1, 3)))),
            "This is the largest absolute value. Compute the Euclidean norm.": gradient.abs().flatten(1).amax(1),
            "This is the mean of absolute values. Compute the Euclidean norm.": gradient.abs().flatten(1).mean(1),
            "This is the sum of the values. Compute the Euclidean norm.": nearest(
                got, gradient.flatten(1).sum(1), gradient.flatten(1).sum(1).abs()
            ),
            "This is the standard deviation of the values. Compute the Euclidean norm.": nearest(
                got, *(gradient.flatten(1).std(1, correction=correction) for correction in (0, 1))
            ),
            "The gradient is clamped as in the sampler. Compute the norm of the gradient itself.": nearest(
                got, *(gradient.clamp(-limit, limit).flatten(1).norm(dim=1) for limit in (0.01, 0.03, 0.1))
            ),
            "This is the logarithm of the norm. Compute the norm itself.": norms.log(),
            "This is the root of the norm. Compute the norm itself.": norms.sqrt(),
            "The norms are 0. Differentiate f, summed over the batch, with respect to x.": 0 * norms,
            "This is the gradient of log q(y|x). Differentiate f.": (
                norms if given is None else (gradient + mean_offset / 4).flatten(1).norm(dim=1)
            ),
            "This is the gradient of the sum of all logits. Differentiate f.": all_logits,
            "Only one channel counts. Compute the norm over all pixels and channels.": nearest(
                got, *(gradient[:, channel].flatten(1).norm(dim=1) for channel in (0, -1))
            ),
            "This is the gradient of the largest logit. Differentiate f.": largest,
            "The channels are added or averaged before the norm. Compute one norm over all of them.": nearest(
                got, *(each.flatten(1).norm(dim=1) for each in (gradient.sum(1), gradient.mean(1)))
            ),
            "This is the largest of the norms of the channels. Compute one norm over all pixels of an image.": (
                gradient.flatten(2).norm(dim=2).amax(1)
            ),
            "This is another norm. Compute the Euclidean norm, whose exponent is 2.": nearest(
                got, *(gradient.flatten(1).norm(p=power, dim=1) for power in (0.5, 3, 4))
            ),
            "This is the gradient of exp(f). Differentiate f itself.": f.exp() * norms,
            "This is the gradient of f². Differentiate f itself.": 2 * f.abs() * norms,
            "This is the gradient of the logsumexp of f over the batch. Differentiate the sum of f.": f.softmax(0)
            * norms,
            "Only one image has a gradient. Differentiate the sum of f over the batch.": nearest(
                got, *(norms * F.one_hot(torch.tensor(place), len(norms)) for place in (0, len(norms) - 1))
            ),
            "The norms are divided by a number. Return them as they are.": nearest(
                got, norms / norms.max(), norms / norms.sum()
            ),
            "The gradient is that at changed images. Differentiate f at x itself.": nearest(
                got, *(norms_at(each) for each in (images.clamp(-0.5, 0.5), images.clamp(0, 1), (images + 1) / 2))
            ),
            "The labels are in another order. Pass them to the model as they are.": (
                norms if given is None else (images - centres[given.flip(0)]).flatten(1).norm(dim=1) / 4
            ),
            "This is the gradient of f(x, y) + f(x). Differentiate f(x, y) alone, if there are labels.": (
                norms if given is None else (gradient - mean_offset / 4).flatten(1).norm(dim=1)
            ),
            "The norms are multiplied by a number. Compute the norm of the gradient of the sum of f.": (
                multiple(got, norms)
            ),
            NEARLY: nearly(got, norms),
        }

    for x, given in ((images, labels), (images, None), (images, 0 * labels), (images[:1], labels[:1])):
        got, want = run(norm_of_gradient, x, centres, given)
        if got["off"] is True and got["norms"].shape == (0,):
            if got["again"].shape == (0,):
                fail("`grad_norm` fails: f has no gradient. Let a copy of x require one, and use torch.enable_grad().")
            fail("`grad_norm` does not work inside torch.no_grad(). Use torch.enable_grad().")
        norms = want["norms"]
        assert_close(got["norms"], norms, mistakes=partial(mistakes, got["norms"], x, given, norms))
        if difference(got["again"], norms, 1e-4, 1e-5):
            fail("A second call with the same images fails or has other norms. Differentiate by a copy of x.")
        if got["graph"] is not False:
            fail("The norms are not detached.")
        if got["enabled"] is not False:
            fail("The grad mode is not restored. Use `with torch.enable_grad()`.")
        judge_state(got, want, "grad_norm")
        if difference(got["gradients"], want["gradients"], 1e-4, 1e-5):
            fail(
                "The gradients of the parameters are changed. "
                "Use torch.autograd.grad to differentiate only by the images."
            )


@probe
def score(student, images, centres, labels, name, level=0.0):
    model, x = Bowls(centres, training=labels is None, level=level), images.clone()
    y = [] if labels is None else [labels.clone()]
    scores = student.ex_ood.score_fn(model, x, *y, score=name)
    is_same = x.equal(images) and (not y or y[0].equal(labels))
    return {"scores": scores, "graph": scores.requires_grad, "state": state_of(model, x, is_same)}


@probe
def mass_score(student, images, centres, norms, labels):
    """The score `mass`, with the student's `grad_norm` or with a stand-in that returns given norms.

    `missing` names the arguments that `grad_norm` does not get. `graph` and `state` are those of `score`.
    """
    module = student.ex_ood
    own = module.grad_norm
    missing = []

    def given(model=None, x=None, y=None):
        ok = {
            "model": isinstance(model, nn.Module),
            "x": torch.is_tensor(x) and x.equal(images),
            "y": y is None if labels is None else torch.is_tensor(y) and y.equal(labels),
        }
        missing.extend(name for name in ok if not ok[name])
        return norms.clone()

    def attempt(grad_norm):
        module.grad_norm = grad_norm
        model, x, y = Bowls(centres, training=True), images.clone(), None if labels is None else labels.clone()
        try:
            scores = module.score_fn(model, x, y, score="mass")
            state = state_of(model, x, x.equal(images) and (y is None or y.equal(labels)))
            return {"scores": scores, "missing": ", ".join(missing), "graph": scores.requires_grad, "state": state}
        finally:
            module.grad_norm = own

    return ways(whole=lambda: attempt(own), isolated=lambda: attempt(given))


def affine(got, want):
    """`want` times a positive number plus another one, if that is what `got` is; otherwise `want`."""
    if got.shape != want.shape or len(want) < 4 or not got.isfinite().all() or got.std() < 1e-4:
        return want
    line = (want - want.mean()) * got.std() / want.std() + got.mean()
    return proven((got - line).abs().max() < 1e-4 * want.abs().max() and (got - want).abs().max() > 0.01, got, want)


@exercise(
    "3.6a",
    points=1,
    public=True,
    hint="px is the energy E = -f. The network returns f, and a score is larger for outliers.",
)
def test_score_px(run, images, centres, labels):
    """`score="px"` returns the energy, with and without labels."""

    def mistakes(scores, energy, images, given, level):
        model = Bowls(centres, level=level)
        free = -model(images).detach()
        own = free if given is None else -model(images, given).detach()
        logits = model.get_logits(images).detach()
        line = affine(scores, energy)
        return {
            "The orientation is wrong: this is f. A score is larger for outliers, so return E = -f.": -energy,
            "This is exp(f), which is smaller for outliers. Return the energy E = -f.": (-energy).exp(),
            "This is -exp(f). Return the energy E = -f.": -(-energy).exp(),
            "With labels, this is -log q(y|x). Return the energy E(x, y) = -f(x, y).": (
                energy if given is None else own - free
            ),
            "This is E(x, y) + E(x). If labels are given, return E(x, y) alone.": (
                energy if given is None else own + free
            ),
            "This is the energy of the largest logit. Return E = -f, with f of the model.": -logits.amax(1),
            "The largest logit is subtracted from f. Return E = -f, with f of the model.": energy + logits.amax(1),
            "These are the energies of all classes. Return E = -f, with f of the model.": -logits,
            "These are absolute values. An energy may be negative.": energy.abs(),
            "Negative energies are replaced. Return E = -f as it is.": nearest(
                scores, energy.relu(), F.softplus(energy)
            ),
            "The energies are multiplied by a number. Return E = -f.": multiple(scores, energy),
            IGNORED_ZEROS if given is not None and not given.any() else IGNORED: free,
            "The energies are scaled or shifted, for example by their mean. Return E = -f as it is.": line,
            SQUEEZED: energy.squeeze(),
            NEARLY: nearly(scores, energy),
        }

    def middle(given):
        """The level that makes about half of the energies negative."""
        model = Bowls(centres)
        return -(model(images) if given is None else model(images, given)).detach().median().item() + 0.01

    for x, given, level in (
        (images, None, middle(None)),
        (images, labels, middle(labels)),
        (images, 0 * labels, 0.0),
        (images[:1], None, 0.0),
    ):
        got, want = run(score, x, centres, given, "px", level)
        wrong = partial(mistakes, got["scores"], want["scores"], x, given, level)
        assert_close(got["scores"], want["scores"], mistakes=wrong)
        if got["graph"] is not False:
            fail("The scores are not detached. Compute them inside torch.no_grad().")
        judge_state(got, want, "score_fn")


@probe
def any_kind(function, *groups):
    """`function` of the scores as lists, then as tensors; what it returns for tensors."""
    try:
        function(*(group.tolist() for group in groups))
        return function(*groups)
    except Exception:
        function(*(group.numpy() for group in groups))
        require(
            False,
            "Scores may be lists, arrays or tensors: it works for arrays, but not for both others. Use numpy.asarray.",
        )


def judge_histogram(got, want, groups):
    """Compare the edges, and the density of each group. groups: name -> scores."""
    edges = got["edges"]

    def wrong_edges():
        one_group = [torch.from_numpy(np.histogram_bin_edges(each.numpy(), 20)) for each in groups.values()]
        low, high = want["edges"][0].item(), want["edges"][-1].item()
        right = torch.linspace(low, high, 21)
        known = {
            "The edges are those of one group. Use the scores of all groups.": nearest(edges, *one_group),
            "The bins start at 0. They should start at the smallest score.": torch.linspace(0, high, 21),
            "The argument `bins` is ignored.": torch.linspace(low, high, 61),
            "There is one bin too few. There are bins + 1 edges.": torch.linspace(low, high, 20),
            "There is one bin too many. There are bins + 1 edges.": torch.linspace(low, high, 22),
            "These are the centres of the bins. Return the bins + 1 edges.": (right[1:] + right[:-1]) / 2,
            "The last or the first edge is missing. Return the bins + 1 edges.": nearest(edges, right[:-1], right[1:]),
        }
        if edges.shape == right.shape and edges.isfinite().all():
            first, last, tiny = edges[0].item(), edges[-1].item(), 1e-5 * high
            is_even = difference(edges.double(), torch.linspace(first, last, 21).double(), 1e-4, 1e-5) is None
            is_wide, is_narrow = first < low - tiny or last > high + tiny, first > low + tiny or last < high - tiny
            sentence = "The bins have different widths, or the edges are not in order. Use numpy.histogram_bin_edges."
            if is_even and is_wide and is_narrow:
                sentence = "The first and the last edge are not the smallest and the largest score of all groups."
            elif is_even and is_wide:
                sentence = (
                    "The bins reach further than the scores. The first edge is the smallest and the last edge "
                    "the largest score of all groups, without rounding."
                )
            elif is_even:
                sentence = "The bins do not reach from the smallest to the largest score of all groups."
            known[sentence] = edges
        return known

    assert_close(edges, want["edges"], mistakes=wrong_edges)
    width = (want["edges"][1] - want["edges"][0]).item()
    for group, scores in groups.items():
        one = 1 / (len(scores) * width)  # the effect of one score that rounding moves to the next bin
        assert_close(
            got[group],
            want[group],
            atol=1.01 * one,
            mistakes=lambda group=group, scores=scores, one=one: {
                "These are counts. Use density=True.": want[group] / one,
                "The densities are divided by the number of all scores. Each of them should integrate to 1.": (
                    want[group] * len(scores) / sum(map(len, groups.values()))
                ),
                "These are fractions. Divide them by the width of the bins, or use density=True.": want[group] * width,
                "The groups have different bins. Pass the common edges to numpy.histogram.": torch.from_numpy(
                    np.histogram(scores.numpy(), 20, density=True)[0]
                ),
                "The groups are exchanged.": nearest(got[group], *(want[other] for other in groups)),
                "This is a cumulative histogram. Return the density of each bin.": nearest(
                    got[group], *((factor * want[group]).cumsum(0) for factor in (1, width, 1 / one))
                ),
                "The largest density is 1. Divide by the sum and the width of the bins instead.": (
                    want[group] / want[group].max()
                ),
                "The density does not integrate to 1. Use density=True.": proven(
                    got[group].shape == want[group].shape and abs(got[group].sum().item() * width - 1) > 0.01,
                    got[group],
                    want[group],
                ),
                "The density integrates to 1, but its values are wrong. Count the scores of the group in the bins.": (
                    proven(got[group].shape == want[group].shape, got[group], want[group])
                ),
            },
        )
        if abs(got[group].sum().item() * width - 1) > 1e-3:  # one score is at least 1 / 250
            lost = want[group] - got[group] > one / 2
            ends = {0: "smallest", len(lost) - 1: "largest"}
            lost = lost.nonzero().flatten().tolist()
            if len(lost) == 1 and lost[0] in ends:
                fail(f"The {ends[lost[0]]} score is not counted. It belongs to the bin of which it is the edge.")
            fail("The density does not integrate to 1. Count each score of the group.")


@probe
def histogram(student, scores_id, scores_ood):
    """The edges and densities of two groups, of three groups and of one: the names of the groups do not matter.

    Of three groups, the second one has the largest score, and the last one the smallest, which is negative.
    """

    def of(*groups):
        return student.ex_ood.score_histogram(dict(zip(("test", "ood", "far"), groups, strict=False)), 20)

    def seen(edges, densities):
        return {"edges": np.asarray(edges)} | {name: np.asarray(density) for name, density in densities.items()}

    two = seen(*any_kind(of, scores_id, scores_ood))
    try:
        three, one = of(scores_id, scores_ood + 5, scores_id - 60), of(scores_id)
    except Exception:
        require(False, "`score_histogram` fails for three groups, or for one. There may be any number of them.")
    return {"two": two, "three": seen(*three), "one": seen(*one)}


@exercise(
    "3.6b",
    points=1,
    public=True,
    hint="Use the same bin edges for all groups, from the smallest to the largest score. Return densities, not counts.",
)
def test_histogram_of_the_scores(run, scores_id, scores_ood):
    """`score_histogram` returns common bin edges and the density of each group."""
    got, want = run(histogram, scores_id, scores_ood)
    groups = {"test": scores_id, "ood": scores_ood}
    judge_histogram(got["two"], want["two"], groups)
    three = {"test": scores_id, "ood": scores_ood + 5, "far": scores_id - 60}
    judge_histogram(got["three"], want["three"], three)
    judge_histogram(got["one"], want["one"], {"test": scores_id})


@probe
def threshold(student, scores_id, quantile):
    def of(scores):
        try:
            return student.ex_ood.energy_threshold(scores, quantile)
        except IndexError:
            require(quantile < 1, "`energy_threshold` fails for quantile=1, which is the largest score.")
            raise

    return {"threshold": float(any_kind(of, scores_id))}


@probe
def metrics(student, scores_id, scores_ood):
    found = student.ex_ood.ood_metrics(scores_id.numpy(), scores_ood.numpy())
    return {name: float(found[name]) for name in ("auroc", "aupr", "fpr95")}


@probe
def metrics_of_any_kind(student, scores_id, scores_ood):
    return {"fpr95": float(any_kind(student.ex_ood.ood_metrics, scores_id, scores_ood)["fpr95"])}


def hard_labels(scores_id, scores_ood):
    """The labels, and predictions with several thresholds: name of the threshold -> predictions."""
    scores = np.concatenate([scores_id.numpy(), scores_ood.numpy()])
    truth = np.arange(len(scores)) >= len(scores_id)
    cuts = {
        "the 95 % quantile": np.quantile(scores_id.numpy(), 0.95),
        "the mean": scores.mean(),
        "the median": np.median(scores),
        "0": 0.0,
        "0.5": 0.5,
    }
    return truth, {name: scores > cut for name, cut in cuts.items()}


def changed(scores_id, scores_ood):
    """What usual mistakes make of the labels and the scores: diagnosis -> both."""
    groups = [group.numpy().astype(float) for group in (scores_id, scores_ood)]
    scores, few = np.concatenate(groups), min(map(len, groups))
    truth, number = np.arange(len(scores)) >= len(groups[0]), np.arange(len(scores))
    standardised = np.concatenate([(group - group.mean()) / group.std() for group in groups])
    return {
        "These are the scores without their sign. Use the scores themselves.": (truth, np.abs(scores)),
        "Negative scores are replaced by 0. Use the scores themselves.": (truth, scores.clip(0)),
        "The scores are rounded, as to one decimal. Use the scores themselves.": (truth, scores.round(1)),
        "The scores are rounded, as to two decimals. Use the scores themselves.": (truth, scores.round(2)),
        "The scores are rounded, as to half precision. Use the scores themselves.": (truth, scores.astype(np.float16)),
        "Each group is standardised on its own. Use the scores themselves.": (truth, standardised),
        "The scores are sorted, so they do not belong to their labels any more.": (truth, np.sort(scores)),
        "The groups are cut to the same size. Use all scores.": (
            np.arange(2 * few) >= few,
            np.concatenate([group[:few] for group in groups]),
        ),
        "The labels do not belong to the scores: half of them are 1. There are as many as OOD scores.": (
            number >= len(scores) // 2,
            scores,
        ),
        "The labels do not belong to the scores: they are off by one.": (number > len(groups[0]), scores),
    }


def of_all_groups(mistakes, groups, *others):
    """The results of `mistakes` for each pair of groups in one dict: diagnosis -> list of wrong values."""
    found = [mistakes(*each) for each in zip(*zip(*groups, strict=True), *others, strict=True)]
    return {name: [float(wrong[name]) for wrong in found] for name in found[0]}


@exercise(
    "3.6c", points=1, public=True, hint="Use the scores themselves, with label 0 for in-distribution and 1 for OOD."
)
def test_auroc(run, pairs, misleading):
    """`ood_metrics` returns the area under the ROC curve, with OOD as the positive class."""

    def mistakes(scores_id, scores_ood, right):
        truth, predictions = hard_labels(scores_id, scores_ood)
        scores = torch.cat([scores_id, scores_ood])
        above = (scores_ood[:, None] > scores_id).float().mean().item()
        false, true, _ = roc_curve(truth, scores)
        return {
            "This is 1 - AUROC: the classes are swapped or the scores negated. OOD is the positive class (label 1).": (
                1 - right
            ),
            "This is a percentage. Return a fraction in [0, 1].": 100 * right,
            "Pairs of equal scores are ignored. They count one half.": above,
            "Pairs of equal scores count as one. They count one half.": 2 * right - above,
            "A score that misleads has an AUROC below 0.5. Do not replace it by 1 - AUROC.": max(right, 1 - right),
            "The scores are converted to integers. Use the scores themselves.": roc_auc_score(truth, scores.int()),
            "The scores are rounded. Use the scores themselves.": roc_auc_score(truth, scores.round()),
            "The AUROC is always 0.5, as if all scores were equal. For torchmetrics, scale the scores to [0, 1].": 0.5,
            "This is the average precision. Compute the area under the ROC curve.": (
                average_precision_score(truth, scores)
            ),
            "This is the Gini coefficient, 2 AUROC - 1. Return the AUROC.": 2 * right - 1,
            "This is the largest accuracy. Compute the area under the ROC curve.": max(
                ((scores.numpy() >= cut) == truth).mean() for cut in scores.unique().numpy()
            ),
            "This is the largest balanced accuracy. Compute the area under the ROC curve.": (1 + true - false).max()
            / 2,
            **{name: roc_auc_score(*each) for name, each in changed(scores_id, scores_ood).items()},
        } | {
            f"This is the AUROC of predictions with a threshold ({name}). Use the scores themselves.": (
                roc_auc_score(truth, cut)
            )
            for name, cut in predictions.items()
        }

    groups = [*pairs, misleading]
    seen = [run(metrics, *each) for each in groups]
    got, right = ([one["auroc"] for one in ones] for ones in zip(*seen, strict=True))
    assert_close(got, right, atol=0.001, mistakes=lambda: of_all_groups(mistakes, groups, right))
