"""PyTorch's FlexAttention as attention over a given selection.

The selection is a block mask: ``mask_mod`` keeps a token if its block was selected for the query's
group and the token is not of the future. Outside of ``torch.compile`` the whole mask is computed:
written to be right, not fast. It has no gradient here: on a CPU FlexAttention has none.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from msa.calls import check_attention
from msa.packing import Segment, count_blocks, segments

CAPABILITIES: dict[str, object] = {
    "dtypes": ["float32", "float16", "bfloat16"],
    "devices": ["cpu", "cuda"],
    "layouts": ["packed"],
}
#: Distributions whose code this runs; the record of a run names their versions.
RUNS = ("torch",)


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
    """Attention over selected blocks; arguments and results of ``msa.reference``.

    Raises:
        ValueError: shapes or lengths that do not fit.
    """
    check_attention(q, k, v, selection, cu_q, cu_k, block)
    out, lse = torch.zeros_like(q), q.new_full(q.shape[:2], -torch.inf, dtype=torch.float32)
    for s in segments(cu_q, cu_k):
        if not s.q_len:
            continue
        rows, keys = slice(s.q_start, s.q_stop), slice(s.k_start, s.k_stop)
        out[rows], lse[rows] = _attend(q[rows], k[keys], v[keys], selection[rows], s, block, scale)
    return out, lse


def _attend(
    q: Tensor, k: Tensor, v: Tensor, selection: Tensor, s: Segment, block: int, scale: float
) -> tuple[Tensor, Tensor]:
    """Out ``[n, Hq, D]`` and LSE ``[n, Hq]`` of one sequence."""
    from torch.nn.attention.flex_attention import (
        AuxRequest,
        BlockMask,
        create_block_mask,
        flex_attention,
    )

    heads = q.shape[1] // k.shape[1]
    columns = count_blocks(s.k_len, block)
    ids = torch.where(selection < columns, selection, -1).transpose(0, 1).long() + 1
    chosen = torch.zeros(*ids.shape[:2], columns + 1, dtype=torch.bool, device=q.device)
    chosen = chosen.scatter_(-1, ids, value=True)[..., 1:]  # [Hkv, n, NB]

    # Computed unfused, a weight of zero still multiplies: NaN where nobody may look must go first.
    position = s.positions(q.device)[:, None]
    latest = torch.where(chosen, position, -1).amax(1)  # [Hkv, NB]
    token = torch.arange(s.k_len, device=q.device)
    unread = (token > latest[:, token // block]).T[..., None]
    k, v = k.masked_fill(unread, 0.0), v.masked_fill(unread, 0.0)

    def keep(_: Tensor, head: Tensor, row: Tensor, token: Tensor) -> Tensor:
        return chosen[head // heads, row, token // block] & (token <= row + s.first_position)

    mask: BlockMask = create_block_mask(
        keep, None, q.shape[1], s.q_len, s.k_len, device=q.device.type
    )
    with warnings.catch_warnings():
        # Uncompiled is what is wanted here.
        warnings.filterwarnings("ignore", "flex_attention called without torch.compile")
        out, more = flex_attention(
            q.transpose(0, 1)[None],
            k.transpose(0, 1)[None],
            v.transpose(0, 1)[None],
            block_mask=mask,
            scale=scale,
            enable_gqa=heads > 1,
            return_aux=AuxRequest(lse=True),
        )
    assert more.lse is not None  # it was asked for
    return out[0].transpose(0, 1), more.lse[0].transpose(0, 1)
