"""Sparse attention on a CPU: products over gathered queries, without a running maximum.

A query's own block is always selected, and comes first. The largest logit in it then serves as the
shift of every other softmax term: a term that underflows is negligible beside the local block's
own sum of at least 1, and one that overflows shows as a non-finite result, which the caller sends
down the careful path. Partials become plain sums.

The shift and the denominator ride in the matrix products as one more column: queries are
``[q, -shift]``, keys ``[k * scale, 1]``, values ``[v, 1]``. Logits are in bits, the scale has
log2(e) in it: PyTorch's exp2 takes little more than half the time of its exp.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from msa.fast.lists import membership, query_lists, take_runs

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu

#: Rows (queries times heads) of a logit tile, so that it stays in the L2 cache.
_TILE_ROWS = 1024
#: Neighbouring queries that share a block are taken together in tiles of this many.
_RUN = 64
#: Logits below this give denormal weights, on which products are many times slower.
_LOWEST = -126.0
#: Denominators above this are computed again with a running maximum.
_HIGHEST = 1e30


def flash(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Causal attention of square tiles: ``[b, t, R, D]`` on ``[b, t, D]``, out and LSE likewise."""
    heads = q.shape[2]
    # The kernel knows the strides of all axes but the last.
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    wide_k, wide_v = (x[:, None].expand(-1, heads, -1, -1) for x in (k, v))
    out, lse = _flash(q.transpose(1, 2), wide_k, wide_v, 0.0, True, scale=scale)
    return out.transpose(1, 2), lse.transpose(1, 2)


class KeyBlocks:
    """Keys and values of one sequence and group, in the layout of the products, made when used.

    Args:
        keys: float32 ``[S, D]``.
        values: float32 ``[S, D]``.
        block: tokens per block.
        scale: factor on the logits.
    """

    def __init__(self, keys: Tensor, values: Tensor, block: int, scale: float) -> None:
        bits = scale / math.log(2)
        self.keys, self.values, self.block, self.bits = keys, values, block, bits
        self._made: dict[int, tuple[Tensor, Tensor]] = {}
        #: Largest norm of a scaled key; NaN where an unread slot holds NaN.
        self.norm = float((keys * keys).sum(-1).max().sqrt()) * abs(bits) if len(keys) else 0.0

    def __getitem__(self, b: int) -> tuple[Tensor, Tensor]:
        """Keys ``[D + 1, block]`` and values ``[block, D + 1]`` of a whole block."""
        found = self._made.get(b)
        if found is None:
            found = self._made[b] = self.lay_out(b, self.block)
        return found

    def lay_out(self, b: int, size: int) -> tuple[Tensor, Tensor]:
        """The same of the first ``size`` tokens of a block, made anew."""
        rows = slice(b * self.block, b * self.block + size)
        dim = self.keys.shape[1]
        key = self.keys.new_empty((dim + 1, size))
        key[:dim] = (self.keys[rows] * self.bits).T
        key[dim] = 1.0
        value = self.keys.new_empty((size, dim + 1))
        value[:, :dim] = self.values[rows]
        value[:, dim] = 1.0
        return key, value


def attend_rows(
    q: Tensor, blocks: KeyBlocks, selection: Tensor, first: int
) -> tuple[Tensor, Tensor] | None:
    """Attention of consecutive queries of one group whose own blocks are all selected.

    Args:
        q: float32 ``[n, R, D]``, the heads of the group.
        blocks: keys and values of the group.
        selection: int32 ``[n, k]``.
        first: position of the first query.

    Returns:
        out ``[n, R, D]`` and LSE ``[n, R]``, float32; None where a query did not select its own
        block or the numbers leave the range of this method.
    """
    count, heads, dim = q.shape
    chosen = membership(selection, first, blocks.block)
    row = torch.arange(count)
    own = (first + row) // blocks.block
    if not bool(chosen[own, row].all()):
        return None
    chosen[own, row] = False
    acc = q.new_empty((count, heads, dim + 1))  # sums of [v, 1] in units of exp2(shift)
    queries = torch.empty_like(acc)
    queries[..., :dim] = q
    shift = _start_local(acc, queries, blocks, first)
    torch.neg(shift, out=queries[..., dim])
    # No logit lies further below its shift than this; NaN counts as too far.
    depth = float((q * q).sum(-1).max().sqrt()) * blocks.norm + float(shift.max())
    wide = heads * (dim + 1)
    _add_blocks(
        acc.view(count, wide), queries.view(count, wide), blocks, chosen, not depth < -_LOWEST
    )
    total = acc[..., dim]
    out = acc[..., :dim] / total[..., None]
    if not bool((total < _HIGHEST).all()) or not bool(out.sum().isfinite()):
        return None
    return out, (shift + total.log2()) * math.log(2)


def _start_local(acc: Tensor, queries: Tensor, blocks: KeyBlocks, first: int) -> Tensor:
    """Start ``acc`` with every query's own block; returns the shifts ``[n, R]``, in bits.

    ``acc`` and ``queries`` are ``[n, R, D + 1]``; the last column of ``queries`` is not read.
    """
    count, heads, deep = acc.shape
    block = blocks.block
    shift = acc.new_empty((count, heads, 1))
    later = torch.full((block, block), -torch.inf).triu_(1)
    seen = torch.ones((block, block)).tril_()
    row = 0
    while row < count:
        b, offset = divmod(first + row, block)
        rows = slice(row, min(row + block - offset, count))
        size = offset + rows.stop - row  # keys up to the last of these queries
        key, value = blocks[b] if size == block else blocks.lay_out(b, size)
        weight = torch.mm(queries[rows].view(-1, deep)[:, :-1], key[:-1])
        tile = weight.view(-1, heads, size).add_(later[offset:size, None, :size])
        torch.amax(tile, -1, keepdim=True, out=shift[rows])
        # Denormal weights are slow: floor first, then hide again.
        tile.sub_(shift[rows]).clamp_min_(_LOWEST).exp2_().mul_(seen[offset:size, None, :size])
        torch.mm(weight, value, out=acc[rows].view(-1, deep))
        row = rows.stop
    return shift[..., 0]


def _add_blocks(
    acc: Tensor, queries: Tensor, blocks: KeyBlocks, chosen: Tensor, clamp: bool
) -> None:
    """Add every chosen block's weighted values to ``acc``.

    Args:
        acc: ``[n, R * (D + 1)]``.
        queries: ``[n, R * (D + 1)]``.
        blocks: keys and values.
        chosen: bool ``[nb, n]``, whole blocks only; overwritten.
        clamp: keep weights out of the denormal numbers.
    """
    wide = acc.shape[1]
    deep = blocks.keys.shape[1] + 1
    heads = wide // deep
    most = max(_TILE_ROWS // heads // _RUN, 1) * _RUN
    longest = min(most, chosen.shape[1])
    tile = acc.new_empty((longest * heads, blocks.block))
    for b, start, stop in take_runs(chosen, _RUN, most):
        key, value = blocks[b]
        weight = torch.mm(
            queries[start:stop].view(-1, deep), key, out=tile[: (stop - start) * heads]
        )
        acc[start:stop].view(-1, deep).addmm_(_weigh(weight, clamp), value)
    gathered = acc.new_empty((longest, wide))
    partial = acc.new_empty((longest, wide))
    views: dict[int, tuple[Tensor, ...]] = {}  # of the buffers, by length: lengths repeat
    for b, whole in query_lists(chosen):
        key, value = blocks[b]
        for rows in whole.chunk(-(-len(whole) // most)) if len(whole) > most else (whole,):
            size = len(rows)
            if size not in views:
                taken, sums = gathered[:size], partial[:size]
                weights = tile[: size * heads]
                views[size] = taken, taken.view(-1, deep), weights, sums.view(-1, deep), sums
            taken, mine, weights, products, sums = views[size]
            torch.index_select(queries, 0, rows, out=taken)
            torch.mm(mine, key, out=weights)
            torch.mm(_weigh(weights, clamp), value, out=products)
            acc.index_add_(0, rows, sums)


def _weigh(logits: Tensor, clamp: bool) -> Tensor:
    """Softmax terms of shifted logits, in place."""
    if clamp:
        logits.clamp_min_(_LOWEST)
    return logits.exp2_()
