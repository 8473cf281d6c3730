"""Attention and the maxima of blocks, by a plan."""

from __future__ import annotations

import torch
from torch import Tensor

from msa import fast
from msa.packing import block_columns, count_blocks, cumulative
from msa_kernels.adapters.dense_sdpa import dense
from msa_kernels.compat.arguments import kept_in, refuse
from msa_kernels.compat.planning import Plan

#: Tokens of a block; block maxima come in multiples of as many.
BLOCK = TILES = 128


def fmha_sm100(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    plan_info: Plan,
    kv_indices: Tensor | None = None,
    kv_block_indexes: Tensor | None = None,
    q_offset_override: Tensor | None = None,
    out: Tensor | None = None,
    max_score: Tensor | None = None,
    page_table: Tensor | None = None,
    *,
    sm_scale: float | None = None,
    q_scale: float | None = None,
    k_scale: float | None = None,
    v_scale: float | None = None,
    o_scale: float | None = None,
    output_maxscore: bool = True,
    output_o: bool = True,
    check_input_valid: bool = False,
) -> tuple[Tensor | None, Tensor | None]:
    """Attention, dense or over selected blocks, and the maxima of blocks.

    Args:
        q: ``[T, Hq, D]``.
        k: packed ``[sum of k_lens, Hkv, D]``, or pages ``[P, Hkv, page_size, D]``.
        v: like ``k``; not read without ``output_o``.
        plan_info: of :func:`fmha_sm100_plan`.
        kv_indices: pages in use, request after request, int32; None where keys are packed.
        kv_block_indexes: selected blocks int32 ``[T, Hkv, k]``, ids of each sequence, -1 for none;
            None for dense attention.
        q_offset_override: None.
        out: where the output goes, or None.
        max_score: where the maxima go, or None.
        page_table: None.
        sm_scale: factor on the logits; D ** -0.5 by default.
        q_scale: further factors on the logits, and on the output.
        k_scale: likewise.
        v_scale: likewise.
        o_scale: likewise.
        output_maxscore: whether maxima are returned, if the plan has them.
        output_o: whether attention is computed.
        check_input_valid: nothing here: arguments are always checked on a CPU.

    Returns:
        the output ``[T, Hq, D]`` or None, and the largest raw product of every block float32
        ``[Hq, tiles, T]`` or None: not scaled, -inf where a query sees nothing.

    Raises:
        ValueError: an argument that is not supported, or shapes that do not fit.
    """
    del check_input_valid
    refuse(q_offset_override=q_offset_override, page_table=page_table)
    cu_q, cu_k = (cumulative(list(x), q.device) for x in (plan_info.q_lens, plan_info.k_lens))
    keys = _packed(k, kv_indices, plan_info)
    maxima = None
    if output_maxscore and plan_info.maxima:
        maxima = kept_in(max_score, _maxima(q, keys, cu_q, cu_k))
    if not output_o:
        return None, maxima
    values = _packed(v, kv_indices, plan_info)
    scale = q.shape[2] ** -0.5 if sm_scale is None else sm_scale
    scale *= (1.0 if q_scale is None else q_scale) * (1.0 if k_scale is None else k_scale)
    lengths = {"cu_q": cu_q, "cu_k": cu_k}
    if kv_block_indexes is None:
        result = dense(q, keys, values, scale=scale, **lengths)
    else:
        chosen = kv_block_indexes.to(torch.int32)
        result, _ = fast.sparse_attention(
            q, keys, values, chosen, block=BLOCK, scale=scale, **lengths
        )
    factor = (1.0 if v_scale is None else v_scale) * (1.0 if o_scale is None else o_scale)
    return kept_in(out, result if factor == 1.0 else (result * factor).to(q.dtype)), maxima


def _packed(x: Tensor, kv_indices: Tensor | None, plan: Plan) -> Tensor:
    """Keys or values ``[sum of k_lens, Hkv, D]``, out of their pages where they are in some."""
    if kv_indices is None:
        return x
    size = x.shape[2]
    if plan.page_size != size:
        raise ValueError(f"k, v: wanted pages of {plan.page_size} tokens, got {size}")
    parts, start = [], 0
    for length in plan.k_lens:
        count = count_blocks(length, size)
        pages = x[kv_indices[start : start + count].long()]
        parts.append(pages.transpose(1, 2).flatten(0, 1)[:length])
        start += count
    return torch.cat(parts) if parts else x.new_zeros(0, x.shape[1], x.shape[3])


def _maxima(q: Tensor, keys: Tensor, cu_q: Tensor, cu_k: Tensor) -> Tensor:
    """Raw maxima ``[Hq, tiles, T]``; their number is a multiple of 128, as in the package."""
    heads = q.shape[1]
    each = keys if keys.shape[1] == 1 else keys.repeat_interleave(heads // keys.shape[1], 1)
    scores = fast.block_scores(q, each, cu_q=cu_q, cu_k=cu_k, block=BLOCK, scale=1.0)
    short = -block_columns(cu_k, BLOCK) % TILES
    whole = torch.nn.functional.pad(scores, (0, short), value=-torch.inf)
    return whole.permute(1, 2, 0).contiguous()
