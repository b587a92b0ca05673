"""3.2: the energy function."""

import numpy as np
import torch
from stand_ins import ways

from ebmcourse.checking import assert_close, assert_either_way, exercise, fail, inputs, probe


@inputs
def images(rng):
    return torch.from_numpy(rng.uniform(-1, 1, (6, 1, 56, 56)).astype(np.float32))


@inputs
def weights(rng):
    """Weights for ShallowCNN(hidden_features=4, num_classes=5), by the names of the template."""
    shapes = {0: (4, 1, 5, 5), 2: (8, 4, 3, 3), 4: (16, 8, 3, 3), 6: (16, 16, 3, 3), 8: (16, 16, 3, 3)}
    state = {}
    for number, shape in shapes.items():
        scale = 1.6 / np.sqrt(np.prod(shape[1:]))
        state[f"cnn_layers.{number}.weight"] = scale * rng.standard_normal(shape)
        state[f"cnn_layers.{number}.bias"] = 0.1 * rng.standard_normal(shape[0])
    state["head.weight"] = rng.standard_normal((5, 16))
    state["head.bias"] = rng.standard_normal(5)
    return {name: torch.from_numpy(value.astype(np.float32)) for name, value in state.items()}


@inputs
def shift(rng):
    return torch.from_numpy(rng.standard_normal(5).astype(np.float32))


@inputs
def logits(rng):
    return torch.from_numpy(2 * rng.standard_normal((6, 5)).astype(np.float32))


@inputs
def labels(rng):
    return torch.from_numpy(rng.permutation(np.array([0, 1, 2, 3, 4, 2])))


@probe
def network(student, weights, classes=5):
    """The student's network; with the given weights where it is built like the template's."""
    torch.manual_seed(0)
    model = student.ex_model.ShallowCNN(hidden_features=4, num_classes=classes).eval()
    try:
        model.load_state_dict(weights)
        return model, True
    except RuntimeError:
        return model, False


@probe
def head_of(model, classes):
    """The last layer: a network may be built otherwise than the template's, but it has one bias per class."""
    biases = ((module, getattr(module, "bias", None)) for module in model.modules())
    return [module for module, bias in biases if bias is not None and len(bias) == classes][-1]


@probe
def logits_of(student, weights, images, shift):
    model, as_given = network(student, weights)
    with torch.no_grad():
        plain = model.get_logits(images)
        turned = model.get_logits(images.flip(0))
        head_of(model, 5).bias += shift
        shifted = model.get_logits(images)
    return {"as_given": as_given, "logits": plain, "turned": turned, "shifted": shifted}


@exercise(
    "3.2a", points=1.5, public=True, hint="`get_logits` returns one raw score per class, shape (B, K): no softmax."
)
def test_logits_are_class_scores(run, weights, images, shift):
    """`get_logits` returns the raw scores of all K classes for every image."""
    got, want = run(logits_of, weights, images, shift)
    if got["as_given"] is True:
        want, bias = want["logits"], weights["head.bias"]
        assert_close(
            got["logits"],
            want,
            atol=1e-4,
            mistakes={
                "These are probabilities: leave the softmax out, the energies need the raw scores.": want.softmax(1),
                "These are log-probabilities: leave the log_softmax out.": want.log_softmax(1),
                "This is log Σ exp over the classes; `get_logits` returns all K scores.": want.logsumexp(1),
                "The features are summed over their 2×2 places; average them.": 4 * (want - bias) + bias,
            },
        )
        return
    # Another network than the template's, which is allowed: its own scores must be those of its head.
    assert_close(got["turned"], got["logits"].flip(0), atol=1e-4)
    assert_close(
        got["shifted"],
        got["logits"] + shift,
        atol=1e-4,
        mistakes={"These are probabilities: leave the softmax out.": (got["logits"].log() + shift).softmax(1)},
    )
    if got["logits"].shape != (6, 5) or (got["logits"][1:] - got["logits"][:-1]).abs().max() < 1e-6:
        fail("The scores are the same for every image, or have not the shape (B, K).")


@probe
def energy_of(student, weights, images, logits, labels, scale):
    """f where the logits are given, and f of a whole network whose logits are `scale` times larger, beside these."""
    arguments = () if labels is None else (labels,)
    whole, _ = network(student, weights, logits.shape[1])
    given, _ = network(student, weights, logits.shape[1])
    given.get_logits = lambda x: logits[: len(x)].clone()
    with torch.no_grad():
        head_of(whole, logits.shape[1]).weight *= scale
    return ways(
        isolated=lambda: {"f": given(images, *arguments), "logits": logits},
        whole=lambda: {"f": whole(images, *arguments), "logits": whole.get_logits(images)},
    )


def judge_energy(got, want, formula, mistakes):
    """`got` must be `formula` of its own logits, which the program cannot choose; `mistakes` are formulas too."""
    logits = got["logits"]
    if logits.shape != want["logits"].shape or not logits.isfinite().all() or logits.std(0).min() < 1e-6:
        fail("`get_logits` must give scores of shape (B, K) that depend on the image before `forward` can be judged.")
    if not got["f"].isfinite().all():
        fail("exp overflows: use torch.logsumexp, or subtract the largest logit before the exponential.")
    assert_close(got["f"], formula(logits), mistakes={name: wrong(logits) for name, wrong in mistakes.items()})


@exercise("3.2b", points=1, public=True, hint="Without `y`: f = log Σ_y exp f(x)[y] over the class axis, shape (B,).")
def test_energy_without_a_class(run, weights, images, logits):
    """Without a class, `forward` returns logsumexp of the logits, one number per image."""
    mistakes = {
        "This is Σ exp of the logits; the logarithm is missing.": lambda z: z.exp().sum(1),
        "This is the logsumexp over the batch (axis 0); sum over the classes (axis 1).": lambda z: z.logsumexp(0),
        "The sign is wrong: this is the energy E, and the network models f = -E.": lambda z: -z.logsumexp(1),
        "This is the largest logit, not the logsumexp of all.": lambda z: z.amax(1),
        "This is the sum of the logits; exponentiate before and take the logarithm after it.": lambda z: z.sum(1),
        "This is the mean of the logits, not their logsumexp.": lambda z: z.mean(1),
        "There is an axis of size 1 too many (keepdim): the shape must be (B,).": lambda z: z.logsumexp(
            1, keepdim=True
        ),
    }
    got, want = run(energy_of, weights, images, logits, None, 1.0)
    assert_either_way(got, want, lambda got, want: judge_energy(got, want, lambda z: z.logsumexp(1), mistakes))


@exercise("3.2b", points=1, public=True, hint="With `y`: the logit f(x)[y] of each image's own class, shape (B,).")
def test_energy_of_a_class(run, weights, images, logits, labels):
    """With a class, `forward` returns each image's own logit, one number per image."""

    def own(z):
        return z.gather(1, labels[:, None]).squeeze(1)

    mistakes = {
        "This is exp of the logit; the conditional energy is the logit itself.": lambda z: own(z).exp(),
        "The shape is (B, 1): squeeze the axis that `gather` leaves, or later sums broadcast to (B, B).": (
            lambda z: own(z)[:, None]
        ),
        "The shape is (B, B): every image got the logits of all labels of the batch.": lambda z: z[:, labels],
        "The sign is wrong: this is the energy E, and the network models f = -E.": lambda z: -own(z),
        "This is log p(y|x); the conditional energy is the raw logit, without log_softmax.": (
            lambda z: own(z.log_softmax(1))
        ),
        "The label is ignored: this is the logsumexp over all classes.": lambda z: z.logsumexp(1),
        "This is the largest logit; take the one of the label.": lambda z: z.amax(1),
    }
    got, want = run(energy_of, weights, images, logits, labels, 1.0)
    assert_either_way(got, want, lambda got, want: judge_energy(got, want, own, mistakes))
