"""Graphs of connectionist temporal classification: the label strings that collapse to a target, or do not.

To *collapse* a string of frame labels, merge runs of equal labels, then drop the blanks: `__cc_aat_` → `cat`.
"""

import operator
from collections.abc import Sequence

from .compose import intersect
from .graph import Graph
from .shortest import viterbi_path
from .topology import EPSILON


def _letters(target: Sequence[int], blank: int | None) -> list[int]:
    letters = [operator.index(y) for y in target]
    if blank in letters:
        raise ValueError(f"The target {letters} contains the blank ({blank}): give letters only.")
    return letters


def collapse(labels: Sequence[int], blank: int | None = 0) -> list[int]:
    """The string that frame labels stand for, without epsilons. With `blank=None`, only epsilons are dropped."""
    labels = [y for y in labels if y != EPSILON]
    if blank is None:
        return labels
    return [y for y, before in zip(labels, [blank, *labels], strict=False) if y not in (blank, before)]


def ctc_graph(target: Sequence[int], blank: int = 0) -> Graph:
    """The acceptor of all frame strings that collapse to `target`: 2 · len(target) + 1 nodes, weights 0.

    Node 2i + 1 is "in letter i", node 2i "in the blank before it". Graves et al. (2006), section 4.1.

    raises ValueError: the target contains the blank
    """
    letters = _letters(target, blank)
    size = 2 * len(letters) + 1
    g = Graph(False)
    for s in range(size):
        label = letters[s // 2] if s % 2 else blank
        g.add_node(start=s == 0, accept=s >= size - 2)
        g.add_arc(s, s, label)
        if s > 0:
            g.add_arc(s - 1, s, label)
        if s % 2 and s > 1 and label != letters[s // 2 - 1]:
            g.add_arc(s - 2, s, label)
    return g


def other_strings(target: Sequence[int], labels: Sequence[int], blank: int | None = 0) -> Graph:
    """The acceptor of all strings over `labels` that do *not* collapse to `target`: one path for each.

    With `blank=None`, of all strings other than `target` itself. Its nodes stand for the number of letters of the
    target read so far and for whether the last frame was a letter; a wrong letter leads to a node that accepts
    every continuation. All weights are 0.

    raises ValueError: the target contains the blank
    """
    letters = _letters(target, blank)
    g = Graph(False)
    # state[i][j]: i letters read, and the last frame was letter i (j = 1) or the blank (j = 0).
    state = [[g.add_node(start=i + j == 0, accept=i < len(letters)) for j in (0, 1)] for i in range(len(letters) + 1)]
    wrong = g.add_node(accept=True)
    for i in range(len(letters) + 1):
        for j in (0, 1) if i and blank is not None else (0,):
            for label in labels:
                if blank is not None and label == blank:
                    to = state[i][0]
                elif j and label == letters[i - 1]:
                    to = state[i][1]
                elif i < len(letters) and label == letters[i]:
                    to = state[i + 1][0 if blank is None else 1]
                else:
                    to = wrong
                g.add_arc(state[i][j], to, label)
    for label in labels:
        g.add_arc(wrong, wrong, label)
    return g


def most_offending_path(g: Graph, target: Sequence[int], blank: int | None = 0) -> Graph:
    """The path of largest weight in g whose output does not collapse to `target`: the wrong answer that
    training must make less likely. Gradients flow to g.

    With `blank=None`, output strings are compared as they are.

    raises ValueError: every path of g collapses to the target, or the target contains the blank
    """
    labels = sorted(set(g.labels_to_list(False)) - {EPSILON})
    rest = intersect(g, other_strings(target, labels, blank))
    if rest.num_nodes() == 0:
        raise ValueError(f"Every path of the graph collapses to the target {list(target)}: there is no wrong answer.")
    return viterbi_path(rest)
