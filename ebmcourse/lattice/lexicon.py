"""The best word of a lexicon, exactly, by one dynamic programme over the tree of its prefixes."""

from collections.abc import Iterable
from string import ascii_lowercase
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ebmcourse.lattice import backend
from ebmcourse.lattice.alignment import align
from ebmcourse.lattice.checks import Lengths, check_blank, check_energies, check_lengths, check_values
from ebmcourse.lattice.lattices import ctc_lattice


class Trie:
    """The prefixes of a set of words as a tree, in numpy arrays over its nodes.

    words: any non-empty collection of non-empty strings; duplicates count once
    alphabet: the class of a letter is its place in this string
    raises ValueError: no words, an empty word, a letter outside the alphabet

    A node is a prefix: short ones first, those of one length in the alphabet's order; node 0 is the root.
    parent, label, depth: (N,) int64
    is_word: (N,) bool
    joins: (N,) bool, whether the node's letter may follow its parent's without a blank, i.e. differs from it;
        undefined for first letters, whose parent has no letter
    """

    def __init__(self, words: Iterable[str], alphabet: str = ascii_lowercase):
        if isinstance(words, str):
            raise ValueError("words must be a collection of strings, not one string: put it into a list")
        words = list(words)
        if not all(isinstance(word, str) for word in words):
            raise ValueError("words must be a collection of strings")
        if len(set(alphabet)) < len(alphabet):
            raise ValueError(f"the alphabet holds a letter twice: {alphabet!r}")
        if not words:
            raise ValueError("the lexicon is empty: give at least one word")
        if not all(words):
            raise ValueError("the lexicon holds an empty word: leave it out")
        classes = {letter: index for index, letter in enumerate(alphabet)}
        for word in words:
            if not classes.keys() >= set(word):
                raise ValueError(f"the word {word!r} holds letters outside the alphabet {alphabet!r}")
        self.alphabet = alphabet
        prefixes = {word[:length] for word in words for length in range(len(word) + 1)}
        self.prefixes = sorted(prefixes, key=lambda prefix: (len(prefix), [classes[letter] for letter in prefix]))
        place = {prefix: node for node, prefix in enumerate(self.prefixes)}
        self.parent = np.array([place[prefix[:-1]] for prefix in self.prefixes])
        self.label = np.array([0] + [classes[prefix[-1]] for prefix in self.prefixes[1:]])
        self.depth = np.array([len(prefix) for prefix in self.prefixes])
        self.is_word = np.isin(np.arange(len(place)), [place[word] for word in words])
        self.joins = self.label != self.label[self.parent]

    def __len__(self) -> int:
        """The number of different words."""
        return int(self.is_word.sum())


class Decoded(NamedTuple):
    """words: the best word of each item; energy: (B,) the energy of its best path, differentiable."""

    words: list[str]
    energy: Tensor


def lexicon_decode(
    energies: Tensor,
    trie: Trie,
    input_lengths: Lengths = None,
    blank: int = -1,
    *,
    may_join: bool = True,
) -> Decoded:
    """The word of the lexicon whose best path has the least energy, and that energy; exact, without a beam.

    Every word of the lexicon is scored, common prefixes only once: this is min-plus dynamic programming over
    (node of the trie) × (in its letter, in the blank after it), in time L × nodes. The paths are those of
    `ctc_align`. Each has one energy per frame, so energies and −log_softmax(−energies) give the same word.

    energies: (B, L, C), low = likely
    trie: the lexicon; its letters are classes 0..len(alphabet)−1
    input_lengths: (B,) true L of each item
    blank: its class; −1 is the last one
    may_join: whether different letters may follow each other without a blank. False requires a blank between
        all letters, as in `viterbi` over _c_a_t_ with optional first and last label
    returns: `Decoded`; of equally good words the shortest, then the first in the alphabet's order
    raises ValueError: no word fits into an item's frames, classes missing for a letter, NaN, an empty batch
    """
    if not isinstance(trie, Trie):
        raise ValueError(f"trie must be a Trie, got {type(trie).__name__}: build it once with Trie(words)")
    check_energies(energies)
    batch, length, classes = energies.shape
    blank = check_blank(blank, classes)
    if (highest := int(trie.label.max())) >= classes or blank in trie.label[1:]:
        letter = trie.alphabet[blank if highest < classes else highest]
        raise ValueError(
            f"the letter {letter!r} of the lexicon has no class of its own among {classes} classes "
            f"with blank {blank}: add a class or move the blank"
        )
    frames = check_lengths("input_lengths", input_lengths, batch, 1, length)
    check_values(energies, frames)
    joins = trie.joins & may_join
    nodes = backend.best_words(energies, frames, blank, trie.parent, trie.label, joins, trie.depth, trie.is_word)
    if (nodes < 0).any():
        item = int((nodes < 0).argmax())
        raise ValueError(
            f"item {item}: no word of the lexicon fits into its {frames[item]} frames with finite energy; "
            "give wider inputs or add shorter words"
        )
    words = [trie.prefixes[node] for node in nodes]
    lengths = [len(word) for word in words]
    targets = np.zeros((batch, max(lengths)), dtype=np.int64)
    for row, word in zip(targets, words, strict=True):
        row[: len(word)] = [trie.alphabet.index(letter) for letter in word]
    lattice = ctc_lattice(energies, torch.from_numpy(targets), input_lengths, lengths, blank, may_join=may_join)
    return Decoded(words, align(energies, lattice).energy)
