"""Differentiable weighted automata with the interface of the gtn library (Hannun et al., 2020).

    from ebmcourse import gtn

`docs/engine.md` explains it in pictures.
"""

from .autodiff import backward
from .compare import equal, isomorphic, rand_equivalent, sample
from .compose import compose, intersect
from .ctc import collapse, ctc_graph, most_offending_path, other_strings
from .device import CPU, CUDA, Device, DeviceType
from .functions import (
    add,
    clone,
    closure,
    concat,
    negate,
    project_input,
    project_output,
    remove,
    subtract,
    union,
)
from .graph import Graph, epsilon, linear_graph, scalar_graph
from .io import draw, load, loadtxt, save, savetxt, write_dot
from .lists import parallel_for
from .semiring import Counting, KBest, Log, MinPlus, Tropical
from .shortest import forward_score, nbest, viterbi_path, viterbi_score
from .warm import warm_up

__all__ = [
    "CPU",
    "CUDA",
    "Counting",
    "Device",
    "DeviceType",
    "Graph",
    "KBest",
    "Log",
    "MinPlus",
    "Tropical",
    "add",
    "backward",
    "clone",
    "closure",
    "collapse",
    "compose",
    "concat",
    "ctc_graph",
    "draw",
    "epsilon",
    "equal",
    "forward_score",
    "intersect",
    "isomorphic",
    "linear_graph",
    "load",
    "loadtxt",
    "most_offending_path",
    "nbest",
    "negate",
    "other_strings",
    "parallel_for",
    "project_input",
    "project_output",
    "rand_equivalent",
    "remove",
    "sample",
    "save",
    "savetxt",
    "scalar_graph",
    "subtract",
    "union",
    "viterbi_path",
    "viterbi_score",
    "warm_up",
    "write_dot",
]
