"""The loss of the course on this engine, compared with torch; and wrong answers, with a list of all strings."""

import itertools

import pytest
import torch
from gtn_oracles import for_all, paths, rows, strings
from hypothesis import strategies as st
from torch import Tensor

from ebmcourse import gtn

BLANK = 0


class AutomatonLoss(torch.autograd.Function):
    """Mean over the batch of -log P(word): the loss as the course writes it, call by call.

    Emissions are given by their address, graphs are built in `parallel_for`, gradients are numpy arrays.
    """

    @staticmethod
    def word_graph(word) -> gtn.Graph:
        graph = gtn.Graph(False)
        states = 2 * len(word) + 1
        for state in range(states):
            letter = (state - 1) // 2
            label = word[letter] if state % 2 else BLANK
            graph.add_node(state == 0, state in (states - 1, states - 2))
            graph.add_arc(state, state, label)
            if state >= 1:
                graph.add_arc(state - 1, state, label)
            if state % 2 and state > 1 and label != word[letter - 1]:
                graph.add_arc(state - 2, state, label)
        graph.arc_sort(False)
        return graph

    @staticmethod
    def forward(ctx, log_probs: Tensor, words) -> Tensor:  # type: ignore[override]
        batch, frames, classes = log_probs.shape
        losses, emissions = [None] * batch, [None] * batch

        def one(b):
            emissions[b] = gtn.linear_graph(frames, classes, log_probs.requires_grad)
            row = log_probs[b].cpu().contiguous()
            emissions[b].set_weights(row.data_ptr())
            both = gtn.intersect(emissions[b], AutomatonLoss.word_graph(words[b]))
            losses[b] = gtn.negate(gtn.forward_score(both))

        gtn.parallel_for(one, range(batch))
        ctx.made = losses, emissions, log_probs.shape
        return torch.tensor([loss.item() for loss in losses]).mean()

    @staticmethod
    def backward(ctx, upstream: Tensor):  # type: ignore[override]
        losses, emissions, (batch, frames, classes) = ctx.made
        grad = torch.empty(batch, frames, classes)

        def one(b):
            gtn.backward(losses[b], False)
            grad[b] = torch.from_numpy(emissions[b].grad().weights_to_numpy()).view(1, frames, classes)

        gtn.parallel_for(one, range(batch))
        return grad * (upstream / batch), None


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize(("frames", "letters"), [(6, 1), (9, 4), (16, 3), (55, 5)])
def test_the_loss_of_the_course_is_torchs(frames, letters, as_tensor):
    random = torch.Generator().manual_seed(frames)
    logits = torch.randn(5, frames, 27, generator=random, requires_grad=True)
    words = torch.randint(1, 27, (5, letters), generator=random)
    words[0] = words[0, 0]  # a word of one letter, over and over
    ours = AutomatonLoss.apply(logits.log_softmax(-1), words if as_tensor else words.tolist())
    (ours_grad,) = torch.autograd.grad(ours, logits)
    theirs = torch.nn.functional.ctc_loss(
        logits.log_softmax(-1).transpose(0, 1).double(),
        words,
        torch.full((5,), frames),
        torch.full((5,), letters),
        reduction="none",
    ).mean()
    (their_grad,) = torch.autograd.grad(theirs, logits)
    # Gradients and log-probabilities are rounded to float32.
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours_grad, their_grad, rtol=1e-5, atol=1e-6)


def test_the_best_path_of_the_course_is_the_best_alignment():
    energies = torch.randn(7, 5, generator=torch.Generator().manual_seed(3))
    emissions = gtn.linear_graph(7, 5, energies.requires_grad)
    scores = (-energies).contiguous()
    emissions.set_weights(scores.data_ptr())
    both = gtn.intersect(emissions, AutomatonLoss.word_graph([1, 4, 4]))
    labels = gtn.viterbi_path(both).labels_to_list()
    assert gtn.collapse(labels) == [1, 4, 4]
    best = min(
        sum(energies[t, y].item() for t, y in enumerate(ys))
        for ys in itertools.product(range(5), repeat=7)
        if gtn.collapse(ys) == [1, 4, 4]
    )
    assert -gtn.viterbi_score(both).item() == pytest.approx(best, abs=1e-5)


words = st.lists(st.integers(1, 2), max_size=3)


@for_all(words)
def test_every_string_is_right_or_wrong_in_one_way(word):
    right = {a for a, _, _ in strings(gtn.compose(gtn.linear_graph(4, 3), gtn.ctc_graph(word)))}
    wrong = strings(gtn.compose(gtn.linear_graph(4, 3), gtn.other_strings(word, range(3))))
    everything = set(itertools.product(range(3), repeat=4))
    assert right == {ys for ys in everything if gtn.collapse(ys) == word}
    assert [a for a, _, _ in wrong] == sorted(everything - right)


@for_all(words)
def test_without_a_blank_strings_count_as_they_are(word):
    wrong = strings(gtn.compose(gtn.linear_graph(3, 3), gtn.other_strings(word, range(3), blank=None)))
    everything = set(itertools.product(range(3), repeat=3))
    assert [a for a, _, _ in wrong] == sorted(everything - {tuple(word)})


@for_all(words, st.lists(st.integers(-8, 8), min_size=12, max_size=12))
def test_the_most_offending_path_is_the_best_wrong_string(word, weights):
    g = gtn.linear_graph(4, 3)
    g.set_weights(weights)
    path = gtn.most_offending_path(g, word)
    arcs = rows(g)
    wrong = [p for p in paths(g) if gtn.collapse([arcs[a][2] for a in p]) != word]
    assert gtn.collapse(path.labels_to_list()) != word
    assert sum(path.weights_to_list()) == max(sum(arcs[a][4] for a in p) for p in wrong)
    gtn.backward(path)
    assert sum(g.grad().weights_to_list()) == 4


def test_collapse():
    assert gtn.collapse([0, 3, 3, 0, 1, 1, 0, 1, gtn.epsilon, 20]) == [3, 1, 1, 20]
    assert gtn.collapse([3, 3, gtn.epsilon, 1], blank=None) == [3, 3, 1]
