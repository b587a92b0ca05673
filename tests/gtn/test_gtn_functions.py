"""The regular operations, against what they mean for the list of all paths."""

import random

import pytest
from gtn_oracles import build, for_all, graphs, rows, starts_and_accepts, strings
from hypothesis import assume
from hypothesis import strategies as st

from ebmcourse import gtn


@for_all(st.lists(graphs(max_arcs=3), max_size=3))
def test_union_lists_the_paths_of_all(gs):
    assert strings(gtn.union(gs)) == sorted(path for g in gs for path in strings(g))


@for_all(graphs(max_arcs=3), graphs(max_arcs=3))
def test_concat_lists_each_path_after_each(g1, g2):
    expected = sorted((a + c, b + d, round(w + x, 9)) for a, b, w in strings(g1) for c, d, x in strings(g2))
    assert strings(gtn.concat(g1, g2)) == expected
    assert gtn.equal(gtn.concat([g1, g2]), gtn.concat(g1, g2))


@for_all(graphs(labels=(0, 1), max_arcs=3), st.integers(1, 3))
def test_closure_lists_paths_one_after_the_other(g, length):
    assume(all(a for a, _, _ in strings(g)))  # else there are infinitely many ways to say nothing
    expected, repeated = [], [((), 0.0)]
    for _ in range(length):
        repeated = [(a + b, w + x) for a, w in repeated for b, _, x in strings(g)]
        expected += [(a, round(w, 9)) for a, w in repeated if len(a) == length]
    found = strings(gtn.compose(gtn.linear_graph(length, 2), gtn.closure(g)))
    assert sorted((a, w) for a, _, w in found) == sorted(expected)


@for_all(graphs())
def test_projections_keep_one_side(g):
    assert sorted(strings(gtn.project_input(g))) == sorted((a, a, w) for a, _, w in strings(g))
    assert sorted(strings(gtn.project_output(g))) == sorted((b, b, w) for _, b, w in strings(g))
    assert gtn.equal(gtn.clone(g), g)


@for_all(graphs())
def test_remove_keeps_all_strings_and_weights(g):
    removed = gtn.remove(g)
    assert not any(arc[2] == arc[3] == gtn.epsilon for arc in rows(removed))
    # Removed arcs at the end of a path lose their weight, so here every path ends in an arc that stays.
    end = gtn.Graph()
    end.add_node(True)
    end.add_node(False, True)
    end.add_arc(0, 1, 5)
    assert strings(gtn.remove(gtn.concat(g, end))) == strings(gtn.concat(g, end))


def test_remove_goes_around_a_cycle_of_removed_arcs_once():
    g = build(3, [0], [2], [(0, 1, -1), (1, 0, -1), (1, 2, 5, 5, 2.0), (0, 2, 6)])
    assert strings(gtn.remove(g)) == [((5,), (5,), 2.0), ((6,), (6,), 0.0)]
    assert strings(gtn.remove(gtn.closure(build(1, [0], [0], [])))) == [((), (), 0.0)]


def test_functions_take_lists_of_graphs():
    a, b = ([gtn.scalar_graph(x) for x in xs] for xs in ([1.0, 2.0], [10.0, 20.0]))
    assert [g.item() for g in gtn.add(a, b)] == [11.0, 22.0]
    assert [g.item() for g in gtn.subtract(a, [b[0]])] == [-9.0, -8.0]
    assert [g.item() for g in gtn.forward_score(a, gtn.Log(2.0))] == [1.0, 2.0]
    assert len(gtn.union([a, b, a])) == len(gtn.concat([a, b, a])) == 3
    with pytest.raises(ValueError, match="equal lengths"):
        gtn.add(a, [b[0]] * 3)


def test_graphs_are_made_on_the_device_of_gtns_applications():
    cpu = gtn.Device(gtn.CPU)
    assert gtn.equal(gtn.linear_graph(2, 3, cpu, False), gtn.linear_graph(2, 3))
    for calc_grad in (True, False):
        made = gtn.linear_graph(2, 3, cpu, calc_grad), gtn.scalar_graph(2.0, cpu, calc_grad)
        made += gtn.linear_graph(2, 3, calc_grad), gtn.scalar_graph(2.0, calc_grad=calc_grad)
        assert [g.calc_grad for g in made] == [calc_grad] * 4
    assert gtn.Device(gtn.CUDA, 1) == gtn.Device(gtn.CUDA, 1) != gtn.Device(gtn.CUDA)


def test_parallel_for_calls_in_order_and_lets_errors_through():
    seen = []
    gtn.parallel_for(seen.append, range(4))
    assert seen == [0, 1, 2, 3]
    with pytest.raises(ZeroDivisionError):
        gtn.parallel_for(lambda i: 1 // i, range(2))


@for_all(graphs(), st.randoms(use_true_random=False))
def test_isomorphic_and_equivalent_under_renumbering(g, rng):
    arcs = rows(g)
    name = list(range(g.num_nodes()))
    rng.shuffle(name)
    rng.shuffle(arcs)
    starts, accepts = ([name[u] for u in flagged] for flagged in starts_and_accepts(g))
    other = build(len(name), starts, accepts, [(name[u], name[v], *rest) for u, v, *rest in arcs])
    assert gtn.isomorphic(g, other)
    assert gtn.rand_equivalent(g, other, num_samples=10, rng=rng)
    *first, (*arc, weight) = rows(g)
    different = build(len(name), *starts_and_accepts(g), [*first, (*arc, weight + 1)])
    assert not gtn.isomorphic(g, different)
    assert not gtn.equal(g, different)


def test_isomorphism_needs_more_than_equal_neighbourhoods():
    def cycles(*lengths):
        g = gtn.Graph()
        for length in lengths:
            nodes = [g.add_node(True, True) for _ in range(length)]
            for u, v in zip(nodes, [*nodes[1:], nodes[0]], strict=True):
                g.add_arc(u, v, 0)
        return g

    assert not gtn.isomorphic(cycles(6), cycles(3, 3))
    assert gtn.isomorphic(cycles(3, 4, 3), cycles(4, 3, 3))
    assert gtn.isomorphic(cycles(*[3] * 20), cycles(*[3] * 20))


def test_samples_repeat_with_the_seed_and_follow_the_graph():
    g = build(3, [0], [2], [(0, 1, 0, 0, 1.0), (0, 1, 1, 1, 2.0), (1, 2, 2, 2, 4.0), (1, 0, 3, 3, 8.0)])
    draws = [[gtn.sample(g, rng=random.Random(seed)).labels_to_list() for seed in range(50)] for _ in range(2)]
    assert draws[0] == draws[1]
    assert {len(labels) % 2 for labels in draws[0]} == {0}
    assert len({tuple(labels) for labels in draws[0]}) > 5
    assert all(labels[-1] == 2 for labels in draws[0])


def test_different_graphs_are_told_apart_by_random_paths():
    g1 = build(2, [0], [1], [(0, 1, 0), (0, 1, 1)])
    for arcs in ([(0, 1, 0)], [(0, 1, 0), (0, 1, 1, 1, 0.1)], [(0, 1, 0), (0, 1, 1, 2)]):
        assert not gtn.rand_equivalent(g1, build(2, [0], [1], arcs), num_samples=100, rng=random.Random(0))
