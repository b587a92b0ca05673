"""Character n-grams with Witten–Bell smoothing, as tables and as weighted automata.

The probability of a symbol s after a context c, of which c' is c without its first symbol, is

    p(s | c) = (n(cs) + t(c) p(s | c')) / (n(c) + t(c))

where n counts occurrences in the text and t(c) is the number of different symbols that follow c (Witten and Bell, "The
zero-frequency problem", 1991). The recursion ends with the uniform distribution below the empty context.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ebmcourse.gtn.graph import Graph
from ebmcourse.gtn.topology import ACCEPT, START, Topology


@dataclass(frozen=True)
class Ngram:
    """A grammar over the symbols 0 … C-1 with N contexts; context 0 is the empty one.

    log_p: (N, C) natural logarithms of p(symbol | context), with all smoothing already applied
    following: (N, C) int32, the longest known context after the symbol
    """

    log_p: NDArray[np.float64]
    following: NDArray[np.int32]

    def context(self, symbols: Iterable[int]) -> int:
        """The longest known context at the end of `symbols`."""
        context = 0
        for symbol in symbols:
            context = int(self.following[context, symbol])
        return context

    def score(self, symbols: Iterable[int], context: int = 0) -> float:
        """log p(symbols | context)."""
        total = 0.0
        for symbol in symbols:
            total += float(self.log_p[context, symbol])
            context = int(self.following[context, symbol])
        return total

    def graph(self, end: int, scale: float = 1.0) -> Graph:
        """The acceptor of all strings that begin after the symbol `end` and end with the next `end`.

        Each context is a node with one arc for each symbol, so a string has exactly one path, and its weight is exactly
        scale · log p; no arc stands for backing off.
        """
        contexts, symbols = self.log_p.shape
        nodes = np.zeros(contexts + 1, np.uint8)
        nodes[self.context([end])], nodes[contexts] = START, ACCEPT
        arcs = np.empty((contexts, symbols, 4), np.int32)
        arcs[..., 0], arcs[..., 1] = np.arange(contexts)[:, None], self.following
        arcs[..., 2] = arcs[..., 3] = np.arange(symbols)
        arcs[:, end, 1] = contexts
        # Millions of arcs: `add_arc` would take minutes.
        return Graph._of(Topology(nodes, arcs.reshape(-1, 4)), scale * self.log_p.ravel())


def train(text: NDArray[np.int64], symbols: int, order: int, least: int = 1) -> Ngram:
    """The n-grams of a text of symbols 0 … `symbols` - 1.

    order: the n of the n-grams; contexts have at most n - 1 symbols
    least: longer contexts than the empty one are kept if they occur at least this often
    """
    if symbols**order >= 2**63:
        raise ValueError(f"{order}-grams of {symbols} symbols do not fit into 64 bits: use a smaller order.")
    # Strings of one length are numbers to the base `symbols`: `codes` has one for each place of the text, `found` those
    # of the contexts, the first of which has the number `first`.
    codes, found, first = text, np.zeros(1, np.int64), 0
    longer = np.unique(text, return_counts=True)
    backoff = np.full((1, symbols), 1 / symbols)
    tables, following = [], [np.zeros((1, symbols), np.int32)]
    for length in range(order):
        grams, counts = longer
        table = np.zeros((len(found), symbols))
        place = np.minimum(np.searchsorted(found, grams // symbols), len(found) - 1)
        known = found[place] == grams // symbols
        table[place[known], grams[known] % symbols] = counts[known]
        kinds, total = (table > 0).sum(1, keepdims=True), table.sum(1, keepdims=True)
        tables.append(np.where(total > 0, (table + kinds * backoff) / np.maximum(total + kinds, 1), backoff))
        if length + 1 == order:
            break
        kept = grams[counts >= least]
        owner = np.searchsorted(found, kept // symbols)
        following[-1][owner, kept % symbols] = first + len(found) + np.arange(len(kept))
        shorter = np.searchsorted(found, kept % symbols**length)
        backoff = tables[-1][shorter]
        following.append(following[-1][shorter])
        first, found = first + len(found), kept
        codes = codes[:-1] * symbols + text[length:] if length else codes
        longer = np.unique(codes[:-1] * symbols + text[length + 1 :], return_counts=True)
    return Ngram(np.log(np.concatenate(tables)), np.concatenate(following))
