"""Where a model's weights go and in which dtype, as lm-eval's options name them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import torch

#: Module names to places, or a word for a way of sharing a model out.
DeviceMap: TypeAlias = str | dict[str, str | int]

_DTYPES = {name: getattr(torch, name) for name in ("float32", "float16", "bfloat16", "float64")}
_WAYS = ("auto", "balanced", "balanced_low_0", "sequential")


def find_dtype(name: str | torch.dtype) -> torch.dtype | None:
    """The torch dtype called ``name``; None for ``auto``, which is the checkpoint's own.

    Raises:
        ValueError: not one of the floating dtypes of a model.
    """
    plain = str(name).removeprefix("torch.")
    if plain == "auto":
        return None
    if plain not in _DTYPES:
        raise ValueError(f"dtype: wanted one of {', '.join(_DTYPES)}, auto, got {name!r}")
    dtype: torch.dtype = _DTYPES[plain]
    return dtype


def find_device(name: str, *, argument: str = "device") -> torch.device:
    """The torch device called ``name``.

    Args:
        name: as torch writes it.
        argument: what an error calls it.

    Raises:
        ValueError: no such device here.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"{argument}: wanted cpu or cuda, got {name!r}") from error
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(
                f"{argument}: wanted one that torch can use here, got {name!r} without CUDA"
            )
        if (device.index or 0) >= (count := torch.cuda.device_count()):
            raise ValueError(f"{argument}: wanted one of the {count} here, got {name!r}")
    return device


def find_device_map(given: object) -> DeviceMap:
    """A device map for ``from_pretrained``: a word, or the place of every module.

    Args:
        given: ``auto`` (or another word for it), a device's name or number for the whole model, or
            a mapping from names of modules to such.

    Raises:
        ValueError: none of these, or a place that is not here.
    """
    if isinstance(given, str) and given in _WAYS:
        return given
    if isinstance(given, Mapping) and given:
        return {str(module): _place(place) for module, place in given.items()}
    return {"": _place(given)}


def _place(given: object) -> str | int:
    if isinstance(given, bool) or not isinstance(given, str | int | torch.device):
        raise ValueError(
            f"device_map: wanted one of {', '.join(_WAYS)}, a device, or a mapping of modules to "
            f"devices, got {given!r}"
        )
    name = f"cuda:{given}" if isinstance(given, int) else str(given)
    find_device(name, argument="device_map")
    return name
