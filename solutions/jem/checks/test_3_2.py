"""3.2: the energy function."""

import numpy as np
import torch
import torch.nn.functional as F

from ebmcourse.checking import assert_close, assert_either_way, exercise, fail, inputs, probe, ways


@inputs
def images(rng):
    """Bytes (B, 28, 28), see `textures`."""
    return torch.from_numpy(rng.integers(0, 256, (6, 28, 28)).astype(np.uint8))


def gratings(rng, classes):
    """Bytes (B, 28, 28): waves of any length and phase under noise, the class of which is their direction."""
    y, x = np.mgrid[:28, :28]
    angle = (rng.uniform(0, np.pi) + np.pi / 5 * classes)[:, None, None]
    length, phase = rng.uniform(3, 5.5, angle.shape), rng.uniform(0, 2 * np.pi, angle.shape)
    waves = np.sin(2 * np.pi / length * (np.cos(angle) * x + np.sin(angle) * y) + phase)
    noisy = rng.uniform(0.5, 1, angle.shape) * waves + 0.1 * rng.standard_normal(waves.shape)
    return torch.from_numpy((127.5 * (1 + noisy / 1.4).clip(0, 2)).round().astype(np.uint8))


@inputs
def examination(rng):
    """Labelled images of five classes to learn from, and unseen ones whose classes stay here."""
    classes = np.concatenate([np.arange(60) % 5, rng.permutation(np.arange(40) % 5)])
    images, classes = gratings(rng, classes), torch.from_numpy(classes)
    return {"lesson": images[:60], "answers": classes[:60], "unseen": images[60:], "classes": classes[60:]}


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
def textures(numbers):
    """Images for the network, (B, 1, 56, 56) in [-1, 1], from (B, 28, 28) bytes."""
    return (numbers[:, None].float() / 127.5 - 1).repeat_interleave(2, 2).repeat_interleave(2, 3)


@probe
def logits_of(student, weights, lesson, answers, unseen):
    """The logits of unseen images: with the given weights or, in another network, once it has learned the lesson."""
    images = textures(unseen)
    model, as_given = network(student, weights)
    if not as_given:
        model = student.ex_model.ShallowCNN(hidden_features=8, num_classes=5).train()
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        for _ in range(80):
            batch = torch.randperm(len(lesson))[:25]
            loss = F.cross_entropy(model.get_logits(textures(lesson[batch])), answers[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
    with torch.no_grad():
        seen = {"logits": model.get_logits(images), "turned": model.get_logits(images.flip(0))}
        return seen | {"first": model.get_logits(images[:1]), "as_given": as_given}


def judge_other_network(got, want, classes):
    """Judge the scores of a network that is built otherwise than the template's, which is allowed.

    Which numbers are right nobody knows. But it was trained on labelled images, through `get_logits`, and the classes
    of the unseen ones have never left this process: only who can classify images can answer.
    """
    logits = got["logits"]
    if logits.shape != want["logits"].shape or not logits.isfinite().all():
        fail("The scores must be finite and have the shape (B, K).")
    if (logits.exp().sum(1) - 1).abs().max() < 1e-3:
        fail("These are log-probabilities: leave the log_softmax out.")
    if (logits.sum(1) - 1).abs().max() < 1e-3:
        fail("These are probabilities: leave the softmax out.")
    assert_close(got["turned"], logits.flip(0), atol=1e-4)
    # Networks of four makes are right about 90 % or more; guessing gives 20 ± 6 %.
    if (logits.argmax(1) == classes).float().mean() < 0.7:
        fail("Trained on labelled images, the network does not tell new ones apart: is something missing or detached?")


@exercise(
    "3.2a",
    points=1.5,
    public=True,
    seconds=30,
    hint="`get_logits` returns one raw score per class, shape (B, K): no softmax.",
)
def test_logits_are_class_scores(run, weights, examination):
    """`get_logits` returns the raw scores of all K classes for every image."""
    given = [examination[name] for name in ("lesson", "answers", "unseen")]
    got, want = run(logits_of, weights, *given)
    if got["as_given"] is not True:
        judge_other_network(got, want, examination["classes"])
        return
    want, bias = want["logits"], weights["head.bias"]
    assert_close(
        got["logits"],
        want,
        atol=1e-4,
        mistakes=lambda: {
            "These are probabilities: leave the softmax out, the energies need the raw scores.": want.softmax(1),
            "These are log-probabilities: leave the log_softmax out.": want.log_softmax(1),
            "This is log Σ exp over the classes; `get_logits` returns all K scores.": want.logsumexp(1),
            "The features are summed over their 2×2 places; average them.": 4 * (want - bias) + bias,
        },
    )


### BEGIN HIDDEN TESTS
@exercise(
    "3.2a", points=0.5, seconds=30, hint="Nothing in `get_logits` may depend on the number of images in the batch."
)
def test_logits_of_a_single_image(run, weights, examination):
    """`get_logits` works for a batch of one image."""
    given = [examination[name] for name in ("lesson", "answers", "unseen")]
    got, want = run(logits_of, weights, *given)
    if got["as_given"] is True:
        want = want["first"]
    else:
        judge_other_network(got, want, examination["classes"])
        want = got["logits"][:1]
    lost = "The batch axis is lost for a single image: use flatten(1), which keeps it, instead of squeeze()."
    assert_close(got["first"], want, atol=1e-4, mistakes={lost: want.squeeze(0)})


### END HIDDEN TESTS


@probe
def head_of(model, classes):
    """The last layer: a network may be built otherwise than the template's, but it has one bias per class."""
    biases = ((module, getattr(module, "bias", None)) for module in model.modules())
    return [module for module, bias in biases if bias is not None and len(bias) == classes][-1]


@probe
def energy_of(student, weights, images, logits, labels, scale):
    """f where the logits are given, and f of a whole network whose logits are `scale` times larger, beside these."""
    arguments = () if labels is None else (labels,)
    whole, _ = network(student, weights, logits.shape[1])
    given, _ = network(student, weights, logits.shape[1])
    given.get_logits = lambda x: logits[: len(x)].clone()
    images = textures(images)
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
    assert_close(got["f"], formula(logits), mistakes=lambda: {name: wrong(logits) for name, wrong in mistakes.items()})


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


### BEGIN HIDDEN TESTS
@exercise("3.2b", points=0.5, hint="For K = 1, f is the single output: the logsumexp over one class is that class.")
def test_energy_of_a_plain_ebm(run, weights, images, logits):
    """With a single output, `forward` returns that output, shape (B,)."""
    mistakes = {"There is an axis of size 1 too many: (B,) is expected.": lambda z: z}
    got, want = run(energy_of, weights, images, logits[:, :1], None, 1.0)
    assert_either_way(got, want, lambda got, want: judge_energy(got, want, lambda z: z[:, 0], mistakes))


@exercise(
    "3.2b", points=0.5, hint="exp of a large number is infinite: use torch.logsumexp, or subtract the maximum first."
)
def test_energy_of_large_logits(run, weights, images, logits):
    """`forward` stays finite for logits in the thousands."""
    got, want = run(energy_of, weights, images, 1e4 * logits, None, 1e4)
    assert_either_way(got, want, lambda got, want: judge_energy(got, want, lambda z: z.logsumexp(1), {}))


### END HIDDEN TESTS
