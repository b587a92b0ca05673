"""Composition, against a list of all pairs of paths."""

from gtn_oracles import build, for_all, graphs, paths, rows, starts_and_accepts, strings
from hypothesis import strategies as st

from ebmcourse import gtn


def pairs(g1, g2):
    """The result of composition: each pair of paths that agree on the string between them, once."""
    return sorted(
        (a, d, round(w + x, 9)) for a, b, w in strings(g1) for c, d, x in strings(g2) if b == c
    )  # fmt: skip


@for_all(graphs(), graphs())
def test_compose_lists_each_pair_of_matching_paths_once(g1, g2):
    assert strings(gtn.compose(g1, g2)) == pairs(g1, g2)


@for_all(graphs(labels=(0, 1, 2)), graphs(labels=(0, 1, 2)))
def test_intersect_lists_each_pair_of_matching_paths_once(g1, g2):
    g1, g2 = gtn.project_input(g1), gtn.project_input(g2)
    assert strings(gtn.intersect(g1, g2)) == pairs(g1, g2)


@for_all(graphs(), graphs())
def test_every_node_of_a_composition_is_on_an_accepting_path(g1, g2):
    g = gtn.compose(g1, g2)
    arcs = rows(g)
    starts, accepts = starts_and_accepts(g) if g.num_nodes() else ([], [])
    on_path = {u for path in paths(g) for a in path for u in arcs[a][:2]}
    assert on_path | (set(starts) & set(accepts)) == set(range(g.num_nodes()))


@for_all(graphs(), graphs(), st.booleans(), st.booleans())
def test_sorting_arcs_changes_nothing(g1, g2, first, second):
    before = gtn.compose(g1, g2)
    if first:
        g1.arc_sort(True)
    if second:
        g2.arc_sort()
    assert gtn.equal(before, gtn.compose(g1, g2))


def test_compositions_too_large_for_a_table_are_hashed():
    # 5000 x 5000 pairs of nodes, of which 5000 are reached.
    chain = [(u, u + 1, u % 7, u % 7, 0.5) for u in range(4999)]
    g1, g2 = (build(5000, [0], [4999], chain) for _ in range(2))
    g = gtn.compose(g1, g2)
    assert (g.num_nodes(), g.num_arcs()) == (5000, 4999)
    assert gtn.viterbi_score(g).item() == 4999
    ring = [*chain, (4999, 0, 9)]
    g = gtn.compose(*(build(5000, [0], [4999], ring) for _ in range(2)))
    assert (g.num_nodes(), g.num_arcs()) == (5000, 5000)


def test_cyclic_transducers_compose():
    # Double every letter: a loop that reads a and writes aa.
    double = build(2, [0], [0], [(0, 1, 0, 0), (1, 0, gtn.epsilon, 0), (0, 0, 1, 1, 1.0)])
    word = build(3, [0], [2], [(0, 1, 0), (1, 2, 1)])
    assert strings(gtn.compose(word, double)) == [((0, 1), (0, 0, 1), 1.0)]


def test_a_lexicon_spells_words():
    # cat, act over the letters a = 0, c = 1, t = 2, spelled words 7 and 8.
    lexicon = build(
        6, [0], [5],
        [(0, 1, 1, 7), (1, 2, 0, -1), (2, 5, 2, -1), (0, 3, 0, 8), (3, 4, 1, -1), (4, 5, 2, -1)],
    )  # fmt: skip
    emissions = gtn.linear_graph(3, 3)
    emissions.set_weights([0, 1, 0, 2, 0, 0, 0, 0, 3])
    assert strings(gtn.compose(emissions, lexicon)) == [((0, 1, 2), (8,), 3.0), ((1, 0, 2), (7,), 6.0)]
