"""What programs are told to do: every row and slot once, and nothing that does not count."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from msa.packing import cumulative, segments
from msa_kernels.gluon_ops.attention.planning import plan_units
from msa_kernels.gluon_ops.decoding.planning import plan_slots
from msa_kernels.gluon_ops.scoring.planning import plan_requests, plan_tiles

LENGTHS = st.lists(
    st.tuples(st.integers(0, 70), st.integers(0, 90)).map(lambda two: (min(two), max(two))),
    min_size=1,
    max_size=4,
)


def owner(ranges, row):
    return next(one for one in ranges if one.q_start <= row < one.q_stop)


@given(LENGTHS, st.data())
def test_every_row_is_in_one_tile_of_its_sequence(lengths, data):
    cu_q, cu_k = (cumulative([one[i] for one in lengths]) for i in (0, 1))
    ranges, rows = segments(cu_q, cu_k), int(cu_q[-1])
    low = data.draw(st.integers(0, rows))
    high = data.draw(st.integers(low, rows))
    tokens = data.draw(st.sampled_from([1, 7, 32]))
    plan = plan_tiles(cu_q, cu_k, low=low, rows=high - low, tokens=tokens)
    seen = []
    for first, stop, shift, start in plan.tolist():
        for row in range(first, min(first + tokens, stop)):
            one = owner(ranges, row)
            assert stop <= one.q_stop
            assert start == one.k_start
            assert row + shift == one.first_position + row - one.q_start
            seen.append(row)
    assert sorted(seen) == list(range(low, high))


@given(st.lists(st.integers(1, 99), min_size=1, max_size=4), st.integers(1, 9), st.integers(1, 5))
def test_every_query_of_a_request_is_in_one_tile(lengths, queries, tokens):
    plan = plan_requests(torch.tensor(lengths).int(), queries=queries, tokens=tokens)
    seen = []
    for first, stop, shift, request in plan.tolist():
        for row in range(first, min(first + tokens, stop)):
            assert row // queries == request
            assert row + shift == lengths[request] - queries + row % queries
            seen.append(row)
    assert sorted(seen) == list(range(len(lengths) * queries))


@given(LENGTHS, st.data())
def test_every_slot_that_counts_is_in_one_unit(lengths, data):
    """In any order of a selection, with blocks that are empty, twice there or not visible."""
    block, groups, topk = 16, 2, 3
    cu_q, cu_k = (cumulative([one[i] for one in lengths]) for i in (0, 1))
    ranges, rows = segments(cu_q, cu_k), int(cu_q[-1])
    low = data.draw(st.integers(0, rows))
    seed = data.draw(st.integers(0, 2**32))
    queries = data.draw(st.sampled_from([1, 4, 64]))
    shape = (rows - low, groups, topk)
    chosen = torch.randint(-1, 7, shape, generator=torch.Generator().manual_seed(seed)).int()
    units = plan_units(
        chosen, low, cu_q=cu_q, cu_k=cu_k, block=block, tokens=int(cu_k[-1]), queries=queries
    )
    wanted, seen = set(), []
    for row in range(rows - low):
        one = owner(ranges, row + low)
        position = one.first_position + row + low - one.q_start
        for group in range(groups):
            for slot, number in enumerate(chosen[row, group].tolist()):
                again = number in chosen[row, group, :slot].tolist()
                if 0 <= number <= position // block and not again:
                    wanted.add(((row * groups + group) * topk + slot, number))
    for first, stop, start, group, offset, tokens in units.plan.tolist():
        assert stop - first <= queries
        newest = max(
            (int(place) // (groups * topk) for place in units.order[first:stop]), default=0
        )
        for place in units.order[first:stop].tolist():
            row, inside = divmod(place, groups * topk)
            one = owner(ranges, row + low)
            number = int(chosen.flatten()[place])
            assert inside // topk == group
            assert start == one.k_start + number * block
            assert tokens == min(block, newest + offset + 1)
            assert row + offset == one.first_position + row + low - one.q_start - number * block
            seen.append((place, number))
    assert sorted(seen) == sorted(wanted)


@given(st.lists(st.integers(3, 90), min_size=1, max_size=3), st.integers(0, 2**32))
def test_the_slots_of_a_query_are_its_pages(lengths, seed):
    block, groups, topk, queries = 16, 2, 4, 3
    generator = torch.Generator().manual_seed(seed)
    k_lens = torch.tensor(lengths).int()
    table = torch.randperm(len(lengths) * 6, generator=generator).view(-1, 6).int()
    chosen = torch.randint(-1, 6, (len(lengths), queries, groups, topk), generator=generator).int()
    chosen = chosen.minimum((k_lens[:, None, None, None] - 1) // block)
    slots = plan_slots(chosen, page_table=table, k_lens=k_lens, block=block)
    found = zip(slots.counts.tolist(), slots.places.tolist(), strict=True)
    for item, (count, places) in enumerate(found):
        request, rest = divmod(item, queries * groups)
        query, group = divmod(rest, groups)
        position = lengths[request] - queries + query
        of = chosen[request, query, group].tolist()
        wanted = []
        for slot, number in enumerate(of):
            if 0 <= number <= position // block and number not in of[:slot]:
                page = int(table[request, number])
                seen = min(position - number * block + 1, block)
                wanted.append([(page * groups + group) * block, seen, slot])
        assert sorted(places[:count]) == sorted(wanted)
