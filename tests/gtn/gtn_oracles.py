"""Small random graphs, and lists of all their paths to compare with."""

from collections.abc import Callable, Iterator

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ebmcourse import gtn
from ebmcourse.gtn.text import to_text

Rows = list[tuple[int, int, int, int, float]]


def for_all(*strategies: st.SearchStrategy) -> Callable:
    """Run a test on 100 examples, the same in each run; without a deadline, because first calls compile."""
    return lambda test: settings(derandomize=True, deadline=None, max_examples=100)(given(*strategies)(test))


def rows(g: gtn.Graph) -> Rows:
    """(source, destination, input label, output label, weight) of each arc, read from the text format."""
    lines = text_lines(g)[2:]
    return [(int(a), int(b), int(c), int(d), float(w)) for a, b, c, d, w in (line.split() for line in lines)]


def text_lines(g: gtn.Graph) -> list[str]:
    return to_text(g._finish(), g.weights_to_list()).splitlines()


def starts_and_accepts(g: gtn.Graph) -> tuple[list[int], list[int]]:
    lines = text_lines(g)
    return [int(u) for u in lines[0].split()], [int(u) for u in lines[1].split()]


def paths(g: gtn.Graph) -> Iterator[list[int]]:
    """Every accepting path of an acyclic graph, as arc numbers."""
    arcs = rows(g)
    starts, accepts = starts_and_accepts(g)

    def extend(node: int, path: list[int]) -> Iterator[list[int]]:
        if node in accepts:
            yield list(path)
        for a, (u, v, *_) in enumerate(arcs):
            if u == node:
                yield from extend(v, [*path, a])

    for start in starts:
        yield from extend(start, [])


def weight(g: gtn.Graph, path: list[int]) -> float:
    return sum(rows(g)[a][4] for a in path)


def strings(g: gtn.Graph) -> list[tuple[tuple[int, ...], tuple[int, ...], float]]:
    """(input string, output string, weight) of every path, without epsilons, sorted."""
    arcs = rows(g)
    return sorted(
        (
            tuple(arcs[a][2] for a in path if arcs[a][2] != gtn.epsilon),
            tuple(arcs[a][3] for a in path if arcs[a][3] != gtn.epsilon),
            round(sum(arcs[a][4] for a in path), 9),
        )
        for path in paths(g)
    )


def log_sum_exp(values: list[float], beta: float = 1.0) -> float:
    scaled = beta * np.array(values)
    top = scaled.max()
    return float(top + np.log(np.exp(scaled - top).sum())) / beta


def build(count: int, starts: list[int], accepts: list[int], arcs: list[tuple]) -> gtn.Graph:
    g = gtn.Graph()
    for u in range(count):
        g.add_node(u in starts, u in accepts)
    for arc in arcs:
        g.add_arc(*arc)
    return g


@st.composite
def graphs(draw: st.DrawFn, labels: tuple[int, ...] = (gtn.epsilon, 0, 1), max_arcs: int = 8) -> gtn.Graph:
    """Acyclic graphs with a path, nodes numbered in any order, parallel arcs, several starts and accepts.

    Weights are eighths, so that sums are exact and equal weights are common.
    """
    count = draw(st.integers(2, 5))
    name = draw(st.permutations(range(count)))
    label = st.sampled_from(labels)
    weights = st.integers(-16, 16).map(lambda n: n / 8)
    pair = st.tuples(st.integers(0, count - 2), st.integers(1, count - 1)).filter(lambda p: p[0] < p[1])
    arcs = draw(st.lists(st.tuples(pair, label, label, weights), max_size=max_arcs))
    chain = [((u, u + 1), draw(label), draw(label), draw(weights)) for u in range(count - 1)]
    order = draw(st.permutations(chain + arcs))
    starts = {0} | draw(st.sets(st.integers(0, count - 1), max_size=2))
    accepts = {count - 1} | draw(st.sets(st.integers(0, count - 1), max_size=2))
    return build(
        count,
        [name[u] for u in starts],
        [name[u] for u in accepts],
        [(name[u], name[v], i, o, w) for (u, v), i, o, w in order],
    )
