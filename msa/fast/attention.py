"""Sparse attention over packed sequences, key blocks outermost."""

from __future__ import annotations

import torch
from torch import Tensor

from msa import calls, checks
from msa.fast import gathered, small
from msa.fast.lists import list_chunks
from msa.fast.scoring import working_dtype
from msa.fast.selected import Selected
from msa.fast.small import worth_passes
from msa.fast.threads import for_each, large_products
from msa.packing import Segment, segments
from msa.quantized import NARROW, decode, output_dtype

#: Query-key pairs below which threads cost more than they bring.
_WORTH_THREADS = 1 << 19


@torch.no_grad()
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
    q_descale: Tensor | None = None,
    k_descale: Tensor | None = None,
    v_descale: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Exact softmax attention over the visible tokens of the selected blocks. Not differentiable.

    Args:
        q: ``[Tq, Hq, D]``.
        k: ``[Tk, Hkv, D]``.
        v: ``[Tk, Hkv, D]``.
        selection: int32 ``[Tq, Hkv, k]``; negative entries are empty, in any place.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: tokens per block.
        scale: factor on the logits, ``D ** -0.5`` in the paper.
        q_descale: float32 ``[Hq]``, factors of E4M3 queries; 1 if left out.
        k_descale: float32 ``[Hkv]``, those of the keys; of NVFP4 its scales.
        v_descale: float32 ``[Hkv]``, those of the values; of NVFP4 its scales.

    Returns:
        out ``[Tq, Hq, D]`` in q's dtype (bfloat16 for E4M3) and LSE float32 ``[Tq, Hq]`` (natural
        logarithm). A row with nothing visible gives 0 and -inf.
    """
    calls.check_attention(q, k, v, selection, cu_q, cu_k, block, packed=True)
    checks.require_scale("scale", scale)
    out = torch.empty_like(q, dtype=output_dtype(q))
    wide = working_dtype(q)
    q = decode("q", q, q_descale, axis=1, dtype=wide)
    if k.dtype in NARROW:
        q = q.to(wide)  # products want one dtype
    k = decode("k", k, k_descale, axis=1, dtype=wide)
    v = decode("v", v, v_descale, axis=1, dtype=wide)
    lse = q.new_empty(q.shape[:2], dtype=torch.float32)
    # The fused kernel scales after its mask: -inf times a scale of 0 or less is no -inf.
    fused = q.device.type == "cpu" and wide == torch.float32 and scale > 0
    cut = segments(cu_q, cu_k)
    dense = [_dense_rows(s, selection, block) if fused else 0 for s in cut]
    for s, rows in zip(cut, dense, strict=True):
        _attend_dense(s, rows, q, k, v, scale, out, lse)
    if fused and worth_passes(selection, len(k), block, q.shape[1] // k.shape[1], q.shape[2]):
        for s, rows in zip(cut, dense, strict=True):
            _attend_segment(s, rows, q, k, v, selection, block, scale, out, lse)
        return out, lse
    left = [torch.arange(s.q_start + n, s.q_stop) for s, n in zip(cut, dense, strict=True)]
    others = torch.cat(left).to(q.device)
    if len(others):
        selected = Selected.of(selection, cu_q=cu_q, cu_k=cu_k, block=block).take(others)
        part, part_lse = small.attend(q[others], k, v, selected, scale)
        out[others], lse[others] = part.to(out.dtype), part_lse.to(lse.dtype)
    return out, lse


def _attend_dense(
    s: Segment, rows: int, q: Tensor, k: Tensor, v: Tensor, scale: float, out: Tensor, lse: Tensor
) -> None:
    """The first ``rows`` of a sequence, which selected all that they see."""
    groups = k.shape[1]
    heads = q.shape[1] // groups
    mine, tokens = slice(s.q_start, s.q_start + rows), slice(s.k_start, s.k_start + rows)
    for g in range(groups if rows else 0):
        part = slice(g * heads, (g + 1) * heads)
        found, found_lse = gathered.flash(
            q[None, mine, part], k[None, tokens, g], v[None, tokens, g], scale
        )
        out[mine, part], lse[mine, part] = found[0], found_lse[0]


def _attend_segment(
    s: Segment,
    dense: int,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    selection: Tensor,
    block: int,
    scale: float,
    out: Tensor,
    lse: Tensor,
) -> None:
    """One sequence but its first ``dense`` rows: fills the others of ``out`` and ``lse``."""
    groups = k.shape[1]
    heads = q.shape[1] // groups
    keys, values = (
        [x[s.k_start : s.k_stop, g].float() for g in range(groups)] for x in (k, v)
    )  # [S, D] each
    sources = [
        gathered.KeyBlocks(key, value, block, scale)
        for key, value in zip(keys, values, strict=True)
    ]

    def attend_piece(piece: tuple[int, int, int]) -> None:
        g, start, stop = piece
        mine = q[start:stop, g * heads : (g + 1) * heads]
        ids = selection[start:stop, g]
        first = start - s.q_start + s.first_position
        result = gathered.attend_rows(mine.float(), sources[g], ids, first)
        if result is None:
            result = small.attend_rows(mine, keys[g], values[g], ids, first, block, scale)
        out[start:stop, g * heads : (g + 1) * heads] = result[0]
        lse[start:stop, g * heads : (g + 1) * heads] = result[1]

    cut = [
        (g, max(start, s.q_start + dense), stop)
        for start, stop in list_chunks(s, block)
        for g in range(groups)
        if stop > s.q_start + dense
    ]
    spread = s.q_len * selection.shape[2] * block > _WORTH_THREADS
    spread = spread and large_products(selection, block, heads, q.shape[2])
    for_each(attend_piece, reversed(cut), spread=spread)  # the longest first


def _dense_rows(s: Segment, selection: Tensor, block: int) -> int:
    """Leading queries that selected every block they see: plain causal attention."""
    if s.first_position:
        return 0
    ids = selection[s.q_start : min(s.q_start + selection.shape[2] * block, s.q_stop)]
    local = torch.arange(len(ids), device=ids.device)[:, None] // block
    columns = ids.shape[2]  # every block that these rows see is below it
    valid = (ids >= 0) & (ids <= local[..., None])
    marks = torch.zeros((*ids.shape[:2], columns + 1), dtype=torch.bool, device=ids.device)
    marks.scatter_(2, torch.where(valid, ids, columns).long(), True)  # a block counts once
    seen = marks[..., :columns].sum(-1)  # [t, Hkv]
    missing = (seen <= local).any(1).nonzero()
    return int(missing[0]) if len(missing) else len(ids)
