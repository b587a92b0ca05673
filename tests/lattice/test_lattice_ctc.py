"""`ctc_loss` and `ctc_align`: equal to torch's loss, and to the sum over all labellings."""

from itertools import pairwise

import pytest
import torch
from hypothesis import strategies as st
from lattice_oracles import ctc_labellings, energies_of, for_all, reads_as
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.functional import ctc_loss as torch_ctc_loss

from ebmcourse.lattice import PADDING, ctc_align, ctc_loss, dense
from ebmcourse.lattice.lattices import ctc_lattice

REDUCTIONS = st.sampled_from(["none", "sum", "mean"])


@st.composite
def problems(draw, max_letters=8, max_extra=12, classes=4, empty=True):
    """Logits (B, L, C), targets with many repeated letters, true lengths, and a blank anywhere."""
    batch = draw(st.integers(1, 4))
    blank = draw(st.integers(0, classes - 1))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    letters = [label for label in range(classes) if label != blank]
    words = [draw(st.lists(st.sampled_from(letters), min_size=not empty, max_size=max_letters)) for _ in range(batch)]
    repeats = [sum(a == b for a, b in pairwise(word)) for word in words]
    frames = [
        max(len(word) + repeat, 1) + draw(st.integers(0, max_extra))
        for word, repeat in zip(words, repeats, strict=True)
    ]
    scale = draw(st.sampled_from([0.0, 0.1, 1.0, 10.0]))
    logits = scale * torch.randn(batch, max(frames), classes, generator=generator, dtype=torch.float64)
    targets = torch.full((batch, max(map(len, words))), blank)
    for row, word in zip(targets, words, strict=True):
        row[: len(word)] = torch.tensor(word)
    return logits, targets, torch.tensor(frames), torch.tensor([len(word) for word in words]), blank


@for_all(problems(), REDUCTIONS)
def test_it_equals_torch_in_value_and_gradient(problem, reduction):
    logits, targets, frames, counts, blank = problem
    logits.requires_grad_()
    log_probs = logits.log_softmax(dim=-1)
    ours = ctc_loss(log_probs, targets, frames, counts, blank, reduction, allow_empty=True)
    theirs = torch_ctc_loss(log_probs.transpose(0, 1), targets, frames, counts, blank, reduction)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    gradients = [torch.autograd.grad(loss.sum(), logits, retain_graph=True)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-10)


@st.composite
def problems_without_answer(draw):
    """Items of which many have too few frames, or none, or a letter of probability 0 in the target."""
    logits, targets, frames, counts, blank = draw(problems())
    frames = torch.tensor([draw(st.integers(0, length)) for length in frames.tolist()])
    for item, count in enumerate(counts.tolist()):
        if count and draw(st.booleans()):  # elsewhere, torch's gradient is NaN with a class of probability 0
            logits[item, :, targets[item, draw(st.integers(0, count - 1))]] = -torch.inf
    return logits, targets, frames, counts, blank


@for_all(problems_without_answer(), REDUCTIONS)
def test_infinite_losses_are_zeroed_as_in_torch(problem, reduction):
    logits, targets, frames, counts, blank = problem
    logits.requires_grad_()
    log_probs = logits.log_softmax(dim=-1)
    ours = ctc_loss(log_probs, targets, frames, counts, blank, reduction, allow_empty=True, zero_infinity=True)
    theirs = torch_ctc_loss(log_probs.transpose(0, 1), targets, frames, counts, blank, reduction, zero_infinity=True)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    gradients = [torch.autograd.grad(loss.sum(), logits, retain_graph=True)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-10)


def test_infinite_losses_have_no_second_derivative_either():
    torch.manual_seed(3)
    log_probs = torch.randn(3, 4, 3, dtype=torch.float64).log_softmax(-1).requires_grad_()
    targets, frames = torch.tensor([[0, 1, 0], [1, 1, 1], [1, 0, 0]]), [4, 4, 0]

    def loss(x):
        return ctc_loss(x, targets, frames, reduction="sum", zero_infinity=True)

    assert gradcheck(loss, log_probs)
    assert gradgradcheck(loss, log_probs)
    (gradient,) = torch.autograd.grad(loss(log_probs), log_probs)
    assert gradient[0].any() and not gradient[1:].any()


@pytest.mark.parametrize(("frames", "letters"), [(16, 3), (55, 5), (320, 40)])
def test_it_equals_torch_at_the_sizes_of_the_course(frames, letters):
    torch.manual_seed(frames)
    logits = (5 * torch.randn(4, frames, 27, dtype=torch.float64)).requires_grad_()
    targets = torch.randint(0, 26, (4, letters))
    lengths = torch.full((4,), frames), torch.full((4,), letters)
    log_probs = logits.log_softmax(dim=-1)
    ours = ctc_loss(log_probs, targets)
    theirs = torch_ctc_loss(log_probs.transpose(0, 1), targets, *lengths, blank=26)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-10)
    gradients = [torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-10)


def test_torchs_gradient_of_log_probs_has_the_probabilities_added():
    """The difference that the docstring of `ctc_loss` describes."""
    torch.manual_seed(0)
    log_probs = torch.randn(2, 9, 4, dtype=torch.float64).log_softmax(-1).requires_grad_()
    targets, lengths = torch.tensor([[0, 0, 1], [2, 1, 0]]), ([9, 9], [3, 3])
    (ours,) = torch.autograd.grad(ctc_loss(log_probs, targets, reduction="sum"), log_probs)
    loss = torch_ctc_loss(log_probs.transpose(0, 1), targets, *lengths, blank=3, reduction="sum")
    (theirs,) = torch.autograd.grad(loss, log_probs)
    torch.testing.assert_close(ours + log_probs.exp(), theirs, rtol=0, atol=1e-12)


@for_all(problems(max_letters=3, max_extra=2, classes=3))
def test_it_is_the_sum_over_all_labellings_that_read_as_the_target(problem):
    logits, targets, frames, counts, blank = problem
    log_probs = logits.log_softmax(dim=-1)
    losses = ctc_loss(log_probs, targets, frames, counts, blank, "none", allow_empty=True)
    best = ctc_align(log_probs, targets, frames, counts, blank, allow_empty=True)
    for item, (length, count) in enumerate(zip(frames, counts, strict=True)):
        word = targets[item, :count].tolist()
        labellings = ctc_labellings(length, 3, blank, word)
        sums = energies_of(-log_probs[item], labellings)
        assert losses[item].item() == pytest.approx(-torch.logsumexp(-sums, 0).item(), abs=1e-10)
        assert best.energy[item].item() == pytest.approx(sums.min().item(), abs=1e-12)
        labelling = tuple(best.labels[item, :length].tolist())
        assert sums[labellings.index(labelling)].item() == pytest.approx(sums.min().item(), abs=1e-12)


@for_all(problems())
def test_a_loss_is_never_negative_and_never_above_that_of_the_best_path(problem):
    logits, targets, frames, counts, blank = problem
    log_probs = logits.log_softmax(dim=-1)
    losses = ctc_loss(log_probs, targets, frames, counts, blank, "none", allow_empty=True)
    best = ctc_align(log_probs, targets, frames, counts, blank, allow_empty=True)
    assert (losses > -1e-12).all()
    assert (losses <= best.energy + 1e-12).all()


@for_all(problems())
def test_the_best_path_reads_as_the_target(problem):
    logits, targets, frames, counts, blank = problem
    best = ctc_align(logits.log_softmax(-1), targets, frames, counts, blank, allow_empty=True)
    for item, (length, count) in enumerate(zip(frames.tolist(), counts.tolist(), strict=True)):
        labels, path = best.labels[item, :length].tolist(), best.path[item, :length].tolist()
        assert reads_as(tuple(labels), blank) == targets[item, :count].tolist()
        assert labels == [blank if s % 2 == 0 else targets[item, s // 2].item() for s in path]
        assert (best.path[item, length:] == PADDING).all()


@for_all(problems())
def test_torch_operations_give_the_same(problem):
    logits, targets, frames, counts, blank = problem
    energies = (-logits.log_softmax(-1)).detach().requires_grad_()
    lattice = ctc_lattice(energies, targets, frames, counts, blank, allow_empty=True)
    compiled = ctc_loss(-energies, targets, frames, counts, blank, "sum", allow_empty=True)
    plain = dense.free_energies(energies, lattice).sum()
    torch.testing.assert_close(compiled, plain, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(loss, energies)[0] for loss in (compiled, plain)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-11)
    best = ctc_align(-energies, targets, frames, counts, blank, allow_empty=True)
    assert torch.equal(dense.best_paths(energies.detach(), lattice, PADDING), best.path)


def test_first_and_second_derivatives():
    torch.manual_seed(1)
    log_probs = torch.randn(2, 6, 3, dtype=torch.float64).log_softmax(-1).requires_grad_()
    targets, frames, counts = torch.tensor([[0, 0, 1], [1, 0, 0]]), [6, 4], [3, 2]
    for reduction in ("none", "sum", "mean"):

        def loss(x, reduction=reduction):
            return ctc_loss(x, targets, frames, counts, reduction=reduction)

        assert gradcheck(loss, log_probs)
        assert gradgradcheck(loss, log_probs)


def test_a_perfect_reading_has_loss_zero():
    log_probs = torch.full((1, 6, 27), -torch.inf)
    log_probs[0, range(6), [2, 26, 0, 26, 19, 26]] = 0.0
    assert ctc_loss(log_probs, torch.tensor([[2, 0, 19]])).item() == 0.0


def test_what_lies_in_the_padding_does_not_count():
    torch.manual_seed(2)
    log_probs = torch.randn(2, 8, 4, dtype=torch.float64).log_softmax(-1)
    targets = torch.tensor([[0, 1, 2], [2, 1, 77]])
    expected = ctc_loss(log_probs[1:, :5], targets[1:, :2], reduction="none")
    for rubbish in (torch.nan, torch.inf, -torch.inf, 3.0):
        log_probs[1, 5:] = rubbish
        padded = log_probs.clone().requires_grad_()
        losses = ctc_loss(padded, targets, [8, 5], [3, 2], reduction="none")
        torch.testing.assert_close(losses[1:], expected, rtol=1e-14, atol=0)
        losses.sum().backward()
        assert (padded.grad[1, 5:] == 0).all()
        assert ctc_align(log_probs, targets, [8, 5], [3, 2]).energy.isfinite().all()
