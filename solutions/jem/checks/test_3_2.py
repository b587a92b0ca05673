"""3.2: the network f = -E."""

import math
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from wrong_values import NEARLY, limited, multiple, nearest, nearly, proven

from ebmcourse.checking import assert_close, assert_either_way, difference, exercise, fail, inputs, probe, require, ways


@inputs
def images(rng):
    """Random images, bytes (B, 28, 28); see `textures`."""
    return torch.from_numpy(rng.integers(0, 256, (6, 28, 28)).astype(np.uint8))


def gratings(rng, classes):
    """Noisy waves of random length and phase, bytes (B, 28, 28). Their direction depends on the class."""
    y, x = np.mgrid[:28, :28]
    angle = (rng.uniform(0, np.pi) + np.pi / 5 * classes)[:, None, None]
    length, phase = rng.uniform(3, 5.5, angle.shape), rng.uniform(0, 2 * np.pi, angle.shape)
    waves = np.sin(2 * np.pi / length * (np.cos(angle) * x + np.sin(angle) * y) + phase)
    noisy = rng.uniform(0.5, 1, angle.shape) * waves + 0.1 * rng.standard_normal(waves.shape)
    return torch.from_numpy((127.5 * (1 + noisy / 1.4).clip(0, 2)).round().astype(np.uint8))


@inputs
def dataset(rng):
    """Labelled training images of five classes, and test images. The probe does not get the classes of the latter."""
    classes = np.concatenate([np.arange(60) % 5, rng.permutation(np.arange(40) % 5)])
    images, classes = gratings(rng, classes), torch.from_numpy(classes)
    return {
        "train_images": images[:60],
        "train_labels": classes[:60],
        "test_images": images[60:],
        "test_labels": classes[60:],
    }


@inputs
def weights(rng):
    """Weights for ShallowCNN(hidden_features=4, num_classes=5), by their names in the template."""
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
    """The student's network, and whether it has the layers of the template and therefore got the given weights."""
    torch.manual_seed(0)
    model = student.ex_model.ShallowCNN(hidden_features=4, num_classes=classes).eval()
    try:
        model.load_state_dict(weights)
        return model, True
    except RuntimeError:
        return model, False


@probe
def textures(numbers):
    """Images for the network, (B, 1, 56, 56) in [-1, 1], from bytes (B, 28, 28)."""
    return (numbers[:, None].float() / 127.5 - 1).repeat_interleave(2, 2).repeat_interleave(2, 3)


@probe
def enlarged(images):
    """Two images with a part of them repeated, (2, 1, 72, 56); the network has 3×2 features for each of them."""
    return torch.cat([images[:2], images[:2, :, :16]], dim=2)


@probe
def slopes_of(model, images, as_given):
    """The gradients of the squared logits: for the images, with reduced resolution, first convolution, and head.

    For a network of another design, there is only the first one. Gradients that do not exist are zero, too.
    """
    with torch.enable_grad():
        leaves = [images.clone().requires_grad_()]
        leaves += [model.cnn_layers[0].weight, model.head.weight, model.head.bias] if as_given else []
        loss = model.get_logits(leaves[0]).square().sum()
        found = torch.autograd.grad(loss, leaves, allow_unused=True) if loss.requires_grad else [None] * len(leaves)
    found = [torch.zeros_like(leaf) if slope is None else slope for leaf, slope in zip(leaves, found, strict=True)]
    kernels, *head = found[1:] if as_given else [torch.zeros(4, 1, 5, 5), torch.zeros(5, 16), torch.zeros(5)]
    return {
        "images": F.avg_pool2d(found[0], 4),
        "kernels": kernels,
        "head": torch.cat([each.flatten() for each in head]),
    }


@probe
def logits_of(student, weights, train_images, train_labels, test_images):
    """The logits of the test images: with the given weights or, for another network, after training it."""
    images = textures(test_images)
    model, as_given = network(student, weights)
    if not as_given:
        model = student.ex_model.ShallowCNN(hidden_features=8, num_classes=5).train()
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        for _ in range(80):
            batch = torch.randperm(len(train_images))[:25]
            loss = F.cross_entropy(model.get_logits(textures(train_images[batch])), train_labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
    with torch.no_grad():
        logits = model.get_logits(images)
        require(torch.is_tensor(logits), "`get_logits` returns one tensor, the logits (B, K).")
        seen = {"logits": logits, "turned": model.get_logits(images.flip(0))}
        seen["slopes"] = slopes_of(model, images[:2], as_given)
        seen |= {"first": model.get_logits(images[:1]), "as_given": as_given}
        # Networks of another design may be made for images of 56×56 only.
        return seen | {"larger": model.get_logits(enlarged(images)) if as_given else torch.zeros(2, 5)}


UNSTEADY = (
    "The logits of an image are random, or depend on the other images and their order. "
    "Compute them from this image alone, without dropout in eval mode."
)


def judge_other_network(got, want, labels):
    """Judge the logits of a network with other layers than the template, which students may use.

    The right numbers are unknown. But the network was trained on labelled images with `get_logits`, and the classes of
    the test images were never sent to the student's process. So only a network that works can classify these images.
    """
    logits = got["logits"]
    if logits.shape != want["logits"].shape or not logits.isfinite().all():
        fail("The logits must be finite and have the shape (B, K).")
    if (logits.exp().sum(1) - 1).abs().max() < 1e-3:
        fail("These are log-probabilities. Remove the log_softmax and return the logits.")
    if (logits.sum(1) - 1).abs().max() < 1e-3:
        fail("These are probabilities. Remove the softmax and return the logits.")
    assert_close(got["turned"], logits.flip(0), atol=1e-4, mistakes={UNSTEADY: proven(True, got["turned"], logits)})
    if not got["slopes"]["images"].abs().max() > 0:
        fail("The logits have no gradient with respect to the images. Use no `detach` and no `no_grad`.")
    # Four different networks classify at least 90 % correctly; guessing gives 20 ± 6 %.
    if (logits.argmax(1) == labels).float().mean() < 0.7:
        fail(
            "After a short training, the network classifies fewer than 70 % of other images rightly. "
            "Check `get_logits` for missing layers and `detach`."
        )


def features_of(weights, images, layers=10, without=None):
    """What the first layers of the template compute with these weights, (B, C, h, w), without one of them."""
    features = images
    for number in range(layers):
        if number == without:
            continue
        if number % 2:
            features = F.silu(features)
        else:
            kernel, bias = (weights[f"cnn_layers.{number}.{name}"] for name in ("weight", "bias"))
            features = F.conv2d(features, kernel, bias, stride=2, padding=1 if number else 4)
    return features


def wrong_logits(got, want, weights, images, single):
    """The logits that usual mistakes give. single: the observed logits of the first image in a batch of its own."""
    bias, head = weights["head.bias"], weights["head.weight"].T
    features = features_of(weights, images)
    means, grey = features.mean((2, 3)), images.mean((1, 2, 3), keepdim=True)
    is_shaped, middle = got.shape == want.shape, want.mean(1, keepdim=True)
    depends = is_shaped and single.shape == want[:1].shape and (got[:1] - single).abs().max() > 1e-3
    return {
        "These are probabilities. Remove the softmax and return the logits.": nearest(
            got, want.softmax(1), want.softmax(0)
        ),
        "These are log-probabilities. Remove the log_softmax and return the logits.": nearest(
            got, want.log_softmax(1), want.log_softmax(0)
        ),
        "This is the logsumexp over the classes. Return the logits of all K classes.": want.logsumexp(1),
        "The features are summed over h and w. Average them instead.": (features[0, 0].numel() * (want - bias) + bias),
        "This is the maximum of the features over h and w. Average them instead.": features.amax((2, 3)) @ head + bias,
        "This is the minimum, median or root mean square of the features over h and w. Average them instead.": nearest(
            got,
            features.amin((2, 3)) @ head + bias,
            features.flatten(2).median(2).values @ head + bias,
            features.square().mean((2, 3)).sqrt() @ head + bias,
        ),
        "The features are averaged over one of the axes h and w only. Average them over both.": nearest(
            got,
            *(
                each @ head + bias
                for lines in (features.mean(2), features.mean(3))
                for each in (lines.amax(2), lines[:, :, 0], lines[:, :, -1])
            ),
        ),
        "Only the features of one corner are used. Average them over h and w.": nearest(
            got, *(features[:, :, row, column] @ head + bias for row in (0, -1) for column in (0, -1))
        ),
        "Only 2×2 features are averaged. Average all of them, whatever the size of the image.": (
            features[:, :, :2, :2].mean((2, 3)) @ head + bias
        ),
        "The features are summed and divided by 4, which is right for 56×56 images only. Use their mean.": (
            features.sum((2, 3)) / 4 @ head + bias
        ),
        (
            "The logits are those of the averages of the features times a number, for example of sums over one axis. "
            "Use the mean over h and w as it is."
        ): (multiple(got - bias, want - bias) + bias if is_shaped else want),
        "There is an activation between the average of the features and the head. Leave it out.": nearest(
            got, *(each(means) @ head + bias for each in (torch.relu, F.silu, torch.tanh, torch.sigmoid))
        ),
        "The averages of the features are normalised. Apply the head to the averages themselves.": nearest(
            got,
            *(each(means, dim=1) @ head + bias for each in (F.normalize, torch.softmax)),
            F.layer_norm(means, means.shape[1:]) @ head + bias,
        ),
        "The last activation of `self.cnn_layers` is left out. Use all layers.": (
            features_of(weights, images, 9).mean((2, 3)) @ head + bias
        ),
        "An activation of `self.cnn_layers` is left out. Use all layers.": nearest(
            got, *(features_of(weights, images, without=number).mean((2, 3)) @ head + bias for number in (1, 3, 5, 7))
        ),
        "The last convolution of `self.cnn_layers` is left out. Use all layers.": (
            features_of(weights, images, 8).mean((2, 3)) @ head + bias
        ),
        "The bias of the head is missing. Return the output of self.head as it is.": want - bias,
        "Negative logits are set to 0. Return the output of the head as it is.": want.relu(),
        "There is an activation after the head. Return its output as it is.": nearest(
            got, *(each(want) for each in (torch.tanh, torch.sigmoid, F.silu, F.softplus, F.logsigmoid))
        ),
        "These are absolute values. Return the output of the head as it is.": want.abs(),
        "The logits of each image are normalised. Return the output of the head as it is.": nearest(
            got, F.normalize(want), *((want - centre) / want.std(1, keepdim=True) for centre in (0, middle))
        ),
        "The logits are clamped. Return the output of the head as it is.": limited(got, want),
        "All logits of an image are shifted by a number. The softmax is the same, but not the energy: do not shift.": (
            want + (got - want).mean(1, keepdim=True) if is_shaped else want
        ),
        "All logits are multiplied by the same number. Return the output of the head as it is.": multiple(got, want),
        "The images are changed before the first layer. Pass x itself to `self.cnn_layers`.": nearest(
            got,
            *(
                features_of(weights, each).mean((2, 3)) @ head + bias
                for each in (
                    *((images + 1) / 2, images / 2, 2 * images - 1, images.clamp(0, 1), -images, images.abs()),
                    *(images.mT, images.flip(2), images.flip(3), images.flip(2, 3)),
                    *((images - centre) / images.std((1, 2, 3), keepdim=True) for centre in (0, grey)),
                )
            ),
        ),
        "An image has other logits in a batch than alone. Use only its own features, in the same way for each image.": (
            proven(depends, got, want)
        ),
        "The classes are in another order. Return the output of the head as it is.": proven(
            is_shaped and difference(got.sort(1).values, want.sort(1).values, 1e-4, 1e-4) is None, got, want
        ),
        NEARLY: nearly(got, want),
    }


def wrong_logits_of_larger_images(got, want, weights, images, single):
    """`wrong_logits` for images of another size than 56×56, for which the logits were right."""
    size = (
        "The logits are right for images of 56×56 pixels, but not for larger ones. "
        "Use the whole image as it is, and average all of its features."
    )
    known = wrong_logits(got, want, weights, images, single)
    return known | {size: proven(got.shape == want.shape, got, want)}


@exercise(
    "3.2a",
    points=1.5,
    public=True,
    seconds=30,
    hint="Return one logit per class, shape (B, K), without a softmax.",
)
def test_logits_are_class_scores(run, weights, dataset):
    """`get_logits` returns the logits of all K classes for each image."""
    given = [dataset[name] for name in ("train_images", "train_labels", "test_images")]
    got, want = run(logits_of, weights, *given)
    if got["as_given"] is not True:
        judge_other_network(got, want, dataset["test_labels"])
        return
    if got["turned"].shape == got["logits"].shape and (got["turned"].flip(0) - got["logits"]).abs().max() > 1e-3:
        fail(UNSTEADY)

    images = textures(dataset["test_images"])
    for name, given in (("logits", images), ("turned", images.flip(0)), ("larger", enlarged(images))):
        single = got["first"] if name == "logits" else got[name][:1]
        wrong = wrong_logits if name != "larger" else wrong_logits_of_larger_images
        wrong = partial(wrong, got[name], want[name], weights, given, single)
        assert_close(got[name], want[name], atol=1e-4, mistakes=wrong)
    of_what = {"images": "the images", "kernels": "the weights of the convolutions", "head": "the weights of the head"}
    for name, of in of_what.items():
        right = want["slopes"][name]
        missing = f"The logits have no gradient with respect to {of}. Use no `detach` and no `no_grad`."
        partly = f"The logits are right, but their gradient with respect to {of} is not. Detach no part of them."
        # The gradients are sums of many numbers, so the tolerance is relative to the largest one.
        atol = 1e-3 * right.abs().max().item()
        known = {missing: torch.zeros_like(right), partly: proven(True, got["slopes"][name], right)}
        assert_close(got["slopes"][name], right, rtol=0, atol=atol, mistakes=known)


### BEGIN HIDDEN TESTS
@exercise("3.2a", points=0.5, seconds=30, hint="The result must have the shape (1, K) for a batch of one image.")
def test_logits_of_a_single_image(run, weights, dataset):
    """`get_logits` works for a batch of one image."""
    given = [dataset[name] for name in ("train_images", "train_labels", "test_images")]
    got, want = run(logits_of, weights, *given)
    whole = want["logits"]
    if got["as_given"] is True:
        want = want["first"]
    else:
        judge_other_network(got, want, dataset["test_labels"])
        want = got["logits"][:1]
    lost = "The batch axis is missing for a single image: the shape is (K,), not (1, K). Remove only the axes h and w."
    other = "A single image has other logits than in a batch. Compute them in the same way for each image."
    is_single = got["first"].shape == want.shape and difference(got["logits"], whole, 1e-4, 1e-4) is None

    def mistakes():
        image = textures(dataset["test_images"][:1])
        wrong = wrong_logits(got["first"], want, weights, image, got["first"]) if got["as_given"] is True else {}
        return {lost: want.squeeze(0), other: proven(is_single, got["first"], want)} | wrong

    assert_close(got["first"], want, atol=1e-4, mistakes=mistakes)


### END HIDDEN TESTS


@probe
def head_of(model, classes):
    """The last layer of a network: the last module that has one bias per class."""
    biases = ((module, getattr(module, "bias", None)) for module in model.modules())
    return [module for module, bias in biases if bias is not None and len(bias) == classes][-1]


@probe
def energy_of(student, weights, images, logits, labels, scale):
    """f for given logits, and f of the whole network with the logits times `scale`; and a gradient of the sum of f.

    The given logits are those of `get_logits` (isolated) or of the last layer (last_layer), because `forward` need not
    call `get_logits`. The gradient is that with respect to these, or to the biases of the last layer (whole); it is
    zero if there is none.
    """
    classes, images = logits.shape[1], textures(images).requires_grad_()
    given = logits.clone().requires_grad_()

    def f(model, leaf):
        if labels is None:
            found = model(images)
        else:
            classes_of = labels.clone()
            found = model(images, classes_of)
            require(
                classes_of.equal(labels),
                "The given labels are changed in place. Use `y[:, None]`, or `unsqueeze` without the underscore.",
            )
        leaves = leaf, images
        has_graph = isinstance(found, torch.Tensor) and found.requires_grad
        slopes = torch.autograd.grad(found.sum(), leaves, allow_unused=True) if has_graph else (None, None)
        slope, grey = (torch.zeros_like(at) if its is None else its for at, its in zip(leaves, slopes, strict=True))
        return {"f": found, "slope": slope} | ({"images": grey.mean((1, 2, 3))} if leaf is given else {})

    def isolated():  # the sum is 0, but has a gradient with respect to the images
        model, _ = network(student, weights, classes)
        model.get_logits = lambda x: given[: len(x)] + (x - x.detach()).flatten(1).sum(1, keepdim=True)
        return f(model, given)

    def last_layer():
        model, _ = network(student, weights, classes)
        own = 1.0 * given
        head_of(model, classes).register_forward_hook(
            lambda module, args, out: (own if out.dim() == 2 else own[:, :, None, None]).expand_as(out)
        )
        return f(model, own)

    def whole():
        model, _ = network(student, weights, classes)
        head = head_of(model, classes)
        with torch.no_grad():
            head.weight *= scale
            head.bias *= scale
        return f(model, head.bias)

    return ways(isolated=isolated, last_layer=last_layer, whole=whole)


def judge_images(got, want):
    """Check that f has a gradient with respect to the images, if it is computed with `get_logits`."""
    got, want = got["isolated"], want["isolated"]
    if (
        got
        and difference(got["f"], want["f"], 1e-4, 1e-4) is None
        and difference(got["images"], want["images"], 0, 0.1)
    ):
        fail(
            "The gradient of f with respect to the images is not that of the logits. "
            "Pass x itself to get_logits, neither detached nor changed."
        )


def judge_energy(got, want, logits, mistakes, with_gradient=False):
    """`got["f"]` must be the reference's; `mistakes` maps diagnoses to wrong functions of the given logits."""
    f, right = got["f"], want["f"]
    if not f.isfinite().all():
        if logits.abs().max() < 50:
            fail("f is infinite or NaN. Check whether the logarithm of a number that is not positive is computed.")
        lost = [(logits - shift).exp().sum(1) for shift in (0, logits.max())]
        if (f == torch.inf).equal(lost[0] == torch.inf):
            fail("f is infinite where an exponential overflows, for large logits. Use torch.logsumexp.")
        if any((f == -torch.inf).equal(each == 0) for each in lost):
            fail(
                "f is -infinite: all exponentials of an image became 0. "
                "Subtract the largest logit of each image, or use torch.logsumexp."
            )
        fail("f is infinite or NaN for large logits, whose exponentials are infinite or 0. Use torch.logsumexp.")

    def wrong_values():
        known = {name: wrong(logits) for name, wrong in mistakes.items()}
        return known | {
            "The sign is wrong: this is the energy E. The network returns f = -E.": -right,
            "All values are multiplied by the same number. Leave out this factor.": multiple(f, right),
            NEARLY: nearly(f, right) if logits.abs().max() < 50 else right,
        }

    # The tolerance is that of the logits in 3.2a.
    assert_close(f, right, atol=1e-4, mistakes=wrong_values)
    if not with_gradient:
        return
    slope, its = got["slope"], want["slope"]
    known = {
        "f has no gradient. Use no detach, no_grad or item.": 0 * its,
        "f is right, but its gradient is not. Detach no part of the logits.": proven(True, slope, its),
    }
    assert_close(slope, its, atol=1e-3, mistakes=known)


@exercise("3.2b", points=1, public=True, hint="Without `y`, return log Σ_y exp f(x)[y] over the classes, shape (B,).")
def test_energy_without_a_class(run, weights, images, logits):
    """Without `y`, `forward` returns the logsumexp of the logits, one number per image."""
    mistakes = {
        "The logarithm is missing: this is Σ exp of the logits.": lambda z: z.exp().sum(1),
        "This is the logsumexp over the batch (axis 0). Sum over the classes (axis 1).": lambda z: z.logsumexp(0),
        "The sign is wrong: this is the energy E. The network returns f = -E.": lambda z: -z.logsumexp(1),
        "This is the largest logit. Compute the logsumexp of all logits.": lambda z: z.amax(1),
        "This is the sum of the logits. Compute their logsumexp.": lambda z: z.sum(1),
        "This is the mean of the logits. Compute their logsumexp.": lambda z: z.mean(1),
        "This is the logarithm of a mean. Compute that of the sum of the exponentials.": (
            lambda z: z.logsumexp(1) - math.log(z.shape[1])
        ),
        "The shape is (B, 1), not (B,). Do not keep the axis of the classes (keepdim).": (
            lambda z: z.logsumexp(1, keepdim=True)
        ),
        "This is the logsumexp over the batch and the classes. Sum over the classes (axis 1) only.": (
            lambda z: z.logsumexp((0, 1))
        ),
        "This is the logsumexp of probabilities. Compute that of the logits.": lambda z: z.softmax(1).logsumexp(1),
        "f is 0 for all images, as the logarithm of a sum of probabilities is. Compute the logsumexp of the logits.": (
            lambda z: z.log_softmax(1).logsumexp(1)
        ),
        "The first class is left out. Sum over all classes.": lambda z: z[:, 1:].logsumexp(1),
        "The last class is left out. Sum over all classes.": lambda z: z[:, :-1].logsumexp(1),
        "The logits are negated before the logsumexp. Use them as they are.": lambda z: (-z).logsumexp(1),
        "The sign of the logits and that of the logsumexp are wrong. Use the logits as they are.": (
            lambda z: -(-z).logsumexp(1)
        ),
        NOT_ADDED: lambda z: z.logsumexp(1) - z.amax(1),
        "This is the log of the largest probability. Compute the logsumexp of the logits.": (
            lambda z: z.amax(1) - z.logsumexp(1)
        ),
        "1 is added to the sum of the exponentials. Add only those of the logits.": lambda z: z.exp().sum(1).log1p(),
        "This is the mean of the logits, weighted by q(y|x). Compute their logsumexp.": (
            lambda z: (z.softmax(1) * z).sum(1)
        ),
        "This is the sum of the softplus of the logits. Compute their logsumexp.": lambda z: F.softplus(z).sum(1),
        "Negative logits are replaced by 0. Compute the logsumexp of all logits as they are.": (
            lambda z: z.relu().logsumexp(1)
        ),
        "The signs of the logits are lost. Compute the logsumexp of the logits as they are.": lambda z: (
            z.abs().logsumexp(1)
        ),
        "This is the logarithm of the logsumexp. Compute the logsumexp itself.": lambda z: z.logsumexp(1).log(),
    }
    got, want = run(energy_of, weights, images, logits, None, 1.0)
    assert_either_way(got, want, partial(judge_energy, logits=logits, mistakes=mistakes, with_gradient=True))
    judge_images(got, want)


NOT_ADDED = (
    "This is the logsumexp minus the largest logit. "
    "If this is subtracted before the exponential, it must be added after the logarithm."
)
SAME_CLASS = "All images get the logit of the same class. Use each image's own label."
NO_BATCH_AXIS = "The batch axis is missing for a single image: the shape is (), not (1,). Remove only axis 1."
OTHER_CLASS = "Some images get the logit of another class than that of their label. Use each image's own label."


def observed_if(got, logits, right, holds):
    """What one of the ways observed, if `holds` is true of its distances from all logits, (B, K); otherwise `right`."""
    seen = [way["f"] for way in got.values() if way]
    return next((f for f in seen if f.shape == right.shape and holds((f[:, None] - logits).abs())), right)


def logits_of_other_classes(got, logits, right):
    """What one of the ways observed, if it is a logit of each image, but not always that of the label."""
    return observed_if(got, logits, right, lambda distances: distances.amin(1).max() < 1e-4)


def logits_of_one_class(got, logits, right):
    """What one of the ways observed, if it is the logit of the same class for all images."""
    return observed_if(got, logits, right, lambda distances: distances.amax(0).min() < 1e-4)


@exercise("3.2b", points=1, public=True, hint="With `y`, return the logit f(x)[y] of each image's class, shape (B,).")
def test_energy_of_a_class(run, weights, images, logits, labels):
    """With `y`, `forward` returns the logit of each image's own class, one number per image."""

    def own(z):
        return z.gather(1, chosen[:, None]).squeeze(1)

    mistakes = {
        "This is the exponential of the logit. f(x, y) is the logit itself.": lambda z: own(z).exp(),
        "The shape is (B, 1), not (B,). Remove the second axis with squeeze(1); otherwise sums broadcast to (B, B).": (
            lambda z: own(z)[:, None]
        ),
        "The shape is (B, B): these are the logits of all labels for each image. Use only its own label.": (
            lambda z: z[:, chosen]
        ),
        "The sign is wrong: this is the energy E. The network returns f = -E.": lambda z: -own(z),
        "This is log q(y|x). f(x, y) is the logit itself, without log_softmax.": lambda z: own(z.log_softmax(1)),
        "This is -log q(y|x). f(x, y) is the logit itself, not the cross-entropy.": lambda z: -own(z.log_softmax(1)),
        "This is the probability q(y|x). f(x, y) is the logit itself, without softmax.": lambda z: own(z.softmax(1)),
        "The largest logit is subtracted. f(x, y) is the logit itself.": lambda z: own(z) - z.amax(1),
        "The mean of the logits is subtracted. f(x, y) is the logit itself.": lambda z: own(z) - z.mean(1),
        "The labels are in the reverse order. Use the label of each image.": lambda z: own(z.flip(0)).flip(0),
        "The logsumexp is added to the logit. f(x, y) is the logit itself.": lambda z: own(z) + z.logsumexp(1),
        "The labels are ignored: this is the logsumexp over all classes.": lambda z: z.logsumexp(1),
        "This is the largest logit. Use the logit of the label.": lambda z: z.amax(1),
        "This is the sum of all logits. Return that of the label. If one_hot is used, it needs num_classes.": (
            lambda z: z.sum(1)
        ),
        NO_BATCH_AXIS: lambda z: own(z).squeeze(),
        "The logits of the first image are used for all images. Use each image's own logits.": lambda z: z[0, chosen],
        "The labels select images. They should select classes: use axis 1.": lambda z: z[chosen % len(z)],
        "The labels select images, and these get the logit of class 0. They should select classes: use axis 1.": (
            lambda z: z[chosen % len(z), 0]
        ),
        "The label is off by one: this is the logit of the class before.": lambda z: own(z.roll(1, 1)),
        "The label is off by one: this is the logit of the class after.": lambda z: own(z.roll(-1, 1)),
        "These are the logits of the labels, and 0 for the other classes. Return one value: sum over the classes.": (
            lambda z: z * F.one_hot(chosen, z.shape[1])
        ),
        "Negative logits become 0, as in the maximum of the product with one_hot. Return the logit itself.": (
            lambda z: own(z).relu()
        ),
        "Images of class 0 get f(x). With labels, return f(x, y), for class 0, too.": (
            lambda z: torch.where(chosen > 0, own(z), z.logsumexp(1))
        ),
        "This is the logsumexp of the other classes. Return the logit of the label.": (
            lambda z: z.scatter(1, chosen[:, None], -torch.inf).logsumexp(1)
        ),
        "The sum of the logits is subtracted. f(x, y) is the logit itself.": lambda z: own(z) - z.sum(1),
        "This is the logsumexp of the product with one_hot. Sum it over the classes.": (
            lambda z: (z * F.one_hot(chosen, z.shape[1])).logsumexp(1)
        ),
    }
    zeros = {"Labels that are all 0 are ignored. Test `y is None` instead of the value of y.": lambda z: z.logsumexp(1)}
    # All labels may be 0, and a batch may be a single image. Each logit is negative in one of the first two calls.
    for count, chosen, first, sign in (
        (6, labels, {}, 1),
        (6, labels, {}, -1),
        (6, 0 * labels, zeros, 1),
        (1, labels[:1], {}, 1),
    ):
        given = sign * logits[:count]
        got, want = run(energy_of, weights, images[:count], given, chosen, float(sign))
        known = first | mistakes
        if len(chosen.unique()) > 1:
            known[SAME_CLASS] = lambda z, got=got: logits_of_one_class(got, z, own(z))
        known[OTHER_CLASS] = lambda z, got=got: logits_of_other_classes(got, z, own(z))
        judge = partial(judge_energy, logits=given, mistakes=known, with_gradient=True)
        assert_either_way(got, want, judge)
        judge_images(got, want)


### BEGIN HIDDEN TESTS
@exercise("3.2b", points=0.5, hint="For K = 1, return the single output, shape (B,): the logsumexp does this.")
def test_energy_with_one_output(run, weights, images, logits):
    """For K = 1, `forward` returns the single output, shape (B,)."""
    mistakes = {
        "The shape is (B, 1), not (B,). Remove the axis of the classes.": lambda z: z,
        NO_BATCH_AXIS: lambda z: z.squeeze(),
        "f is 0 for all images. For K = 1, it is the output itself.": (lambda z: 0 * z[:, 0]),
    }
    for count in (6, 1):
        given = logits[:count, :1]
        got, want = run(energy_of, weights, images[:count], given, None, 1.0)
        assert_either_way(got, want, lambda got, want, given=given: judge_energy(got, want, given, mistakes))


@exercise("3.2b", points=0.5, hint="The exponential of a large number is infinite. Use torch.logsumexp.")
def test_energy_of_large_logits(run, weights, images, logits):
    """`forward` returns finite numbers for logits in the thousands."""
    got, want = run(energy_of, weights, images, 1e4 * logits, None, 1e4)

    def judge(got, want):
        # Where n logits of an image are clamped to the limit, f is the limit plus log n.
        limits = (got["f"].flatten()[:6, None] - torch.arange(1.0, 6).log()).flatten().tolist()
        mistakes = {
            "This is the logarithm of a mean. Compute that of the sum of the exponentials.": (
                lambda z: z.logsumexp(1) - math.log(z.shape[1])
            ),
            "Large logits are clamped, or their exponentials are. Use torch.logsumexp, which needs no limit.": (
                lambda z: nearest(got["f"], *(z.clamp(max=limit).logsumexp(1) for limit in limits))
            ),
            "The sign is wrong: this is the energy E. The network returns f = -E.": lambda z: -z.logsumexp(1),
            "f is 0 for large logits. Compute the logsumexp of the logits themselves, with the largest one.": (
                lambda z: z.logsumexp(1) - z.amax(1)
            ),
        }
        judge_energy(got, want, 1e4 * logits, mistakes)

    assert_either_way(got, want, judge)


### END HIDDEN TESTS
