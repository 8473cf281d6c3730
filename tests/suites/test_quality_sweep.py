from __future__ import annotations

import pytest

from msa_suites.models.attention import MsaSettings
from msa_suites.quality import sweep as sweep_module
from msa_suites.quality.errors import QualityInvalid
from msa_suites.quality.sweep import (
    DENSE,
    as_json,
    measure_points,
    scorer_points,
    sweep_items,
)


def sweep(model="", *, scorers, budgets, settings=None, **how):
    points = scorer_points(scorers, budgets, settings or MsaSettings())
    return measure_points(model, points, **how)


@pytest.fixture(scope="module")
def rows(tiny_model_dir):
    return list(sweep(str(tiny_model_dir), scorers=["max", "recent"], budgets=[2, 4], contexts=1))


def test_dense_comes_first_then_every_point(rows):
    assert [(row.scorer, row.budget) for row in rows] == [
        (DENSE, 0),
        ("max", 2),
        ("max", 4),
        ("recent", 2),
        ("recent", 4),
    ]
    for row in rows:
        assert row.n == 12
        assert row.recall_low <= row.recall <= row.recall_high
        change = row.perplexity / rows[0].perplexity - 1
        assert row.perplexity_change == pytest.approx(change)


def test_with_forced_blocks_only_every_scorer_is_the_same(rows):
    # k 2 with the sink and the local block leaves nothing to choose.
    assert rows[1].perplexity == pytest.approx(rows[3].perplexity)
    assert rows[2].perplexity != rows[4].perplexity


def test_document_of_the_command(rows):
    document = as_json(rows)
    assert document["dense"]["perplexity"] == rows[0].perplexity
    assert len(document["rows"]) == 4
    wanted = {"scorer", "budget", "perplexity", "perplexity_change", "recall", "n"}
    assert wanted <= set(document["rows"][0])


def test_an_interrupted_sweep_goes_on(rows, tiny_model_dir, monkeypatch):
    measured = []
    real = sweep_module._measure

    def spy(*arguments):
        measured.append(arguments[3])
        return real(*arguments)

    monkeypatch.setattr(sweep_module, "_measure", spy)
    again = sweep(
        str(tiny_model_dir), scorers=["max", "recent"], budgets=[2, 4], contexts=1, done=rows[:4]
    )
    assert list(again) == rows
    assert measured == [("recent", 4)]


def test_a_finished_sweep_needs_no_model(rows):
    done = sweep("/nowhere", scorers=["max", "recent"], budgets=[2, 4], contexts=1, done=rows)
    assert list(done) == rows


def test_items_have_the_length_asked_for():
    for length in (2048, 4096, 8192):
        facts, texts = sweep_items(length, contexts=2)
        assert len(facts) == 24
        assert len(texts) == 2
        assert {item.length for item in (*facts, *texts)} == {length}
    with pytest.raises(ValueError, match=r"length: wanted one of \[2048, 4096, 8192\], got 1000"):
        sweep_items(1000, contexts=1)


def test_a_budget_of_the_whole_context_is_invalid():
    with pytest.raises(QualityInvalid, match=r"got 64 \* 32"):
        next(sweep("/nowhere", scorers=["max"], budgets=[4, 64]))
    with pytest.raises(QualityInvalid, match=r"got 16 \* 128"):
        next(sweep("/nowhere", scorers=["max"], budgets=[16], settings=MsaSettings(block=128)))


def test_the_embedded_model_tells_scorers_apart():
    rows = {
        (r.scorer, r.budget): r for r in sweep(scorers=["max", "mean"], budgets=[2, 4], contexts=1)
    }
    dense = rows[DENSE, 0]
    assert dense.recall >= 0.9
    assert rows["max", 4].recall >= 0.95 * dense.recall
    assert rows["mean", 4].recall <= 0.3
    # Sink and local block eat a budget of two.
    assert rows["max", 2].recall <= 0.1
