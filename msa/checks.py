"""Checks of what callers hand in. Each message names the argument, what was wanted, what came."""

from __future__ import annotations

from itertools import pairwise
from typing import TypeGuard

import torch
from torch import Tensor

from msa.packing import block_columns, segments

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_LARGEST = torch.finfo(torch.float64).max
#: Sizes that may be zero: a batch without queries, or without keys. All other sizes are above it.
_MAY_BE_ZERO = ("T", "Tq", "Tk")


def _came(x: object) -> str:
    if isinstance(x, Tensor):
        return f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)} on {x.device}"
    return f"{type(x).__name__} {x!r}"


def is_whole(value: object) -> TypeGuard[int]:
    """An int, and no bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def require_positive(name: str, value: object) -> None:
    """``value`` is an int above zero."""
    if not is_whole(value) or value < 1:
        raise ValueError(f"{name}: wanted an int above 0, got {_came(value)}")


def require_scale(name: str, value: object) -> None:
    """``value`` is a finite number."""
    # An int may be above every float.
    if not (is_whole(value) or isinstance(value, float)) or not -_LARGEST <= value <= _LARGEST:
        raise ValueError(f"{name}: wanted a finite number, got {_came(value)}")


def require_tensor(
    name: str, x: object, shape: tuple[int | str, ...], *, like: Tensor | None = None
) -> None:
    """``x`` is a floating tensor of ``shape``, with the dtype and the device of ``like``.

    A str in ``shape`` stands for any size above zero; a number of tokens may be zero.

    Raises:
        TypeError: not a tensor, or of another dtype.
        ValueError: of another shape, or on another device.
    """
    wanted = f"[{', '.join(map(str, shape))}]"
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: wanted a floating tensor {wanted}, got {_came(x)}")
    if x.dtype not in FLOATS or (like is not None and x.dtype != like.dtype):
        dtype = "a floating dtype" if like is None else str(like.dtype).removeprefix("torch.")
        raise TypeError(f"{name}: wanted {dtype} {wanted}, got {_came(x)}")
    fits = x.ndim == len(shape) and all(
        (have > 0 or want in _MAY_BE_ZERO) if isinstance(want, str) else want == have
        for want, have in zip(shape, x.shape, strict=True)
    )
    if not fits:
        empty = [want for want, have in zip(shape, x.shape, strict=False) if not have]
        above = [want for want in empty if isinstance(want, str) and want not in _MAY_BE_ZERO]
        hint = f" with {' and '.join(above)} above 0" if above else ""
        raise ValueError(f"{name}: wanted shape {wanted}{hint}, got {_came(x)}")
    if like is not None and x.device != like.device:
        raise ValueError(f"{name}: wanted a tensor on {like.device}, got {_came(x)}")


def require_finite(name: str, x: Tensor) -> None:
    """No element of ``x`` is inf or NaN."""
    if not bool(torch.isfinite(x).all()):
        bad = (~torch.isfinite(x)).nonzero()[0].tolist()
        raise ValueError(f"{name}: wanted finite values, got {x[tuple(bad)].item()} at index {bad}")


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
            raise ValueError(f"{name}: wanted int32 [B + 1] running totals, got {_came(cu)}")
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
        raise ValueError(f"sink_blocks: wanted an int of 0 or more, got {_came(sink_blocks)}")
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
            f"blocks of {block}, got {_came(scores)}"
        )


def require_selection(selection: object, rows: tuple[int, ...], kv_heads: int) -> None:
    """``selection`` is int32 ``[*rows, Hkv, k]``."""
    shape = f"[{', '.join(map(str, (*rows, kv_heads)))}, k]"
    if not isinstance(selection, Tensor) or selection.dtype != torch.int32:
        raise TypeError(f"selection: wanted int32 {shape}, got {_came(selection)}")
    if tuple(selection.shape[:-1]) != (*rows, kv_heads) or selection.shape[-1] < 1:
        raise ValueError(f"selection: wanted {shape}, got {_came(selection)}")


def check_index(
    q_idx: Tensor, k_idx: Tensor, cu_q: Tensor, cu_k: Tensor, block: int, *, read: bool = True
) -> None:
    """Arguments of ``block_scores``; ``read`` as in :func:`require_packing`, here and below."""
    require_tensor("q_idx", q_idx, ("Tq", "Hkv", "Di"))
    groups, dim = q_idx.shape[1:]
    require_tensor("k_idx", k_idx, ("Tk", "1 or Hkv", dim), like=q_idx)
    if k_idx.shape[1] not in (1, groups):
        raise ValueError(f"k_idx: wanted 1 or {groups} heads, got {_came(k_idx)}")
    require_positive("block", block)
    require_packing(cu_q, cu_k, len(q_idx), len(k_idx), read=read)


def check_selecting(
    scores: object,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    topk: int,
    local_blocks: int,
    sink_blocks: int,
    *,
    read: bool = True,
) -> None:
    """Arguments of ``select_blocks``."""
    require_positive("block", block)
    require_budget(topk, local_blocks, sink_blocks)
    if not isinstance(scores, Tensor) or scores.dtype != torch.float32 or scores.ndim != 3:
        raise TypeError(f"scores: wanted float32 [Tq, Hkv, NB], got {_came(scores)}")
    require_packing(cu_q, cu_k, len(scores), None, read=read)
    if read:
        require_scores(scores, cu_q, cu_k, block)


def check_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    selection: Tensor,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    *,
    read: bool = True,
) -> None:
    """Arguments of ``sparse_attention``. Keys and values may hold NaN where nothing reads them."""
    require_tensor("q", q, ("Tq", "Hq", "D"))
    require_tensor("k", k, ("Tk", "Hkv", q.shape[2]), like=q)
    require_tensor("v", v, tuple(k.shape), like=q)
    require_groups(q.shape[1], k.shape[1])
    require_selection(selection, (len(q),), k.shape[1])
    require_positive("block", block)
    require_packing(cu_q, cu_k, len(q), len(k), read=read)


def check_pipeline(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_idx: Tensor,
    k_idx: Tensor,
    cu_q: Tensor,
    cu_k: Tensor,
    *,
    read: bool = True,
) -> None:
    """Tensors of ``attend``, but for what they hold: they belong to one batch."""
    require_tensor("q", q, ("Tq", "Hq", "D"))
    require_tensor("k", k, ("Tk", "Hkv", q.shape[2]), like=q)
    require_tensor("v", v, tuple(k.shape), like=q)
    require_groups(q.shape[1], k.shape[1])
    require_tensor("q_idx", q_idx, (len(q), k.shape[1], "Di"))
    require_tensor("k_idx", k_idx, (len(k), "1 or Hkv", q_idx.shape[2]), like=q_idx)
    require_packing(cu_q, cu_k, len(q), len(k), read=read)


def _require_int32(name: str, x: object, wanted: str, axes: int, rows: int) -> None:
    if not isinstance(x, Tensor) or x.dtype != torch.int32 or x.ndim != axes or len(x) != rows:
        raise ValueError(f"{name}: wanted int32 [{wanted}], got {_came(x)}")


def check_paged(
    q: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    selection: Tensor,
    page_table: Tensor,
    k_lens: Tensor,
    *,
    read: bool = True,
) -> None:
    """Arguments of ``sparse_decode``."""
    require_tensor("q", q, ("B", "Q", "Hq", "D"))
    require_tensor("k_pages", k_pages, ("P", "Hkv", "block", q.shape[3]), like=q)
    require_tensor("v_pages", v_pages, tuple(k_pages.shape), like=q)
    require_groups(q.shape[2], k_pages.shape[1])
    require_selection(selection, tuple(q.shape[:2]), k_pages.shape[1])
    batch, block = q.shape[0], k_pages.shape[2]
    _require_int32("page_table", page_table, f"{batch}, W", 2, batch)
    _require_int32("k_lens", k_lens, f"{batch}", 1, batch)
    for b, length in enumerate(k_lens.tolist() if read else ()):
        pages = -(-length // block)
        if length < q.shape[1] or pages > page_table.shape[1]:
            raise ValueError(
                f"k_lens: wanted {q.shape[1]} to {page_table.shape[1] * block} keys in request "
                f"{b}, got {length}"
            )
        used = page_table[b, :pages]
        if int(used.min()) < 0 or int(used.max()) >= len(k_pages):
            raise ValueError(
                f"page_table: wanted pages 0 to {len(k_pages) - 1} in request {b}, "
                f"got {used.tolist()}"
            )


def check_partials(outs: Tensor, lses: Tensor) -> None:
    """Arguments of ``combine``."""
    require_tensor("outs", outs, ("n", "Tq", "Hq", "D"))
    if outs.dtype != torch.float32:
        raise TypeError(f"outs: wanted float32 [n, Tq, Hq, D], got {_came(outs)}")
    require_tensor("lses", lses, tuple(outs.shape[:3]), like=outs)
