"""Observations: the plain data that a probe returns, and their form on the wire and on disk.

An observation is a tree of dicts (string keys), lists, strings, numbers, booleans, None and tensors. It travels as
one safetensors file: the tensors as they are, the tree around them as JSON in the file's metadata. Decoding runs no
code of the sender: no pickle, no ``torch.load``.
"""

import json
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load

MAX_BYTES = 32 * 2**20  # a message larger than this is refused unread
MAX_TREE_BYTES = 4 * 2**20  # of these, for the tree: once parsed, it takes twenty times the room of its text
_DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.bool: "BOOL"}
_DTYPES |= {torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8"}


class Ways(dict[str, Any]):
    """The same observed in several ways: way -> observation, or None where it could not be made that way.

    A right program need not be observable in all ways; see `ebmcourse.checking.assert_either_way`.
    """


class Size(NamedTuple):
    """Bytes of an encoded observation: of its tree and the names of its tensors, and of the whole."""

    tree: int
    total: int


LARGEST = Size(MAX_TREE_BYTES, MAX_BYTES)


class Opaque:
    """Stands where an observation held something that is not plain data, such as an object of a student's class."""

    def __repr__(self) -> str:
        return "an object that is not plain data"


def encode(value: Any) -> bytes:
    """Write an observation (see the module's text); tuples become lists, numpy arrays become tensors.

    Whatever is not plain data becomes `Opaque` at the reader's end.
    """
    encoder = Encoder()
    return encoder.finish(encoder.add(value))


class Encoder:
    """Writes one observation piece by piece, and each piece as it is when it is added.

    The file is put together here: safetensors' own `save` takes as long for small tensors as all else that a question
    costs.
    """

    def __init__(self) -> None:
        self._tensors: dict[str, dict[str, Any]] = {}
        self._parts: list[bytes] = []
        self._end = 0

    def add(self, value: Any) -> Any:
        """What stands for `value` in the tree that `finish` takes."""
        if isinstance(value, np.ndarray | np.generic):
            try:
                value = torch.from_numpy(np.array(value))
            except TypeError:
                return {"$opaque": True}
        if isinstance(value, torch.Tensor):
            return self._add_tensor(value)
        if type(value) is int and not _is_64_bit(value):
            return {"$opaque": True}
        if value is None or type(value) in (bool, int, float, str):
            return value
        if isinstance(value, dict):
            if not all(isinstance(key, str) and not key.startswith("$") for key in value):
                return {"$opaque": True}
            items = {key: self.add(item) for key, item in value.items()}
            return {"$ways": items} if isinstance(value, Ways) else items
        if isinstance(value, list | tuple):
            return [self.add(item) for item in value]
        return {"$opaque": True}

    def _add_tensor(self, value: torch.Tensor) -> Any:
        if value.layout is not torch.strided or value.dtype not in _DTYPES:
            return {"$opaque": True}
        tensor = torch.Tensor.detach(value).as_subclass(torch.Tensor).cpu().resolve_neg()
        bits = tensor.view(torch.int16) if tensor.dtype is torch.bfloat16 else tensor  # numpy has no bfloat16
        self._parts.append(bits.numpy().tobytes())
        begin, self._end = self._end, self._end + len(self._parts[-1])
        name = str(len(self._tensors))
        self._tensors[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": tensor.shape,
            "data_offsets": [begin, self._end],
        }
        return {"$tensor": name}

    def finish(self, tree: Any) -> bytes:
        """The file, for a tree of dicts and lists in which `add` stood for all values that are no text or number."""
        text = json.dumps({"__metadata__": {"tree": json.dumps(tree)}} | self._tensors).encode()
        text += b" " * (-len(text) % 8)
        return b"".join([len(text).to_bytes(8, "little"), text, *self._parts])


def encoded_size(value: Any) -> Size:
    """How many bytes `encode` makes of a value."""
    data = encode(value)
    return Size(int.from_bytes(data[:8], "little"), len(data))


def decode(data: bytes) -> Any:
    """Read what `encode` wrote; raises ValueError for anything else, however malformed."""
    tree_bytes = int.from_bytes(data[:8], "little")
    if not fits(data, LARGEST):
        raise ValueError(f"an observation holds at most {MAX_BYTES} bytes, {MAX_TREE_BYTES} of them for its tree")
    try:
        tensors = load(data)
        if not all(tensor.dtype in _DTYPES for tensor in tensors.values()):
            raise ValueError("a tensor of a kind that `encode` does not write")
        header = json.loads(data[8 : 8 + tree_bytes])
        return _unflatten(json.loads(header["__metadata__"]["tree"], parse_int=_integer), tensors)
    except Exception as error:  # whatever a parser stumbles over, the bytes are to blame
        raise ValueError("these bytes are not an observation") from error


def fits(data: bytes, limit: Size) -> bool:
    """Whether an encoded observation, which is not looked into, is no larger than the limit."""
    tree_bytes = min(int.from_bytes(data[:8], "little"), len(data))  # a larger number is malformed
    return len(data) <= limit.total and tree_bytes <= limit.tree


def _integer(text: str) -> int:
    number = int(text)
    if not _is_64_bit(number):
        raise ValueError("an integer of more than 64 bits")
    return number


def _is_64_bit(number: int) -> bool:
    """Whether 64 bits hold it, as in tensors: arithmetic with larger integers may overflow, or take long."""
    return -(2**63) <= number < 2**63


def _unflatten(tree: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(tree, dict):
        if "$tensor" in tree:
            return tensors[tree["$tensor"]]
        if "$opaque" in tree:
            return Opaque()
        if "$ways" in tree:
            return Ways(_unflatten(tree["$ways"], tensors))
        return {key: _unflatten(item, tensors) for key, item in tree.items()}
    if isinstance(tree, list):
        return [_unflatten(item, tensors) for item in tree]
    return tree


def copied(value: Any) -> Any:
    """A copy of a decoded observation that shares no tensor with it."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return type(value)((key, copied(item)) for key, item in value.items())
    return [copied(item) for item in value] if isinstance(value, list) else value
