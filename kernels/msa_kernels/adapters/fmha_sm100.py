"""MiniMax's own kernels, the package ``fmha_sm100``, for compute capability 10.x.

From github.com/MiniMax-AI/MSA, in the calls of its README: plan, run for the maxima of blocks,
select, plan, run over the selected blocks. Plans are made in each call here; its users keep them
for all layers of a step. Two of its habits are corrected: its selector forces blocks at the end of
a sequence, not each query's own, and may return blocks of the future where too few others are left.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from msa.calls import check_index, check_selecting
from msa.packing import block_columns
from msa_kernels.adapters import composing, converting, csr_attention
from msa_kernels.adapters.csr_attention import BLOCK, DIM, GROUPS, require_sizes

CAPABILITIES: dict[str, object] = {
    "dtypes": ["bfloat16"],
    "devices": ["cuda"],
    "head_dims": [DIM],
    "index_dims": [DIM],
    "block_sizes": [BLOCK],
    "topk_values": [16],
    "group_sizes": list(GROUPS),
    "nan_scores": False,
    "exact_scores": True,
}
#: Distributions whose code this runs; the record of a run names their versions.
RUNS = ("fmha_sm100",)

_TOPK = 16
#: Blocks of one sequence that its selector takes.
_MOST_BLOCKS = 12287


def unavailable() -> str | None:
    """Why it cannot run here, or None."""
    return converting.why_no_gpu("fmha_sm100", (10,))


def _api() -> Any:  # noqa: ANN401 - not installed where this is checked
    return importlib.import_module("fmha_sm100")


def block_scores(
    q_idx: Tensor, k_idx: Tensor, *, cu_q: Tensor, cu_k: Tensor, block: int, scale: float
) -> Tensor:
    """Scores of blocks by the maxima that its dense kernel writes beside the output.

    Args:
        q_idx: bfloat16 ``[Tq, Hkv, 128]``.
        k_idx: bfloat16 ``[Tk, 1, 128]``.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: 128.
        scale: factor on the products, above 0; its maxima are raw.

    Returns:
        float32 ``[Tq, Hkv, NB]``, -inf where nothing is visible.

    Raises:
        ValueError: sizes that it is not built for, or that do not fit together.
        RuntimeError: it gave no maxima, as it does where there would be more than 2^31.
    """
    check_index(q_idx, k_idx, cu_q, cu_k, block)
    require_sizes(block=block, dim=q_idx.shape[2])
    factor, columns = converting.above_zero(scale), block_columns(cu_k, block)
    if not len(q_idx) or not len(k_idx):
        return q_idx.new_full((*q_idx.shape[:2], columns), -torch.inf, dtype=torch.float32)
    api = _api()
    plan = api.fmha_sm100_plan(
        converting.lengths(cu_q).cpu(),
        converting.lengths(cu_k).cpu(),
        q_idx.shape[1],
        num_kv_heads=k_idx.shape[1],
        output_maxscore=True,
        causal=True,
        device=q_idx.device,
    )
    keys = k_idx.contiguous()
    # Without an output no values are read: the keys stand in for them.
    _, maxima = api.fmha_sm100(
        q_idx.contiguous(), keys, keys, plan, output_o=False, output_maxscore=True
    )
    if maxima is None:
        raise RuntimeError(
            f"q_idx: wanted block scores of {len(q_idx)} queries over {len(k_idx)} keys, got none: "
            "fmha_sm100 writes at most 2^31"
        )
    scores: Tensor = maxima[:, :columns].permute(2, 0, 1) * factor
    return scores.contiguous()


def select_blocks(
    scores: Tensor,
    *,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    topk: int,
    local_blocks: int = 1,
    sink_blocks: int = 0,
) -> Tensor:
    """Its selector on scores in which each query's forced blocks are +inf.

    Args:
        scores: float32 ``[Tq, Hkv, NB]``.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: tokens per block.
        topk: 16.
        local_blocks: newest blocks of each query that are kept.
        sink_blocks: first blocks that are kept.

    Returns:
        int32 ``[Tq, Hkv, 16]``, ascending, then -1.

    Raises:
        ValueError: another budget than 16, too many blocks, shapes that do not fit.
    """
    check_selecting(scores, cu_q, cu_k, block, topk, local_blocks, sink_blocks)
    if topk != _TOPK:
        raise ValueError(f"topk: wanted {_TOPK}, all that it is built for, got {topk}")
    columns = scores.shape[-1]
    if columns > _MOST_BLOCKS:
        raise ValueError(f"scores: wanted at most {_MOST_BLOCKS} blocks, got {columns}")
    if not len(scores):
        return scores.new_full((0, scores.shape[1], topk), -1, dtype=torch.int32)
    forced = converting.with_forced(
        scores, cu_q, cu_k, block=block, local_blocks=local_blocks, sink_blocks=sink_blocks
    )
    chosen = _api().sparse_topk_select(
        forced.permute(1, 2, 0).contiguous(), topk, num_valid_pages=columns
    )
    return converting.without_hidden(chosen, cu_q, cu_k, block)


def sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    selection: Tensor,
    *,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """:func:`csr_attention.attend_selected` with the package's functions."""
    return csr_attention.attend_selected(
        _api(), q, k, v, selection, cu_q=cu_q, cu_k=cu_k, block=block, scale=scale
    )


def sparse_decode(
    q: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    selection: Tensor,
    *,
    page_table: Tensor,
    k_lens: Tensor,
    scale: float,
) -> tuple[Tensor, None]:
    """Attention over selected pages; it tells no LSE.

    Args:
        q: bfloat16 ``[B, Q, Hq, 128]``.
        k_pages: bfloat16 ``[P, Hkv, 128, 128]``, heads before tokens.
        v_pages: like ``k_pages``.
        selection: int32 ``[B, Q, Hkv, k]``.
        page_table: int32 ``[B, W]``.
        k_lens: int32 ``[B]``.
        scale: factor on the logits.

    Raises:
        ValueError: sizes that it is not built for.
    """
    batch, steps, heads = q.shape[:3]
    require_sizes(block=k_pages.shape[2], dim=q.shape[3])
    api, topk = _api(), selection.shape[-1]
    # Queries of a request stay together, and all have one selection each: no split of the batch.
    plan = api.fmha_sm100_plan(
        torch.full((batch,), steps, dtype=torch.int32),
        k_lens.to("cpu", torch.int32),
        heads,
        num_kv_heads=k_pages.shape[1],
        page_size=BLOCK,
        kv_block_num=topk,
        causal=True,
        split_prefill_decode=False,
        device=q.device,
    )
    out, _ = api.fmha_sm100(
        q.flatten(0, 1).contiguous(),
        k_pages.contiguous(),
        v_pages.contiguous(),
        plan,
        kv_indices=converting.flat_pages(page_table, k_lens, BLOCK),
        kv_block_indexes=converting.ascending(selection.flatten(0, 1)).contiguous(),
        sm_scale=scale,
    )
    return out.view(batch, steps, heads, -1), None


#: The three above; arguments and results of the contract.
attend = composing.one_after_the_other(block_scores, select_blocks, sparse_attention)
