"""What holds for calls of every function: arguments stay as they are, and results are like the arguments."""

from contextlib import contextmanager

import torch
from stand_ins import replaced
from torch import nn

from ebmcourse import gtn
from ebmcourse.checking import difference, fail, probe, require

# Diagnoses for a function that is right for one call with float64 tensors of a usual size.
AGAIN = "The result depends on an earlier call: nothing of it may remain."
OTHER = "One call is right, but another one with arguments of the same shapes is not: the values may be any."
SINGLE = "The result is wrong for float32 tensors, although it is right for float64."
SMALLEST = "The result is wrong for the smallest sizes, although it is right for larger ones."
SIZES = "The result is wrong for other sizes or values, although it is right in the check before."


@probe
def values_of(item):
    """The numbers in a tensor, a graph, a module, or a list of these."""
    if isinstance(item, torch.Tensor):
        return item.tolist()
    if isinstance(item, gtn.Graph):
        return [item.num_nodes(), item.num_arcs(), item.weights_to_list()]
    if isinstance(item, list | tuple | nn.Module):
        return [values_of(part) for part in (item.parameters() if isinstance(item, nn.Module) else item)]
    return item


@probe
def gradients_of(item):
    """Whether a tensor needs a gradient, and its gradient; of a module or a list, those of all its tensors."""
    if isinstance(item, torch.Tensor):
        return [item.requires_grad, None if item.grad is None else item.grad.tolist()]
    if isinstance(item, list | tuple | nn.Module):
        return [gradients_of(part) for part in (item.parameters() if isinstance(item, nn.Module) else item)]
    return None


@probe
@contextmanager
def unchanged(*given):
    """Require that a `with` block leaves tensors, graphs, modules and lists as they are."""
    values, gradients = values_of(given), gradients_of(given)
    yield
    require(values_of(given) == values, "The function changes what it is given in place: make new tensors and lists.")
    require(
        gradients_of(given) == gradients,
        "The function changes `requires_grad` or `grad` of what it is given: the caller needs them as they were.",
    )


@probe
def like(found, given):
    """The tensor `found`, which must have the dtype of the tensor `given`."""
    require(isinstance(found, torch.Tensor), "The function returns a tensor.")
    require(found.dtype == given.dtype, "The result has another dtype than what is given: make new tensors like that.")
    return found


@probe
def scalar(found):
    """The tensor `found`, which must have the shape ()."""
    require(
        isinstance(found, torch.Tensor),
        "The result must always be a tensor: `item`, functions of `math`, and Python's `max` and `min` may return a "
        "plain number.",
    )
    require(found.dim() == 0, "The result must have the shape (): `squeeze` takes axes of size 1 away.")
    return found


@probe
@contextmanager
def without_autograd():
    """Require that a `with` block does not use autograd."""

    def refuse(*args, **options):
        require(False, "Autograd is used: compute the derivatives yourself.")

    with replaced(torch.autograd, grad=refuse, backward=refuse):
        yield


def judge_cases(got, want, sentences, rtol=1e-4, atol=1e-5):
    """Compare the cases that `sentences` names; the sentence of the first that is wrong is the diagnosis."""
    for name, sentence in sentences.items():
        if difference(got[name], want[name], rtol, atol):
            fail(sentence)


def judge_calls(got, want, rtol=1e-4, atol=1e-5, sizes=SIZES):
    """Compare two calls with arguments of the same shapes, and a third one with the arguments of the first."""

    def wrong(name):
        return difference(got[name], want[name], rtol, atol)

    if any(map(wrong, ("first", "second", "again"))):
        same = [difference(got["first"], got[name], rtol, atol) is None for name in ("second", "again")]
        if same != [False, True]:  # the first result once more, or another one for the same arguments
            fail(AGAIN)
        fail(sizes if wrong("first") else OTHER)


def judge_finite(got, want, sentence):
    """Fail with the sentence where the value has infinite or undefined numbers, and the right one has none."""
    if got.shape == want.shape and bool((want.isfinite() & ~got.isfinite()).any()):
        fail(sentence)


def judge_slope(got, want, rtol=1e-4, atol=1e-5):
    """Compare the gradients of a right value."""
    judge_finite(got, want, "The value is right, but its gradient has infinite or undefined (NaN) values.")
    if difference(got, want, rtol, atol):
        fail("The value is right, but its gradient is not: nothing that it is computed from may be detached.")
