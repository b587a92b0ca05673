"""1: the energy network. Its parameters are set to given values, in their order, and its output is compared."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from ebmcourse.checking import assert_close, exercise, fail, inputs, probe

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
def outputs(student, images, weights, hidden, out_dim, training):
    """The shapes of the parameters and, if they are right, f for the given ones: (B,), and of the first image alone."""
    model = student.deep_energy.CNNModel(hidden_features=hidden, out_dim=out_dim).train(training)
    parameters = list(model.parameters())
    found = [list(parameter.shape) for parameter in parameters]
    are_right = found == [list(weight.shape) for weight in weights]
    with torch.no_grad():
        for parameter, weight in zip(parameters, weights, strict=False):
            if are_right:
                parameter.copy_(weight)
        seen = {"f": model(images.clone()), "one": model(images[:1].clone())}
    return {"shapes": [torch.tensor(shape) for shape in found], "are_right": are_right, **seen}


def judge_shapes(got, want):
    """Compare the shapes of the parameters, and name the layer that is different."""
    if len(got["shapes"]) != len(want["shapes"]):
        even = len(got["shapes"]) * 2 == len(want["shapes"])
        fail(
            "The layers have no bias."
            if even
            else "The number of parameters is wrong: there are four convolutions and "
            "two linear layers, and no other layers with parameters."
        )
    names = ["first convolution", "second convolution", "third convolution", "fourth convolution"]
    names += ["first linear layer", "second linear layer"]
    for number, (mine, right) in enumerate(zip(got["shapes"], want["shapes"], strict=True)):
        if mine.tolist() != right.tolist():
            fail(f"The {names[number // 2]} has another size than in the table.")
    if got["are_right"] is not True:
        fail("The parameters do not have the shapes of the table.")


def network(images, weights, *, act=F.silu, first_padding=4, skip=(), last=None):
    """The network of the table with these parameters, or with a mistake."""
    x = images
    for number in range(4):
        x = F.conv2d(x, *weights[2 * number : 2 * number + 2], stride=2, padding=first_padding if number == 0 else 1)
        x = x if number in skip else act(x)
    x = F.linear(x.flatten(1), *weights[8:10])
    x = F.linear(x if 4 in skip else act(x), *weights[10:])
    return x if last is None else last(x)


def mistakes_of(images, weights):
    def squeezed(**options):
        return network(images, weights, **options).squeeze(-1)

    return {
        "The activation is ReLU. Use SiLU, which is smooth.": squeezed(act=F.relu),
        "The activation is a leaky ReLU. Use SiLU, which is smooth.": squeezed(act=F.leaky_relu),
        "The activation is GELU. The table asks for SiLU.": squeezed(act=F.gelu),
        "The activation is ELU. The table asks for SiLU.": squeezed(act=F.elu),
        "The activation is tanh. The table asks for SiLU.": squeezed(act=torch.tanh),
        "The activation is a sigmoid. The table asks for SiLU, u · σ(u).": squeezed(act=torch.sigmoid),
        "The activation is softplus. The table asks for SiLU.": squeezed(act=F.softplus),
        "There is no activation between the convolutions.": squeezed(skip=(0, 1, 2, 3)),
        "There is no activation between the linear layers.": squeezed(skip=(4,)),
        "There is no activation after the last convolution.": squeezed(skip=(3,)),
        "There is no activation at all.": squeezed(skip=(0, 1, 2, 3, 4)),
        "There is an activation after the last layer: f may be any real number.": squeezed(last=F.silu),
        "There is a sigmoid after the last layer: f may be any real number.": squeezed(last=torch.sigmoid),
        "There is a tanh after the last layer: f may be any real number.": squeezed(last=torch.tanh),
        "There is a softplus after the last layer: f may be any real number.": squeezed(last=F.softplus),
        "These are energies. The network returns f = -E: remove the minus sign.": -squeezed(),
        "The padding of the first convolution is 2. With 4, its output has 16 × 16 pixels.": squeezed(first_padding=2),
        "The padding of the first convolution is 3. With 4, its output has 16 × 16 pixels.": squeezed(first_padding=3),
        "The last axis is not removed: f has the shape (B,), not (B, 1).": network(images, weights),
    }


@exercise("1a", points=1.5, public=True, hint="Create the layers of the table in their order, with SiLU between them.")
def test_values_of_the_network(run, images, weights):
    """`CNNModel` computes f of each image with the layers of the table."""
    got, want = run(outputs, images, weights, SMALL, 1, False)
    judge_shapes(got, want)
    assert_close(got["f"], want["f"], rtol=1e-3, atol=1e-4, mistakes=lambda: mistakes_of(images, weights))


### BEGIN HIDDEN TESTS
@exercise("1a", points=0.5, hint="Use squeeze(dim=-1): it removes only the last axis, and only if its size is 1.")
def test_single_images_and_train_mode(run, images, weights):
    """f of a single image has the shape (1,), and f is the same in train mode."""
    got, want = run(outputs, images, weights, SMALL, 1, True)
    judge_shapes(got, want)
    if isinstance(got["one"], torch.Tensor) and got["one"].dim() == 0:
        fail("For a single image, f has no axis left: squeeze only the last axis.")
    if got["f"].shape == want["f"].shape and (got["f"] - want["f"]).abs().max() > 1e-2 * want["f"].abs().max():
        fail("f is different in train mode. Use no dropout and no normalisation over the batch.")
    assert_close(got["f"], want["f"], rtol=1e-3, atol=1e-4)
    # Convolutions of one image and of five may add up in another order.
    assert_close(got["one"], want["one"], rtol=1e-3, atol=1e-4)


@exercise("1a", points=0.5, hint="Use hidden_features and out_dim instead of fixed sizes.")
def test_other_sizes(run, images, other_weights):
    """`hidden_features` and `out_dim` set the sizes, and with out_dim = 3 the result has the shape (B, 3)."""
    got, want = run(outputs, images, other_weights, OTHER, 3, False)
    judge_shapes(got, want)
    fixed = network(images, other_weights)
    assert_close(
        got["f"],
        want["f"],
        rtol=1e-3,
        atol=1e-4,
        mistakes=lambda: {
            "With several outputs, only the first one is returned.": fixed[:, 0],
            "With several outputs, their sum is returned.": fixed.sum(1),
        },
    )


### END HIDDEN TESTS
