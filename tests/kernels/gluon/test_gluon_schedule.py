"""The schedules in any order of events, and planted mistakes that each must be noticed.

What is run is the kernels' own source, so a mistake in it is found here and not in a model of it.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from gluon_runs import RUNS, SM90, SM100, Batch, assert_right, planted, simulated, with_keys
from hypothesis import given, settings
from hypothesis import strategies as st

from msa import reference
from msa_kernels.gluon_ops import attention, decoding, scoring
from msa_kernels.gluon_ops.attention import kernel as attention_kernel
from msa_kernels.gluon_ops.decoding import kernel as decoding_kernel
from msa_kernels.gluon_ops.scoring import kernel as scoring_kernel
from msa_kernels.gluon_ops.simulating import (
    DeadlockError,
    LostError,
    RaceError,
    SimulationError,
)


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("arm", [SM100, SM90], ids=lambda arm: arm.name)
@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    stages=st.integers(1, 4),
    tiles=st.integers(2, 3),
    length=st.integers(1, 4),
    rows=st.sampled_from([16, 32, 128]),
    keys=st.lists(st.integers(0, 300), min_size=1, max_size=3),
    asked=st.lists(st.integers(0, 150), min_size=3, max_size=3),
    own=st.booleans(),
    bits=st.sampled_from([16, 8, 4]),
    shape=st.sampled_from([(2, 2), (1, 1), (3, 3), (2, 5)]),
    part=st.sampled_from([1, 7, 50, 1000]),
)
def test_right_in_any_order(
    run, arm, seed, stages, tiles, length, rows, keys, asked, own, bits, shape, part
):
    """Random lengths, slots, runs and orders: no deadlock or race, nothing lost, right numbers."""
    most = 16 * part  # a launch a chunk: of many rows in small chunks only the time is more
    queries = tuple(min(a, k, most) for a, k in zip(asked, keys, strict=False))
    groups, share = shape
    batch = Batch(
        queries, tuple(keys), own_keys=own, seed=seed % 1000, bits=bits,
        groups=groups, share=share,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((scoring, "STAGES"), (attention, "SLOTS")):
            patch.setattr(module, name, stages)
        for module in (scoring, attention, decoding):
            patch.setattr(module, "TILES", tiles)
        patch.setattr(attention, "RUN", length)
        patch.setattr(attention, "ROWS", max(rows, share))
        # So many rows a chunk; and one slot for wide pages, or two.
        patch.setattr(attention, "_HELD", part * batch.heads * batch.topk * batch.dim * 2)
        patch.setattr(decoding, "_SHARED", (140 if part == 1 else 226) << 8)
        patch.setattr(decoding, "_STAGES", stages)
        patch.setattr(decoding, "_PROGRAMS", length)
        choose = random.Random(seed).randrange
        assert_right(*simulated(patch, run, arm, batch, choose=choose))


LOAD, REDUCE = scoring_kernel.load_keys, scoring_kernel.reduce
MULTIPLY = scoring_kernel.multiply
GATHER, ATTEND = attention_kernel.gather, attention_kernel.attend_tiles
PRODUCTS = attention_kernel.multiply
FETCH, WEIGH = decoding_kernel.fetch, decoding_kernel.attend_slots
DECODE, WIDEN_PAGES = decoding_kernel.multiply, decoding_kernel.widen_pages
WIDEN_KEYS = scoring_kernel.widen_keys
#: Run, arm, function, what stands there, what is put there, what must be raised.
PLANTED = {
    "wrong phase of an empty slot": (
        "scores", SM100, LOAD, "((step // STAGES) & 1) ^ 1", "(step // STAGES) & 1",
        DeadlockError,
    ),
    "wrong phase of an empty slot, registers": (
        "scores", SM90, LOAD, "((step // STAGES) & 1) ^ 1", "(step // STAGES) & 1",
        DeadlockError,
    ),
    "wrong phase of full keys": (
        "scores", SM100, MULTIPLY, "wait(k_full.index(slot), (step // STAGES) & 1)",
        "wait(k_full.index(slot), ((step // STAGES) & 1) ^ 1)", SimulationError,
    ),
    "a phase that never turns": (
        "scores", SM100, REDUCE, "wait(s_full.index(tile), (step // TILES) & 1)",
        "wait(s_full.index(tile), 0)", (RaceError, DeadlockError),
    ),
    "no wait for an empty slot": (
        "scores", SM100, LOAD,
        "mbarrier.wait(k_empty.index(slot), ((step // STAGES) & 1) ^ 1)", "pass",
        SimulationError,
    ),
    "no wait for the index queries": (
        "scores", SM100, MULTIPLY, "mbarrier.wait(q_full, 0)", "pass", SimulationError,
    ),
    "no wait for the index queries, registers": (
        "scores", SM90, REDUCE, "mbarrier.wait(q_full, 0)", "pass", SimulationError,
    ),
    "no wait for the index keys, registers": (
        "scores", SM90, REDUCE, "mbarrier.wait(k_full.index(slot), (step // STAGES) & 1)",
        "pass", SimulationError,
    ),
    "no wait for a product to be read": (
        "scores", SM100, MULTIPLY,
        "mbarrier.wait(s_empty.index(tile), ((step // TILES) & 1) ^ 1)", "pass", RaceError,
    ),
    "a product freed before it is read": (
        "scores", SM100, REDUCE, "product = products.index(tile).load(wide)",
        "mbarrier.arrive(s_empty.index(tile), count=1); "
        "product = products.index(tile).load(wide); continue", SimulationError,
    ),
    "keys freed before they are read, registers": (
        "scores", SM90, REDUCE, "zeros = gl.zeros([ROWS, BLOCK], gl.float32, wide)",
        "mbarrier.arrive(k_empty.index(slot), count=1); "
        "zeros = gl.zeros([ROWS, BLOCK], gl.float32, wide)", SimulationError,
    ),
    "keys freed when the product begins": (
        "scores", SM100, MULTIPLY,
        "mbarriers=[k_empty.index(slot), s_full.index(tile)],\n        )",
        "mbarriers=[s_full.index(tile)])\n        mbarrier.arrive(k_empty.index(slot), count=1)",
        RaceError,
    ),
    "nobody frees the keys": (
        "scores", SM100, MULTIPLY, "mbarriers=[k_empty.index(slot), s_full.index(tile)]",
        "mbarriers=[s_full.index(tile)]", DeadlockError,
    ),
    "bytes that never come": (
        "scores", SM90, LOAD, "mbarrier.expect(q_full, Q_BYTES)",
        "mbarrier.expect(q_full, 2 * Q_BYTES)", DeadlockError,
    ),
    "a block left out": (
        "scores", SM90, LOAD, "for step in range(steps):", "for step in range(steps - 1):",
        DeadlockError,
    ),
    "a block too many": (
        "scores", SM90, LOAD, "for step in range(steps):", "for step in range(steps + 1):",
        LostError,
    ),
    "a column written twice": (
        "scores", SM100, REDUCE, "of = block - turn + column", "of = block - turn + column // 2",
        LostError,
    ),
    "queries gathered into a slot in use": (
        "attention", SM100, GATHER,
        "mbarrier.wait(q_empty.index(slot), ((step // SLOTS) & 1) ^ 1)", "pass",
        SimulationError,
    ),
    "queries loaded into a slot in use, registers": (
        "attention", SM90, GATHER,
        "mbarrier.wait(q_empty.index(slot), ((step // SLOTS) & 1) ^ 1)", "pass",
        SimulationError,
    ),
    "no wait for loads, registers": (
        "attention", SM90, GATHER, "wait_group(0)", "pass", SimulationError,
    ),
    "no fence behind loads, registers": (
        "attention", SM90, GATHER, "fence_async_shared()", "pass", SimulationError,
    ),
    "no fence behind weights": (
        "attention", SM100, ATTEND, "weight.to(wide.dtype))\n                fence_async_shared()",
        "weight.to(wide.dtype))", SimulationError,
    ),
    "no wait for weights": (
        "attention", SM100, PRODUCTS,
        "mbarrier.wait(p_full.index(tile), (use // TILES) & 1)", "pass", SimulationError,
    ),
    "outputs read before they are there": (
        "attention", SM100, ATTEND, "mbarrier.wait(o_full.index(tile), (use // TILES) & 1)",
        "pass", SimulationError,
    ),
    "the last outputs forgotten": (
        "attention", SM100, ATTEND, "for step in range(steps + 1):", "for step in range(steps):",
        LostError,
    ),
    "a page fetched into a slot in use": (
        "decode", SM100, FETCH,
        "mbarrier.wait(v_empty.index(stage), phase)", "pass", SimulationError,
    ),
    "a page freed before its values are read": (
        "decode", SM100, DECODE, "mbarriers=[k_empty.index(stage), s_full.index(tile)]",
        "mbarriers=[k_empty.index(stage), s_full.index(tile), v_empty.index(stage)]",
        SimulationError,
    ),
    "a page freed before its values are read, registers": (
        "decode", SM90, WEIGH, "nothing = gl.zeros([ROWS, DIM], gl.float32, o_layout)",
        "mbarrier.arrive(v_empty.index(stage), count=1); "
        "nothing = gl.zeros([ROWS, DIM], gl.float32, o_layout)", SimulationError,
    ),
    "raw pages freed before they are wide": (
        "decode", SM100, WIDEN_PAGES,
        "widen_tile(\n            raw_values", "mbarrier.arrive(rv_empty.index(stage), count=1)\n"
        "        widen_tile(\n            raw_values", SimulationError,
    ),
    "wide keys overwritten": (
        "scores", SM90, WIDEN_KEYS,
        "mbarrier.wait(k_empty.index(into), ((step // WIDES) & 1) ^ 1)", "pass", SimulationError,
    ),
    "no fence behind wide keys": (
        "scores", SM100, WIDEN_KEYS, "fence_async_shared()", "pass", SimulationError,
    ),
    "no wait for wide keys": (
        "attention", SM100, PRODUCTS, "mbarrier.wait(kv_ready, 0)", "pass", SimulationError,
    ),
    "no wait for index keys of four bits": (
        "scores", SM100, WIDEN_KEYS, "mbarrier.wait(raw_full.index(slot), (step // STAGES) & 1)",
        "pass", SimulationError,
    ),
    "no wait for index keys of four bits, registers": (
        "paged scores", SM90, WIDEN_KEYS,
        "mbarrier.wait(raw_full.index(slot), (step // STAGES) & 1)", "pass", SimulationError,
    ),
    "no wait for a page of four bits": (
        "decode", SM90, WIDEN_PAGES, "mbarrier.wait(rv_full.index(stage), come)", "pass",
        SimulationError,
    ),
    "no wait for keys of four bits": (
        "attention", SM90, ATTEND, "mbarrier.wait(kv_full, 0)", "pass", SimulationError,
    ),
    "keys of four bits overwritten": (
        "scores", SM90, WIDEN_KEYS,
        "mbarrier.wait(k_empty.index(into), ((step // WIDES) & 1) ^ 1)", "pass", SimulationError,
    ),
    "no fence behind a page of four bits": (
        "decode", SM100, WIDEN_PAGES,
        "fence_async_shared()\n        mbarrier.arrive(v_full", "mbarrier.arrive(v_full",
        SimulationError,
    ),
}  # fmt: skip
LONG = {
    "scores": with_keys(40, 1500),
    "paged scores": with_keys(40, 1500),
    "attention": Batch((130, 300), (130, 310)),
    "decode": with_keys(310, 290, 20),
}


def _bits(name):
    return 4 if "four bits" in name else 8 if "wide" in name else 16


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_mistake_is_noticed(monkeypatch, name):
    run, arm, function, old, new, wanted = PLANTED[name]
    monkeypatch.setattr(decoding, "_STAGES", 2)
    monkeypatch.setattr(decoding, "_PROGRAMS", 1)
    monkeypatch.setattr(attention, "ROWS", 32)  # several tiles a unit
    for seed in range(3):  # in whatever order
        with pytest.raises(wanted):
            simulated(
                monkeypatch, run, arm, replace(LONG[run], bits=_bits(name)),
                choose=random.Random(seed).randrange, replaced=planted(function, (old, new)),
            )  # fmt: skip


@pytest.mark.parametrize("run", RUNS)
def test_what_mistakes_are_planted_into_is_right(monkeypatch, run):
    for arm in (SM100, SM90):
        assert_right(*simulated(monkeypatch, run, arm, LONG[run]))


@pytest.mark.parametrize(
    ("run", "module", "name", "wanted"),
    [
        ("attention", attention, "TILES", SimulationError),
        ("decode", decoding, "TILES", SimulationError),
    ],
)
def test_two_of_them_are_needed(monkeypatch, run, module, name, wanted):
    """Why the kernels want two tiles: the weights of one would be overwritten while in use."""
    monkeypatch.setattr(module, name, 1)
    monkeypatch.setattr(attention, "ROWS", 32)
    monkeypatch.setattr(decoding, "_PROGRAMS", 1)
    with pytest.raises(wanted):
        simulated(monkeypatch, run, SM100, LONG[run])


@pytest.mark.parametrize(
    ("run", "function", "old", "new"),
    [
        ("scores", REDUCE, "<= position[:, None]", "< position[:, None]"),
        ("attention", attention_kernel.weigh, "(row + offset)", "(row + offset - 1)"),
        ("attention", attention_kernel.store_outputs, "group * SHARE + member % SHARE",
         "group * SHARE + (member + 1) % SHARE"),
        ("decode", decoding_kernel.weigh_page, "(tokens - 1)", "(tokens - 2)"),
        ("decode", decoding_kernel.mend_values, "if tokens < BLOCK:", "if tokens < 0:"),
    ],
)  # fmt: skip
def test_a_wrong_row_is_seen_in_the_numbers(monkeypatch, run, function, old, new):
    """What is no matter of order: the simulated numbers are those of the source."""
    changed = planted(function, (old, new))
    pair = simulated(monkeypatch, run, SM100, Batch((60, 40), (70, 40)), replaced=changed)
    with pytest.raises(AssertionError):
        assert_right(*pair)


@pytest.mark.parametrize("arm", [SM100, SM90], ids=lambda arm: arm.name)
def test_what_nobody_reads_may_be_nan(arm):
    """Of a block that one query chose, what lies behind that query is read by nobody."""
    q, k, v = (torch.randn(64, heads, 32).half() for heads in (2, 1, 1))
    chosen = torch.zeros(64, 1, 2, dtype=torch.int32)
    chosen[..., 1] = -1
    chosen[40, 0, 1] = 1
    k[41:], v[41:] = torch.nan, torch.nan
    cu = torch.tensor([0, 64], dtype=torch.int32)
    packing = {"cu_q": cu, "cu_k": cu, "block": 32}
    got = attention.sparse_attention(arm, q, k, v, chosen, **packing, scale=0.2)
    doubles = (x.double() for x in (q, k, v))
    assert_right(got, reference.sparse_attention(*doubles, chosen, **packing, scale=0.2))


@pytest.mark.parametrize("arm", [SM100, SM90], ids=lambda arm: arm.name)
@pytest.mark.parametrize(("low", "high"), [(0, 13), (13, 45), (40, 45)])
def test_some_rows_of_scores_are_part_of_the_whole(arm, low, high):
    batch = Batch()
    whole, _ = RUNS["scores"](arm, batch)
    (k, _), q = batch.cached(340, 1), batch.draw(45, 2, batch.dim)
    part = torch.full((high - low, *whole.shape[1:]), -torch.inf)
    scoring.score_rows(arm, q, k, part, low, **batch.packing, scale=0.2)
    torch.testing.assert_close(part, whole[low:high], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kernel", ["scores", "attention", "decode"])
def test_no_fence_behind_new_barriers(monkeypatch, kernel):
    whole = {
        "scores": scoring_kernel.score_blocks,
        "attention": attention_kernel.attend_units,
        "decode": decoding_kernel.attend_pages,
    }[kernel]
    changed = planted(whole, ("fence_async_shared()", "pass"))
    with pytest.raises(SimulationError, match="wanted a fence behind its initialisation"):
        simulated(monkeypatch, kernel, SM100, LONG[kernel], replaced=changed)
