"""Recorded overlap: drawn in threads, as the sides of a run do it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch

from msa_suites.cases import cases_for
from msa_suites.inputs import make_inputs
from msa_suites.speed import recorded


def test_threads_record_the_same_context_at_once():
    case = replace(next(iter(cases_for("prefill"))), q_lens=(640,), k_lens=(640,), Hkv=2, Hq=4)
    inputs = make_inputs(replace(case, D=64, Di=64))
    recorded._recording.cache_clear()
    with ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(lambda index: recorded.recorded_inputs(inputs, index), (0, 0, 1, 1)))
    assert torch.equal(drawn[0].q_idx, drawn[1].q_idx)
    assert torch.equal(drawn[2].k_idx, drawn[3].k_idx)
    assert not torch.equal(drawn[0].q_idx, drawn[2].q_idx)


def test_a_chunk_is_the_end_of_the_same_context():
    case = replace(next(iter(cases_for("prefill"))), q_lens=(640,), k_lens=(640,), Hkv=2, Hq=4)
    whole = recorded.recorded_inputs(make_inputs(case), 0)
    chunk = recorded.recorded_inputs(make_inputs(replace(case, q_lens=(100,))), 0)
    assert torch.equal(chunk.q_idx, whole.q_idx[-100:])
    assert torch.equal(chunk.k_idx, whole.k_idx)
