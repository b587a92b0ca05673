"""Graphs written and read again, files from elsewhere, and pictures."""

import math
import re
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from gtn_oracles import build, for_all, graphs
from hypothesis import strategies as st

from ebmcourse import gtn
from ebmcourse.gtn.layout import layered

weights = st.floats(allow_nan=False, width=64)


@st.composite
def any_graphs(draw) -> gtn.Graph:
    """Graphs of any shape: without nodes, starts, accepts or arcs, with nodes that no arc has, with cycles."""
    g = gtn.Graph()
    for _ in range(draw(st.integers(0, 9))):
        g.add_node(draw(st.booleans()), draw(st.booleans()))
    if g.num_nodes():
        node = st.integers(0, g.num_nodes() - 1)
        label = st.integers(gtn.epsilon, 9) | st.just(2**31 - 1)
        for arc in draw(st.lists(st.tuples(node, node, label, label, weights), max_size=4)):
            g.add_arc(*arc)
    return g


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("graphs")


@pytest.mark.parametrize(("write", "read"), [(gtn.save, gtn.load), (gtn.savetxt, gtn.loadtxt)])
def test_what_is_written_is_read_again(folder, write, read):
    @for_all(any_graphs())
    def property_(g):
        write(folder / "g", g)
        assert gtn.equal(read(folder / "g"), g)
        before = (folder / "g").read_bytes()
        write(folder / "g", read(folder / "g"))
        assert (folder / "g").read_bytes() == before

    property_()


@pytest.mark.parametrize(
    "g",
    [build(0, [], [], []), build(2, [0], [], [(0, 1, 5)]), build(3, [0], [1], [(0, 1, 5)]), build(2, [], [], [])],
    ids=["no nodes", "no accept node", "a last node without arcs", "nodes only"],
)
def test_incomplete_graphs_are_read_again(folder, g):
    gtn.savetxt(folder / "g", g)
    assert gtn.equal(gtn.loadtxt(folder / "g"), g)


@pytest.mark.parametrize("write", [gtn.save, gtn.savetxt])
def test_what_could_not_be_read_is_not_written(folder, write):
    def refused(g, message):
        with pytest.raises(ValueError, match=message):
            write(folder / "refused", g)
        assert not (folder / "refused").exists()

    infinite = [build(2, [0], [1], [(0, 1, 0, 0, weight)]) for weight in (math.inf, -math.inf)]
    refused(gtn.compose(*infinite), "NaN")
    lonely = gtn.Graph()
    for _ in range(1_000_002):
        lonely.add_node()
    refused(lonely, "has 1000002 nodes, of which 1000002 are on no arc .* at most 1000000")


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
        ("0 0\n1\n", "line 1: start nodes must be ≥ 0 and different"),
        ("0\nx\n", "line 2: accept nodes must be integers, not 'x'"),
        ("0\n1\n0 1\n", "line 3: an arc is 'source destination ilabel"),
        ("0\n1\n0 1 2 3 4 5\n", "line 3: an arc is"),
        ("0\n1\n0 1 2 3 much\n", "line 3: an arc is"),
        ("0\n1\n0 1 nan\n", "line 3: an arc is"),
        ("0\n1\n0 1 2 3 nan\n", "line 3: the weight is NaN"),
        ("0\n1\n0 1 2 2147483648\n", "line 3: label 2147483648 is out of range"),
        ("0\n1\n0 1 -7\n", "line 3: label -7 is out of range"),
        ("0\n1\n\n0 1 2\n", "line 3: an arc is"),
        ("0\n1\n0 99999999999 2\n", "line 3: node 99999999999 .* names 3 nodes"),
        ("0\n1000000000\n0 1 2\n", "line 2: node 1000000000 .* names 3 nodes"),
        ("0\n1\n# nodes: 1000000000\n", "line 3: node 999999999 .* names 2 nodes"),
        ("0\n4\n# nodes: 3\n", "line 3: the file names node 4, so it has at least 5 nodes"),
        ("0\n1\n# nodes: 3\n0 1 2\n", "line 3: an arc is"),
    ],
)
def test_broken_text(folder, text, message):
    (folder / "broken").write_text(text)
    with pytest.raises(ValueError, match=f"^broken, {message}"):
        gtn.loadtxt(folder / "broken")


def test_a_short_file_takes_little_memory(folder):
    """1,000,000 nodes that the file does not name are the most it can ask for."""
    (folder / "g").write_text("0\n1000000\n0 1 2\n")
    tracemalloc.start()
    try:
        assert gtn.loadtxt(folder / "g").num_nodes() == 1_000_001
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_text_from_any_editor(folder, mark, newline):
    (folder / "g").write_bytes(mark + newline.join([b"0", b"1", b"0 1 2 3 0.5"]))
    assert gtn.equal(gtn.loadtxt(folder / "g"), build(2, [0], [1], [(0, 1, 2, 3, 0.5)]))


def test_text_in_another_encoding(folder):
    (folder / "g").write_bytes("0\n1\n0 1 2\n".encode("utf-16"))
    with pytest.raises(ValueError, match="g is not text in UTF-8: save it as UTF-8"):
        gtn.loadtxt(folder / "g")


OPENFST = {
    "transducer": ("0 1 5 6\n1 2 7 8\n0 2 9 9\n", 3, [], [(0, 1, 5, 6), (1, 2, 7, 8), (0, 2, 9, 9)]),
    "final state": ("0 1 5 6\n1\n", 2, [1], [(0, 1, 5, 6)]),
    "costs": ("0 1 5 6 0.5\n1 0 7 8 -2\n1\n", 2, [1], [(0, 1, 5, 6, -0.5), (1, 0, 7, 8, 2.0)]),
    "epsilon is 0": ("0 1 0 6\n0 1 5 0\n1 0\n", 2, [1], [(0, 1, -1, 6), (0, 1, 5, -1)]),
    "first line first": ("2 0 5 6\n0\n1 0 3 3\n", 3, [0], [(2, 0, 5, 6), (1, 0, 3, 3)]),
    "final costs": (
        "0 1 5 6\n0 0.25\n1 3.5\n",
        3,
        [2],
        [(0, 1, 5, 6), (0, 2, -1, -1, -0.25), (1, 2, -1, -1, -3.5)],
    ),
    "infinite costs": ("0 1 5 6 Infinity\n0 Infinity\n1\n", 2, [1], [(0, 1, 5, 6, -math.inf)]),
    "acceptor": ("0 1 5\n1 2 7\n2\n", 3, [2], [(0, 1, 5), (1, 2, 7)]),
    "acceptor with costs": ("0 1 5 1\n1 2 7\n2\n", 3, [2], [(0, 1, 5, 5, -1.0), (1, 2, 7)]),
    "acceptor with costs only": ("0 1 5 1\n1 2 7 0.5\n2\n", 3, [2], [(0, 1, 5, 5, -1.0), (1, 2, 7, 7, -0.5)]),
    "blank lines": ("\n0 1 5 6\n\n1\n", 2, [1], [(0, 1, 5, 6)]),
    "one state": ("0\n", 1, [0], []),
}


@pytest.mark.parametrize(("text", "count", "accepts", "arcs"), OPENFST.values(), ids=OPENFST)
def test_openfst_text(folder, text, count, accepts, arcs):
    (folder / "g").write_text(text)
    starts = [int(text.split()[0])]
    assert gtn.equal(gtn.loadtxt(folder / "g", format="openfst"), build(count, starts, accepts, arcs))


@pytest.mark.parametrize("case", [case for case in OPENFST if case not in ("one state", "blank lines")])
def test_openfst_text_is_not_read_as_gtns(folder, case):
    (folder / "g").write_text(OPENFST[case][0])
    with pytest.raises(ValueError, match=r'^g\W.*OpenFst.* format="openfst"[^.]*\.$'):
        gtn.loadtxt(folder / "g")


def test_an_empty_openfst_file_has_no_nodes(folder):
    (folder / "g").write_text("")
    assert gtn.loadtxt(folder / "g", format="openfst").num_nodes() == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 1 a b\n1\n", "line 1: .*'source destination ilabel olabel \\[cost\\]'.*, not '0 1 a b'"),
        ("0 1 5 6\n1 x\n", "line 2: "),
        ("0 1 5 6\n1 BadNumber\n", "line 2: "),
        ("0 1 5 6\n-1\n", "line 2: "),
        ("0 1 5 -1\n1\n", "line 1: "),
        ("0 1 5 6 0.5\n1 2 3\n2\n", "line 1: "),
        ("0 1 2 3 4 5\n", "line 1: "),
        ("0 99999999999 5 6\n1\n", "line 1: node 99999999999 .* names 3 nodes"),
    ],
)
def test_broken_openfst_text(folder, text, message):
    (folder / "broken").write_text(text)
    with pytest.raises(ValueError, match=f"^broken, {message}"):
        gtn.loadtxt(folder / "broken", format="openfst")


def test_a_gtn_file_can_look_like_openfst(folder):
    """Written by hand: all start nodes are on an arc in the first file, one is on none in the second."""
    (folder / "g").write_text("0 1 2\n3 4 5\n0 3 1\n1 4 1\n2 5 1\n")
    assert gtn.loadtxt(folder / "g").num_start() == 3
    (folder / "g").write_text("0 1 2\n3 4 5\n0 3 1\n1 4 1\n0 5 1\n")
    with pytest.raises(ValueError, match=r'format="openfst" .*or format="gtn"'):
        gtn.loadtxt(folder / "g")
    assert gtn.loadtxt(folder / "g", format="gtn").num_start() == 3
    with pytest.raises(ValueError, match='format must be "gtn" or "openfst", not \'fst\''):
        gtn.loadtxt(folder / "g", format="fst")


def test_broken_binary(folder):
    gtn.save(folder / "g", gtn.linear_graph(2, 2))
    whole = (folder / "g").read_bytes()
    numbers = np.frombuffer(whole, np.int32)

    def with_number(place, number):
        return np.where(np.arange(numbers.size) == place, np.int32(number), numbers).tobytes()

    assert with_number(0, 3) == whole
    changed = [with_number(*change) for change in ((0, 2), (4, -1), (5, 3), (6, 3), (7, -1), (8, -2))]
    nan = whole[:-4] + struct.pack("=f", math.nan)
    for data in (b"", whole[:-1], whole + b"x", b"\xff" * len(whole), *changed, nan):
        (folder / "broken").write_bytes(data)
        with pytest.raises(ValueError, match="not a graph written by save"):
            gtn.load(folder / "broken")
    (folder / "broken").write_bytes(with_number(0, 2**31 - 1))
    with pytest.raises(ValueError, match="broken has 2147483647 nodes, but names only 3"):
        gtn.load(folder / "broken")
    with pytest.raises(ValueError, match="no graph file"):
        gtn.load(folder / "missing")


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
def test_no_two_nodes_or_bends_overlap(g, extra):
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


def test_importing_the_engine_imports_nothing_large():
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
