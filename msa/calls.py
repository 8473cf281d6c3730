"""The arguments of each operation together: one place, so that implementations refuse alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from msa import checks


def check_factors(
    *given: tuple[str, Tensor, Tensor | None], axis: int = 1, read: bool = True
) -> None:
    """The factors of E4M3 tensors: name of the tensor, the tensor, its factors; ``axis`` of heads.

    ``read`` is that of :func:`msa.checks.require_descale`.
    """
    for name, x, descale in given:
        checks.require_descale(f"{name}_descale", descale, x, axis=axis, read=read)


def may_hold_nan(
    tensors: Mapping[str, Tensor], descales: Mapping[str, Tensor | None]
) -> Iterator[tuple[str, Tensor]]:
    """Those of packed ``tensors`` that can, by their names; of one in NVFP4 its scales."""
    for name, x in tensors.items():
        scales = descales.get(name)
        if x.dtype != checks.NVFP4:
            yield name, x
        else:
            check_factors((name, x, scales))
            if scales is not None:
                yield f"{name}_descale", scales


def check_index(
    q_idx: Tensor,
    k_idx: Tensor,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    *,
    read: bool = True,
    quantized: bool = True,
    packed: bool = False,
) -> None:
    """Arguments of ``block_scores``.

    ``read`` is that of :func:`msa.checks.require_packing`; ``quantized``: E4M3 is
    allowed, ``packed``: NVFP4 of keys, by those who decode it.
    """
    checks.require_tensor("q_idx", q_idx, ("Tq", "Hkv", "Di"), quantized=quantized)
    groups, dim = q_idx.shape[1:]
    wanted = ("Tk", "1 or Hkv", dim)
    checks.require_tensor("k_idx", k_idx, wanted, like=q_idx, quantized=quantized, packed=packed)
    if k_idx.shape[1] not in (1, groups):
        raise ValueError(f"k_idx: wanted 1 or {groups} heads, got {checks.came(k_idx)}")
    checks.require_positive("block", block)
    checks.require_packing(cu_q, cu_k, len(q_idx), len(k_idx), read=read)


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
    checks.require_positive("block", block)
    checks.require_budget(topk, local_blocks, sink_blocks)
    if not isinstance(scores, Tensor) or scores.dtype != torch.float32 or scores.ndim != 3:
        raise TypeError(f"scores: wanted float32 [Tq, Hkv, NB], got {checks.came(scores)}")
    checks.require_packing(cu_q, cu_k, len(scores), None, read=read)
    if read:
        checks.require_scores(scores, cu_q, cu_k, block)


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
    quantized: bool = True,
    packed: bool = False,
) -> None:
    """Arguments of ``sparse_attention``. Keys and values may hold NaN where nothing reads them."""
    checks.require_tensor("q", q, ("Tq", "Hq", "D"), quantized=quantized)
    wanted = ("Tk", "Hkv", q.shape[2])
    checks.require_tensor("k", k, wanted, like=q, quantized=quantized, packed=packed)
    checks.require_tensor("v", v, tuple(k.shape), like=k)
    checks.require_groups(q.shape[1], k.shape[1])
    checks.require_selection(selection, (len(q),), k.shape[1])
    checks.require_positive("block", block)
    checks.require_packing(cu_q, cu_k, len(q), len(k), read=read)


def check_backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: object,
    selection: Tensor,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    *,
    read: bool = True,
) -> None:
    """Arguments of ``sparse_attention_backward``."""
    check_attention(q, k, v, selection, cu_q, cu_k, block, read=read, quantized=False)
    checks.require_tensor("dout", dout, tuple(q.shape), like=q)
    checks.require_tensor("out", out, tuple(q.shape), like=q)
    if not isinstance(lse, Tensor) or lse.dtype != torch.float32 or lse.shape != q.shape[:2]:
        raise ValueError(
            f"lse: wanted float32 [{q.shape[0]}, {q.shape[1]}], got {checks.came(lse)}"
        )


def check_index_kl(
    q_idx: Tensor,
    k_idx: Tensor,
    q: Tensor,
    k: Tensor,
    selection: Tensor,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    *,
    read: bool = True,
) -> None:
    """Arguments of ``index_kl``."""
    check_pipeline(q, k, k, q_idx, k_idx, cu_q, cu_k, read=read, quantized=False)
    # Read above, if at all.
    check_index(q_idx, k_idx, cu_q, cu_k, block, read=False, quantized=False)
    checks.require_selection(selection, (len(q),), k.shape[1])


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
    quantized: bool = True,
    packed: bool = False,
) -> None:
    """Tensors of ``attend``, but for what they hold: they belong to one batch."""
    checks.require_tensor("q", q, ("Tq", "Hq", "D"), quantized=quantized)
    wanted: tuple[int | str, ...] = ("Tk", "Hkv", q.shape[2])
    checks.require_tensor("k", k, wanted, like=q, quantized=quantized, packed=packed)
    checks.require_tensor("v", v, tuple(k.shape), like=k)
    checks.require_groups(q.shape[1], k.shape[1])
    checks.require_tensor("q_idx", q_idx, (len(q), k.shape[1], "Di"), quantized=quantized)
    wanted = (len(k), "1 or Hkv", q_idx.shape[2])
    checks.require_tensor("k_idx", k_idx, wanted, like=q_idx, quantized=quantized, packed=packed)
    checks.require_packing(cu_q, cu_k, len(q), len(k), read=read)


def check_partials(outs: Tensor, lses: Tensor) -> None:
    """Arguments of ``combine``."""
    checks.require_tensor("outs", outs, ("n", "Tq", "Hq", "D"))
    if outs.dtype != torch.float32:
        raise TypeError(f"outs: wanted float32 [n, Tq, Hq, D], got {checks.came(outs)}")
    checks.require_tensor("lses", lses, tuple(outs.shape[:3]), like=outs)
