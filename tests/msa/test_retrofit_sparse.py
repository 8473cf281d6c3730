"""Sparse retrofits: chunks, padding and caches choose what one unpadded prefill chooses."""

from __future__ import annotations

import pytest
import torch

from msa import reference
from msa.recording import Recorder
from msa.retrofit import RetrofitSettings, apply_retrofit

from .retrofitted import (
    SPARSE,
    assert_close,
    in_chunks,
    left_padded,
    logits,
    new_cache,
    positions,
    tiny,
    tokens,
)

pytestmark = pytest.mark.usefixtures("one_thread")

SCORERS = ("max", "mean", "quest", "random", "recent", "oracle")


@pytest.mark.parametrize("scorer", SCORERS)
def test_left_padding_moves_no_block(scorer):
    model = tiny()
    settings = RetrofitSettings(block=4, topk=3, scorer=scorer)
    ids, mask = left_padded([31, 22])
    with apply_retrofit(model, settings, operations=reference):
        # Rotation by slots would move what quest sees, which is not invariant under it.
        got = logits(model, ids, attention_mask=mask, position_ids=positions(mask))
        alone = logits(model, ids[1:, 9:])
    assert_close(got[1:, 9:], alone)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("scorer", ["max", "random", "mean"])
def test_chunks_choose_like_one_prefill(scorer, cache):
    model = tiny()
    settings = RetrofitSettings(block=4, topk=3, scorer=scorer)
    ids, mask = left_padded([31, 22])
    with apply_retrofit(model, settings, operations=reference):
        want = logits(model, ids, attention_mask=mask, position_ids=positions(mask))
        got = in_chunks(model, ids, mask, (9, 14, 7, 1), new_cache(model, cache))
        assert_close(got, want, mask)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_chunks_choose_like_one_prefill_in_every_model(model, cache):
    ids, mask = left_padded([31, 22])
    dense = logits(model, ids, attention_mask=mask, position_ids=positions(mask))
    with apply_retrofit(model, RetrofitSettings(block=4, topk=3), operations=reference):
        want = logits(model, ids, attention_mask=mask, position_ids=positions(mask))
        got = in_chunks(model, ids, mask, (9, 14, 7, 1), new_cache(model, cache))
        assert_close(got, want, mask)
    assert float((want - dense)[mask.bool()].abs().max()) > 1e-3  # it did select


def test_it_is_not_dense_and_the_scorer_matters():
    model, ids = tiny(), tokens(1, 60)
    seen = {"dense": logits(model, ids)}
    for scorer in SCORERS:
        settings = RetrofitSettings(block=4, topk=3, scorer=scorer)
        with apply_retrofit(model, settings, operations=reference):
            seen[scorer] = logits(model, ids)
    names = list(seen)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            assert not torch.allclose(seen[first], seen[second], atol=1e-4), (first, second)


def test_settings_are_read_at_every_call():
    model, ids = tiny(), tokens(1, 40)
    dense = logits(model, ids)
    with apply_retrofit(model, SPARSE, operations=reference):
        assert not torch.allclose(logits(model, ids), dense, atol=1e-4)
        model.config.msa_topk = 64
        assert_close(logits(model, ids), dense)
        model.config.msa_topk = 1
        with pytest.raises(ValueError, match=r"^topk: wanted at least"):
            logits(model, ids)


def test_dense_layers_stay_dense():
    model, ids = tiny(), tokens(2, 40)
    dense = logits(model, ids)
    recorder = Recorder()
    settings = RetrofitSettings(block=4, topk=3, dense_layers=(0, 2))
    with apply_retrofit(model, settings, operations=reference, recorder=recorder) as retrofit:
        assert retrofit.sparse_layers == (1,)
        sparse = logits(model, ids)
    assert {record.layer for record in recorder} == {1}
    assert not torch.allclose(sparse, dense, atol=1e-4)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_dense_layers_know_padding_chunks_and_static_caches(attention):
    """Only layer 1 is sparse and keeps everything, so the whole is dense."""
    model = tiny(attention=attention)
    ids, mask = left_padded([30, 19])
    want = logits(model, ids, attention_mask=mask)
    settings = RetrofitSettings(block=8, topk=64, dense_layers=(0, 2))
    with apply_retrofit(model, settings, operations=reference):
        for cache in ("dynamic", "static"):
            got = in_chunks(model, ids, mask, (13, 10, 6, 1), new_cache(model, cache))
            assert_close(got, want, mask)
        unpadded = logits(model, ids[:1])
        got = in_chunks(model, ids[:1], mask[:1], (13, 17), new_cache(model, "dynamic"))
        assert_close(got, unpadded)


def test_nothing_of_a_padded_slot_is_read():
    """NaN in the keys and values of padding reaches no real token."""
    model = tiny()
    ids, mask = left_padded([31, 22])
    with apply_retrofit(model, SPARSE, operations=reference):
        want = logits(model, ids, attention_mask=mask)
        embedded = model.get_input_embeddings()(ids).detach().clone()
        embedded[mask == 0] = torch.nan
        with torch.no_grad():
            got = model(inputs_embeds=embedded, attention_mask=mask).logits
    assert_close(got, want, mask)


def test_mask_is_small():
    """No [B, 1, Lq, Lk] mask is made for a padded batch."""
    seen = []
    model = tiny()
    ids, mask = left_padded([31, 22])
    with apply_retrofit(model, SPARSE, operations=reference):
        model.model.layers[0].self_attn.register_forward_pre_hook(
            lambda _, __, kwargs: seen.append(kwargs["attention_mask"]), with_kwargs=True
        )
        logits(model, ids, attention_mask=mask)
        logits(model, ids)
    assert tuple(seen[0].shape) == (2, 31)
    assert seen[1] is None


class TestRecorder:
    def test_selections_and_recall(self):
        model, ids = tiny(), tokens(2, 40)
        recorder = Recorder(last=5, mass=True)
        with apply_retrofit(model, SPARSE, operations=reference, recorder=recorder):
            logits(model, ids)
        assert [record.layer for record in recorder] == [0, 1, 2]
        record = recorder.records[0]
        assert record.positions.tolist() == [35, 36, 37, 38, 39] * 2
        assert record.sequence.tolist() == [0] * 5 + [1] * 5
        assert tuple(record.selection.shape) == (10, 2, 3)
        assert tuple(record.scores.shape) == tuple(record.mass.shape) == (10, 2, 10)
        assert bool((record.mass_recall() <= 1 + 1e-6).all())
        assert bool((record.mass_recall() > 0).all())

    def test_the_oracle_recalls_itself(self):
        model, ids = tiny(), tokens(1, 40)
        recorder = Recorder(mass=True)
        settings = RetrofitSettings(block=4, topk=4, scorer="oracle")
        with apply_retrofit(model, settings, operations=reference, recorder=recorder):
            logits(model, ids)
        for record in recorder:
            recall = record.block_recall()
            # Up to 16 tokens, every visible block fits: nothing to choose.
            assert bool(recall[:16].isnan().all())
            assert bool((recall[16:] == 1).all())
            assert torch.equal(record.mass_recall()[:16].round(decimals=5), torch.ones(16, 2))

    def test_sink_and_errors(self):
        model, ids, layers = tiny(), tokens(1, 12), []
        recorder = Recorder(sink=lambda record: layers.append(record.layer))
        with apply_retrofit(model, SPARSE, operations=reference, recorder=recorder):
            logits(model, ids)
        assert layers == [0, 1, 2]
        assert recorder.records == []
        with pytest.raises(ValueError, match=r"^last: wanted"):
            Recorder(last=0)
