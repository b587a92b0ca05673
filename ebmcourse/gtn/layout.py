"""Where to draw the nodes of a graph: layers from left to right, few crossings, short straight arcs.

The steps are those of Sugiyama, Tagawa and Toda (1981): break cycles, put nodes into layers, give long arcs
a bend in each layer that they cross, order each layer, then choose heights.
"""

import itertools
from collections.abc import Sequence

import numpy as np

Pair = tuple[int, int]


def layered(count: int, pairs: Sequence[Pair], starts: Sequence[int]) -> tuple[list[int], list[float], dict]:
    """Layer and height (in rows, 0 is the middle) of each node, and for each of `pairs` (source,
    destination, no self-loops) the layers and heights of its bends, in the direction of the arc.
    """
    backward = _backward_arcs(count, pairs, starts)
    forward = {(u, v): (v, u) if (u, v) in backward else (u, v) for u, v in pairs}
    layer = _layers(count, sorted(set(forward.values())))

    chains: dict[Pair, list[int]] = {}
    for pair, (u, v) in forward.items():
        bends = range(len(layer), len(layer) + layer[v] - layer[u] - 1)
        layer += range(layer[u] + 1, layer[v])
        chains[pair] = [u, *bends, v]
    links = [link for chain in chains.values() for link in itertools.pairwise(chain)]
    rows = _ordered(layer, links)
    height = _heights(rows, links, count)

    bends_of = {}
    for pair, chain in chains.items():
        route = [(layer[x], height[x]) for x in chain[1:-1]]
        bends_of[pair] = route[::-1] if pair in backward else route
    return layer[:count], height[:count], bends_of


def _backward_arcs(count: int, pairs: Sequence[Pair], starts: Sequence[int]) -> set[Pair]:
    """Arcs without which the graph has no cycle: those that lead back in a depth-first search from the
    starts.
    """
    after: list[list[int]] = [[] for _ in range(count)]
    for u, v in pairs:
        after[u].append(v)
    backward: set[Pair] = set()
    open_: set[int] = set()
    done: set[int] = set()
    for root in [*starts, *range(count)]:
        stack = [] if root in done else [(root, iter(after[root]))]
        open_.update(node for node, _ in stack)
        while stack:
            u, rest = stack[-1]
            for v in rest:
                if v in open_:
                    backward.add((u, v))
                elif v not in done:
                    open_.add(v)
                    stack.append((v, iter(after[v])))
                    break
            else:
                stack.pop()
                open_.discard(u)
                done.add(u)
    return backward


def _layers(count: int, forward: Sequence[Pair]) -> list[int]:
    """The length of the longest path to each node of an acyclic graph."""
    layer = [0] * count
    changed = True
    while changed:
        changed = False
        for u, v in forward:
            if layer[v] < layer[u] + 1:
                layer[v], changed = layer[u] + 1, True
    return layer


def _ordered(layer: Sequence[int], links: Sequence[Pair]) -> list[list[int]]:
    """The nodes of each layer from bottom to top, sorted repeatedly by the mean place of their neighbours in the
    layer before or behind, alternately; the order with the fewest crossings is kept.
    """
    rows: list[list[int]] = [[] for _ in range(max(layer, default=-1) + 1)]
    for node, i in enumerate(layer):
        rows[i].insert(0, node)
    near: tuple[dict[int, list[int]], ...] = ({}, {})
    for u, v in links:
        near[0].setdefault(v, []).append(u)
        near[1].setdefault(u, []).append(v)
    best, fewest = [list(row) for row in rows], _crossings(rows, links)
    for sweep in range(16):
        side = near[sweep % 2]
        place = {node: i for row in rows for i, node in enumerate(row)}
        for row in rows if sweep % 2 == 0 else rows[::-1]:
            row.sort(key=lambda x: np.mean([place[y] for y in side[x]]) if x in side else place[x])
            place.update((node, i) for i, node in enumerate(row))
        crossings = _crossings(rows, links)
        if crossings < fewest:
            best, fewest = [list(row) for row in rows], crossings
    return best


def _crossings(rows: Sequence[Sequence[int]], links: Sequence[Pair]) -> int:
    place = {node: i for row in rows for i, node in enumerate(row)}
    layer = {node: i for i, row in enumerate(rows) for node in row}
    total = 0
    for i in range(len(rows) - 1):
        ends = np.array([(place[u], place[v]) for u, v in links if layer[u] == i]).reshape(-1, 2)
        left, right = (np.sign(ends[:, None, side] - ends[None, :, side]) for side in (0, 1))
        total += int(np.count_nonzero(left * right < 0)) // 2
    return total


def _heights(rows: Sequence[Sequence[int]], links: Sequence[Pair], count: int) -> list[float]:
    """Heights near those of the neighbours, in the given order, at least one row apart (half a row for two bends)."""
    near: dict[int, list[int]] = {}
    for u, v in links:
        # Bends have more weight, so that long arcs become straight.
        weight = 1 + (u >= count) + (v >= count)
        near.setdefault(u, []).extend([v] * weight)
        near.setdefault(v, []).extend([u] * weight)
    height = np.zeros(sum(map(len, rows)))
    for row in rows:
        height[row] = np.arange(len(row)) - (len(row) - 1) / 2
    for sweep in range(30):
        for row in rows if sweep % 2 == 0 else rows[::-1]:
            wanted = [np.mean(height[near[x]]) if x in near else height[x] for x in row]
            gaps = [0.5 if a >= count and b >= count else 1.0 for a, b in itertools.pairwise(row)]
            height[row] = _spread(wanted, gaps)
    return height.tolist()


def _spread(wanted: Sequence, gaps: Sequence[float]) -> np.ndarray:
    """The rising numbers with at least `gaps` between them that are nearest to `wanted` (isotonic
    regression).
    """
    offset = np.concatenate([[0.0], np.cumsum(gaps)])
    blocks: list[list[float]] = []  # sum and size of runs that share one value
    for value in np.asarray(wanted) - offset:
        blocks.append([value, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            value, size = blocks.pop()
            blocks[-1][0] += value
            blocks[-1][1] += size
    return np.concatenate([[total / size] * int(size) for total, size in blocks]) + offset
