"""A trained index branch inside models of transformers: what it reads, its cache, its errors."""

from __future__ import annotations

import copy

import pytest
import torch

from msa import reference
from msa.alignment import Alignment
from msa.recording import Recorder
from msa.retrofit import RetrofitSettings, apply_retrofit
from msa.retrofit_index import (
    IndexShape,
    attach_index,
    index_branches,
    index_state,
    load_index,
)

from .retrofitted import (
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

SETTINGS = RetrofitSettings(block=4, topk=3, scorer="index")


def indexed(kind="qwen2", index_dim=8, layers=(0, 1, 2), **more):
    """A tiny model with index branches whose choices are all their own."""
    model = tiny(kind, **more)
    shape = IndexShape(index_dim=index_dim, rotary_dim=4, theta=1e4)
    torch.manual_seed(1)
    attach_index(model, shape, layers)
    return model


def test_the_branch_decides():
    """Other weights of the branch, other blocks; the model's own queries do not matter."""
    model = indexed()
    ids = tokens(1, 40)
    recorder = Recorder()
    with apply_retrofit(model, SETTINGS, operations=reference, recorder=recorder):
        logits(model, ids)
        first = [record.selection.clone() for record in recorder]
        recorder.records.clear()
        with torch.no_grad():
            for branch in index_branches(model).values():
                branch.q_proj.weight.neg_()
        logits(model, ids)
    assert not torch.equal(first[0], recorder.records[0].selection)


def test_it_reads_what_the_layer_reads():
    """Selections are those of the branch on the input of the attention, computed by hand."""
    model = indexed()
    ids = tokens(1, 40)
    seen = {}
    for i, layer in enumerate(model.model.layers):
        layer.self_attn.q_proj.register_forward_pre_hook(
            lambda _, args, i=i: seen.__setitem__(i, args[0][0].clone())
        )
    recorder = Recorder()
    with apply_retrofit(model, SETTINGS, operations=reference, recorder=recorder):
        logits(model, ids)
    cu = torch.tensor([0, 40], dtype=torch.int32)
    for record in recorder:
        with torch.no_grad():
            q_idx, k_idx = index_branches(model)[record.layer](seen[record.layer], torch.arange(40))
        scores = reference.block_scores(q_idx, k_idx, cu_q=cu, cu_k=cu, block=4, scale=8**-0.5)
        torch.testing.assert_close(record.scores, scores)


@pytest.mark.parametrize("index_dim", [4, 8, 12, 20])  # narrower than a head, as wide, wider
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_chunks_choose_like_one_prefill(cache, index_dim):
    model = indexed(index_dim=index_dim)
    ids, mask = left_padded([31, 22])
    with apply_retrofit(model, SETTINGS, operations=reference):
        want = logits(model, ids, attention_mask=mask, position_ids=positions(mask))
        got = in_chunks(model, ids, mask, (9, 14, 7, 1), new_cache(model, cache))
        assert_close(got, want, mask)


@pytest.mark.parametrize("kind", ["qwen3", "llama"])
def test_other_families(kind):
    model = indexed(kind)
    ids, mask = left_padded([31, 22])
    with apply_retrofit(model, SETTINGS, operations=reference):
        want = logits(model, ids, attention_mask=mask, position_ids=positions(mask))
        got = in_chunks(model, ids, mask, (9, 22), new_cache(model, "dynamic"))
        assert_close(got, want, mask)


def test_left_padding_moves_no_block():
    model = indexed()
    ids, mask = left_padded([31, 22])
    with apply_retrofit(model, SETTINGS, operations=reference):
        got = logits(model, ids, attention_mask=mask, position_ids=positions(mask))
        alone = logits(model, ids[1:, 9:])
    assert_close(got[1:, 9:], alone)


def test_a_copied_and_cropped_cache_takes_the_index_keys_along():
    """What readings of one prompt do: go on from a copy, and from an earlier place."""
    model = indexed()
    ids = tokens(1, 30)
    with apply_retrofit(model, SETTINGS, operations=reference), torch.no_grad():
        want = model(ids, use_cache=False).logits
        cache = new_cache(model, "dynamic")
        model(ids[:, :20], past_key_values=cache)
        other = copy.deepcopy(cache)
        model(ids[:, 5:15], past_key_values=cache)  # the original goes elsewhere
        after = model(ids[:, 20:], past_key_values=other).logits
        assert_close(after, want[:, 20:])
        other.crop(-10)
        again = model(ids[:, 20:], past_key_values=other).logits
        assert_close(again, want[:, 20:])


def test_beams_reorder_the_index_keys():
    model = indexed()
    ids = tokens(2, 24)
    with apply_retrofit(model, SETTINGS, operations=reference), torch.no_grad():
        cache = new_cache(model, "dynamic")
        model(ids, past_key_values=cache)
        cache.reorder_cache(torch.tensor([1, 0]))
        got = model(ids[:, :3], past_key_values=cache).logits
        swapped = new_cache(model, "dynamic")
        model(ids[[1, 0]], past_key_values=swapped)
        want = model(ids[:, :3], past_key_values=swapped).logits
    assert_close(got, want)


def test_the_model_is_its_own_again():
    model = indexed()
    ids = tokens(1, 40)
    dense = logits(model, ids)
    with apply_retrofit(model, SETTINGS, operations=reference):
        assert not torch.allclose(logits(model, ids), dense)
    assert torch.equal(logits(model, ids), dense)
    with apply_retrofit(model, RetrofitSettings(block=4, topk=16), operations=reference):
        assert_close(logits(model, ids), dense)


def test_weights_have_the_names_of_minimax_m3():
    names = set(index_state(indexed(layers=(1,))))
    prefix = "model.layers.1.self_attn.indexer."
    parts = ("q_proj.weight", "k_proj.weight", "q_norm.weight", "k_norm.weight")
    assert names == {prefix + part for part in parts}


def test_weights_are_loaded_by_name():
    one, other = indexed(), indexed()
    with torch.no_grad():
        for branch in index_branches(one).values():
            branch.q_proj.weight.add_(1.0)
    load_index(other, index_state(one))
    for name, x in index_state(one).items():
        assert torch.equal(x, index_state(other)[name])
    state = {name: x for name, x in index_state(one).items() if "k_norm" not in name}
    with pytest.raises(ValueError, match=r"missing .*k_norm"):
        load_index(other, state)
    wrong = {name: x[..., :2] for name, x in index_state(one).items()}
    with pytest.raises(ValueError, match=r"wanted \[.*got \["):
        load_index(other, wrong)


class TestErrors:
    def test_no_branch(self):
        with pytest.raises(ValueError, match=r"layers \[0, 2\] of the model lack"):
            apply_retrofit(indexed(layers=(1,)), SETTINGS, operations=reference)

    def test_a_dense_layer_needs_none(self):
        settings = RetrofitSettings(block=4, topk=3, scorer="index", dense_layers=(0, 2))
        with apply_retrofit(indexed(layers=(1,)), settings, operations=reference) as made:
            assert made.sparse_layers == (1,)

    def test_a_branch_of_a_dense_layer_rests(self):
        model, cache = indexed(), None
        settings = RetrofitSettings(block=4, topk=3, scorer="index", dense_layers=(0,))
        with apply_retrofit(model, settings, operations=reference), torch.no_grad():
            cache = new_cache(model, "dynamic")
            model(tokens(1, 30), past_key_values=cache)
        # One head more for index keys, where the branch is asked.
        assert [layer.keys.shape[1] for layer in cache.layers] == [2, 3, 3]

    def test_a_family_without_a_place_for_it(self):
        from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

        config = GPTNeoXConfig(
            vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=8,
        )  # fmt: skip
        with pytest.raises(ValueError, match=r"wanted attention modules .*GPTNeoXForCausalLM"):
            attach_index(GPTNeoXForCausalLM(config), IndexShape(), (0,))

    def test_nothing_to_train(self):
        settings = RetrofitSettings(block=4, topk=3)
        with pytest.raises(ValueError, match="alignment: wanted a scorer of index"):
            apply_retrofit(indexed(), settings, operations=reference, alignment=Alignment())

    def test_attached_twice_or_nowhere(self):
        model = indexed(layers=(1,))
        with pytest.raises(ValueError, match="wanted layer 1 without an index branch"):
            attach_index(model, IndexShape(index_dim=8, rotary_dim=4), (1,))
        with pytest.raises(ValueError, match=r"layers: wanted some of \[0, 1, 2\], got 7"):
            attach_index(model, IndexShape(index_dim=8, rotary_dim=4), (7,))

    def test_name(self):
        with pytest.raises(ValueError, match="did you mean index"):
            RetrofitSettings(scorer="indx")
