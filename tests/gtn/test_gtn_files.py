"""Graphs written and read again, and pictures of them."""

import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gtn_oracles import build, for_all, graphs
from hypothesis import strategies as st

from ebmcourse import gtn
from ebmcourse.gtn.layout import layered

weights = st.floats(allow_nan=False, width=64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("graphs")


@pytest.mark.parametrize(("write", "read"), [(gtn.save, gtn.load), (gtn.savetxt, gtn.loadtxt)])
def test_what_is_written_is_read_again(folder, write, read):
    @for_all(graphs(), weights)
    def property_(g, weight):
        g.add_arc(0, 1, 3, gtn.epsilon, weight)
        write(folder / "g", g)
        assert gtn.equal(read(folder / "g"), g)
        before = (folder / "g").read_bytes()
        write(folder / "g", read(folder / "g"))
        assert (folder / "g").read_bytes() == before

    property_()


def test_the_binary_format_is_gtns(folder):
    g = build(3, [0, 1], [2], [(0, 2, 5, 6, 0.5), (1, 2, -1, -1, -3.0)])
    data = struct.pack("=4i 2i i 8i 2f", 3, 2, 2, 1, 0, 1, 2, 0, 2, 5, 6, 1, 2, -1, -1, 0.5, -3.0)
    gtn.save(folder / "g", g)
    assert (folder / "g").read_bytes() == data
    assert gtn.equal(gtn.load(folder / "g"), g)


def test_the_text_format_is_gtns(folder):
    gtn.savetxt(folder / "g", build(2, [0], [0, 1], [(0, 1, 3, -1, 2.5), (1, 0, 4)]))
    assert (folder / "g").read_text() == "0\n0 1\n0 1 3 -1 2.5\n1 0 4 4 0\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: give the start nodes"),
        ("0\n", "line 2: give the accept nodes"),
        ("0 0\n1\n", "line 1: start nodes must be ≥ 0 and stand once each"),
        ("0\nx\n", "line 2: accept nodes must be integers, not 'x'"),
        ("0\n1\n0 1\n", "line 3: an arc is 'source destination ilabel"),
        ("0\n1\n0 1 2 3 4 5\n", "line 3: an arc is"),
        ("0\n1\n0 1 2 3 much\n", "line 3: an arc is"),
        ("0\n1\n0 1 -7\n", "out of range"),
    ],
)
def test_broken_text(folder, text, message):
    (folder / "broken").write_text(text)
    with pytest.raises(ValueError, match=message):
        gtn.loadtxt(folder / "broken")


def test_broken_binary(folder):
    gtn.save(folder / "g", gtn.linear_graph(2, 2))
    whole = (folder / "g").read_bytes()
    for data in (b"", whole[:-1], whole + b"x", b"\xff" * len(whole)):
        (folder / "broken").write_bytes(data)
        with pytest.raises(ValueError, match="not a graph written by save"):
            gtn.load(folder / "broken")
    with pytest.raises(ValueError, match="no graph file"):
        gtn.load(folder / "missing")


# ---- pictures


def test_pictures_are_the_same_each_time(folder):
    g = gtn.compose(gtn.linear_graph(4, 3), gtn.ctc_graph([1, 2]))
    for kind in ("svg", "png", "dot"):
        files = [folder / f"{i}.{kind}" for i in (1, 2)]
        for file in files:
            gtn.draw(g, file, {0: "_", 1: "a", 2: "b"}, emphasis=[0.5] * g.num_arcs())
        assert files[0].read_bytes() == files[1].read_bytes()
    dot = (folder / "1.dot").read_text()
    assert dot.count("->") == g.num_arcs()
    assert dot.count("doublecircle") == g.num_accept()
    assert 'label = "b"' in dot


def test_notebooks_show_small_graphs_and_print_large_ones():
    small, large = gtn.ctc_graph([3, 1, 20]), gtn.linear_graph(30, 30)
    assert small._repr_svg_().count("<svg") == 1
    assert large._repr_svg_() is None
    assert len(repr(large)) < 400
    assert gtn.Graph()._repr_svg_().count("<svg") == 1


def test_labels_name_symbols_outputs_and_weights(folder):
    g = build(2, [0], [1], [(0, 1, 0, 1, 2.125), (0, 1, -1), (0, 1, 9)])
    gtn.draw(g, folder / "g.dot", {0: "a", 1: "b"})
    labels = re.findall(r'label = "(.*?)"', (folder / "g.dot").read_text())
    assert labels == ["a:b/2.12", "ε", "9"]


@for_all(graphs(), st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=4))
def test_no_two_nodes_or_bends_lie_on_each_other(g, extra):
    count = g.num_nodes()
    arcs = [(u % count, v % count) for u, v in extra]
    arcs += [tuple(map(int, line.split()[:2])) for line in repr(g).splitlines()[2:] if "..." not in line]
    pairs = sorted({(u, v) for u, v in arcs if u != v})
    layer, height, bends = layered(count, pairs, [0])
    points = list(zip(layer, height, strict=True))
    assert set(bends) == set(pairs)
    for i, (x, y) in enumerate(points):
        assert all(other[0] != x or abs(other[1] - y) > 0.99 for other in points[:i])
        assert all(bend[0] != x or abs(bend[1] - y) > 0.99 for route in bends.values() for bend in route)


def test_importing_the_engine_waits_for_nothing_large():
    code = "import sys, ebmcourse.gtn as g; g.linear_graph(2, 2).set_weights([0, 1, 2, 3]);" + (
        "print([m for m in ('numba', 'torch', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_weights_in_and_out():
    g = gtn.linear_graph(2, 2)
    values = np.array([[1.1, 2.2], [3.3, 4.4]])
    g.set_weights(values)
    assert g.weights_to_list() == [1.1, 2.2, 3.3, 4.4]
    assert g.weights_to_numpy().dtype == np.float32
    assert g.weights_to_numpy(np.float64).tolist() == [1.1, 2.2, 3.3, 4.4]


def test_warm_up_compiles_every_kernel_for_every_use():
    code = """
import numpy as np, torch
from ebmcourse import gtn
from ebmcourse.gtn.lazy import kernels
gtn.warm_up()
def compiled():
    return {name: len(k.signatures) for name, k in vars(kernels).items() if hasattr(k, "signatures")}
before = compiled()
assert len(before) > 8
g = gtn.union([gtn.linear_graph(2, 3), gtn.concat(gtn.ctc_graph([1]), gtn.linear_graph(1, 2))])
g = gtn.compose(gtn.linear_graph(3, 3), gtn.remove(gtn.closure(gtn.linear_graph(1, 3))))
gtn.nbest(g, 3), gtn.forward_score(g, gtn.MinPlus()), gtn.forward_score(g, gtn.KBest(2)), gtn.sample(g)
g.set_weights(torch.zeros(g.num_arcs(), requires_grad=True))
gtn.compose(g, gtn.linear_graph(3, 3)).weights_to_torch().sum().backward()
gtn.most_offending_path(g, [1, 2]), gtn.rand_equivalent(g, g, num_samples=2)
assert before == compiled(), (before, compiled())
"""
    subprocess.run([sys.executable, "-c", code], check=True)
