"""A retrofit that keeps every block against the same model with its own attention."""

from __future__ import annotations

import contextlib

import pytest
import torch

from msa import reference
from msa.recording import Recorder
from msa.retrofit import apply_retrofit

from .retrofitted import (
    KEEP_ALL,
    SPARSE,
    assert_close,
    in_chunks,
    left_padded,
    logits,
    new_cache,
    tiny,
    tokens,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@contextlib.contextmanager
def keeping_all(model):
    """Every block is kept, and every sparse layer must run: an idle retrofit is dense too."""
    ran = set()
    recorder = Recorder(sink=lambda record: ran.add(record.layer))
    with apply_retrofit(model, KEEP_ALL, operations=reference, recorder=recorder) as retrofit:
        yield
    assert ran == set(retrofit.sparse_layers)


def test_prefill(model):
    ids = tokens(2, 29)
    want = logits(model, ids)
    with keeping_all(model):
        assert_close(logits(model, ids), want)


def assert_padding_is_ignored(model, lengths):
    ids, mask = left_padded(lengths)
    want = logits(model, ids, attention_mask=mask)
    with keeping_all(model):
        assert_close(logits(model, ids, attention_mask=mask), want, mask)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_left_padding(attention):
    assert_padding_is_ignored(tiny(attention=attention), [29, 17, 1])


def test_left_padding_of_every_model(model):
    assert_padding_is_ignored(model, [23, 11])


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(
    ("cache", "chunks"),
    [
        ("dynamic", (13, 10, 6, 1)),  # chunks start inside a block
        ("static", (13, 10, 6, 1)),
        ("static", (30,)),
    ],
)
def test_chunked_prefill(model, cache, chunks, padded):
    ids, mask = left_padded([30, 19 if padded else 30])
    want = logits(model, ids, attention_mask=mask)
    with keeping_all(model):
        got = in_chunks(model, ids, mask, chunks, new_cache(model, cache))
        assert_close(got, want, mask)


@pytest.mark.parametrize("cache", [None, "static"])
def test_generate(model, cache):
    ids, mask = left_padded([21, 9])
    asked = {
        "attention_mask": mask,
        "max_new_tokens": 12,
        "do_sample": False,
        "output_logits": True,
        "return_dict_in_generate": True,
        **({} if cache is None else {"cache_implementation": cache}),
    }
    want = model.generate(ids, **asked)
    with keeping_all(model):
        got = model.generate(ids, **asked)
    assert torch.equal(got.sequences, want.sequences)
    assert_close(torch.stack(got.logits), torch.stack(want.logits))


class EagerWithSelection:
    """Operations whose attention does the arithmetic of transformers' eager attention."""

    block_scores = staticmethod(reference.block_scores)
    select_blocks = staticmethod(reference.select_blocks)

    @staticmethod
    def sparse_attention(q, k, v, selection, *, cu_q, cu_k, block, scale):  # noqa: ARG004
        length, heads = q.shape[:2]
        group = heads // k.shape[1]
        position = torch.arange(length)
        kept = (selection.long()[..., None] == position // block).any(2)  # [T, G, S]
        kept = kept & (position <= position[:, None])[:, None]
        mask = torch.zeros(kept.shape).masked_fill(~kept, torch.finfo(q.dtype).min)
        mask = mask.transpose(0, 1).repeat_interleave(group, 0)[None]
        keys = k.transpose(0, 1)[None].repeat_interleave(group, 1)
        values = v.transpose(0, 1)[None].repeat_interleave(group, 1)
        weights = torch.matmul(q.transpose(0, 1)[None], keys.transpose(2, 3)) * scale + mask
        out = torch.matmul(weights.softmax(-1, dtype=torch.float32), values)
        return out[0].transpose(0, 1), None


def test_keep_all_is_eager_to_the_last_bit():
    model, ids = tiny(attention="eager"), tokens(1, 40)
    want = logits(model, ids)
    with apply_retrofit(model, KEEP_ALL, operations=EagerWithSelection()):
        assert torch.equal(logits(model, ids), want)
    with apply_retrofit(model, SPARSE, operations=EagerWithSelection()):
        assert not torch.equal(logits(model, ids), want)
