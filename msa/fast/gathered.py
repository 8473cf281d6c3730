"""Sparse attention on a CPU: products over gathered queries, without a running maximum.

A query's own block is always selected, and comes first, by the fused kernel. Its LSE then serves as
the shift of every other softmax term: a term that underflows is negligible beside the local block's
own sum of 1, and one that overflows shows as a non-finite result, which the caller sends down the
careful path. Partials become plain sums.

The shift rides in the matrix product as one more channel: queries are ``[q, -shift]``, keys
``[k * scale, 1]``. (The denominator does not: a product 65 columns wide takes a fifth longer than
one of 64, and a sum of the weights a tenth.) Logits are in bits, the scale has log2(e) in it:
PyTorch's exp2 takes little more than half the time of its exp.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.linalg import vector_norm

from msa.fast.lists import membership, query_lists, take_runs

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu

#: Rows (queries times heads) of a logit tile. With fewer, larger calls threads wait less for the
#: interpreter than a tile in the L2 cache would save.
_TILE_ROWS = 2048
#: Neighbouring queries that share a block are taken together in tiles of this many.
_RUN = 64
#: Logits below this give denormal weights, on which products are many times slower.
_LOWEST = -126.0
#: Denominators above this are computed again with a running maximum.
_HIGHEST = 1e30


def flash(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Causal attention of tiles, whose queries are the last of their tokens.

    Args:
        q: ``[b, n, R, D]``.
        k: ``[b, t, D]``.
        v: ``[b, t, D]``.
        scale: factor on the logits, above 0: the kernel scales after its mask.

    Returns:
        out ``[b, n, R, D]`` and LSE ``[b, n, R]``.
    """
    rows, heads = q.shape[1:3]
    before = k.shape[1] - rows
    # The kernel's own triangle starts at the first token.
    mask = q.new_full((rows, before + rows), -torch.inf).triu_(before + 1) if before else None
    # The kernel knows the strides of all axes but the last.
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    wide_k, wide_v = (x[:, None].expand(-1, heads, -1, -1) for x in (k, v))
    q = q.transpose(1, 2)
    out, lse = _flash(q, wide_k, wide_v, 0.0, mask is None, attn_mask=mask, scale=scale)
    return out.transpose(1, 2), lse.transpose(1, 2)


class KeyBlocks:
    """Keys and values of one sequence and group, in the layout of the products, made when used.

    Args:
        keys: float32 ``[S, D]``.
        values: float32 ``[S, D]``.
        block: tokens per block.
        scale: factor on the logits, above 0.
    """

    def __init__(self, keys: Tensor, values: Tensor, block: int, scale: float) -> None:
        self.keys, self.values, self.block, self.scale = keys, values, block, scale
        self.bits = scale / math.log(2)
        self._made: dict[int, Tensor] = {}
        #: Largest norm of a scaled key; NaN where an unread slot holds NaN.
        self.norm = float(vector_norm(keys, dim=-1).max()) * self.bits if len(keys) else 0.0

    def __getitem__(self, b: int) -> tuple[Tensor, Tensor]:
        """Keys ``[D + 1, block]`` and values ``[block, D]`` of a whole block."""
        rows = slice(b * self.block, (b + 1) * self.block)
        found = self._made.get(b)
        if found is None:
            found = self.keys.new_ones((self.keys.shape[1] + 1, self.block))
            torch.mul(self.keys[rows].T, self.bits, out=found[:-1])
            self._made[b] = found
        return found, self.values[rows]

    def attend_own(self, q: Tensor, first: int, out: Tensor) -> Tensor:
        """Attention of consecutive queries over what each sees of its own block.

        Args:
            q: float32 ``[n, R, D]``.
            first: position of the first query.
            out: ``[n, R, D]``, is filled.

        Returns:
            LSE ``[n, R]``.
        """
        count, block, lead = len(q), self.block, first % self.block
        whole = min(-first % block, count)  # the first query of a block that is whole
        rest = count - (count - whole) % block
        lse = q.new_empty(q.shape[:2])
        for start, stop, before in ((0, whole, lead), (whole, rest, 0), (rest, count, 0)):
            if start < stop:
                tiles = max((stop - start) // block, 1)
                tokens = slice(first + start - before, first + stop)
                keys, values = (
                    x[tokens].unflatten(0, (tiles, -1)) for x in (self.keys, self.values)
                )
                found = flash(q[start:stop].unflatten(0, (tiles, -1)), keys, values, self.scale)
                out[start:stop], lse[start:stop] = (x.flatten(0, 1) for x in found)
        return lse


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
    acc = q.new_ones((count, heads, dim + 1))  # sums of values and weights in units of exp2(shift)
    shift = blocks.attend_own(q, first, acc[..., :dim]) / math.log(2)
    queries = torch.cat((q, -shift[..., None]), -1)
    # No logit lies further below its shift than this; NaN counts as too far.
    depth = float(vector_norm(q, dim=-1).max()) * blocks.norm + float(shift.max())
    wide = heads * (dim + 1)
    _add_blocks(
        acc.view(count, wide), queries.view(count, wide), blocks, chosen, not depth < -_LOWEST
    )
    total = acc[..., dim]
    out = acc[..., :dim].div_(total[..., None])
    if not bool((total < _HIGHEST).all()) or not bool(out.sum().isfinite()):
        return None
    return out, (shift + total.log2()) * math.log(2)


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
        _weigh(weight, clamp)
        sums = acc[start:stop].view(-1, deep)
        sums[:, :-1].addmm_(weight, value)
        sums[:, -1] += weight.sum(-1)
    gathered = acc.new_empty((longest, wide))
    partial = acc.new_empty((longest, wide))
    views: dict[int, tuple[Tensor, ...]] = {}  # of the buffers, by length: lengths repeat
    for b, whole in query_lists(chosen):
        key, value = blocks[b]
        for rows in whole.chunk(-(-len(whole) // most)) if len(whole) > most else (whole,):
            size = len(rows)
            if size not in views:
                taken, sums = gathered[:size], partial[:size]
                weights, parts = tile[: size * heads], sums.view(-1, deep)
                products, totals = parts[:, :-1], parts[:, -1:]
                views[size] = taken, taken.view(-1, deep), weights, products, totals, sums
            taken, mine, weights, products, totals, sums = views[size]
            torch.index_select(queries, 0, rows, out=taken)
            torch.mm(mine, key, out=weights)
            _weigh(weights, clamp)
            torch.mm(weights, value, out=products)
            torch.sum(weights, -1, keepdim=True, out=totals)
            acc.index_add_(0, rows, sums)


def _weigh(logits: Tensor, clamp: bool) -> None:
    """Softmax terms of shifted logits, in place."""
    if clamp:
        logits.clamp_min_(_LOWEST)
    logits.exp2_()
