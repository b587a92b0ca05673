"""Observations: the plain data that a probe returns, and their form on the wire and on disk.

An observation is a tree of dicts (string keys), lists, strings, numbers, booleans, None and tensors. It travels as
one safetensors file: the tensors as they are, the tree around them as JSON in the file's metadata. Decoding runs no
code of the sender: no pickle, no ``torch.load``.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

MAX_BYTES = 32 * 2**20  # a reply larger than this is refused unread


class Opaque:
    """Stands where an observation held something that is not plain data, such as an object of a student's class."""

    def __repr__(self) -> str:
        return "an object that is not plain data"


def encode(value: Any) -> bytes:
    """Write an observation (see the module's text); tuples become lists, numpy arrays become tensors.

    Whatever is not plain data becomes `Opaque` at the reader's end.
    """
    tensors: dict[str, torch.Tensor] = {}
    tree = _flatten(value, tensors)
    return save(tensors, metadata={"tree": json.dumps(tree)})


def decode(data: bytes) -> Any:
    """Read what `encode` wrote; raises ValueError for anything else, however malformed."""
    if len(data) > MAX_BYTES:
        raise ValueError(f"an observation holds at most {MAX_BYTES} bytes, this one has {len(data)}")
    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return _unflatten(json.loads(header["__metadata__"]["tree"]), tensors)
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError, AttributeError) as error:
        raise ValueError("these bytes are not an observation") from error


def _flatten(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        try:
            value = torch.from_numpy(np.array(value))
        except TypeError:
            return {"$opaque": True}
    if isinstance(value, torch.Tensor):
        plain = torch.Tensor.detach(value).as_subclass(torch.Tensor).cpu()
        if plain.layout is not torch.strided or plain.is_quantized or plain.is_complex():
            return {"$opaque": True}
        name = str(len(tensors))
        tensors[name] = (
            plain.contiguous().clone()
        )  # clone: two names may not share memory in a safetensors file
        return {"$tensor": name}
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, dict):
        if not all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {"$opaque": True}
        return {key: _flatten(item, tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_flatten(item, tensors) for item in value]
    return {"$opaque": True}


def _unflatten(tree: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(tree, dict):
        if "$tensor" in tree:
            return tensors[tree["$tensor"]]
        if "$opaque" in tree:
            return Opaque()
        return {key: _unflatten(item, tensors) for key, item in tree.items()}
    if isinstance(tree, list):
        return [_unflatten(item, tensors) for item in tree]
    return tree
