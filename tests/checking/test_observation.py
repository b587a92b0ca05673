"""Observations come through unchanged, and no bytes whatsoever do anything but raise ValueError."""

import contextlib
import json
import math
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load

from ebmcourse.checking.observation import (
    MAX_BYTES,
    MAX_TREE_BYTES,
    Opaque,
    Size,
    Ways,
    copied,
    decode,
    encode,
    encoded_size,
    fits,
)

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool]
DTYPES += [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]


@st.composite
def tensors(draw):
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    raw = draw(st.binary(min_size=8 * math.prod(shape), max_size=8 * math.prod(shape)))
    numbers = torch.frombuffer(bytearray(raw or bytes(8)), dtype=torch.int64)[: math.prod(shape)].reshape(shape)
    tensor = numbers.to(draw(st.sampled_from(DTYPES)))
    return draw(st.sampled_from([tensor, tensor.mT if tensor.dim() > 1 else tensor, tensor[::2] if shape else tensor]))


plain = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text()
keys = st.text().filter(lambda key: not key.startswith("$"))
trees = st.recursive(
    plain | tensors(),
    lambda inner: st.lists(inner) | st.dictionaries(keys, inner) | st.tuples(inner, inner),
    max_leaves=12,
)


def same(a, b):
    """Equality of what went in and what came out: tuples become lists, NaN is NaN."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.shape == b.shape and a.tolist() == b.tolist()
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(b) is list and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or (a != a and b != b))


@given(trees)
def test_what_comes_out_is_what_went_in(tree):
    assert same(tree, decode(encode(tree)))


@given(trees)
def test_the_same_value_has_the_same_bytes(tree):
    assert encode(tree) == encode(decode(encode(tree)))


@given(st.lists(tensors()))
def test_an_observation_is_a_safetensors_file(values):
    out = load(encode(values))
    assert all(same(value, out[str(number)]) for number, value in enumerate(values)) and len(out) == len(values)


class Anything:
    """Equal to all, and a command when it is unpickled."""

    __hash__ = None

    def __eq__(self, other):
        return True

    def __reduce__(self):
        raise AssertionError("somebody pickles observations")


class Number(float):
    pass


class Torch(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        with torch._C.DisableTorchFunctionSubclass():
            return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "value",
    [
        Anything(),
        Number(1.0),
        np.array(["text"]),
        np.array([None, 1], dtype=object),
        torch.ones(2, dtype=torch.complex64),
        torch.ones(2).to_sparse(),
        2**63,
        {1: "a key that is no text"},
        {"$tensor": "0"},
        {"$opaque": False},
        {"$ways": {}},
        print,
        Anything,
    ],
)
def test_what_is_not_plain_data_becomes_opaque(value):
    assert isinstance(decode(encode(value)), Opaque)
    assert isinstance(decode(encode([{"deep": value}]))[0]["deep"], Opaque)


def test_arrays_and_subclasses_become_plain_tensors():
    graph = torch.ones(2, requires_grad=True) * 2
    for value in (
        np.float32(2),
        np.arange(6).reshape(2, 3).T,
        graph,
        graph.as_subclass(Torch),
        np.ma.masked_array([1, 2]),
    ):
        out = decode(encode(value))
        assert type(out) is torch.Tensor and not out.requires_grad
        assert np.array_equal(out.numpy(), np.asarray(value.detach() if isinstance(value, torch.Tensor) else value))


def test_several_ways_come_out_as_such():
    out = decode(encode({"seen": Ways(whole=None, isolated=torch.ones(2))}))
    assert type(out) is dict and type(out["seen"]) is Ways and out["seen"]["whole"] is None
    other = copied(out)
    assert type(other["seen"]) is Ways and other["seen"]["isolated"] is not out["seen"]["isolated"]


@given(trees)
def test_an_observation_fits_its_own_size_and_no_smaller_one(tree):
    size, data = encoded_size(tree), encode(tree)
    assert fits(data, size)
    assert not fits(data, Size(size.tree - 1, size.total)) and not fits(data, Size(size.tree, size.total - 1))


def test_a_view_that_only_claims_to_be_negated_comes_out_negated():
    assert decode(encode(torch._neg_view(torch.arange(3.0)))).tolist() == [0, -1, -2]


def test_tensors_that_share_memory_come_out_apart():
    x = torch.arange(4.0)
    first, second = decode(encode([x, x[1:]]))
    first.zero_()
    assert second.tolist() == [1, 2, 3]


def frame(header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def tree(text, body=b"", **tensors):
    return frame({"__metadata__": {"tree": text}, **tensors}, body)


@given(st.binary(max_size=200))
def test_random_bytes_raise_value_error(data):
    with pytest.raises(ValueError):
        decode(data)


@given(tree=trees, cuts=st.lists(st.tuples(st.integers(0, 10**6), st.binary(max_size=3)), min_size=1, max_size=4))
def test_damaged_observations_raise_value_error_or_are_observations(tree, cuts):
    data = bytearray(encode(tree))
    for place, patch in cuts:
        place %= len(data)
        data[place : place + len(patch) or 1] = patch
    with contextlib.suppress(ValueError):
        encode(decode(bytes(data)))


entries = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(
            ["F32", "F64", "BF16", "BOOL", "U8", "U16", "U64", "F8_E4M3", "C64", "F4", "", 7, None]
        ),
        "shape": st.lists(st.integers(-2, 4) | st.sampled_from([2**31, 2**62, 2**64, 0.5, "3"]), max_size=3),
        "data_offsets": st.lists(st.integers(-1, 20) | st.just(2**63), max_size=3),
    },
)
documents = st.recursive(
    plain | st.integers() | st.sampled_from([{"$tensor": "0"}, {"$tensor": []}, {"$opaque": 1}, {"$ways": {"x": 1}}]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(text=documents.map(json.dumps) | st.text(), entry=entries, body=st.binary(max_size=24))
def test_forged_headers_raise_value_error_or_are_observations(text, entry, body):
    with contextlib.suppress(ValueError):
        encode(decode(tree(text, body, **{"0": entry})))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        struct.pack("<Q", 2**60),
        struct.pack("<Q", 2**64 - 1) + b"{}",
        frame(b"{}"),
        frame({"__metadata__": {"tree": 5}}),
        frame({"__metadata__": []}),
        tree("[" * 100_000 + "]" * 100_000),
        tree('{"a":' * 50_000 + "1" + "}" * 50_000),
        tree("9" * 5000),
        tree(str(2**63)),
        tree('{"$tensor": "missing"}'),
        tree('{"$tensor": ["0"]}'),
        tree('{"$ways": [1]}'),
        tree('{"$ways": null}'),
        tree("0", bytes(4), x={"dtype": "F8_E5M2", "shape": [4], "data_offsets": [0, 4]}),
        bytes(MAX_BYTES + 1),
        tree("[" + ",".join(["[]"] * (MAX_TREE_BYTES // 3)) + "]"),
        b"\x80\x04\x95\x1b\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x04exit\x94\x85\x94R\x94.",
    ],
)
def test_hostile_messages_raise_value_error(data):
    with pytest.raises(ValueError):
        decode(data)
