"""1: the energy network. Its parameters are set to given values, in their order, and its output is compared."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from ebmcourse.checking import assert_close, difference, exercise, fail, inputs, probe

SMALL, OTHER = 8, 4  # hidden features


def shapes(h, out_dim):
    """The shapes of the parameters, in order."""
    convolutions = [(h // 2, 1, 5, 5), (h, h // 2, 3, 3), (2 * h, h, 3, 3), (2 * h, 2 * h, 3, 3)]
    return [shape for size in (*convolutions, (2 * h, 8 * h), (out_dim, 2 * h)) for shape in (size, (size[0],))]


def weights_of(rng, h, out_dim):
    """Parameters with which the activations keep their size from layer to layer."""
    return [
        torch.from_numpy(
            (rng.standard_normal(shape) * (2.2 / math.sqrt(math.prod(shape[1:])) if len(shape) > 1 else 0.3)).astype(
                np.float32
            )
        )
        for shape in shapes(h, out_dim)
    ]


@inputs
def images(rng):
    return torch.from_numpy(rng.uniform(-1, 1, (5, 1, 28, 28)).astype(np.float32))


@inputs
def weights(rng):
    return weights_of(rng, SMALL, 1)


@inputs
def other_weights(rng):
    return weights_of(rng, OTHER, 3)


@probe
def outputs(student, images, weights, hidden, out_dim):
    """The shapes of the parameters and, if they are right, f for the given ones: (B,), and of the first image alone.

    again: f once more. train: f in train mode
    """
    model = student.deep_energy.CNNModel(hidden_features=hidden, out_dim=out_dim).eval()
    parameters = list(model.parameters())
    found = [list(parameter.shape) for parameter in parameters]
    are_right = found == [list(weight.shape) for weight in weights]
    with torch.no_grad():
        for parameter, weight in zip(parameters, weights, strict=False):
            if are_right:
                parameter.copy_(weight)
        seen = {"f": model(images.clone()), "again": model(images.clone()), "one": model(images[:1].clone())}
        seen["train"] = model.train()(images.clone())
    return {"shapes": [torch.tensor(shape) for shape in found], "are_right": are_right, **seen}


def judge_shapes(got, h, out_dim):
    """Compare the shapes of the parameters, and name what is different."""
    found, right = [tuple(shape.tolist()) for shape in got["shapes"]], shapes(h, out_dim)
    weights, biases = (sum((len(shape) > 1) is many for shape in found) for many in (True, False))
    if weights == 6 and biases < 6:
        fail("Some layers have no bias." if biases else "The layers have no bias.")
    if weights == 6 and biases > 6:
        fail("There are layers with parameters that are not in the table. Use no normalisation.")
    if len(found) != len(right):
        fail("The number of layers is wrong: there are four convolutions and two linear layers, and no others.")
    if found != right:
        known = {
            "`hidden_features` is ignored: the sizes are always those of 32.": shapes(32, out_dim),
            "All layers are twice as wide as in the table. The first convolution has h/2 channels.": shapes(
                2 * h, out_dim
            ),
            "All layers are half as wide as in the table. The first convolution has h/2 channels.": shapes(
                h // 2, out_dim
            ),
            "`out_dim` is ignored: the second linear layer has always one output.": shapes(h, 1),
        }
        for sentence, wrong in known.items():
            if found == wrong:
                fail(sentence)
        names = ["first convolution", "second convolution", "third convolution", "fourth convolution"]
        names += ["first linear layer", "second linear layer"]
        number = next(number for number, shape in enumerate(found) if shape != right[number])
        fail(f"The {names[number // 2]} has {what_differs(found[number], right[number])} than in the table.")
    if got["are_right"] is not True:
        fail("The parameters do not have the shapes of the table.")


def what_differs(mine, right):
    """Say in what the shape of the parameters of a layer differs."""
    if len(mine) != len(right) or len(right) == 1:
        return "another size"
    if mine[2:] != right[2:]:
        return "another size of the kernel"
    return "another number of outputs" if mine[0] != right[0] else "another number of inputs"


### BEGIN HIDDEN TESTS
def network(images, weights, *, act=F.silu, linear=None, first_padding=4, skip=(), last=None):
    """The network of the table with these parameters, or with a mistake. linear: between the linear layers"""
    x = images
    for number in range(4):
        x = F.conv2d(x, *weights[2 * number : 2 * number + 2], stride=2, padding=first_padding if number == 0 else 1)
        x = x if number in skip else act(x)
    x = F.linear(x.flatten(1), *weights[8:10])
    x = F.linear(x if 4 in skip else (linear or act)(x), *weights[10:])
    return x if last is None else last(x)


def mistakes_of(images, weights):
    def squeezed(**options):
        return network(images, weights, **options).squeeze(-1)

    places = ("first", "second", "third", "fourth")
    acts = {
        "ReLU": F.relu,
        "a leaky ReLU": F.leaky_relu,
        "GELU": F.gelu,
        "ELU": F.elu,
        "SELU": F.selu,
        "Hardswish": F.hardswish,
        "Mish": F.mish,
        "tanh": torch.tanh,
        "a sigmoid": torch.sigmoid,
        "softplus": F.softplus,
    }
    wrong = {f"The activation is {name}. Use SiLU, u · σ(u).": squeezed(act=act) for name, act in acts.items()}
    for name, act in acts.items():
        wrong[f"The activation between the linear layers is {name}. Use SiLU."] = squeezed(linear=act)
        wrong[f"The activation after the convolutions is {name}. Use SiLU."] = squeezed(act=act, linear=F.silu)
    for number, place in enumerate(places):
        wrong[f"There is no activation after the {place} convolution."] = squeezed(skip=(number,))
    return wrong | {
        "There is no activation between the convolutions.": squeezed(skip=(0, 1, 2, 3)),
        "There is no activation between the linear layers.": squeezed(skip=(4,)),
        "There is no activation at all.": squeezed(skip=(0, 1, 2, 3, 4)),
        "There is an activation after the last layer: f may be any real number.": squeezed(last=F.silu),
        "There is a ReLU after the last layer: f may be any real number.": squeezed(last=F.relu),
        "There is a sigmoid after the last layer: f may be any real number.": squeezed(last=torch.sigmoid),
        "There is a tanh after the last layer: f may be any real number.": squeezed(last=torch.tanh),
        "There is a softplus after the last layer: f may be any real number.": squeezed(last=F.softplus),
        "These are energies. The network returns f = -E: remove the minus sign.": -squeezed(),
        "The padding of the first convolution is 2. With 4, its output has 16 × 16 pixels.": squeezed(first_padding=2),
        "The padding of the first convolution is 3. With 4, its output has 16 × 16 pixels.": squeezed(first_padding=3),
        "The last axis is not removed: f has the shape (B,), not (B, 1).": network(images, weights),
    }


### END HIDDEN TESTS


@inputs
def wrong_values(_, images, weights):
    """The results of known mistakes of the network."""
    ### BEGIN HIDDEN TESTS
    return mistakes_of(images, weights)
    ### END HIDDEN TESTS


def judge_values(got, want, mistakes):
    """Compare f of all images with the reference's."""
    if difference(got["again"], got["f"], 1e-3, 1e-4):
        fail("f of the same images is different in each call. Use no dropout and no random numbers.")
    alone = got["f"][:1]
    if got["one"].shape == alone.shape and difference(got["one"], alone, 1e-3, 1e-4):
        fail("f of an image is different if it is alone in the batch. It must not depend on the other images.")
    assert_close(got["f"], want["f"], rtol=1e-3, atol=1e-4, mistakes=mistakes)


@exercise("1a", points=1.5, public=True, hint="Create the layers of the table in their order, with SiLU between them.")
def test_values_of_the_network(run, images, weights, wrong_values):
    """`CNNModel` computes f of each image with the layers of the table."""
    got, want = run(outputs, images, weights, SMALL, 1)
    judge_shapes(got, SMALL, 1)
    judge_values(got, want, wrong_values)


### BEGIN HIDDEN TESTS
@exercise("1a", points=0.5, hint="Use squeeze(dim=-1): it removes only the last axis, and only if its size is 1.")
def test_single_images_and_train_mode(run, images, weights, wrong_values):
    """f of a single image has the shape (1,), and f is the same in train mode."""
    got, want = run(outputs, images, weights, SMALL, 1)
    judge_shapes(got, SMALL, 1)
    if got["one"].dim() == 0:
        fail("For a single image, f has no axis left: squeeze only the last axis.")
    judge_values(got, want, wrong_values)
    if difference(got["train"], want["train"], 1e-3, 1e-4):
        fail("f is different in train mode. Use no dropout and no normalisation over the batch.")
    # Convolutions of one image and of five may add up in another order.
    assert_close(got["one"], want["one"], rtol=1e-3, atol=1e-4)
    assert_close(got["again"], want["again"], rtol=1e-3, atol=1e-4)


@exercise("1a", points=0.5, hint="Use hidden_features and out_dim instead of fixed sizes.")
def test_other_sizes(run, images, other_weights):
    """`hidden_features` and `out_dim` set the sizes, and with out_dim = 3 the result has the shape (B, 3)."""
    got, want = run(outputs, images, other_weights, OTHER, 3)
    judge_shapes(got, OTHER, 3)
    right = network(images, other_weights)
    own = {
        "With several outputs, only the first one is returned.": right[:, 0],
        "With several outputs, their sum is returned.": right.sum(1),
        "With several outputs, their mean is returned.": right.mean(1),
    }
    judge_values(got, want, own | mistakes_of(images, other_weights))


### END HIDDEN TESTS
