"""MiniMax's kernel interface on any device: ``from msa_kernels import compat as fmha_sm100``.

Plan, run for the maxima of blocks, select, plan, run over the selected blocks: the calls and the
layouts of the package ``fmha_sm100`` (github.com/MiniMax-AI/MSA, README and
python/fmha_sm100/api.py), computed with :mod:`msa.fast`. Code that is written for the package runs
where there is no SM100, to be tried and tested.

It is wider than the package where that costs nothing: any head dim, budget and page size. What it
leaves out it refuses by name: attention that is not causal, offsets of queries of one's own, and
the page table as a matrix. A block that a query cannot see is never selected.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from msa import fast
from msa.packing import block_columns, count_blocks, cumulative
from msa_kernels.adapters.converting import ascending
from msa_kernels.adapters.dense_sdpa import dense

__all__ = ["Plan", "fmha_sm100", "fmha_sm100_plan", "sparse_topk_select"]

#: Tokens of a block; block maxima come in multiples of as many.
BLOCK = TILES = 128


@dataclass(frozen=True, slots=True)
class Plan:
    """What :func:`fmha_sm100` needs to know beside its tensors; for every layer of a step.

    Attributes:
        q_lens: queries of every request.
        k_lens: keys of every request, its queries' own included.
        heads: query heads.
        kv_heads: heads of keys and values.
        page_size: tokens of a page, or -1 where keys are packed.
        topk: selected blocks of a query, or -1 for dense attention.
        maxima: whether block maxima are wanted.
    """

    q_lens: tuple[int, ...]
    k_lens: tuple[int, ...]
    heads: int
    kv_heads: int
    page_size: int
    topk: int
    maxima: bool


def fmha_sm100_plan(
    qo_segment_lens: Tensor,
    kv_segment_lens: Tensor,
    num_qo_heads: int,
    num_kv_heads: int = -1,
    qo_offset: Tensor | int | None = None,
    num_kv_splits: int = -1,
    page_size: int = -1,
    output_maxscore: bool = False,
    kv_block_num: int = -1,
    usable_SM_count: int = -1,
    causal: bool = True,
    sparse_kernel_mode: str = "auto",
    use_fp8_kvcache: bool = False,
    device: torch.device | None = None,
    stream: object = None,
    *,
    split_prefill_decode: bool = True,
) -> Plan:
    """What a step will attend; waits for the lengths if they are on a GPU.

    Args:
        qo_segment_lens: queries of every request, ints ``[B]``.
        kv_segment_lens: keys of every request, ints ``[B]``; query i sits at k_len - q_len + i.
        num_qo_heads: query heads.
        num_kv_heads: heads of keys and values; -1 for as many as query heads.
        qo_offset: None; no other position of the first query.
        num_kv_splits: of the package's schedule; nothing here.
        page_size: tokens of a page, or -1 where keys are packed.
        output_maxscore: whether block maxima are wanted.
        kv_block_num: selected blocks of a query, or -1 for dense attention.
        usable_SM_count: of the package's schedule; nothing here.
        causal: True.
        sparse_kernel_mode: of the package's schedule; nothing here.
        use_fp8_kvcache: False.
        device: nothing here: tensors bring theirs.
        stream: of the package's schedule; nothing here.
        split_prefill_decode: of the package's schedule; nothing here.

    Raises:
        ValueError: an argument that is not supported, or lengths that cannot be.
    """
    del num_kv_splits, usable_SM_count, sparse_kernel_mode, device, stream, split_prefill_decode
    _refuse(qo_offset=qo_offset)
    if not causal or use_fp8_kvcache:
        raise ValueError("causal, use_fp8_kvcache: wanted True and False, got another")
    q_lens, k_lens = (tuple(x.tolist()) for x in (qo_segment_lens, kv_segment_lens))
    if len(q_lens) != len(k_lens) or any(
        not 0 <= q <= k for q, k in zip(q_lens, k_lens, strict=False)
    ):
        raise ValueError(
            f"qo_segment_lens: wanted as many lengths as kv_segment_lens, none above its own, "
            f"got {q_lens} and {k_lens}"
        )
    kv_heads = num_qo_heads if num_kv_heads == -1 else num_kv_heads
    if kv_heads < 1 or num_qo_heads % kv_heads:
        raise ValueError(f"num_kv_heads: wanted a divisor of {num_qo_heads}, got {num_kv_heads}")
    return Plan(q_lens, k_lens, num_qo_heads, kv_heads, page_size, kv_block_num, output_maxscore)


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
    _refuse(q_offset_override=q_offset_override, page_table=page_table)
    cu_q, cu_k = (cumulative(list(x), q.device) for x in (plan_info.q_lens, plan_info.k_lens))
    keys = _packed(k, kv_indices, plan_info)
    maxima = None
    if output_maxscore and plan_info.maxima:
        maxima = _kept_in(max_score, _maxima(q, keys, cu_q, cu_k))
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
    return _kept_in(out, result if factor == 1.0 else (result * factor).to(q.dtype)), maxima


def sparse_topk_select(
    max_score: Tensor,
    topk: int,
    num_valid_pages: int | None = None,
    output: Tensor | None = None,
    force_begin_blocks: int = 0,
    force_end_blocks: int = 0,
) -> Tensor:
    """The best blocks of every query and head.

    Args:
        max_score: float32 ``[H, tiles, T]``.
        topk: blocks to keep.
        num_valid_pages: blocks of the sequence; all tiles by default.
        output: where the ids go, or None.
        force_begin_blocks: first blocks that are kept.
        force_end_blocks: last blocks of the sequence that are kept, of those that are visible.

    Returns:
        int32 ``[T, H, topk]``, ascending, then -1.

    Raises:
        ValueError: a number that cannot be.
    """
    tiles = max_score.shape[1]
    valid = tiles if num_valid_pages is None else num_valid_pages
    if not 0 < valid <= tiles:
        raise ValueError(f"num_valid_pages: wanted 1 to {tiles}, got {valid}")
    if topk < 1 or force_begin_blocks + force_end_blocks > topk:
        raise ValueError(
            f"topk: wanted at least {max(1, force_begin_blocks + force_end_blocks)}, got {topk}"
        )
    scores = max_score.permute(2, 0, 1)[..., :valid]
    column = torch.arange(valid, device=scores.device)
    forced = (column < force_begin_blocks) | (column >= valid - force_end_blocks)
    hidden = scores == -torch.inf
    ranked = scores.masked_fill(forced & ~hidden, torch.inf)
    best = ranked.sort(dim=-1, descending=True, stable=True)
    width = min(topk, valid)
    ids = torch.where(best.values == -torch.inf, -1, best.indices)[..., :width].int()
    found = ascending(torch.nn.functional.pad(ids, (0, topk - width), value=-1))
    return _kept_in(output, found)


def _refuse(**given: object) -> None:
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"{name}: wanted None, all that is supported, got {value!r:.60}")


def _kept_in(place: Tensor | None, result: Tensor) -> Tensor:
    return result if place is None else place.copy_(result)


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
