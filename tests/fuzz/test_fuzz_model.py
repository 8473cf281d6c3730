"""The model of the fuzzing against the brute force of the conformance suite, written apart."""

from __future__ import annotations

import numpy as np
from fuzz_model import attend_row, keep_blocks, merge, score_blocks
from hypothesis import given, settings
from hypothesis import strategies as st

from msa_suites.correctness import bruteforce


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(1, 20),
    block=st.integers(1, 6),
    topk=st.integers(2, 5),
    sinks=st.integers(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_two_writings_of_the_method_agree(length, block, topk, sinks, seed):
    draw = np.random.default_rng(seed)
    queries, query = draw.normal(size=(2, 3)), draw.integers(-2, 3, 2)
    keys, values, index_keys = (
        draw.normal(size=(length, 3)),
        draw.normal(size=(length, 3)),
        draw.integers(-2, 3, (length, 2)),
    )
    position = int(draw.integers(0, length))
    scored = score_blocks(query, index_keys, position, block, 0.5)
    assert scored.scores == [
        bruteforce.block_score(query, index_keys, position, block, b, 0.5)
        for b in range(position // block + 1)
    ]
    kept = keep_blocks(scored.scores, position, block, topk, 1, sinks)
    assert kept == bruteforce.chosen_blocks(scored.scores, position, block, topk, 1, sinks)
    found = attend_row(queries, keys, values, set(kept), position, block, 0.7)
    for head in range(2):
        out, lse = bruteforce.attention_row(queries[head], keys, values, kept, position, block, 0.7)
        np.testing.assert_allclose(found.out[head], out, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(found.lse[head], lse, rtol=1e-12, atol=1e-12)


def test_parts_merge_to_the_whole():
    draw = np.random.default_rng(0)
    queries, keys, values = (draw.normal(size=(n, 3)) for n in (2, 12, 12))
    whole = attend_row(queries, keys, values, {0, 1, 2}, 11, 4, 1.0)
    parts = [attend_row(queries, keys, values, {b}, 11, 4, 1.0) for b in range(3)]
    out, lse = merge(np.stack([p.out for p in parts]), np.stack([p.lse for p in parts]))
    np.testing.assert_allclose(out, whole.out, rtol=1e-12)
    np.testing.assert_allclose(lse, whole.lse, rtol=1e-12)
