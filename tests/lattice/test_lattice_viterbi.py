"""`viterbi`: the least energy over all paths, and a path that has it."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from lattice_oracles import alignments, energies_of, for_all

from ebmcourse.lattice import PADDING, dense, viterbi
from ebmcourse.lattice.lattices import alignment_lattice


@st.composite
def problems(draw, max_frames=6, classes=4):
    """A padded batch with true lengths; small integer energies, so that there are many ties."""
    batch = draw(st.integers(1, 3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    optional_first, optional_last = draw(st.booleans()), draw(st.booleans())
    frames = [draw(st.integers(1, max_frames)) for _ in range(batch)]
    counts = [draw(st.integers(1, min(f + optional_first + optional_last, 5))) for f in frames]
    energies = torch.randint(-3, 4, (batch, max_frames, classes), generator=generator).double()
    if draw(st.booleans()):
        energies += torch.randn(energies.shape, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, classes, (batch, max(counts)), generator=generator)
    for item in range(batch):
        energies[item, frames[item] :] = torch.nan
        targets[item, counts[item] :] = -1
    return energies, targets, frames, counts, optional_first, optional_last


def everything_around(energies, targets, first=False, last=False):
    """All paths of one item, and their energies."""
    paths = alignments(len(energies), len(targets), first, last)
    return paths, energies_of(energies, [tuple(targets[j].item() for j in path) for path in paths])


@for_all(problems())
def test_it_finds_the_least_of_all_paths(problem):
    energies, targets, frames, counts, first, last = problem
    found = viterbi(energies, targets, frames, counts, optional_first=first, optional_last=last)
    for item, (length, count) in enumerate(zip(frames, counts, strict=True)):
        label = targets[item, :count]
        paths, sums = everything_around(energies[item, :length], label, first, last)
        path = tuple(found.path[item, :length].tolist())
        assert path in paths
        assert found.energy[item] == pytest.approx(sums.min().item(), abs=1e-12)
        assert sums[paths.index(path)] == pytest.approx(sums.min().item(), abs=1e-12)
        assert (found.path[item, length:] == PADDING).all() and (found.labels[item, length:] == PADDING).all()
        assert torch.equal(found.labels[item, :length], label[found.path[item, :length]])


@for_all(problems())
def test_torch_operations_find_the_same_paths(problem):
    energies, targets, frames, counts, first, last = problem
    compiled = viterbi(energies, targets, frames, counts, optional_first=first, optional_last=last)
    lattice = alignment_lattice(energies, targets, frames, counts, first, last)
    assert torch.equal(dense.best_paths(energies, lattice, PADDING), compiled.path)


def test_ties_go_to_the_smaller_position():
    path = viterbi(torch.zeros(1, 5, 2), torch.tensor([[0, 1, 0]])).path
    assert path.tolist() == [[0, 0, 0, 1, 2]]


def test_cat_is_read_along_its_letters_and_blanks():
    blank = 26
    word = [2, blank, 0, blank, 19, blank]
    spoken = [2, 2, 26, 0, 26, 26, 19, 26]
    energies = torch.ones(1, 8, 27)
    energies[0, range(8), spoken] = -1.0
    found = viterbi(energies, torch.tensor([word]))
    assert found.labels.tolist() == [spoken]
    assert found.path.tolist() == [[0, 0, 1, 2, 3, 3, 4, 5]]
    assert found.energy.item() == -8.0


def test_optional_blanks_let_one_window_hold_one_letter():
    energies = torch.zeros(1, 1, 27)
    targets = torch.tensor([[26, 5, 26]])
    found = viterbi(energies, targets, optional_first=True, optional_last=True)
    assert found.labels.tolist() == [[5]]


def test_cross_entropies_have_the_same_best_path_and_differ_by_the_log_partition_functions():
    torch.manual_seed(0)
    energies, targets = torch.randn(4, 9, 5, dtype=torch.float64), torch.randint(0, 5, (4, 4))
    cross_entropies = -(-energies).log_softmax(dim=-1)
    on_energies, on_entropies = viterbi(energies, targets), viterbi(cross_entropies, targets)
    log_z = torch.logsumexp(-energies, dim=-1).sum(dim=1)
    assert torch.equal(on_energies.path, on_entropies.path)
    torch.testing.assert_close(on_entropies.energy, on_energies.energy + log_z)


def test_it_agrees_with_the_course_recursion_on_longer_items():
    torch.manual_seed(1)
    energies, targets = torch.randn(3, 30, 27, dtype=torch.float64), torch.randint(0, 27, (3, 12))
    found = viterbi(energies, targets)
    for item in range(3):
        pm = energies[item][:, targets[item]].numpy()
        least = np.full(pm.shape, np.inf)
        least[0, 0] = pm[0, 0]
        for i in range(1, 30):
            for j in range(12):
                least[i, j] = pm[i, j] + min(least[i - 1, j], least[i - 1, j - 1] if j else np.inf)
        assert found.energy[item].item() == pytest.approx(least[-1, -1], abs=1e-12)
        steps = {b - a for a, b in pairwise(found.path[item].tolist())}
        assert steps <= {0, 1} and found.path[item, 0] == 0 and found.path[item, -1] == 11


def test_the_gradient_counts_the_energies_on_the_path():
    torch.manual_seed(2)
    energies = torch.randn(2, 7, 3, dtype=torch.float64, requires_grad=True)
    targets, frames = torch.tensor([[0, 1, 2], [2, 2, 0]]), [7, 5]
    found = viterbi(energies, targets, frames)
    (gradient,) = torch.autograd.grad(found.energy.sum(), energies, retain_graph=True)
    expected = torch.nn.functional.one_hot(found.labels.clamp(min=0), 3) * (found.path >= 0)[..., None]
    assert torch.equal(gradient, expected.double())
    assert torch.autograd.gradcheck(lambda e: viterbi(e, targets, frames).energy, energies)
    assert torch.autograd.gradgradcheck(lambda e: viterbi(e, targets, frames).energy, energies)


def test_padding_labels_are_those_that_cross_entropy_ignores():
    torch.manual_seed(3)
    energies = torch.randn(2, 6, 4)
    labels = viterbi(energies, torch.tensor([[0, 1], [2, 3]]), [6, 3]).labels
    mean = torch.nn.functional.cross_entropy(-energies.transpose(1, 2), labels)
    valid = torch.cat((energies[0], energies[1, :3]))
    expected = torch.nn.functional.cross_entropy(-valid, torch.cat((labels[0], labels[1, :3])))
    torch.testing.assert_close(mean, expected)


def test_a_path_avoids_a_forbidden_class():
    energies = torch.zeros(1, 4, 2)
    energies[0, 1, 0] = torch.inf
    assert viterbi(energies, torch.tensor([[0, 1]])).path.tolist() == [[0, 1, 1, 1]]


def test_float32_and_strided_tensors_give_float32_results():
    torch.manual_seed(4)
    frames_first = torch.randn(9, 4, 5)
    targets = torch.randint(0, 5, (8, 3))[::2]
    found = viterbi(frames_first.transpose(0, 1), targets, torch.tensor([9, 9, 8, 9, 7, 9, 6, 9])[::2])
    again = viterbi(frames_first.transpose(0, 1).contiguous().double(), targets.clone(), [9, 8, 7, 6])
    assert found.energy.dtype == torch.float32
    assert torch.equal(found.path, again.path)
    torch.testing.assert_close(found.energy, again.energy.float())
