"""What a model read, place by place."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from msa_harness.gates import judging_day, parse_gates
from msa_harness.judge import judge
from msa_harness.verdicts import Verdict
from msa_suites.plan import own_gates
from msa_suites.quality.positions import BIN, kept_blocks, measure_positions, token_nll
from msa_suites.quality.samples import to_samples


def test_nll_of_a_token_is_that_of_the_logits_before_it():
    logits = torch.tensor([[0.0, 0.0], [0.0, 3.0], [5.0, 5.0]])
    nll = token_nll(logits, torch.tensor([1, 0, 1]))
    # A coin for the second token; e^3 to 1 for the third.
    assert nll.tolist() == pytest.approx([0.6931472, 0.0485874], abs=1e-6)


def test_kept_blocks_are_shares_of_the_queries_of_a_block():
    selection = torch.tensor([[0, -1], [0, -1], [1, 0], [1, -1]])
    assert kept_blocks(selection, torch.arange(4), 2) == [[1.0], [0.5, 1.0]]


@settings(deadline=None)
@given(st.data(), st.integers(1, 40), st.integers(1, 9))
def test_every_kept_block_is_counted_once(data, tokens, block):
    own = [t // block for t in range(tokens)]
    chosen = [data.draw(st.sets(st.integers(0, last)).map(sorted)) for last in own]
    wide = max(1, *map(len, chosen))
    selection = torch.tensor([ids + [-1] * (wide - len(ids)) for ids in chosen])
    shares = kept_blocks(selection, torch.arange(tokens), block)
    assert [len(row) for row in shares] == list(range(1, own[-1] + 2))
    queries = [own.count(b) for b in range(own[-1] + 1)]
    total = sum(share * n for row, n in zip(shares, queries, strict=True) for share in row)
    assert total == pytest.approx(sum(map(len, chosen)))


@pytest.fixture(scope="module")
def rows(tiny_model_dir):
    return measure_positions(str(tiny_model_dir), limit=1)


def test_every_position_of_a_text_is_read_densely_and_sparsely(rows):
    for attention in ("dense", "msa"):
        nll = [r for r in rows if r["metric"] == "nll" and r["attention"] == attention]
        starts = [int(r["item"].split("/")[1]) for r in nll]
        assert starts == list(range(0, 2048, BIN))
    # Four blocks of 32 are all there is in the first bin: nothing is dropped there.
    first, later = (
        {r["attention"]: r["value"] for r in rows if r["item"].endswith(f"/{start}")}
        for start in (0, 1024)
    )
    assert first["msa"] == pytest.approx(first["dense"], abs=1e-6)
    assert later["msa"] != pytest.approx(later["dense"], abs=1e-6)


def test_every_query_keeps_its_block_and_the_sink(rows):
    maps = [r for r in rows if r["metric"] == "distinct"]
    assert {r["attention"] for r in maps} == {"msa"}
    assert len({r["item"] for r in maps}) == len(maps)
    for row in maps:
        assert row["raw"][0] == row["raw"][-1] == 1.0
        assert row["value"] == sum(share > 0 for share in row["raw"])
        # k is 4: the shares of a row are how many blocks a query keeps.
        assert sum(row["raw"]) == pytest.approx(min(4, len(row["raw"])))


def test_positions_are_recorded_and_judged_by_no_gate(rows):
    samples = [s for side in ("base", "head") for s in to_samples(rows, subject=side)]
    gates = parse_gates(own_gates().read_text(), profile="quick", device="cpu")
    outcome = judge(samples, gates, judging_day(), mode="paired", suites=["quality"])
    assert {series.name: (series.unit, series.method) for series in outcome.series} == {
        "quality/positions/nll": ("nats", "report"),
        "quality/positions/nll/dense": ("nats", "report"),
        "quality/positions/distinct": ("blocks", "report"),
    }
    assert {series.verdict for series in outcome.series} == {Verdict.NO_SIGNAL}
