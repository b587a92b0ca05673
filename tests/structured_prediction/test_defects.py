"""Defects of the public homework from which the assignment comes, with tests that they do not return.

The tests run on the program of the reference notebook. The oracles list all paths or all strings of labels, or are
torch's own functions.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
from collections.abc import Iterator
from string import ascii_lowercase
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import ctc_loss

from autograder.assignment import load
from autograder.release.programs import reference_program
from ebmcourse.checking.program import laid_out
from ebmcourse.data.words import BETWEEN, Batch, SimpleWordsDataset, collate_fn, window_counts

INFINITY = float("inf")


@pytest.fixture(scope="module")
def program() -> Iterator[ModuleType]:
    """The given cells and solutions of the reference notebook, as one module."""
    with laid_out(reference_program(load("structured_prediction"))) as folder:
        spec = importlib.util.spec_from_file_location("structured_prediction", folder / "structured_prediction.py")
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def classes(word: str) -> list[int]:
    return [ascii_lowercase.index(letter) for letter in word]


def valid_paths(windows: int, targets: int) -> list[list[int]]:
    """All paths from the first to the last target that stay or advance by one, from all choices of advancing steps."""
    steps = itertools.combinations(range(1, windows), targets - 1)
    return [[sum(step <= window for step in chosen) for window in range(windows)] for chosen in steps]


def energies_along(pm: Tensor, paths: list[list[int]]) -> Tensor:
    return torch.stack([sum((pm[i, j] for i, j in enumerate(path)), torch.zeros(())) for path in paths])


def read(labels: tuple[int, ...], blank: int) -> list[int]:
    return [label for label, _ in itertools.groupby(labels) if label != blank]


class Recorder:
    """The given cross-entropy, which records its arguments."""

    def __init__(self) -> None:
        self.calls: list[tuple[Tensor, Tensor]] = []

    def __call__(self, energies: Tensor, labels: Tensor) -> Tensor:
        self.calls.append((energies.detach(), labels))
        return nn.functional.cross_entropy(-energies, labels)

    def means(self, batches: int) -> list[float]:
        """The mean loss over the items of each epoch, that is, of each `batches` calls."""
        each = [nn.functional.cross_entropy(-energies, labels, reduction="none") for energies, labels in self.calls]
        return [torch.cat(each[n : n + batches]).mean().item() for n in range(0, len(each), batches)]


def loader_of(batches: list[list[str]]) -> list[Batch]:
    draw = SimpleWordsDataset(1).draw_text
    return [collate_fn([(draw(word), word) for word in batch]) for batch in batches]


def ebm_training(
    program: ModuleType, batches: list[list[str]], epochs: int = 1, rate: float = 0.0
) -> tuple[list[float], Recorder]:
    """Train along the best paths: the losses, and the calls of the criterion."""
    torch.manual_seed(0)
    model, criterion = program.SimpleNet(), Recorder()
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    return program.train_ebm_model(model, epochs, loader_of(batches), criterion, optimizer), criterion


# 1: with blanks around blanks, probabilities sum to more than 1


def test_no_loss_is_negative(program, rng):
    """Each string of labels counts once: p of each target is that of the oracle, and all p together are 1."""
    blank, frames = 2, 4
    log_probs = torch.randn(1, frames, 3, generator=rng).log_softmax(2)
    strings: dict[tuple[int, ...], list[Tensor]] = {}
    for labels in itertools.product(range(3), repeat=frames):
        probability = log_probs[0, range(frames), labels].sum().exp()
        strings.setdefault(tuple(read(labels, blank)), []).append(probability)
    total = 0.0
    for target, probabilities in strings.items():
        loss = program.CTCLossFunction.apply(log_probs, [list(target)], None, blank, "none")
        assert loss.item() == pytest.approx(-math.log(sum(probabilities)), abs=1e-5) and loss.item() >= 0
        total += math.exp(-loss.item())
    assert total == pytest.approx(1, abs=1e-5)


def test_the_loss_of_eight_certain_windows_is_zero(program):
    """In the homework it was -log 6, because the target was blanked twice."""
    labels = [BETWEEN if sign == "_" else classes(sign)[0] for sign in "ccc_aa_t"]
    log_probs = torch.full((1, 8, 27), -1e4)
    log_probs[0, range(8), labels] = 0.0
    assert program.ctc_loss(log_probs, [classes("cat")]).item() == pytest.approx(0, abs=1e-6)


def test_training_with_ctc_gives_plain_letters(program):
    calls = []

    def criterion(log_probs: Tensor, targets: list[list[int]], lengths: Tensor) -> Tensor:
        calls.append((targets, lengths.tolist()))
        return program.ctc_loss(log_probs, targets, lengths)

    model = program.SimpleNet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    program.train_gtn_model(model, 1, loader_of([["cat", "a"]]), criterion, optimizer)
    assert calls == [([classes("cat"), classes("a")], [10, 1])]


# 2: the blank is not a letter


def test_the_blank_is_26_and_not_the_letter_a(program, rng):
    assert BETWEEN == 26
    assert set(program.create_ctc_graph(classes("aha")).labels_to_list()) == {0, 7, 26}
    log_probs = torch.randn(8, 1, 27, generator=rng).log_softmax(2)
    own = program.CTCLossFunction.apply(log_probs.transpose(0, 1), [classes("banana")])
    torchs = ctc_loss(log_probs, torch.tensor([classes("banana")]), [8], [6], blank=26, reduction="none")
    torch.testing.assert_close(own, torchs)


def test_a_blank_in_a_target_is_refused(program):
    with pytest.raises(ValueError, match="blank"):
        program.create_ctc_graph([2, BETWEEN, 0])
    with pytest.raises(ValueError, match="blank"):
        program.create_ctc_graph([0, 1], blank_idx=0)


# 3: the positions of labels


@pytest.mark.parametrize("word", ["abc", "cab", "zaz", "aab", "aba"])
def test_positions_are_right_for_letters_in_any_order(program, word, rng):
    """Compare with all strings of labels that read as the word."""
    energies, target = torch.randn(1, 6, 27, generator=rng), classes(word)
    labels = sorted({*target, BETWEEN})
    reading = [chosen for chosen in itertools.product(labels, repeat=6) if read(chosen, BETWEEN) == target]
    costs = [energies[0, range(6), chosen].sum().item() for chosen in reading]
    best = reading[costs.index(min(costs))]
    scores, paths = program.viterbi(energies, [target])
    assert scores.item() == pytest.approx(min(costs), abs=1e-5)
    blanked = [BETWEEN, *(label for letter in target for label in (letter, BETWEEN))]
    assert tuple(blanked[position] for position in paths[0]) == best
    assert all(0 <= after - before <= 2 for before, after in itertools.pairwise(paths[0]))
    assert paths[0][0] in (0, 1) and paths[0][-1] in (5, 6)


# 4: the free energy is the minimum


def test_the_free_energy_is_the_least_energy_and_not_its_place(program, rng):
    pm = torch.randn(6, 3, generator=rng) + 10
    energy, points, _ = program.find_path(pm)
    costs = energies_along(pm, valid_paths(6, 3))
    torch.testing.assert_close(energy, costs.min())
    torch.testing.assert_close(program.path_energy(pm, [j for _, j in points]), energy)
    for beta in (1.0, 10.0, 100.0):  # it is the limit of the soft minima, which are at most as large
        soft = -(-beta * costs).logsumexp(0) / beta
        assert soft <= energy + 1e-4 and energy <= soft + math.log(len(costs)) / beta + 1e-4


def test_the_best_path_is_the_same_on_energies_and_on_cross_entropies(program, rng):
    energies, targets = torch.randn(2, 9, 27, generator=rng), torch.randint(0, 27, (2, 4), generator=rng)
    pm, ce = program.build_path_matrix(energies, targets), program.build_ce_matrix(energies, targets)
    log_z = (-energies).logsumexp(2)
    torch.testing.assert_close(ce, pm + log_z[:, :, None])
    for row in range(2):
        (on_pm, path, _), (on_ce, same, _) = program.find_path(pm[row]), program.find_path(ce[row])
        assert path == same
        torch.testing.assert_close(on_ce, on_pm + log_z[row].sum())


# 5: tests that transposed or wrong answers pass


@pytest.mark.parametrize(("windows", "targets"), [(L, T) for L in range(1, 8) for T in range(1, min(L, 5) + 1)])
def test_the_best_path_is_best_for_every_shape(program, windows, targets):
    pm = torch.randn(windows, targets, generator=torch.Generator().manual_seed(10 * windows + targets))
    energy, points, dp = program.find_path(pm)
    paths = valid_paths(windows, targets)
    costs = energies_along(pm, paths)
    assert [i for i, _ in points] == list(range(windows)) and [j for _, j in points] == paths[int(costs.argmin())]
    torch.testing.assert_close(energy, costs.min())
    for i, j in itertools.product(range(windows), range(targets)):
        ways = valid_paths(i + 1, j + 1)
        least = energies_along(pm, ways).min() if ways else torch.tensor(INFINITY)
        torch.testing.assert_close(dp[i, j], least)


def test_only_valid_paths_have_an_energy(program):
    pm = torch.arange(15.0).view(5, 3)
    valid = valid_paths(5, 3)
    for path in itertools.product(range(-1, 4), repeat=5):
        want = energies_along(pm, [list(path)])[0] if list(path) in valid else torch.tensor(INFINITY)
        torch.testing.assert_close(program.path_energy(pm, path), want)
    for path in ([], [0], [0, 1, 2], [0, 0, 0, 1, 2, 2]):
        assert program.path_energy(pm, path) == INFINITY


def test_matrices_have_windows_before_targets(program, rng):
    energies, targets = torch.randn(2, 7, 27, generator=rng), torch.randint(0, 27, (2, 3), generator=rng)
    pm = program.build_path_matrix(energies, targets)
    assert pm.shape == (2, 7, 3)
    for b, i, j in itertools.product(range(2), range(7), range(3)):
        assert pm[b, i, j] == energies[b, i, targets[b, j]]


# 6: padding


def test_a_word_is_aligned_as_if_it_were_alone(program):
    words = ["cat", "i", "to", "banana"]
    _, together = ebm_training(program, [words])
    _, alone = ebm_training(program, [[word] for word in words])
    [(energies, labels)] = together.calls
    assert len(labels) == sum(window_counts(18 * len(word)) for word in words)
    torch.testing.assert_close(energies, torch.cat([energies for energies, _ in alone.calls]))
    assert labels.tolist() == torch.cat([labels for _, labels in alone.calls]).tolist()


def test_windows_of_the_padding_have_neither_loss_nor_gradient(program, rng):
    logits = torch.randn(2, 9, 27, generator=rng)
    other = logits.clone()
    other[1, 4:] = 100 * torch.randn(5, 27, generator=rng)
    targets, lengths = [classes("cat"), classes("at")], torch.tensor([9, 4])
    losses = []
    for values in (logits, other):
        log_probs = values.log_softmax(2).requires_grad_()
        losses.append(program.CTCLossFunction.apply(log_probs, targets, lengths))
        losses[-1].sum().backward()
        assert log_probs.grad is not None and log_probs.grad[1, 4:].abs().max() == 0
    torch.testing.assert_close(*losses)
    scores, paths = program.viterbi(other, targets, lengths)
    assert [len(path) for path in paths] == [9, 4]
    torch.testing.assert_close(scores[1], program.viterbi(logits[1:, :4], targets[1:])[0][0])


# 7: infinity, and too few windows


def test_entries_that_cannot_be_reached_are_infinite(program, rng):
    pm = 1e12 * torch.randn(6, 4, generator=rng)  # larger than any number that might be used as infinity
    energy, _, dp = program.find_path(pm)
    torch.testing.assert_close(energy, energies_along(pm, valid_paths(6, 4)).min())
    assert (dp[torch.arange(6)[:, None] < torch.arange(4)] == INFINITY).all()
    assert program.path_energy(pm, [0] * 6) == INFINITY


def test_too_few_windows_are_refused_with_both_numbers(program):
    with pytest.raises(ValueError, match=r"(?=.*\b11\b)(?=.*\b5\b)"):
        program.find_path(torch.zeros(5, 11))
    with pytest.raises(ValueError, match=r"(?=.*\b6\b)(?=.*\b5\b)"):
        program.ctc_loss(torch.zeros(1, 5, 27).log_softmax(2), [classes("hello")])
    with pytest.raises(ValueError, match=r"(?=.*\b9\b)(?=.*\b4\b)"):
        program.best_labels(torch.zeros(4, 11), torch.zeros(11, dtype=torch.long))


# 8: the blanks before the first letter and after the last letter


@pytest.mark.parametrize("border", ["_ab_", "_ab", "ab_", "ab"])
def test_a_word_may_begin_and_end_with_or_without_a_blank(program, border):
    labels = [BETWEEN if sign == "_" else classes(sign)[0] for sign in border.replace("ab", "a_b")]
    energies = torch.ones(len(labels), 27)
    energies[range(len(labels)), labels] = 0.0
    targets = torch.tensor([BETWEEN, 0, BETWEEN, 1, BETWEEN])
    pm = program.build_path_matrix(energies[None], targets[None])[0]
    assert program.best_labels(pm, targets).tolist() == labels


def test_one_letter_in_one_window_is_aligned(program):
    _, criterion = ebm_training(program, [["q"]])
    [(energies, labels)] = criterion.calls
    assert energies.shape == (1, 27) and labels.tolist() == classes("q")


# 9: drawing


def test_edges_keep_their_shades_of_grey(program):
    image = program.SimpleWordsDataset(1).draw_text("hello")
    assert ((image > 0.1) & (image < 0.9)).float().sum() > 10 and image.max() == 1


def test_the_alphabet_is_not_clipped(program):
    draw = program.SimpleWordsDataset(1).draw_text
    wide, asked = draw(ascii_lowercase, 1000), draw(ascii_lowercase, 340)
    torch.testing.assert_close(wide.sum(), asked.sum())
    with pytest.raises(ValueError, match="wide"):
        draw(ascii_lowercase, 200)


# 10: where paths end


def test_a_path_ends_at_the_last_target_whatever_it_costs(program):
    pm = torch.ones(6, 3)
    pm[:, 0], pm[:, 2] = 0.0, 50.0  # the smallest entry of the last row is the first
    energy, points, dp = program.find_path(pm)
    assert dp[-1].argmin() == 0
    assert points == [(0, 0), (1, 0), (2, 0), (3, 0), (4, 1), (5, 2)] and energy == 51


# 11: sums and means


def test_losses_are_means_over_items_and_reset_in_every_epoch(program):
    losses, criterion = ebm_training(program, [["cat", "to"], ["i"]], epochs=3, rate=0.1)
    assert losses == pytest.approx(criterion.means(2), rel=1e-5) and len(set(losses)) == 3

    model, criterion = program.SimpleNet(), Recorder()
    batches = [(torch.rand(size, 32, 18), torch.arange(size)) for size in (4, 1)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = program.train_model(model, 3, batches, criterion, optimizer)
    assert losses == pytest.approx(criterion.means(2), rel=1e-5) and len(set(losses)) == 3


def test_losses_of_ctc_training_are_means_over_words(program):
    given: list[float] = []

    def criterion(*arguments) -> Tensor:
        loss = program.ctc_loss(*arguments)
        given.append(loss.item())
        return loss

    model = program.SimpleNet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = program.train_gtn_model(model, 2, loader_of([["cat", "to"], ["i"]]), criterion, optimizer)
    assert losses == pytest.approx([(2 * given[0] + given[1]) / 3, (2 * given[2] + given[3]) / 3])


def test_reductions_are_those_of_torch(program, rng):
    log_probs = torch.randn(3, 9, 27, generator=rng).log_softmax(2)
    words, lengths, upstream = ["hello", "a", "to"], torch.tensor([9, 3, 7]), torch.tensor([0.5, -2.0, 3.0])
    letters = torch.tensor([label for word in words for label in classes(word)])
    sizes = torch.tensor([len(word) for word in words])
    for reduction in ("none", "mean"):
        results = []
        for own in (True, False):
            x = log_probs.clone().requires_grad_()
            if own:
                loss = program.ctc_loss(x, [classes(word) for word in words], lengths, reduction=reduction)
            else:
                frames = x.transpose(0, 1)
                loss = ctc_loss(frames, letters, lengths, sizes, blank=BETWEEN, reduction=reduction)
            (loss * (upstream if reduction == "none" else 2.0)).sum().backward()
            assert x.grad is not None
            # torch's gradient assumes that log_probs come from a log_softmax: subtract the term that this adds.
            results.append((loss.detach(), x.grad - log_probs.exp() * x.grad.sum(2, keepdim=True)))
        torch.testing.assert_close(results[0][0], results[1][0])
        torch.testing.assert_close(results[0][1], results[1][1], atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="sum"):
        program.ctc_loss(log_probs, [classes(word) for word in words], reduction="sum")
