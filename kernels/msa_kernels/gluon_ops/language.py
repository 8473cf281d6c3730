"""Gluon's names that are not the same in every version of Triton from 3.6 on."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia import blackwell
from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.blackwell import TensorMemoryLayout
from triton.experimental.gluon.language.nvidia.hopper import tma

#: Renamed in 3.9.
bulk_load = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared
#: Rows of a matrix by their numbers, on Blackwell.
bulk_gather = blackwell.tma.async_gather
#: Elements by their addresses, by threads; renamed in 3.9.
scattered_load = getattr(async_copy, "async_load", None) or async_copy.async_copy_global_to_shared
commit_group, wait_group = async_copy.commit_group, async_copy.wait_group
_FUNCTION = getattr(blackwell, "get_tmem_reg_layout", None)


@gluon.constexpr_function
def tensor_memory_registers(rows: int, width: int, warps: int) -> object:
    """How ``warps`` hold a float32 tile ``[rows, width]`` of tensor memory: a row a thread."""
    layout = TensorMemoryLayout([rows, width], col_stride=1)
    if _FUNCTION is not None:
        return _FUNCTION(gl.float32, [rows, width], layout, warps)
    kind = blackwell.tensor_memory_descriptor_type(gl.float32, [rows, width], layout, [rows, width])
    return kind.get_reg_layout(num_warps=warps)


@gluon.constexpr_function
def product_registers(
    tensor_memory: bool,
    rows: int,
    width: int,
    element: gl.dtype,
    warps: int,
) -> object:
    """How ``warps`` hold a product ``[rows, width]`` of operands of ``element``, in either arm."""
    if tensor_memory:
        return tensor_memory_registers(rows, width, warps)
    depth = 256 // element.primitive_bitwidth
    return gl.NVMMADistributedLayout([3, 0], [warps, 1], [16, width, depth])


@gluon.constexpr_function
def _spread(rows: int, dim: int, warps: int) -> tuple[int, int]:
    """Of ``rows`` in NVFP4: the groups of a row that a thread has, and the threads of a row.

    A thread has as many as it can: it needs fewer addresses so, and with the swizzle of the tiles
    threads that walk along their rows meet no bank twice.
    """
    groups = dim // 16
    each = min(max(rows * groups // (32 * warps), 1), groups)
    return each, groups // each


@gluon.constexpr_function
def byte_registers(rows: int, dim: int, warps: int) -> object:
    """How ``warps`` hold the bytes ``[rows, dim / 2]`` of NVFP4."""
    each, lanes = _spread(rows, dim, warps)
    return gl.BlockedLayout([1, each * 8], [32 // lanes, lanes], [warps, 1], [1, 0])


@gluon.constexpr_function
def group_registers(rows: int, dim: int, warps: int) -> object:
    """How they hold the elements of these, ``[rows, dim / 16, 16]``."""
    each, lanes = _spread(rows, dim, warps)
    return gl.BlockedLayout([1, each, 16], [32 // lanes, lanes, 1], [warps, 1, 1], [2, 1, 0])
