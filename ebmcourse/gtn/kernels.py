"""The inner loops, compiled by numba on their first call and cached on disk.

A graph is given as plain arrays: `nodes` (N,) uint8 holds the bits START and ACCEPT, `arcs` (A, 4) int32
holds one row (source, destination, input label, output label) per arc, `weights` (A,) float64 their weights.
`arcs` may be grouped by source node: the arcs that leave node u are then `ids[first[u]:first[u + 1]]`.

Only `lazy.kernels` imports this module, so that `import ebmcourse.gtn` does not wait for numba.
"""

import numpy as np

from ebmcourse.compiled import kernel

EPSILON = -1
START, ACCEPT = 1, 2
SRC, DST, INPUT, OUTPUT = 0, 1, 2, 3

# Pairs of nodes below this number are looked up in a plain table, above it in a hash table.
DENSE_PAIRS = 1 << 24
# Odd, with well mixed bits (2^64 divided by the golden ratio), so that neighbouring keys spread over the
# table.
HASH_FACTOR = np.uint64(0x9E3779B97F4A7C15)


@kernel
def group(keys, count):
    """Indices of `keys` grouped by value (0 … count-1), order kept within a group: (first (count+1,),
    ids).
    """
    first = np.zeros(count + 1, np.int32)
    for key in keys:
        first[key + 1] += 1
    for key in range(count):
        first[key + 1] += first[key]
    ids = np.empty(keys.size, np.int32)
    free = first[:-1].copy()
    for i in range(keys.size):
        ids[free[keys[i]]] = i
        free[keys[i]] += 1
    return first, ids


@kernel
def flagged(nodes, flag):
    """The nodes that have `flag` set, in order."""
    found = np.empty(nodes.size, np.int64)
    count = 0
    for u in range(nodes.size):
        if nodes[u] & flag:
            found[count] = u
            count += 1
    return found[:count]


@kernel
def topological_order(nodes, arcs):
    """Arc ids such that every arc into a node comes before every arc out of it: (order, stuck).

    Only arcs that start nodes reach are in it. `stuck` is an accept node behind a cycle or behind a node that no
    start node reaches (its score is not defined), or -1.
    """
    order = np.empty(arcs.shape[0], np.int32)
    # The arcs of `linear_graph`, and of compositions with it, are already in order: checking is cheaper.
    reached = (nodes & START) != 0
    in_order, last = True, 0
    for a in range(arcs.shape[0]):
        u, v = arcs[a, SRC], arcs[a, DST]
        if u < last or v <= u or not reached[u]:
            in_order = False
            break
        last = u
        reached[v] = True
        order[a] = a
    if in_order:
        return order, -1

    first, ids = group(arcs[:, SRC], nodes.size)
    waiting = np.zeros(nodes.size, np.int32)
    for a in range(arcs.shape[0]):
        waiting[arcs[a, DST]] += 1
    queue = np.empty(nodes.size, np.int32)
    size = 0
    for u in range(nodes.size):
        if nodes[u] & START and waiting[u] == 0:
            queue[size] = u
            size += 1
    head, done = 0, 0
    while head < size:
        u = queue[head]
        head += 1
        for i in range(first[u], first[u + 1]):
            order[done] = ids[i]
            done += 1
            v = arcs[ids[i], DST]
            waiting[v] -= 1
            if waiting[v] == 0:
                queue[size] = v
                size += 1
    for u in range(nodes.size):
        if nodes[u] & ACCEPT and waiting[u] > 0:
            return order[:done], u
    return order[:done], -1


@kernel
def forward(nodes, arcs, weights, beta, want_shares):
    """log Σ over accepting paths of exp(β · path weight): (score, shares, stuck).

    `shares` (A,) is its gradient by β · weights: the probability that a path drawn in proportion to its
    exponential takes each arc (empty unless `want_shares`).
    """
    order, stuck = topological_order(nodes, arcs)
    # alpha: the same sum over the paths from a start node to each node. While it is being summed, it is kept
    # as exp(top) · total, which never overflows and costs one exponential per arc.
    alpha = np.full(nodes.size, -np.inf)
    top = np.full(nodes.size, -np.inf)
    total = np.zeros(nodes.size)
    for u in range(nodes.size):
        if nodes[u] & START:
            top[u], total[u] = 0.0, 1.0
    last = -1
    for a in order:
        u, v = arcs[a, SRC], arcs[a, DST]
        if u != last:
            alpha[u] = top[u] + np.log(total[u])
            last = u
        s = alpha[u] + beta * weights[a]
        if s > top[v]:
            total[v] = total[v] * np.exp(top[v] - s) + 1.0
            top[v] = s
        elif s == top[v]:  # without this case ∞ - ∞ would make a NaN
            total[v] += 1.0
        else:
            total[v] += np.exp(s - top[v])
    best, score = -np.inf, 0.0
    for u in range(nodes.size):
        if nodes[u] & ACCEPT:
            alpha[u] = top[u] + np.log(total[u])
            best = max(best, alpha[u])
    for u in range(nodes.size):
        if nodes[u] & ACCEPT:
            score += 1.0 if alpha[u] == best else np.exp(alpha[u] - best)
    score = best + np.log(score)

    shares = np.zeros(weights.size if want_shares else 0)
    if want_shares:
        gamma = total  # reused: the probability that a path visits each node
        for u in range(nodes.size):
            gamma[u] = np.exp(alpha[u] - score) if nodes[u] & ACCEPT else 0.0
        for i in range(order.size - 1, -1, -1):
            a = order[i]
            u, v = arcs[a, SRC], arcs[a, DST]
            if gamma[v] != 0.0:  # skips nodes that only forbidden arcs (weight -∞) reach
                shares[a] = gamma[v] * np.exp(alpha[u] + beta * weights[a] - alpha[v])
                gamma[u] += shares[a]
    return score, shares, stuck


@kernel
def count_paths(nodes, arcs):
    """The number of accepting paths (float64: exact below 2^53): (count, stuck)."""
    order, stuck = topological_order(nodes, arcs)
    count = np.zeros(nodes.size)
    for u in range(nodes.size):
        if nodes[u] & START:
            count[u] = 1.0
    for a in order:
        count[arcs[a, DST]] += count[arcs[a, SRC]]
    total = 0.0
    for u in range(nodes.size):
        if nodes[u] & ACCEPT:
            total += count[u]
    return total, stuck


@kernel
def insert(scores, links, row, found, score, arc, rank):
    """Put a hypothesis into the list `scores[row]`, sorted by falling score, behind those that are as good.

    Returns the new length of the list; where it is full, its last entry drops out.
    """
    k = scores.shape[1]
    if found == k:
        if score <= scores[row, k - 1]:
            return k
        found -= 1
    i = found
    while i > 0 and scores[row, i - 1] < score:
        scores[row, i] = scores[row, i - 1]
        links[row, i, 0], links[row, i, 1] = links[row, i - 1, 0], links[row, i - 1, 1]
        i -= 1
    scores[row, i] = score
    links[row, i, 0], links[row, i, 1] = arc, rank
    return found + 1


@kernel
def best_paths(nodes, arcs, weights, k):
    """The k accepting paths of largest weight above -∞: (scores, arcs of all paths in one row, stops, stuck).

    Path i is `row[stops[i]:stops[i + 1]]`.
    """
    order, stuck = topological_order(nodes, arcs)
    # The best ways to reach each node: score, last arc, and which of the hypotheses of its source node came
    # before. Row N holds the result: score, accept node, which of its hypotheses.
    scores = np.full((nodes.size + 1, k), -np.inf)
    links = np.full((nodes.size + 1, k, 2), -1, np.int32)
    found = np.zeros(nodes.size + 1, np.int64)
    for u in range(nodes.size):
        if nodes[u] & START:
            found[u] = insert(scores, links, u, 0, 0.0, -1, -1)
    for a in order:
        u, v = arcs[a, SRC], arcs[a, DST]
        for rank in range(found[u]):
            s = scores[u, rank] + weights[a]
            if s > -np.inf:
                found[v] = insert(scores, links, v, found[v], s, a, rank)
    end = nodes.size
    for u in range(nodes.size):
        if nodes[u] & ACCEPT:
            for rank in range(found[u]):
                found[end] = insert(scores, links, end, found[end], scores[u, rank], u, rank)

    count = found[end]
    stops = np.zeros(count + 1, np.int64)
    for i in range(count):
        length = 0
        u, rank = links[end, i, 0], links[end, i, 1]
        while links[u, rank, 0] >= 0:
            a, rank = links[u, rank, 0], links[u, rank, 1]
            u = arcs[a, SRC]
            length += 1
        stops[i + 1] = stops[i] + length
    row = np.empty(stops[count], np.int64)
    for i in range(count):
        at = stops[i + 1]
        u, rank = links[end, i, 0], links[end, i, 1]
        while links[u, rank, 0] >= 0:
            a, rank = links[u, rank, 0], links[u, rank, 1]
            u = arcs[a, SRC]
            at -= 1
            row[at] = a
    return scores[end, :count], row, stops, stuck


@kernel
def slot(keys, key):
    """Where `key` is, or belongs, in a hash table (size a power of two, free places hold -1).

    An empty table stands for a plain one, in which every key is its own place.
    """
    if keys.size == 0:
        return key
    mask = keys.size - 1
    i = np.int64((np.uint64(key) * HASH_FACTOR) >> np.uint64(32)) & mask
    while keys[i] != -1 and keys[i] != key:
        i = (i + 1) & mask
    return i


@kernel
def doubled(keys, numbers):
    """The hash table (keys, numbers) with twice as many places."""
    new_keys = np.full(2 * keys.size, -1, np.int64)
    new_numbers = np.full(2 * keys.size, -1, np.int32)
    for i in range(keys.size):
        if keys[i] >= 0:
            place = slot(new_keys, keys[i])
            new_keys[place], new_numbers[place] = keys[i], numbers[i]
    return new_keys, new_numbers


@kernel
def longer(array):
    """`array` with as many unused rows behind as it has rows."""
    result = np.empty((2 * array.shape[0], array.shape[1]), np.int32)
    for i in range(array.shape[0]):  # a slice assignment would take numba seconds to compile
        for j in range(array.shape[1]):
            result[i, j] = array[i, j]
    return result


@kernel
def has_epsilon(arcs, column):
    """Whether some arc has the label epsilon in `column`."""
    for a in range(arcs.shape[0]):  # noqa: SIM110 (numba has no generators)
        if arcs[a, column] == EPSILON:
            return True
    return False


@kernel
def find_label(arcs, column, ids, low, high, label):
    """First i in low … high-1 with `arcs[ids[i], column]` ≥ label, for arcs sorted by that label."""
    # A dense row holds label c at place c: try there before halving.
    guess = low + label
    if low <= guess < high and arcs[ids[guess], column] == label:
        while guess > low and arcs[ids[guess - 1], column] == label:
            guess -= 1
        return guess
    while low < high:
        middle = (low + high) // 2
        if arcs[ids[middle], column] < label:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def compose(nodes1, arcs1, weights1, first1, ids1, nodes2, arcs2, weights2, first2, ids2, search1):
    """The graph of all pairs of paths where the output of the first spells the input of the second.

    Arcs of one graph are looked up by label among those of the other, which must be sorted within each group
    by the label to be matched: the first by output label where `search1`, else the second by input label.
    Returns (nodes, arcs, weights, parents): `parents` (A, 2) int32 are the two arcs that each arc comes from,
    -1 where one graph stays in place. Nodes are numbered by breadth-first search; those that lead nowhere are
    left out.

    Where both graphs have epsilons on the matched side, a pair of paths could advance through them in several
    orders and be counted more than once. The filter state f of Mohri, "Weighted Automata Algorithms" (2009),
    section 5.1, admits one order: both together first (f = 0), then only one of them (f = 1 or 2) until the
    next true label.
    """
    n2 = nodes2.size
    epsilon1, epsilon2 = has_epsilon(arcs1, OUTPUT), has_epsilon(arcs2, INPUT)
    filters = 3 if epsilon1 and epsilon2 else 1

    # The state (u, v, f) has the key (u n2 + v) filters + f; states are numbered as they are found.
    starts1, starts2 = flagged(nodes1, START), flagged(nodes2, START)
    starts = starts1.size * starts2.size
    room = 256
    while room < 2 * starts:
        room *= 2
    bound = nodes1.size * n2 * filters
    hashed = bound > DENSE_PAIRS
    keys = np.full(2 * room if hashed else 0, -1, np.int64)
    numbers = np.full(2 * room if hashed else bound, -1, np.int32)
    states = np.empty((room, 3), np.int32)
    # Typed, or numba compiles `explore` twice: for the constant 0 and for any number.
    state, count, size = np.int64(0), np.int64(0), np.int64(0)
    for u in starts1:
        for v in starts2:
            key = (u * n2 + v) * filters
            place = slot(keys, key)
            if hashed:
                keys[place] = key
            numbers[place] = count
            states[count, 0], states[count, 1], states[count, 2] = u, v, 0
            count += 1

    moves = np.empty((room - starts, 4), np.int32)
    while True:
        state, count, size = explore(
            arcs1, first1, ids1, arcs2, first2, ids2, search1, epsilon1, epsilon2, filters, n2,
            keys, numbers, states, moves, state, count, size,
        )  # fmt: skip
        if state == count:
            break
        # `explore` found no room for the moves of `state`.
        moves, states = longer(moves), longer(states)
        if hashed:
            keys, numbers = doubled(keys, numbers)

    nodes = np.zeros(count, np.uint8)
    for state in range(count):
        u, v = states[state, 0], states[state, 1]
        nodes[state] = nodes1[u] & nodes2[v] & (START | ACCEPT if states[state, 2] == 0 else ACCEPT)
    return trimmed(nodes, moves[:size], arcs1, weights1, arcs2, weights2)


@kernel
def explore(
    arcs1, first1, ids1, arcs2, first2, ids2, search1, epsilon1, epsilon2, filters, n2,
    keys, numbers, states, moves, state, count, size,
):  # fmt: skip
    """The search of `compose`, from `state` on, as far as the arrays have room: new (state, count, size).

    It fills rows of `moves`: source state, destination state, arc 1, arc 2. The arrays stay the same
    throughout, because numba's code is several times slower where a loop can replace an array by a longer
    one.
    """
    while state < count:
        u, v, f = states[state, 0], states[state, 1], states[state, 2]
        begin = size
        if search1:
            for i in range(first2[v], first2[v + 1]):
                b = ids2[i]
                label = arcs2[b, INPUT]
                j = find_label(arcs1, OUTPUT, ids1, first1[u], first1[u + 1], label)
                while j < first1[u + 1] and arcs1[ids1[j], OUTPUT] == label and (label != EPSILON or f == 0):
                    if size == moves.shape[0]:
                        return state, count, begin
                    moves[size, 1], moves[size, 2], moves[size, 3] = 0, ids1[j], b
                    size += 1
                    j += 1
        else:
            for i in range(first1[u], first1[u + 1]):
                a = ids1[i]
                label = arcs1[a, OUTPUT]
                j = find_label(arcs2, INPUT, ids2, first2[v], first2[v + 1], label)
                while j < first2[v + 1] and arcs2[ids2[j], INPUT] == label and (label != EPSILON or f == 0):
                    if size == moves.shape[0]:
                        return state, count, begin
                    moves[size, 1], moves[size, 2], moves[size, 3] = 0, a, ids2[j]
                    size += 1
                    j += 1
        if epsilon1 and f != 2:
            for i in range(first1[u], first1[u + 1]):
                if arcs1[ids1[i], OUTPUT] == EPSILON:
                    if size == moves.shape[0]:
                        return state, count, begin
                    moves[size, 1], moves[size, 2], moves[size, 3] = 1 % filters, ids1[i], -1
                    size += 1
        if epsilon2 and f != 1:
            for i in range(first2[v], first2[v + 1]):
                if arcs2[ids2[i], INPUT] == EPSILON:
                    if size == moves.shape[0]:
                        return state, count, begin
                    moves[size, 1], moves[size, 2], moves[size, 3] = 2 % filters, -1, ids2[i]
                    size += 1
        for i in range(begin, size):
            x = arcs1[moves[i, 2], DST] if moves[i, 2] >= 0 else u
            y = arcs2[moves[i, 3], DST] if moves[i, 3] >= 0 else v
            f = moves[i, 1]
            key = (x * n2 + y) * filters + f
            place = slot(keys, key)
            if numbers[place] < 0:
                numbers[place] = count
                if keys.size > 0:
                    keys[place] = key
                states[count, 0], states[count, 1], states[count, 2] = x, y, f
                count += 1
            moves[i, 0], moves[i, 1] = state, numbers[place]
        state += 1
    return state, count, size


@kernel
def trimmed(nodes, moves, arcs1, weights1, arcs2, weights2):
    """The result of `compose` without the states from which no accept state is reached."""
    first, ids = group(moves[:, 1], nodes.size)
    numbers = np.full(nodes.size, -1, np.int64)
    stack = np.empty(nodes.size, np.int64)
    size = 0
    for state in range(nodes.size):
        if nodes[state] & ACCEPT:
            numbers[state] = 0
            stack[size] = state
            size += 1
    while size > 0:
        size -= 1
        state = stack[size]
        for i in range(first[state], first[state + 1]):
            source = moves[ids[i], 0]
            if numbers[source] < 0:
                numbers[source] = 0
                stack[size] = source
                size += 1
    count = 0
    for state in range(nodes.size):
        if numbers[state] == 0:
            numbers[state] = count
            nodes[count] = nodes[state]
            count += 1

    kept = 0
    for i in range(moves.shape[0]):
        kept += numbers[moves[i, 1]] >= 0
    arcs = np.empty((kept, 4), np.int32)
    weights = np.empty(kept)
    parents = np.empty((kept, 2), np.int32)
    k = 0
    for i in range(moves.shape[0]):
        destination, a, b = moves[i, 1], moves[i, 2], moves[i, 3]
        if numbers[destination] >= 0:
            arcs[k, SRC], arcs[k, DST] = numbers[moves[i, 0]], numbers[destination]
            arcs[k, INPUT] = arcs1[a, INPUT] if a >= 0 else EPSILON
            arcs[k, OUTPUT] = arcs2[b, OUTPUT] if b >= 0 else EPSILON
            weights[k] = (weights1[a] if a >= 0 else 0.0) + (weights2[b] if b >= 0 else 0.0)
            parents[k, 0], parents[k, 1] = a, b
            k += 1
    return nodes[:count], arcs, weights, parents


@kernel
def gathered(parents, column, delta, size):
    """Sum of `delta` (A,) over the arcs that share a parent, `parents[:, column]`: (size,)."""
    grad = np.zeros(size)
    for a in range(delta.size):
        if parents[a, column] >= 0:
            grad[parents[a, column]] += delta[a]
    return grad
