"""The reference reader: lattice and decoding against brute force over all paths, and that it learns to read."""

from itertools import groupby, pairwise, product

import numpy as np
import pytest
import torch

from benchmarks import words_reader as reader
from ebmcourse.data.words import ALPHABET_SIZE, BETWEEN, SimpleWordsDataset, collate_fn, window_counts
from ebmcourse.lattice import Trie


def paths(word: list[int], frames: int) -> list[tuple[int, ...]]:
    """All sequences of labels through _c_a_t_: letters and blanks in order, with or without those at the ends."""
    inner = [label for letter in word for label in (letter, BETWEEN)][:-1]
    wanted = [[BETWEEN] * first + inner + [BETWEEN] * last for first, last in product((0, 1), repeat=2)]
    labellings = product(sorted({*word, BETWEEN}), repeat=frames)
    return [path for path in labellings if [label for label, _ in groupby(path)] in wanted]


def least(energies: torch.Tensor, word: list[int]) -> float:
    """The energy of the best path of one image (L, 27), by trying all."""
    sums = [sum(energies[i, label].item() for i, label in enumerate(path)) for path in paths(word, len(energies))]
    return min(sums, default=float("inf"))


@pytest.fixture
def energies() -> torch.Tensor:
    return torch.randn(4, 6, ALPHABET_SIZE, generator=torch.Generator().manual_seed(0))


def test_best_paths_are_the_best_of_all_paths(energies):
    letters = torch.tensor([[0, 1, 2], [3, BETWEEN, BETWEEN], [5, 5, BETWEEN], [6, 7, BETWEEN]])
    lengths, counts = torch.tensor([3, 1, 2, 2]), torch.tensor([6, 1, 5, 6])
    found = reader.best_paths(energies, counts, letters, lengths)
    for item in range(4):
        word, frames = letters[item, : lengths[item]].tolist(), energies[item, : counts[item]]
        assert found.energy[item].item() == pytest.approx(least(frames, word), abs=1e-5)
        labels = found.labels[item].tolist()
        assert tuple(labels[: counts[item]]) in paths(word, len(frames))
        assert set(labels[counts[item] :]) <= {-100}


def test_too_few_windows_are_an_error_that_names_both_numbers(energies):
    four = torch.tensor([[0, 1, 2, 3]] * 4)
    with pytest.raises(ValueError, match="item 0 has 6 frames, but its target needs at least 7"):
        reader.best_paths(energies, torch.full((4,), 6), four, torch.full((4,), 4))


def test_the_loss_is_the_mean_over_valid_windows_and_moves_only_the_energies_on_them(energies):
    energies.requires_grad_()
    letters, lengths, counts = torch.tensor([[0, 1]] * 4), torch.full((4,), 2), torch.tensor([3, 4, 5, 6])
    loss = reader.path_loss(energies, counts, letters, lengths)
    labels = reader.best_paths(energies.detach(), counts, letters, lengths).labels
    log_p = (-energies.detach()).log_softmax(2)
    by_hand = [-log_p[b, i, labels[b, i]] for b in range(4) for i in range(int(counts[b]))]
    torch.testing.assert_close(loss.detach(), torch.stack(by_hand).mean())
    (gradient,) = torch.autograd.grad(loss, energies)
    valid = torch.arange(6) < counts[:, None]
    assert not gradient[~valid].any()
    on_path = gradient[valid].gather(1, labels[valid][:, None])
    assert (on_path > 0).all(), "a step downhill lowers the energies of the path"


@pytest.mark.parametrize("lexicon", [["a", "ab", "abc", "ba", "aa", "bab"], ["ll", "l", "il", "ill"]])
def test_reading_with_a_lexicon_scores_every_word(energies, lexicon):
    class Fixed(torch.nn.Module):
        def forward(self, images):
            return energies

    read = reader.Reader(Fixed(), margin=0)
    widths = torch.tensor([38, 30, 18, 26])  # 6, 4, 1 and 3 windows
    words = read.read_words(torch.zeros(4, 32, 38), widths, Trie(lexicon))
    for item, count in enumerate(window_counts(widths)):
        scores = {word: least(energies[item, :count], [ord(c) - ord("a") for c in word]) for word in lexicon}
        assert words[item] == min(scores, key=scores.__getitem__)


@pytest.mark.parametrize(
    ("classes", "text"),
    [([2, 2, 26, 0, 26, 26, 19, 26], "cat"), ([26, 11, 26, 11, 11], "ll"), ([0, 1, 1, 0], "aba"), ([26, 26], "")],
)
def test_collapse(classes, text):
    assert reader.collapse(classes) == text


def test_a_wide_image_gives_the_same_energies_as_its_windows_one_by_one():
    net = reader.train(reader.Recipe(steps=2, batch=8, lengths=(1, 2)), 0).net
    image = SimpleWordsDataset(1).draw_text("hello")[None]
    windows = image.unfold(2, 18, 4)[0].transpose(0, 1)
    torch.testing.assert_close(net(image)[0], net(windows)[:, 0], rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def trained():
    losses: list[float] = []
    recipe = reader.Recipe(steps=400, lengths=(1, 3))  # after 200, some runs know few letters
    return reader.train(recipe, 0, lambda step, loss: losses.append(loss)), losses


@pytest.mark.slow
def test_the_reader_learns_to_read(trained):
    read, losses = trained
    assert sum(losses[-10:]) < sum(losses[:10]) / 5
    batch = collate_fn(list(SimpleWordsDataset(4, 100, min_length=1, seed=1)))
    right = [text == word for text, word in zip(read.read(batch.images, batch.widths), batch.texts, strict=True)]
    assert sum(right) >= 90
    # The lexicon also holds words of the same length that differ in the last letter.
    rivals = {text[:-1] + letter for text in batch.texts for letter in "aeinrst"} | set(batch.texts)
    words = read.read_words(batch.images, batch.widths, Trie(rivals))
    assert sum(text == word for text, word in zip(words, batch.texts, strict=True)) >= sum(right)


@pytest.mark.slow
def test_padding_and_the_rest_of_the_batch_do_not_change_the_energies(trained):
    read, _ = trained
    words = SimpleWordsDataset(1)
    batch = collate_fn([(words.draw_text(text), text) for text in ("a", "longest", "by")])
    together, counts = read.energies(batch.images, batch.widths)
    for item in range(3):
        image = batch.images[item : item + 1, :, : batch.widths[item]]
        alone, (count,) = read.energies(image, batch.widths[item : item + 1])
        assert count == counts[item] == alone.shape[1]
        torch.testing.assert_close(alone[0], together[item, :count], rtol=1e-4, atol=1e-4)


def test_a_seed_repeats_the_training_and_does_not_touch_the_global_generator():
    recipe = reader.Recipe(steps=3, batch=8, lengths=(1, 2))
    state = torch.get_rng_state()
    first, again, other = (reader.train(recipe, seed).net.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.slow
def test_reading_any_font_finds_where_the_letters_are(trained):
    read, _ = trained
    batch = collate_fn(list(SimpleWordsDataset(3, 40, seed=2)))
    lower = batch.images.roll(3, dims=1)
    plain, any_font = read.read(lower, batch.widths), read.read_any_font(lower, batch.widths)
    right = [sum(text == word for text, word in zip(texts, batch.texts, strict=True)) for texts in (plain, any_font)]
    assert right[0] < 10 and right[1] > 30


@pytest.mark.slow
def test_reading_any_font_returns_the_most_certain_reading(trained):
    read, _ = trained
    image, width = SimpleWordsDataset(1).draw_text("by")[None], torch.tensor([36])
    readings = {}
    for change in product(reader.STRETCHES_ACROSS, reader.STRETCHES_DOWN, reader.SHIFTS):
        changed = reader.warp(image, width, *(torch.tensor([value]) for value in (*change, 0.0)))
        energies, counts = read.energies(*changed)
        doubt = -(-energies[0, : counts[0]]).log_softmax(1).max(1).values.mean().item()
        readings[doubt] = read.read(*changed)
    assert read.read_any_font(image, width) == readings[min(readings)]


def test_stretched_words_have_more_windows_and_true_widths():
    batch = collate_fn(list(SimpleWordsDataset(4, 8, min_length=1, seed=0)))
    images, widths = reader.stretched(batch.images, batch.widths, 1.5)
    assert images.shape[2] == 1.5 * batch.images.shape[2] and widths.tolist() == (1.5 * batch.widths).tolist()
    assert not images.any(dim=1)[torch.arange(images.shape[2]) >= widths[:, None]].any()
    assert reader.stretched(batch.images, batch.widths, 1)[0] is batch.images
    recipe = reader.Recipe(steps=2, batch=8, lengths=(1, 2), stretch=1.5)
    _, counts = reader.train(recipe, 0).energies(batch.images, batch.widths)
    assert counts.tolist() == window_counts(widths + 2 * recipe.margin).tolist()


def test_warp_moves_down_and_stretches():
    image, width = torch.zeros(1, 32, 20), torch.tensor([20])
    image[0, reader.MIDDLE, 5:10] = 1

    def ink(*change):
        warped, widths = reader.warp(image, width, *(torch.tensor([float(value)]) for value in change))
        rows, columns = (warped[0] > 0.5).nonzero(as_tuple=True)
        return warped.shape[2], widths.tolist(), rows.unique().tolist(), int(columns.min()), int(columns.max())

    assert ink(1, 1, 0, 0) == (20, [20], [17], 5, 9)
    assert ink(1, 1, 3, 0) == (20, [20], [20], 5, 9)
    assert ink(2, 1, 0, 0) == (40, [40], [17], 10, 18)


@pytest.mark.slow
def test_training_continues_from_a_reader_without_changing_it(trained):
    read, losses = trained
    before = {name: value.clone() for name, value in read.net.state_dict().items()}
    further: list[float] = []
    recipe = reader.Recipe(steps=5, lengths=(1, 3), rate=1e-3)
    other = reader.train(recipe, 1, lambda step, loss: further.append(loss), start=read)
    assert max(further) < losses[0] / 5
    assert all(torch.equal(before[name], value) for name, value in read.net.state_dict().items())
    assert any(not torch.equal(before[name], value) for name, value in other.net.state_dict().items())


def test_words_kept_out_are_never_drawn():
    recipe = reader.Recipe(batch=16, lengths=(2, 2), keep=lambda text: text < "n")
    batches = [batch for _, batch in zip(range(20), reader.batches(recipe, 0), strict=False)]
    assert all(text < "n" for batch in batches for text in batch.texts)


def test_the_learning_rate_rises_stays_and_falls_to_zero():
    recipe = reader.Recipe(steps=100, warm_up=0.1, decay=0.5)
    factors = [recipe.factor(step) for step in range(101)]
    assert factors[9] == factors[50] == 1 and factors[100] == 0
    assert all(a < b for a, b in pairwise(factors[:10])) and all(a > b for a, b in pairwise(factors[50:]))


def test_distortion_keeps_the_ink_inside_the_true_widths_and_differs_from_word_to_word():
    batch = collate_fn(list(SimpleWordsDataset(6, 32, min_length=1, seed=0)))
    images, widths = reader.distort(batch.images, batch.widths, np.random.default_rng(0))
    assert images.shape == (32, 32, widths.max()) and images.min() >= 0 and images.max() <= 1
    columns = torch.arange(images.shape[2])
    assert not images.any(dim=1)[columns >= widths[:, None]].any()
    assert images.any(dim=(1, 2)).all()
    ratios = widths / batch.widths
    assert ratios.min() < 0.9 and ratios.max() > 1.1
    again, _ = reader.distort(batch.images, batch.widths, np.random.default_rng(0))
    assert torch.equal(images, again)
