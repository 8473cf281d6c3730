"""Plans: what the functions that run need to know beside their tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from msa_kernels.compat.arguments import refuse


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
    refuse(qo_offset=qo_offset)
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
