"""Inputs as somebody has them who reads bytes of E4M3 or NVFP4, or factors, in another way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from msa.quantized import E4M3, NVFP4
from msa_suites.correctness.material import Material
from msa_suites.eight_bits import meant_packed
from msa_suites.inputs import Inputs

_FORMATS = {
    "E4M3 FNUZ": torch.float8_e4m3fnuz,
    "E5M2": torch.float8_e5m2,
}

#: Elements and scales of NVFP4 as they are taken to be.
_PACKED: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "of the two in a byte the high one is taken for the first": lambda x, scales: (
        (x.view(torch.uint8) << 4 | x.view(torch.uint8) >> 4).view(NVFP4),
        scales,
    ),
    "the scales of NVFP4 (descale) are dropped": lambda x, scales: (
        x,
        torch.ones_like(scales, dtype=torch.float32).to(E4M3),
    ),
    "the scale of the next 16 channels is used": lambda x, scales: (
        x,
        scales.roll(-1, -1),
    ),
    "scales are read as E4M3 FNUZ instead of E4M3 FN": lambda x, scales: (
        x,
        scales.view(torch.float8_e4m3fnuz).float().to(E4M3),
    ),
}


def misreadings(m: Material, names: tuple[str, ...]) -> Iterator[tuple[str, Inputs]]:
    """Causes and the values that they give, float64.

    Args:
        m: of the case; nothing comes where none of the tensors is in E4M3 or NVFP4.
        names: of the tensors that are read.
    """
    held = [name for name in names if getattr(m.inputs, name).dtype == E4M3]
    for name in held:
        factor = m.inputs.descales[name].double()[:, None]
        plain = getattr(m.exactly, name)
        yield (
            f"the factor of {name} ({name}_descale) is dropped",
            _with(m.exactly, {name: plain / factor}),
        )
        yield (
            f"the factor of the first head of {name} serves all heads",
            _with(m.exactly, {name: plain / factor * factor[0]}),
        )
    if held:
        dropped = {name: _decoded(m, name, E4M3, factors=False) for name in held}
        yield "all factors (descale) are dropped", _with(m.exactly, dropped)
        for words, dtype in _FORMATS.items():
            other = {name: _decoded(m, name, dtype, factors=True) for name in held}
            yield f"bytes are read as {words} instead of E4M3 FN", _with(m.exactly, other)
    packed = [name for name in names if getattr(m.inputs, name).dtype == NVFP4]
    for words, taken in _PACKED.items() if packed else ():
        other = {
            name: meant_packed(*taken(getattr(m.inputs, name), m.inputs.descales[name]))
            for name in packed
        }
        yield words, _with(m.exactly, other)


def _with(x: Inputs, changed: dict[str, Any]) -> Inputs:
    return replace(x, **changed)


def _decoded(m: Material, name: str, dtype: torch.dtype, *, factors: bool) -> Tensor:
    stored: Tensor = getattr(m.inputs, name)
    values = stored.view(dtype).double()
    return values * m.inputs.descales[name].double()[:, None] if factors else values
