"""A selection turned round: for every block the queries that chose it, and back again.

A list is one row: of block 0 in every sequence that has one, then of block 1, and so on. Within it
stand the queries, counted from the start of their own sequence, in ascending order.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from msa.checks import came, require_positive
from msa.packing import count_blocks


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """What belongs to one result of :func:`build_k2q_csr`.

    Attributes:
        row_ptr: the first result.
        heads: query heads of each head of keys.
    """

    row_ptr: Tensor
    heads: int


def build_k2q_csr(
    q2k_indices: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    kv_block_size: int,
    *,
    total_k: int | None = None,
    max_seqlen_k: int | None = None,
    max_seqlen_q: int | None = None,
    total_rows: int | None = None,
    qhead_per_kv: int = 1,
    return_schedule: bool = False,
) -> tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Schedule]:
    """The queries of every block; waits for the lengths if they are on a GPU.

    Args:
        q2k_indices: int32 ``[Hkv, T, topK]``, block ids of each sequence in any order, -1 for none.
        cu_seqlens_q: int32 ``[B + 1]``.
        cu_seqlens_k: int32 ``[B + 1]``.
        kv_block_size: tokens of a block.
        total_k: keys of all sequences, or 0 beside ``total_rows``.
        max_seqlen_k: keys of the longest sequence, or more; needed for a schedule.
        max_seqlen_q: queries of the longest sequence, or more; needed for a schedule.
        total_rows: blocks of all sequences.
        qhead_per_kv: query heads of each head of keys.
        return_schedule: whether a schedule is returned.

    Returns:
        where each row starts, int32 ``[Hkv, rows + 1]``; the queries of all rows, int32
        ``[Hkv, T * topK]``, the rest -1; and the schedule, if it is asked for.

    Raises:
        TypeError: ids that are not int32.
        ValueError: sizes or lengths that do not fit, a block that its sequence has not.
    """
    if q2k_indices.dtype != torch.int32:
        raise TypeError(f"q2k_indices: wanted int32 [Hkv, T, topK], got {came(q2k_indices)}")
    if q2k_indices.ndim != 3 or not q2k_indices.shape[2]:
        raise ValueError(f"q2k_indices: wanted int32 [Hkv, T, topK], got {came(q2k_indices)}")
    require_positive("kv_block_size", kv_block_size)
    require_positive("qhead_per_kv", qhead_per_kv)
    groups, count, topk = q2k_indices.shape
    q_lens = lengths_of("cu_seqlens_q", cu_seqlens_q, count)
    k_lens = lengths_of("cu_seqlens_k", cu_seqlens_k, None, len(q_lens))
    rows = rows_of(k_lens, kv_block_size)
    _require_total("total_k", total_k, sum(k_lens), spared=total_rows is not None)
    if total_rows is not None:
        _require_total("total_rows", total_rows, len(rows))
    for name, most, lens in (("q", max_seqlen_q, q_lens), ("k", max_seqlen_k, k_lens)):
        if most is not None or return_schedule:
            require_longest(f"max_seqlen_{name}", most, lens)

    device = q2k_indices.device
    sequence = torch.arange(len(q_lens)).repeat_interleave(torch.tensor(q_lens, dtype=torch.int64))
    row = _row_of_each(q2k_indices, sequence, k_lens, rows, kv_block_size)
    # One number orders by row, then by query; what is empty comes behind all rows.
    queries = torch.arange(count, device=device)
    order = torch.where(q2k_indices >= 0, row * count + queries[:, None], len(rows) * count)
    order = order.flatten(1).sort(-1).values  # [Hkv, T * topK]
    starts = torch.arange(len(rows) + 1, device=device) * count
    row_ptr = torch.searchsorted(order, starts.expand(groups, -1).contiguous()).int()
    local = queries - cu_seqlens_q.to(device)[:-1][sequence.to(device)]
    filled = order < len(rows) * count
    listed = torch.full((groups, count * topk), -1, dtype=torch.int32, device=device)
    listed[filled] = local[order[filled] % max(count, 1)].int()
    if return_schedule:
        return row_ptr, listed, Schedule(row_ptr, qhead_per_kv)
    return row_ptr, listed


def selection_of(
    row_ptr: Tensor, listed: Tensor, rows: list[tuple[int, int]], cu_q: Tensor, topk: int
) -> Tensor:
    """The way back: int32 ``[T, Hkv, topk]``, ascending, then -1.

    Args:
        row_ptr: int32 ``[Hkv, rows + 1]``.
        listed: int32 ``[Hkv, at least T * topk]``.
        rows: of :func:`rows_of`.
        cu_q: int32 ``[B + 1]``.
        topk: slots of a query.

    Raises:
        ValueError: lists that cannot be, or a query of more blocks than there are slots.
    """
    groups, count = len(row_ptr), int(cu_q[-1])
    lens = row_ptr.diff()
    if bool(row_ptr[:, 0].any()) or bool((lens < 0).any()) or int(row_ptr.max()) > listed.shape[1]:
        raise ValueError("k2q_row_ptr: wanted totals of k2q_q_indices, from 0, that never fall")
    sequence, block = torch.tensor(rows, dtype=torch.int64, device=listed.device).view(-1, 2).T
    found = torch.full((groups, count, topk), -1, dtype=torch.int32, device=listed.device)
    for head in range(groups):
        row = torch.arange(len(rows), device=listed.device).repeat_interleave(lens[head])
        local = listed[head, : len(row)]
        if bool((local < 0).any()) or bool((local >= cu_q.diff()[sequence[row]]).any()):
            raise ValueError("k2q_q_indices: wanted queries that their sequence has, got others")
        query = cu_q.long()[sequence[row]] + local
        query, order = query.sort(stable=True)
        slot = torch.arange(len(query), device=query.device) - torch.searchsorted(query, query)
        if len(slot) and int(slot.max()) >= topk:
            raise ValueError(f"topK: wanted at least {int(slot.max()) + 1} for lists, got {topk}")
        found[head, query, slot] = block[row[order]].int()
    return found.transpose(0, 1)


def _row_of_each(
    ids: Tensor, sequence: Tensor, k_lens: list[int], rows: list[tuple[int, int]], block: int
) -> Tensor:
    """The row of every id ``[Hkv, T, topK]``, where it is no -1."""
    widest = max((index + 1 for _, index in rows), default=0)
    table = torch.full((len(k_lens), max(widest, 1)), -1)
    for number, place in enumerate(rows):
        table[place] = number
    # An id beyond the widest sequence is looked up in the last column, and refused with the rest.
    columns = ids.long().clamp(0, table.shape[1] - 1)
    row = table.to(ids.device)[sequence.to(ids.device)[:, None], columns]
    wrong = (ids >= 0) & ((row < 0) | (ids >= widest))
    if bool(wrong.any()):
        head, query, slot = wrong.nonzero()[0].tolist()
        blocks = count_blocks(k_lens[int(sequence[query])], block)
        raise ValueError(
            f"q2k_indices: wanted blocks below {blocks} of query {query}, "
            f"got {int(ids[head, query, slot])}"
        )
    return row


def rows_of(k_lens: list[int], block: int) -> list[tuple[int, int]]:
    """Sequence and block of every row."""
    counts = [count_blocks(n, block) for n in k_lens]
    return [
        (sequence, index)
        for index in range(max(counts, default=0))
        for sequence, many in enumerate(counts)
        if index < many
    ]


def lengths_of(name: str, cu: object, rows: int | None, sequences: int | None = None) -> list[int]:
    """Lengths of the sequences, from int32 ``[B + 1]`` running totals.

    Raises:
        ValueError: no such totals, or not of so many rows and sequences.
    """
    if not isinstance(cu, Tensor) or cu.dtype != torch.int32 or cu.ndim != 1 or not len(cu):
        raise ValueError(f"{name}: wanted int32 [B + 1] running totals, got {came(cu)}")
    totals = cu.tolist()
    lens = [after - before for before, after in pairwise(totals)]
    if totals[0] != 0 or any(n < 0 for n in lens):
        raise ValueError(f"{name}: wanted totals that start at 0 and never fall, got {totals}")
    if rows is not None and totals[-1] != rows:
        raise ValueError(f"{name}: wanted a last total of {rows} rows, got {totals[-1]}")
    if sequences is not None and len(lens) != sequences:
        raise ValueError(f"{name}: wanted {sequences} sequences, got {len(lens)}")
    return lens


def require_longest(name: str, most: object, lens: list[int]) -> None:
    """``most`` covers the longest sequence.

    Raises:
        ValueError: it does not.
    """
    longest = max(lens, default=0)
    if not isinstance(most, int) or most < longest:
        raise ValueError(f"{name}: wanted an int of {longest} or more, got {came(most)}")


def _require_total(name: str, given: object, total: int, *, spared: bool = False) -> None:
    if given != total and not (spared and given == 0):
        raise ValueError(f"{name}: wanted {total}, as the lengths say, got {came(given)}")
