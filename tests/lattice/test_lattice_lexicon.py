"""`lexicon_decode`: the same answer as scoring every word of the lexicon."""

import random
from string import ascii_lowercase

import pytest
import torch
from hypothesis import strategies as st
from lattice_oracles import for_all

from ebmcourse.lattice import Trie, ctc_align, dense, lexicon_decode, viterbi

LETTERS = "abc"  # classes 0, 1, 2; blank 3


@st.composite
def problems(draw):
    words = draw(st.lists(st.text(LETTERS, min_size=2, max_size=5), min_size=1, max_size=8))
    shortest = min(map(len, words))
    frames = [draw(st.integers(2 * shortest - 1, 10)) for _ in range(draw(st.integers(1, 3)))]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    energies = torch.randn(len(frames), 10, 4, generator=generator, dtype=torch.float64)
    energies[..., 3] += draw(st.sampled_from([-1.0, 0.0, 3.0]))  # blanks of low or high energy
    if draw(st.booleans()):
        energies = energies.round()  # ties
    for item, length in enumerate(frames):
        energies[item, length:] = torch.nan
    return energies, words, frames


def encode(word, alphabet=LETTERS):
    return [alphabet.index(letter) for letter in word]


def energy_alone(energies, word, may_join):
    """The energy of one word by itself, or None where it does not fit."""
    try:
        if may_join:
            # Not log-probabilities, but at most 0, and lower by the same amount in every frame.
            shift = energies.min()
            alone = ctc_align(shift - energies[None], torch.tensor([encode(word)]))
            return alone.energy.item() + shift.item() * len(energies)
        blanked = [label for letter in encode(word) for label in (3, letter)] + [3]
        found = viterbi(energies[None], torch.tensor([blanked]), optional_first=True, optional_last=True)
        return found.energy.item()
    except ValueError:
        return None


@for_all(problems(), st.booleans())
def test_it_equals_the_best_of_all_words(problem, may_join):
    energies, words, frames = problem
    decoded = lexicon_decode(energies, Trie(words, LETTERS), frames, may_join=may_join)
    for item, length in enumerate(frames):
        alone = {word: energy_alone(energies[item, :length], word, may_join) for word in words}
        least = min(energy for energy in alone.values() if energy is not None)
        assert decoded.energy[item].item() == pytest.approx(least, abs=1e-12)
        assert alone[decoded.words[item]] == pytest.approx(least, abs=1e-12)


@for_all(problems(), st.booleans())
def test_torch_operations_find_the_same_words(problem, may_join):
    energies, words, frames = problem
    trie = Trie(words, LETTERS)
    nodes = dense.best_words(
        energies,
        torch.tensor(frames).numpy(),
        3,
        trie.parent,
        trie.label,
        trie.joins & may_join,
        trie.is_word,
    )
    found = lexicon_decode(energies, trie, frames, may_join=may_join).words
    assert [trie.prefixes[node] for node in nodes] == found


def test_ties_go_to_the_shorter_word_then_to_the_alphabet():
    trie = Trie(["bb", "ca", "c", "b"], LETTERS)
    assert lexicon_decode(torch.zeros(1, 6, 4), trie).words == ["b"]
    assert lexicon_decode(torch.zeros(1, 6, 4), Trie(["cb", "ba", "ca"], LETTERS)).words == ["ba"]


def test_energies_and_log_probabilities_give_the_same_word():
    torch.manual_seed(0)
    words = ["cat", "car", "care", "tea", "tee", "hello", "help"]
    energies = torch.randn(16, 12, 27, dtype=torch.float64)
    on_energies = lexicon_decode(energies, Trie(words))
    on_losses = lexicon_decode(-(-energies).log_softmax(-1), Trie(words))
    assert on_energies.words == on_losses.words
    log_z = torch.logsumexp(-energies, -1).sum(1)
    torch.testing.assert_close(on_losses.energy, on_energies.energy + log_z)


def test_the_energy_is_differentiable():
    torch.manual_seed(1)
    energies = torch.randn(2, 6, 27, dtype=torch.float64, requires_grad=True)
    trie = Trie(["cat", "hell", "he"])
    assert torch.autograd.gradcheck(lambda e: lexicon_decode(e, trie).energy, energies)


def test_both_l_of_hello_need_their_blank():
    spoken = "he_llo"
    energies = torch.ones(1, 6, 27)
    energies[0, range(6), [26 if c == "_" else ascii_lowercase.index(c) for c in spoken]] = 0.0
    assert lexicon_decode(energies, Trie(["hello", "helo"])).words == ["helo"]


def test_a_large_lexicon_gives_the_best_of_all_its_words():
    random.seed(2)
    words = sorted({"".join(random.choices(ascii_lowercase, k=random.randint(1, 8))) for _ in range(400)})
    torch.manual_seed(2)
    energies = torch.randn(2, 20, 27)
    decoded = lexicon_decode(energies, Trie(words))
    targets = torch.zeros(len(words), 8, dtype=torch.long)
    for row, word in zip(targets, words, strict=True):
        row[: len(word)] = torch.tensor(encode(word, ascii_lowercase))
    lengths = [len(word) for word in words]
    for item in range(2):
        log_probs = (-energies[item]).log_softmax(-1).expand(len(words), -1, -1)
        best = ctc_align(log_probs, targets, None, lengths).energy.argmin().item()
        assert decoded.words[item] == words[best]


def test_a_trie_shares_prefixes():
    trie = Trie(["cat", "car", "cat", "ca"])
    assert len(trie) == 3
    assert trie.prefixes == ["", "c", "ca", "car", "cat"]
    assert trie.parent.tolist() == [0, 0, 1, 2, 2]
    assert [p for p, is_word in zip(trie.prefixes, trie.is_word, strict=True) if is_word] == [
        "ca",
        "car",
        "cat",
    ]
