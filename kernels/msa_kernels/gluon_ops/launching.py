"""A launch of a kernel in an arm: on its GPU, or simulated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from msa import fast
from msa.quantized import E4M3, NVFP4
from msa_kernels.gluon_ops.arms import Arm
from msa_kernels.gluon_ops.simulating import simulate
from msa_kernels.triton_ops.combining import merge
from msa_kernels.triton_ops.limits import on
from msa_kernels.triton_ops.tiles import FUSION

_ELEMENTS = {
    torch.float16: gl.float16,
    torch.bfloat16: gl.bfloat16,
    E4M3: gl.float8e4nv,
    torch.uint8: gl.uint8,
}


def launch(
    arm: Arm,
    kernel: Any,  # noqa: ANN401 - Triton's
    grid: Sequence[int],
    *args: object,
    near: Tensor,
    **constants: object,
) -> None:
    """Run ``kernel`` over ``grid`` on the device of ``near``."""
    if 0 in grid:
        return
    constants["TENSOR_MEMORY"] = arm.tensor_memory
    if arm.simulated:
        simulate(kernel, grid, args, constants, num_warps=arm.warps)
        return
    with on(near):
        kernel[tuple(grid)](*args, **constants, num_warps=arm.warps, **FUSION)


def gl_float(dtype: torch.dtype) -> gl.dtype:
    """Gluon's name of a dtype."""
    return _ELEMENTS[dtype]


def boxes(x: Tensor, rows: int, columns: int, *, gathered: bool = False) -> TensorDescriptor:
    """A descriptor for bulk copies of ``[rows, columns]`` of a matrix.

    Args:
        x: ``[n, m]`` with adjacent columns; rows 16 bytes apart or a multiple of that.
        rows: of the tile that is filled.
        columns: of it.
        gathered: whether the rows of a tile are named one by one.
    """
    layout = gl.NVMMASharedLayout.get_default_for([rows, columns], _ELEMENTS[x.dtype])
    return TensorDescriptor.from_tensor(x, [1 if gathered else rows, columns], layout)


def as_matrix(x: Tensor, columns: int) -> Tensor:
    """``x`` as ``[n, columns]`` that bulk copies can read: itself where it lies so, else a copy.

    NVFP4 becomes bytes, for Triton has no name for it.
    """
    flat = (x.view(torch.uint8) if x.dtype == NVFP4 else x).contiguous()
    return (flat.clone() if flat.data_ptr() % 16 else flat).view(-1, columns)


def as_given(*pairs: tuple[Tensor, Tensor | None]) -> tuple[Tensor | None, ...]:
    """What kernels want of tensors and what stands beside them: factors of heads, or scales.

    Args:
        pairs: queries first, which have no scales.

    Returns:
        Factors of each, then scales of each but the first; contiguous, or None for none.
    """
    given = [(x.dtype == NVFP4, None if one is None else one.contiguous()) for x, one in pairs]
    factors = (None if scaled else one for scaled, one in given)
    return (*factors, *(one if scaled else None for scaled, one in given[1:]))


def merge_slots(arm: Arm, outs: Tensor, lses: Tensor, out: Tensor, lse: Tensor) -> None:
    """Merge the slots of each row; one without a block has LSE -inf, and is not read.

    Args:
        arm: where to run.
        outs: ``[rows, heads, k, D]``.
        lses: float32 ``[rows, heads, k]``.
        out: ``[rows, heads, D]``, filled in.
        lse: float32 ``[rows, heads]``, filled in.
    """
    outs, lses = outs.permute(2, 0, 1, 3), lses.permute(2, 0, 1)
    if not arm.simulated:
        merge(outs, lses, out, lse)
        return
    merged, total = fast.combine(outs.float().contiguous(), lses.contiguous())
    out.copy_(merged)
    lse.copy_(total)
