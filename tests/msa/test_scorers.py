"""Each scorer against its definition, word for word, in float64 loops."""

from __future__ import annotations

import importlib

import pytest
import torch

from msa import reference
from msa.packing import cumulative, segments
from msa.scorers import ALL_HEADS, SCORERS, find_scorer, tiles

BLOCK = 4
LENGTHS = [(9, 9), (3, 14), (1, 8), (0, 5), (4, 4), (1, 1)]


def packed(heads=4, k_heads=2, dim=6, seed=0, dtype=torch.float32):
    draw = torch.Generator().manual_seed(seed)
    cu_q = cumulative([a for a, _ in LENGTHS])
    cu_k = cumulative([b for _, b in LENGTHS])
    q = torch.randn(int(cu_q[-1]), heads, dim, generator=draw).to(dtype)
    k = torch.randn(int(cu_k[-1]), k_heads, dim, generator=draw).to(dtype)
    return q, k, {"cu_q": cu_q, "cu_k": cu_k, "block": BLOCK, "scale": 0.3}


def visible_keys(k, cu_q, cu_k):
    """For every query row: (row, group, block, keys of the block that it may see)."""
    for s in segments(cu_q, cu_k):
        for i in range(s.q_len):
            position = s.k_len - s.q_len + i
            for block in range(position // BLOCK + 1):
                stop = min((block + 1) * BLOCK, position + 1)
                rows = slice(s.k_start + block * BLOCK, s.k_start + stop)
                yield s.q_start + i, block, k[rows].double()


def by_definition(name, q, k, *, cu_q, cu_k, scale, **_):
    groups = k.shape[1] if name in ALL_HEADS else q.shape[1]
    columns = -(-int((cu_k[1:] - cu_k[:-1]).max()) // BLOCK)
    want = torch.full((len(q), groups, columns), -torch.inf, dtype=torch.float64)
    for row, block, keys in visible_keys(k, cu_q, cu_k):
        for group in range(groups):
            mine = keys[:, group % keys.shape[1]]
            query = q[row].double().view(groups, -1, q.shape[2])[group] * scale  # [R, Di]
            token = mine @ query.T  # [tokens, R]
            low, high = mine.min(0).values, mine.max(0).values
            want[row, group, block] = {
                "max": token.max(),
                "mean": token.mean(),
                "recent": torch.tensor(float(block)),
                "quest": torch.maximum(query * low, query * high).sum(),
                "oracle": token.exp().sum(0)[0],
            }[name]
            if name == "oracle":
                total = torch.zeros(len(query), dtype=torch.float64)
                for s in segments(cu_q, cu_k):
                    if s.q_start <= row < s.q_stop:
                        stop = s.k_start + s.first_position + row - s.q_start + 1
                        total = (k[s.k_start : stop, group].double() @ query.T).exp().sum(0)
                want[row, group, block] = (token.exp().sum(0) / total).mean()
    return want


#: Those with one definition per block; the relatives' are in test_scorers_relatives.py.
PER_BLOCK = ("max", "mean", "quest", "recent", "oracle")


@pytest.mark.parametrize("k_heads", [2, 1])
@pytest.mark.parametrize("name", PER_BLOCK)
def test_scorer_is_its_definition(name, k_heads):
    heads = 4 if name in ALL_HEADS else 2
    q, k, packing = packed(heads, k_heads)
    got = SCORERS[name](q, k, **packing)
    want = by_definition(name, q, k, **packing)
    assert got.dtype == torch.float32
    assert torch.equal(got.isinf(), want.isinf())
    torch.testing.assert_close(got.double(), want, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("name", sorted(SCORERS))
def test_tiles_of_one_row_give_the_same(name, monkeypatch):
    q, k, packing = packed(4 if name in ALL_HEADS else 2)
    whole = SCORERS[name](q, k, **packing)
    monkeypatch.setattr(tiles, "TILE_BYTES", 1)
    torch.testing.assert_close(SCORERS[name](q, k, **packing), whole, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", sorted(SCORERS))
def test_a_chunk_scores_like_the_rows_of_the_whole(name):
    """A chunk that begins inside a block, and a single decoded token."""
    draw = torch.Generator().manual_seed(3)
    q = torch.randn(14, 4 if name in ALL_HEADS else 2, 6, generator=draw)
    k = torch.randn(14, 2, 6, generator=draw)
    whole = SCORERS[name](
        q, k, cu_q=cumulative([14]), cu_k=cumulative([14]), block=BLOCK, scale=1.0
    )
    for rows in (9, 1):
        part = SCORERS[name](
            q[-rows:], k, cu_q=cumulative([rows]), cu_k=cumulative([14]), block=BLOCK, scale=1.0
        )
        torch.testing.assert_close(part, whole[-rows:], atol=1e-6, rtol=1e-6)


def test_max_is_the_operation_of_the_reference():
    q, k, packing = packed(2)
    torch.testing.assert_close(
        SCORERS["max"](q, k, **packing), reference.block_scores(q, k, **packing)
    )


@pytest.mark.parametrize("name", sorted(set(SCORERS) - {"random", "recent"}))
def test_future_tokens_of_the_own_block_do_not_count(name):
    q, k, packing = packed(4 if name in ALL_HEADS else 2)
    before = SCORERS[name](q, k, **packing)
    k = k.clone()
    k[5:9] = 1e4  # queries 0 to 4 of the first sequence come before these keys
    after = SCORERS[name](q, k, **packing)
    assert torch.equal(before[:5], after[:5])
    assert not torch.equal(before[5:9], after[5:9])


def test_quest_bounds_max_and_oracle_sums_to_one():
    q, k, packing = packed(2)
    best, bound = SCORERS["max"](q, k, **packing), SCORERS["quest"](q, k, **packing)
    seen = best.isfinite()
    assert bool((bound[seen] >= best[seen] - 1e-6).all())
    q, k, packing = packed(4)
    mass = SCORERS["oracle"](q, k, **packing)
    torch.testing.assert_close(mass.clamp(min=0).sum(-1), torch.ones(mass.shape[:2]))


def test_random_depends_on_seed_and_position_only():
    q, k, packing = packed(2)
    first = SCORERS["random"](q, k, **packing, seed=7)
    assert torch.equal(first, SCORERS["random"](q * 3 + 1, k.flip(0), **packing, seed=7))
    assert not torch.equal(first, SCORERS["random"](q, k, **packing, seed=8))
    assert not torch.equal(first[:, 0], first[:, 1])


def test_random_is_uniform():
    q, k = torch.zeros(512, 2, 1), torch.zeros(512, 2, 1)
    cu = cumulative([512])
    drawn = SCORERS["random"](q, k, cu_q=cu, cu_k=cu, block=8, scale=1.0)
    drawn = drawn[drawn.isfinite()]
    counts = torch.histc(drawn, bins=16, min=0.0, max=1.0)
    expected = len(drawn) / 16
    # 15 degrees of freedom: 37.7 is the 0.1 % point.
    assert float(((counts - expected) ** 2 / expected).sum()) < 37.7


@pytest.mark.parametrize("name", sorted(SCORERS))
def test_tile_memory_is_bounded(name, monkeypatch):
    """The largest float tensor a tile makes stays near the bound, not near Tq * Tk."""
    seen = []
    tiles_of = tiles.query_tiles

    def watched(*args, **kwargs):
        for tile in tiles_of(*args, **kwargs):
            seen.append(len(tile.positions) * tile.sequence.k_len * kwargs["bytes_per_key"])
            yield tile

    for where in (name, "pooled", "compressed"):  # a scorer's own walk, or that of what it shares
        module = importlib.import_module(f"msa.scorers.{where}")
        if hasattr(module, "query_tiles"):
            monkeypatch.setattr(module, "query_tiles", watched)
    monkeypatch.setattr(tiles, "TILE_BYTES", 1 << 16)
    q = torch.zeros(300, 4 if name in ALL_HEADS else 2, 4)
    k = torch.zeros(300, 2, 4)
    cu = cumulative([300])
    SCORERS[name](q, k, cu_q=cu, cu_k=cu, block=BLOCK, scale=1.0)
    assert seen
    assert max(seen) <= 1 << 16


def test_unknown_scorer_lists_near_matches_and_valid_names():
    with pytest.raises(ValueError, match="did you mean quest") as caught:
        find_scorer("qest")
    assert "max, mean, quest, random, recent, oracle" in str(caught.value)
    assert find_scorer("max") is SCORERS["max"]


@pytest.mark.parametrize("name", sorted(SCORERS))
@pytest.mark.parametrize(
    ("change", "argument"),
    [
        ({"block": 0}, "block"),
        ({"cu_q": torch.tensor([0, 3], dtype=torch.int32)}, "cu_q"),
        ({"cu_q": torch.tensor([0, 3])}, "cu_q"),
    ],
)
def test_bad_input_names_the_argument(name, change, argument):
    q, k, packing = packed(4 if name in ALL_HEADS else 2)
    with pytest.raises(ValueError, match=f"^{argument}: wanted"):
        SCORERS[name](q, k, **{**packing, **change})


@pytest.mark.parametrize("name", sorted(SCORERS))
def test_inputs_are_not_changed(name):
    q, k, packing = packed(4 if name in ALL_HEADS else 2)
    kept = q.clone(), k.clone()
    SCORERS[name](q, k, **packing)
    assert torch.equal(q, kept[0])
    assert torch.equal(k, kept[1])
