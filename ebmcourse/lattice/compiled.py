"""The recursions as compiled loops, for CPU tensors. `dense.py` has the same three in torch operations.

They use one thread, because a word image is too small for a second one to save time, and float64. They are plain
loops without array expressions, which numba takes seconds to compile at a student's first call.

The sums over paths are kept as weights, not as logarithms, because exponentials and a logarithm per state
would take most of the time. Weights leave the range of a float64 within a few hundred frames, so each has a
level: (level, weight) stands for weight · exp(−LEVEL · level), whose exponent has no bounds. Weights stay
within 2^±256, and neighbours so rarely differ in level that converting one to the other's costs almost nothing.
"""

import numpy as np

from ebmcourse.compiled import kernel

LEVEL = 256 * np.log(2.0)
HIGH, LOW = 2.0**256, 2.0**-256


@kernel
def free_energies(energies, labels, jumps, frames, states, first, last, with_visits):  # type: ignore[no-untyped-def]
    """−log Σ_paths exp(−E(path)) of each item (B,), and its gradient: expected visits (B, L, C), or empty.

    energies is (B, L, C); the rest are the fields of a `Lattice`.
    """
    batch, length, classes = energies.shape
    free = np.empty(batch)
    visits = np.zeros((batch if with_visits else 0, length, classes), dtype=energies.dtype)
    arrivals = np.empty((length, labels.shape[1], 3))
    for b in range(batch):
        count = states[b]
        levels, weights, shares = np.full(count, np.inf), np.zeros(count), np.zeros(count)
        lowest = _forward(energies[b], labels[b], jumps[b], frames[b], first, levels, weights, arrivals)
        free[b] = lowest + _close(levels, weights, max(count - last, 0), shares)
        if with_visits and free[b] < np.inf:
            _backward(shares, labels[b], frames[b], arrivals, visits[b])
    return free, visits


@kernel
def _close(levels, weights, start, shares):  # type: ignore[no-untyped-def]
    """−log of the sum over the states from `start` on, and the share of each of them in it."""
    base = np.inf
    for s in range(start, len(levels)):
        base = min(base, levels[s])
    if base == np.inf:
        return base
    total = 0.0
    for s in range(start, len(levels)):
        shares[s] = _weight_at(base, levels[s], weights[s])
        total += shares[s]
    for s in range(start, len(levels)):
        shares[s] /= total
    return LEVEL * base - np.log(total)


@kernel
def _weight_at(base, level, weight):  # type: ignore[no-untyped-def]
    """A weight in units of a lower level; 0 where it cannot change a sum with a weight of that level."""
    if level == base:
        return weight
    return weight * LOW ** (level - base) if level - base < 4 else 0.0


@kernel
def _forward(energies, labels, jumps, frames, first, levels, weights, arrivals):  # type: ignore[no-untyped-def]
    """Sum exp(−E) over all paths into each state at the last frame: (levels, weights) · exp(−returned energy).

    arrivals[t, s, k] becomes the share of the sum into s at frame t that came from s − k. The backward pass
    needs these shares only: no second recursion, no exponential, and no difference of large numbers.
    """
    count, classes = len(levels), energies.shape[1]
    used = np.zeros(classes, dtype=np.bool_)
    for s in range(count):
        used[labels[s]] = True
    excess, factors = np.empty(classes), np.empty(classes)
    total_lowest = 0.0
    for t in range(frames):
        lowest = _factors(energies[t], used, excess, factors)
        if lowest == np.inf:
            return np.inf
        total_lowest += lowest
        if t == 0:
            for s in range(min(first, count)):
                levels[s], weights[s] = _multiply(0.0, 1.0, excess[labels[s]], factors[labels[s]])
            continue
        for s in range(count - 1, 0, -1):  # downwards, so that s − 1 and s − 2 still hold the frame before
            base = min(levels[s], levels[s - 1])
            if jumps[s]:
                base = min(base, levels[s - 2])
            if base == np.inf:
                arrivals[t, s, 0] = arrivals[t, s, 1] = arrivals[t, s, 2] = 0.0
                continue
            stay = _weight_at(base, levels[s], weights[s])
            step = _weight_at(base, levels[s - 1], weights[s - 1])
            jump = _weight_at(base, levels[s - 2], weights[s - 2]) if jumps[s] else 0.0
            total = stay + step + jump
            scale = 1.0 / total
            arrivals[t, s, 0] = stay * scale
            arrivals[t, s, 1] = step * scale
            arrivals[t, s, 2] = jump * scale
            levels[s], weights[s] = _multiply(base, total, excess[labels[s]], factors[labels[s]])
        arrivals[t, 0, 0], arrivals[t, 0, 1], arrivals[t, 0, 2] = 1.0, 0.0, 0.0
        levels[0], weights[0] = _multiply(levels[0], weights[0], excess[labels[0]], factors[labels[0]])
    return total_lowest


@kernel
def _factors(energies, used, excess, factors):  # type: ignore[no-untyped-def]
    """The least energy of the used classes; excess[c] becomes energy − least, factors[c] exp(−excess[c])."""
    lowest = np.inf
    for c in range(len(energies)):
        if used[c]:
            lowest = min(lowest, energies[c])
    for c in range(len(energies)):
        if used[c]:
            excess[c] = energies[c] - lowest
            factors[c] = np.exp(-excess[c])
    return lowest


@kernel
def _multiply(level, weight, excess, factor):  # type: ignore[no-untyped-def]
    """(level, weight) · exp(−excess), where factor is exp(−excess) as far as a float64 can hold it."""
    if factor < LOW:
        if excess == np.inf:
            return np.inf, 0.0
        rest = np.fmod(excess, LEVEL)
        level += np.rint((excess - rest) / LEVEL)
        factor = np.exp(-rest)
    weight *= factor
    if weight < LOW:
        return level + 1, weight * HIGH
    if weight > HIGH:
        return level - 1, weight * LOW
    return level, weight


@kernel
def _backward(visits, labels, frames, arrivals, out):  # type: ignore[no-untyped-def]
    """From the last frame back, add to `out` the share of all paths that visits[s] has in state s."""
    count = len(visits)
    for t in range(frames - 1, -1, -1):
        for s in range(count):
            out[t, labels[s]] += visits[s]
        if t == 0:
            return
        for s in range(count):  # upwards, so that s + 1 and s + 2 still hold the frame after
            share = visits[s] * arrivals[t, s, 0]
            if s + 1 < count:
                share += visits[s + 1] * arrivals[t, s + 1, 1]
            if s + 2 < count:
                share += visits[s + 2] * arrivals[t, s + 2, 2]
            visits[s] = share


@kernel
def best_paths(energies, labels, jumps, frames, states, first, last, padding):  # type: ignore[no-untyped-def]
    """The states (B, L) of each item's path of least energy; of equal ways into a state the earliest wins."""
    batch, length, _ = energies.shape
    paths = np.full((batch, length), padding, dtype=np.int64)
    moves = np.zeros((length, labels.shape[1]), dtype=np.int8)
    for b in range(batch):
        count, label, may_jump = states[b], labels[b], jumps[b]
        scores = np.full(count, np.inf)
        for s in range(min(first, count)):
            scores[s] = energies[b, 0, label[s]]
        for t in range(1, frames[b]):
            energy, move = energies[b, t], moves[t]
            for s in range(count - 1, 0, -1):
                stay, step = scores[s], scores[s - 1]
                move[s] = 1 if step <= stay else 0
                low = min(stay, step)
                if may_jump[s] and scores[s - 2] <= low:
                    low, move[s] = scores[s - 2], 2
                scores[s] = low + energy[label[s]]
            scores[0] += energy[label[0]]
        state = count - 1
        for s in range(count - 2, max(count - last, 0) - 1, -1):
            if scores[s] <= scores[state]:
                state = s
        for t in range(frames[b] - 1, -1, -1):
            paths[b, t] = state
            state -= moves[t, state]
    return paths


@kernel
def best_words(energies, frames, blank, parent, label, joins, depth, is_word):  # type: ignore[no-untyped-def]
    """The trie node of each item's best word (B,), −1 where none fits; the rest are fields of a `Trie`."""
    batch, nodes = energies.shape[0], len(parent)
    best = np.full(batch, -1, dtype=np.int64)
    for b in range(batch):
        letter = np.full(nodes, np.inf)  # best path that ends in the node's letter
        gap = np.full(nodes, np.inf)  # best path that ends in the blank after it
        gap[0] = 0.0
        reach = 1
        for t in range(frames[b]):
            while reach < nodes and depth[reach] <= t + 1:
                reach += 1
            pause = energies[b, t, blank]
            for n in range(reach - 1, 0, -1):  # children first: their parents still hold the frame before
                low = min(letter[n], gap[parent[n]])
                if joins[n]:
                    low = min(low, letter[parent[n]])
                gap[n] = min(gap[n], letter[n]) + pause
                letter[n] = low + energies[b, t, label[n]]
            gap[0] += pause
        low = np.inf
        for n in range(1, nodes):
            if is_word[n] and min(letter[n], gap[n]) < low:
                low = min(letter[n], gap[n])
                best[b] = n
    return best
