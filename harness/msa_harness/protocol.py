"""Frames between judge and worker: 8 bytes of length, then plain values.

Plain values are tensors, numbers, texts, None, and lists, tuples and dicts of them: by `torch.save`
where there is a tensor, else, ten times as fast, by pickle. Torch's are read with `weights_only`,
the others by an unpickler that knows no names: neither side can make the other run code. This
module runs in the environment of the code under test and imports torch and the standard library
only.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn, TypeAlias

import torch

VERSION: Final = 1
HEADER: Final = struct.Struct(">Q")
LARGEST: Final = 1 << 40
_REF: Final = "$ref"
_ROWS: Final = "$rows"
_ZIP: Final = b"PK\x03\x04"

# A tree of plain values; its shape is known to the caller only.
Tree: TypeAlias = Any


def ref(handle: str) -> dict[str, str]:
    """Stands in the arguments of a request for the object kept under a handle."""
    return {_REF: handle}


class _Nameless(pickle.Unpickler):
    """Builds plain values; anything that has to be looked up by name could run code."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise ValueError(f"message: wanted plain values, got {module}.{name}")


def encode(message: Mapping[str, object]) -> memoryview:
    """A whole frame, length included.

    Raises:
        TypeError: Something in the message is not a plain value; the text says where.
    """
    buffer = io.BytesIO()
    buffer.write(HEADER.pack(0))
    values = plain(dict(message), "message")
    if tensors_in(values):
        torch.save(values, buffer)
    else:
        pickle.dump(values, buffer, protocol=4)
    frame = buffer.getbuffer()
    HEADER.pack_into(frame, 0, len(frame) - HEADER.size)
    return frame


def frame_length(header: bytes | bytearray) -> int:
    """Length of what follows a header.

    Raises:
        ValueError: No sane length: something else wrote into the pipe.
    """
    length: int = HEADER.unpack(header)[0]
    if length > LARGEST:
        raise ValueError(f"frame: wanted a length up to {LARGEST}, got {length}")
    return length


def decode(data: bytes | bytearray) -> dict[str, object]:
    """The message of a frame, without its header.

    Raises:
        ValueError: The bytes are no message.
    """
    if data[: len(_ZIP)] == _ZIP:
        message = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    else:
        message = _Nameless(io.BytesIO(data)).load()
    if not isinstance(message, dict):
        raise ValueError(f"message: wanted a dict, got {type(message).__name__}")
    return message


def plain(value: object, where: str) -> object:
    """The value, ready to be sent: tensors detached and on the CPU, strides as they were.

    A tensor must be exactly that: a subclass could put its work off until it is read.

    Raises:
        TypeError: Not a plain value; the text names the place and the type.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.Tensor):
        return _plain_tensor(value, where)
    if isinstance(value, tuple):
        return tuple(plain(item, f"{where}[{i}]") for i, item in enumerate(value))
    if isinstance(value, list):
        return [plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: plain(item, f"{where}.{key}") for key, item in value.items()}
    kind = type(value)
    raise TypeError(
        f"{where}: wanted a tensor, number, text, None, or a list, tuple or dict (text keys) of "
        f"them, got {kind.__module__}.{kind.__qualname__}"
    )


def _plain_tensor(tensor: torch.Tensor, where: str) -> torch.Tensor:
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        raise TypeError(f"{where}: wanted exactly a torch.Tensor, got {type(tensor).__qualname__}")
    if not _has_data(tensor):
        raise TypeError(
            f"{where}: wanted a dense tensor with data, got layout {tensor.layout} "
            f"on {tensor.device}"
        )
    return tensor.detach().cpu()


def sampled(value: Tree, rows: Sequence[int]) -> Tree:
    """The tree with only some rows of its longer tensors, see `spread`.

    Args:
        value: Anything; what is not a plain value stays as it is.
        rows: Along the first dimension. A tensor without these rows stays whole.
    """
    whole = type(value) is not torch.Tensor or not _has_data(value) or not value.dim()
    if not whole and value.shape[0] > max(rows):
        picked = value[torch.tensor(rows, device=value.device)]
        return {_ROWS: picked, "shape": list(value.shape)}
    if type(value) is dict:
        return {key: sampled(item, rows) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(sampled(item, rows) for item in value)
    return value


def spread(value: Tree, rows: Sequence[int]) -> Tree:
    """The tree before `sampled`: of whole shape, but with undefined contents in all other rows."""
    if isinstance(value, dict) and _ROWS in value:
        picked = value[_ROWS]
        whole = picked.new_empty(value["shape"])
        whole[list(rows)] = picked
        return whole
    if isinstance(value, dict):
        return {key: spread(item, rows) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(spread(item, rows) for item in value)
    return value


def _has_data(tensor: torch.Tensor) -> bool:
    odd = tensor.layout is not torch.strided or tensor.device.type == "meta"
    return not odd and not tensor.is_quantized


def resolved(value: object, lookup: Callable[[str], object]) -> object:
    """A copy of a tree of arguments in which every `ref` is replaced by what it stands for."""
    if isinstance(value, dict):
        if set(value) == {_REF}:
            return lookup(str(value[_REF]))
        return {key: resolved(item, lookup) for key, item in value.items()}
    if isinstance(value, list):
        return [resolved(item, lookup) for item in value]
    if isinstance(value, tuple):
        return tuple(resolved(item, lookup) for item in value)
    return value


def tensors_in(value: object) -> list[torch.Tensor]:
    """All tensors of a tree, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in tensors_in(item)]
    return []


def moved(value: Tree, device: torch.device) -> Tree:
    """The tree on a device; where it is there already, the very tensors, strides and all."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: moved(item, device) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(moved(item, device) for item in value)
    return value
