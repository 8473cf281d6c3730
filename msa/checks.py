"""Checks of what callers hand in. Each message names the argument, what was wanted, what came."""

from __future__ import annotations

from itertools import pairwise
from typing import TypeGuard

import torch
from torch import Tensor

from msa.packing import block_columns, segments

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
#: The one format of eight bits: E5M2, and AMD's E4M3 FNUZ whose bytes mean half as much, are none.
E4M3 = torch.float8_e4m3fn
#: The one format of four bits, two elements a byte, and how many channels share a scale.
NVFP4 = torch.float4_e2m1fn_x2
GROUP = 16
_LARGEST = torch.finfo(torch.float64).max
#: Sizes that may be zero: a batch without queries, or without keys. All other sizes are above it.
_MAY_BE_ZERO = ("T", "Tq", "Tk")


def came(x: object) -> str:
    """What was handed in, in words."""
    if isinstance(x, Tensor):
        return f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)} on {x.device}"
    return f"{type(x).__name__} {x!r}"


def is_whole(value: object) -> TypeGuard[int]:
    """An int, and no bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def require_positive(name: str, value: object) -> None:
    """``value`` is an int above zero."""
    if not is_whole(value) or value < 1:
        raise ValueError(f"{name}: wanted an int above 0, got {came(value)}")


def require_scale(name: str, value: object) -> None:
    """``value`` is a finite number."""
    # An int may be above every float.
    if not (is_whole(value) or isinstance(value, float)) or not -_LARGEST <= value <= _LARGEST:
        raise ValueError(f"{name}: wanted a finite number, got {came(value)}")


def require_tensor(
    name: str,
    x: object,
    shape: tuple[int | str, ...],
    *,
    like: Tensor | None = None,
    quantized: bool = False,
    packed: bool = False,
) -> None:
    """``x`` is a floating tensor of ``shape``, with the dtype and the device of ``like``.

    A str in ``shape`` stands for any size above zero; a number of tokens may be zero. With
    ``quantized`` its dtype may also be E4M3, with ``packed`` also NVFP4, of which the last size is
    that of bytes: half of the one in ``shape``.

    Raises:
        TypeError: not a tensor, or of another dtype.
        ValueError: of another shape, or on another device.
    """
    wanted = f"[{', '.join(map(str, shape))}]"
    if not isinstance(x, Tensor):
        kind = "floating" if like is None else str(like.dtype).removeprefix("torch.")
        raise TypeError(f"{name}: wanted a {kind} tensor {wanted}, got {came(x)}")
    allowed = FLOATS if like is None else (like.dtype,)
    narrow = [*((E4M3,) if quantized else ()), *((NVFP4,) if packed else ())]
    if x.dtype not in (*allowed, *narrow):
        dtype = "a floating dtype" if like is None else str(like.dtype).removeprefix("torch.")
        others = (str(x).removeprefix("torch.") for x in narrow if x not in allowed)
        raise TypeError(f"{name}: wanted {' or '.join((dtype, *others))} {wanted}, got {came(x)}")
    if packed and x.dtype == NVFP4:
        shape = (*shape[:-1], halved(name, shape[-1]))
        wanted = f"[{', '.join(map(str, shape))}]"
    fits = x.ndim == len(shape) and all(
        (have > 0 or want in _MAY_BE_ZERO) if isinstance(want, str) else want == have
        for want, have in zip(shape, x.shape, strict=True)
    )
    if not fits:
        empty = [want for want, have in zip(shape, x.shape, strict=False) if not have]
        above = [want for want in empty if isinstance(want, str) and want not in _MAY_BE_ZERO]
        hint = f" with {' and '.join(above)} above 0" if above else ""
        raise ValueError(f"{name}: wanted shape {wanted}{hint}, got {came(x)}")
    if like is not None and x.device != like.device:
        raise ValueError(f"{name}: wanted a tensor on {like.device}, got {came(x)}")


def halved(name: str, size: int | str) -> int | str:
    """Bytes of ``size`` channels in NVFP4.

    Raises:
        ValueError: they are no groups of 16.
    """
    if isinstance(size, str):
        return f"{size} / 2"
    if size % GROUP:
        raise ValueError(f"{name}: wanted channels in groups of {GROUP} for NVFP4, got {size}")
    return size // 2


def require_finite(name: str, x: Tensor) -> None:
    """No element of ``x`` is inf or NaN."""
    x = x.float() if x.dtype == E4M3 else x
    if not bool(torch.isfinite(x).all()):
        bad = (~torch.isfinite(x)).nonzero()[0].tolist()
        raise ValueError(f"{name}: wanted finite values, got {x[tuple(bad)].item()} at index {bad}")


def require_descale(name: str, descale: object, x: Tensor, *, axis: int, read: bool = True) -> None:
    """``descale`` is None, or the factors of the heads of an ``x`` in E4M3: float32 ``[heads]``.

    Of an ``x`` in NVFP4 it is the scales of all groups of channels, E4M3 of x's shape with an
    eighth of its last size, and never None. What is not read may be NaN there.

    Args:
        name: of the factors.
        descale: the factors.
        x: what they belong to.
        axis: of the heads in x.
        read: whether the factors themselves are looked at, which waits for their device.
    """
    if x.dtype == NVFP4:
        wanted = (*x.shape[:-1], x.shape[-1] * 2 // GROUP)
        require_tensor(name, descale, wanted, like=x.new_empty(0, dtype=E4M3))
        return
    if descale is None:
        return
    if x.dtype != E4M3:
        dtype = str(x.dtype).removeprefix("torch.")
        raise ValueError(f"{name}: wanted none for elements in {dtype}, got {came(descale)}")
    heads = x.shape[axis]
    if (
        not isinstance(descale, Tensor)
        or descale.dtype != torch.float32
        or tuple(descale.shape) != (heads,)
        or descale.device != x.device
    ):
        raise ValueError(f"{name}: wanted float32 [{heads}] on {x.device}, got {came(descale)}")
    if read and not bool((descale.isfinite() & (descale > 0)).all()):
        raise ValueError(f"{name}: wanted finite factors above 0, got {descale.tolist()}")


def require_packing(
    cu_q: object, cu_k: object, q_rows: int, k_rows: int | None, *, read: bool = True
) -> None:
    """``cu_q`` and ``cu_k`` are int32 ``[B + 1]`` running totals that cover the rows.

    Args:
        cu_q: totals of the query rows.
        cu_k: totals of the key rows.
        q_rows: number of query rows.
        k_rows: number of key rows, or None where no key tensor is at hand.
        read: whether the totals themselves are looked at, which waits for the device they are on.
    """
    for name, cu, rows in (("cu_q", cu_q, q_rows), ("cu_k", cu_k, k_rows)):
        if not isinstance(cu, Tensor) or cu.dtype != torch.int32 or cu.ndim != 1 or len(cu) < 2:
            raise ValueError(f"{name}: wanted int32 [B + 1] running totals, got {came(cu)}")
        if not read:
            continue
        totals = cu.tolist()
        if totals[0] != 0 or any(b < a for a, b in pairwise(totals)):
            raise ValueError(f"{name}: wanted totals that start at 0 and never fall, got {totals}")
        if rows is not None and totals[-1] != rows:
            raise ValueError(f"{name}: wanted a last total of {rows} rows, got {totals[-1]}")
    assert isinstance(cu_q, Tensor) and isinstance(cu_k, Tensor)
    if len(cu_q) != len(cu_k):
        raise ValueError(
            f"cu_k: wanted as many sequences as cu_q ({len(cu_q) - 1}), got {len(cu_k) - 1}"
        )
    for index, segment in enumerate(segments(cu_q, cu_k) if read else ()):
        if segment.q_len > segment.k_len:
            raise ValueError(
                f"cu_q: wanted at most as many queries as keys in sequence {index}, "
                f"got {segment.q_len} queries and {segment.k_len} keys"
            )


def require_groups(q_heads: int, kv_heads: int) -> None:
    """Query heads are a multiple of the KV heads."""
    if kv_heads < 1 or q_heads % kv_heads:
        raise ValueError(
            f"q: wanted a number of heads that is a multiple of k's {kv_heads}, got {q_heads}"
        )


def require_budget(topk: object, local_blocks: object, sink_blocks: object) -> None:
    """k has room for the forced blocks, and at least the local one is forced."""
    require_positive("topk", topk)
    require_positive("local_blocks", local_blocks)
    if not is_whole(sink_blocks) or sink_blocks < 0:
        raise ValueError(f"sink_blocks: wanted an int of 0 or more, got {came(sink_blocks)}")
    assert isinstance(topk, int) and isinstance(local_blocks, int)
    if topk < local_blocks + sink_blocks:
        raise ValueError(
            f"topk: wanted at least the {local_blocks} local + {sink_blocks} sink blocks that "
            f"are forced, got {topk}"
        )


def require_scores(scores: Tensor, cu_q: Tensor, cu_k: Tensor, block: int) -> None:
    """Float32 ``scores`` are ``[Tq, Hkv, NB]``."""
    columns = block_columns(cu_k, block)
    fits = scores.shape[0] == int(cu_q[-1]) and scores.shape[2] >= columns
    if not fits or not scores.shape[1]:
        raise ValueError(
            f"scores: wanted [{int(cu_q[-1])}, Hkv, at least {columns}] for these lengths and "
            f"blocks of {block}, got {came(scores)}"
        )


def require_selection(selection: object, rows: tuple[int, ...], kv_heads: int) -> None:
    """``selection`` is int32 ``[*rows, Hkv, k]``."""
    shape = f"[{', '.join(map(str, (*rows, kv_heads)))}, k]"
    if not isinstance(selection, Tensor) or selection.dtype != torch.int32:
        raise TypeError(f"selection: wanted int32 {shape}, got {came(selection)}")
    if tuple(selection.shape[:-1]) != (*rows, kv_heads) or selection.shape[-1] < 1:
        raise ValueError(f"selection: wanted {shape}, got {came(selection)}")
