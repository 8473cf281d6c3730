"""Exact work: what is counted must not depend on threads, and must see what really runs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

import msa_kernels
from msa import reference
from msa_suites.cases import cases_for
from msa_suites.inputs import make_inputs
from msa_suites.speed import limits, suite
from msa_suites.speed.cached_work import count_cache
from msa_suites.speed.counting import count_operation
from msa_suites.speed.planning import count_planning
from msa_suites.speed.retrofit_work import count_forward
from msa_suites.speed.series import counted_series, speed_series
from msa_suites.speed.work import count_work


@pytest.fixture(scope="module")
def series():
    return next(one for one in counted_series() if one.case.name == "prefill-4096-low")


def test_operations_are_counted_on_all_threads(series):
    call = series.first_call()
    fast = msa_kernels.load("torch")
    counts = []
    threads = torch.get_num_threads()
    for number in (1, 2):
        torch.set_num_threads(number)
        try:
            counts.append(count_operation(fast, "attend", *call.args, **call.kwargs))
            assert torch.get_num_threads() == number
        finally:
            torch.set_num_threads(threads)
    assert counts[0] == counts[1]
    case = series.case
    (tokens,) = case.k_lens
    scoring = 2 * case.Di * case.Hkv * tokens * tokens / 2  # causal: half of the pairs
    assert counts[0] > scoring  # ours scores every visible pair, then attends
    # A path that quietly attends to everything does more.
    dense = 4 * case.D * case.Hq * tokens * tokens
    assert counts[0] < dense


def test_dense_attention_is_counted_as_all_pairs():
    q = torch.randn(1, 4, 96, 16)

    class Dense:
        attend = staticmethod(scaled_dot_product_attention)

    assert count_operation(Dense, "attend", q, q, q) == 4 * 4 * 96 * 96 * 16


def test_attended_tokens_are_those_a_query_sees():
    case = next(iter(cases_for("prefill")))
    case = replace(case, q_lens=(200,), k_lens=(200,), block=32, topk=3, Hq=4, Hkv=2)
    inputs = make_inputs(case)
    scores = reference.block_scores(
        *(inputs.q_idx, inputs.k_idx),
        cu_q=inputs.cu_q,
        cu_k=inputs.cu_k,
        block=case.block,
        scale=case.index_scale,
    )
    selection = reference.select_blocks(scores, cu_q=inputs.cu_q, cu_k=inputs.cu_k, **case.settings)
    lengths = {"cu_q": inputs.cu_q, "cu_k": inputs.cu_k}
    work = count_work(selection, **lengths, block=case.block, heads=case.Hq, dim=case.D)
    tokens = sum(
        1
        for row in range(200)
        for group in range(2)
        for block in selection[row, group].tolist()
        if block >= 0
        for token in range(block * 32, block * 32 + 32)
        if token <= row
    )
    assert work.tokens == tokens
    assert work.flops == 4 * case.D * 2 * tokens


def test_attended_tokens_of_a_batch_of_chunks_count_from_their_own_sequence():
    case = replace(next(iter(cases_for("prefill"))), q_lens=(3, 20), k_lens=(50, 21), block=16)
    inputs = make_inputs(case)
    # Block 2 ends at position 48; the second sequence has blocks 0 and 1, and starts at 1.
    selection = torch.full((23, 1, 2), -1, dtype=torch.int32)
    selection[:3, 0, 0] = 2
    selection[3:, 0, 0] = 0
    lengths = {"cu_q": inputs.cu_q, "cu_k": inputs.cu_k}
    work = count_work(selection, **lengths, block=16, heads=2, dim=8)
    seen = sum(min(position + 1, 16) for position in range(1, 21))
    assert (work.tokens, work.blocks) == (3 * 16 + seen, 23)
    assert work.flops == 4 * 8 * 2 * work.tokens


def test_the_work_of_a_retrofit_shows_what_is_computed_for_nothing(monkeypatch):
    from msa import fast, retrofit_attention

    counts = count_forward(fast)
    assert counts == count_forward(fast)  # exact, in every run
    assert counts["held_bytes/retrofit"] < 100_000  # the plan of the batch, for its other layers
    right = retrofit_attention.attention

    def wasteful(module, query, key, *rest, **more):
        torch.ones(300, 300) @ torch.ones(300, 300)
        return right(module, query, key, *rest, **more)

    kept = retrofit_attention.Active.packing

    def planned_again(active, *tensors):
        active.planned = None
        return kept(active, *tensors)

    monkeypatch.setattr("msa.retrofit.attention", wasteful)
    monkeypatch.setattr("msa.retrofit_attention.Active.packing", planned_again)
    after = count_forward(fast)
    planning = after["planning/retrofit-step"] / counts["planning/retrofit-step"]
    assert planning > 1.04  # of 1.02 that its gate allows
    assert after["flops/retrofit"] - counts["flops/retrofit"] == 3 * 2 * 300**3  # of its layers


def test_operators_on_what_no_layer_made_are_planning_and_no_others():
    mask, lengths = torch.ones(4, 8, dtype=torch.bool), torch.tensor([3, 5])
    hidden = torch.randn(4, 8)

    def layer():
        ids = hidden.topk(2).indices  # integers, but of this layer
        order = ids.sort().values
        table = torch.zeros(4, 2, dtype=torch.int64).copy_(order)
        return table + 1, hidden[mask]

    def plan():
        totals = torch.zeros(2, dtype=torch.int64)
        totals.copy_(lengths)
        return mask.sum(), totals.tolist()

    alone = count_planning(plan)
    assert alone >= 2
    assert count_planning(layer) == 0
    assert count_planning(lambda: [(layer(), plan()) for _ in range(50)]) == 50 * alone


def test_the_limit_of_the_timed_shapes_is_equation_12(monkeypatch):
    monkeypatch.setattr(limits, "machine_peaks", lambda *_, **__: {})  # seconds of clock, not asked
    document = limits.speed_limits(speed_series("full"))
    ratios = {row["length"]: row["ratio"] for row in document["rows"]}
    assert set(ratios) == {4096, 8192, 16384, 32768}
    # A query at N = 32768 by hand: dense 4 Hq D N/2 = 33.6e6 operations, index scores
    # 2 Hkv Di N/2 = 4.2e6, attention over 16 blocks 4 Hq D k Bk = 4.2e6: 33.6 / 8.4.
    assert ratios[32768] == pytest.approx(4.0, abs=0.05)
    assert limits.speed_limits(speed_series("quick", cases=())) is None


def test_timed_series_of_a_gate_take_turns_and_share_one_length_with_dense_in_a_check():
    table = list(speed_series("quick", dense=True))
    assert {suite._timed(one, together=False).group for one in table} == {"all"}
    groups = {one.name: suite._timed(one, together=True).group for one in table}
    assert groups["speed/prefill/4096/low"] == groups["speed/dense/4096"] != ""
    assert groups["speed/decode/8192"] == groups["speed/control/dense"] == ""


def test_the_work_of_a_cache_is_that_of_what_comes_and_is_read():
    counts = count_cache()
    assert counts == count_cache()  # exact, in every run
    pool = 67 * 2 * 128 * 64 * 4
    assert counts["peak_bytes/cache-append"] < pool / 100
    assert counts["peak_bytes/cache-decode"] < pool
    tokens = 8194  # two more in a page of their own
    scored = 2 * 2 * 64 * 65 * 128
    attended = 4 * 8 * 64 * (7 * 128 + tokens % 128)
    assert attended < counts["flops/cache-decode"] - scored < 1.2 * 4 * 8 * 64 * 8 * 128


def test_a_copy_of_all_index_keys_is_seen(monkeypatch):
    from msa.cache import PagedCache

    right = PagedCache.index_keys
    before = count_cache()
    monkeypatch.setattr(PagedCache, "index_keys", lambda self, request: right(self, request) + 0)
    after = count_cache()
    copied = 65 * 128 * 64 * 4
    assert after["peak_bytes/cache-decode"] > before["peak_bytes/cache-decode"] + copied / 4


def test_a_cache_that_copies_its_pool_is_seen(monkeypatch):
    from msa.cache import PagedCache

    right = PagedCache.append

    def copying(cache, *args, **rest):
        right(cache, *args, **rest)
        cache.k_pages = cache.k_pages.clone()

    before = count_cache()
    monkeypatch.setattr(PagedCache, "append", copying)
    after = count_cache()
    assert after["peak_bytes/cache-append"] > before["peak_bytes/cache-append"] + 4_000_000
    assert after["flops/cache-decode"] == before["flops/cache-decode"]
