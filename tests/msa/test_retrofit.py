"""A retrofitted model against the same model with its own attention."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from transformers import DynamicCache, StaticCache

from msa import reference
from msa.recording import Recorder
from msa.retrofit import NAME, RetrofitSettings, apply_retrofit, remove_retrofit

VOCABULARY = 64
TOLERANCE = 1e-6


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny(kind="qwen2", attention="sdpa", **more):
    common = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": None,
        "attn_implementation": attention,
        **more,
    }
    names = {
        "qwen2": ("Qwen2Config", "Qwen2ForCausalLM"),
        "llama": ("LlamaConfig", "LlamaForCausalLM"),
        "mistral": ("MistralConfig", "MistralForCausalLM"),
        "gemma2": ("Gemma2Config", "Gemma2ForCausalLM"),
        "gemma3": ("Gemma3TextConfig", "Gemma3ForCausalLM"),
    }[kind]
    torch.manual_seed(0)
    config = getattr(transformers, names[0])(**common)
    model = getattr(transformers, names[1])._from_config(config, attn_implementation=attention)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "q_proj" in name or "k_proj" in name:
                weight.mul_(8)  # uneven attention, or selection would not matter
    return model.eval()


SLIDING = {
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "sliding_window": 6,
}
MODELS = {
    "qwen2": ("qwen2", {}),
    "llama": ("llama", {}),
    "qwen2-sliding": ("qwen2", {"use_sliding_window": True, "max_window_layers": 1, **SLIDING}),
    "gemma3": ("gemma3", SLIDING),
}
KEEP_ALL = RetrofitSettings(block=8, topk=64)
SPARSE = RetrofitSettings(block=4, topk=3)


@pytest.fixture(params=sorted(MODELS))
def model(request):
    kind, more = MODELS[request.param]
    return tiny(kind, **more)


def tokens(batch, length, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(2, VOCABULARY, (batch, length), generator=draw)


def left_padded(lengths, seed=0):
    """(ids, mask) of sequences that end together."""
    widest = max(lengths)
    ids, mask = tokens(len(lengths), widest, seed), torch.ones(len(lengths), widest).long()
    for row, length in enumerate(lengths):
        ids[row, : widest - length] = 0
        mask[row, : widest - length] = 0
    return ids, mask


def positions(mask):
    return (mask.cumsum(1) - 1).clamp(min=0)


@torch.no_grad()
def logits(model, ids, **kwargs):
    return model(input_ids=ids, **kwargs).logits


def assert_close(got, want, where=None):
    if where is not None:
        got, want = got[where.bool()], want[where.bool()]
    assert float((got - want).abs().max()) <= TOLERANCE


class TestKeepAllIsDense:
    def test_prefill(self, model):
        ids = tokens(2, 29)
        want = logits(model, ids)
        with apply_retrofit(model, KEEP_ALL, operations=reference):
            assert_close(logits(model, ids), want)

    @pytest.mark.parametrize("attention", ["eager", "sdpa"])
    def test_left_padding(self, attention):
        model = tiny(attention=attention)
        ids, mask = left_padded([29, 17, 1])
        want = logits(model, ids, attention_mask=mask)
        with apply_retrofit(model, KEEP_ALL, operations=reference):
            assert_close(logits(model, ids, attention_mask=mask), want, mask)

    def test_left_padding_of_every_model(self, model):
        ids, mask = left_padded([23, 11])
        want = logits(model, ids, attention_mask=mask)
        with apply_retrofit(model, KEEP_ALL, operations=reference):
            assert_close(logits(model, ids, attention_mask=mask), want, mask)

    @pytest.mark.parametrize("padded", [False, True])
    def test_chunked_prefill_that_starts_inside_a_block(self, model, padded):
        ids, mask = left_padded([30, 19 if padded else 30])
        want = logits(model, ids, attention_mask=mask)
        with apply_retrofit(model, KEEP_ALL, operations=reference):
            got = in_chunks(model, ids, mask, (13, 10, 6, 1), DynamicCache(config=model.config))
            assert_close(got, want, mask)

    @pytest.mark.parametrize("padded", [False, True])
    def test_static_cache(self, model, padded):
        ids, mask = left_padded([30, 19 if padded else 30])
        want = logits(model, ids, attention_mask=mask)
        with apply_retrofit(model, KEEP_ALL, operations=reference):
            for chunks in ((30,), (13, 10, 6, 1)):
                cache = StaticCache(config=model.config, max_cache_len=48)
                assert_close(in_chunks(model, ids, mask, chunks, cache), want, mask)

    @pytest.mark.parametrize("cache", [None, "static"])
    def test_generate(self, model, cache):
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
        with apply_retrofit(model, KEEP_ALL, operations=reference):
            got = model.generate(ids, **asked)
        assert torch.equal(got.sequences, want.sequences)
        assert_close(torch.stack(got.logits), torch.stack(want.logits))


@torch.no_grad()
def in_chunks(model, ids, mask, chunks, cache):
    out, start = [], 0
    for length in chunks:
        stop = start + length
        result = model(
            input_ids=ids[:, start:stop],
            attention_mask=mask[:, :stop],
            position_ids=positions(mask)[:, start:stop],
            past_key_values=cache,
            use_cache=True,
        )
        out.append(result.logits)
        start = stop
    return torch.cat(out, 1)


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


class TestSparse:
    """Chunks, padding and caches choose what one unpadded prefill chooses."""

    @pytest.mark.parametrize("scorer", ["max", "mean", "quest", "random", "recent", "oracle"])
    def test_left_padding_moves_no_block(self, scorer):
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
    def test_chunks_choose_like_one_prefill(self, scorer, cache):
        model = tiny()
        settings = RetrofitSettings(block=4, topk=3, scorer=scorer)
        ids, mask = left_padded([31, 22])
        made = {
            "dynamic": lambda: DynamicCache(config=model.config),
            "static": lambda: StaticCache(config=model.config, max_cache_len=40),
        }[cache]()
        with apply_retrofit(model, settings, operations=reference):
            want = logits(model, ids, attention_mask=mask, position_ids=positions(mask))
            assert_close(in_chunks(model, ids, mask, (9, 14, 7, 1), made), want, mask)

    def test_it_is_not_dense_and_the_scorer_matters(self):
        model, ids = tiny(), tokens(1, 60)
        seen = {"dense": logits(model, ids)}
        for scorer in ("max", "mean", "quest", "random", "recent", "oracle"):
            settings = RetrofitSettings(block=4, topk=3, scorer=scorer)
            with apply_retrofit(model, settings, operations=reference):
                seen[scorer] = logits(model, ids)
        names = list(seen)
        for i, first in enumerate(names):
            for second in names[i + 1 :]:
                assert not torch.allclose(seen[first], seen[second], atol=1e-4), (first, second)

    def test_settings_are_read_at_every_call(self):
        model, ids = tiny(), tokens(1, 40)
        dense = logits(model, ids)
        with apply_retrofit(model, SPARSE, operations=reference):
            assert not torch.allclose(logits(model, ids), dense, atol=1e-4)
            model.config.msa_topk = 64
            assert_close(logits(model, ids), dense)
            model.config.msa_topk = 1
            with pytest.raises(ValueError, match=r"^topk: wanted at least"):
                logits(model, ids)

    def test_dense_layers_stay_dense(self):
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
    def test_dense_layers_know_padding_chunks_and_static_caches(self, attention):
        """Only layer 1 is sparse and keeps everything, so the whole is dense."""
        model = tiny(attention=attention)
        ids, mask = left_padded([30, 19])
        want = logits(model, ids, attention_mask=mask)
        settings = RetrofitSettings(block=8, topk=64, dense_layers=(0, 2))
        with apply_retrofit(model, settings, operations=reference):
            for cache in (
                DynamicCache(config=model.config),
                StaticCache(config=model.config, max_cache_len=48),
            ):
                got = in_chunks(model, ids, mask, (13, 10, 6, 1), cache)
                assert_close(got, want, mask)
            unpadded = logits(model, ids[:1])
            got = in_chunks(model, ids[:1], mask[:1], (13, 17), DynamicCache(config=model.config))
            assert_close(got, unpadded)

    def test_nothing_of_a_padded_slot_is_read(self):
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

    def test_mask_is_small(self):
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


class TestInAndOut:
    def test_removing_restores_everything(self, model):
        ids = tokens(1, 20)
        want, settings = logits(model, ids), model.config.to_json_string()
        retrofit = apply_retrofit(model, SPARSE, operations=reference)
        assert model.config._attn_implementation == NAME
        assert retrofit.model is model
        remove_retrofit(model)
        remove_retrofit(model)
        assert model.config._attn_implementation == "sdpa"
        assert model.config.to_json_string() == settings
        assert torch.equal(logits(model, ids), want)

    def test_an_exception_restores_too(self):
        model = tiny()
        with pytest.raises(KeyError), apply_retrofit(model, SPARSE, operations=reference):
            raise KeyError
        assert model.config._attn_implementation == "sdpa"

    def test_config_holds_the_settings_and_can_be_saved(self, tmp_path):
        model = tiny()
        with apply_retrofit(model, SPARSE, operations=reference):
            model.save_pretrained(tmp_path)
            assert RetrofitSettings.from_config(model.config) == SPARSE
        saved = json.loads((tmp_path / "config.json").read_text())
        assert saved["msa_topk"] == 3
        assert saved["msa_operations"] == "msa.reference"

    def test_two_models_have_their_own_settings(self):
        first, second, ids = tiny(), tiny(), tokens(1, 40)
        dense = logits(first, ids)
        with (
            apply_retrofit(first, SPARSE, operations=reference),
            apply_retrofit(second, KEEP_ALL, operations=reference),
        ):
            assert_close(logits(second, ids), dense)
            assert not torch.allclose(logits(first, ids), dense, atol=1e-4)

    def test_operations_by_name(self):
        model, ids = tiny(), tokens(1, 24)
        with apply_retrofit(model, SPARSE, operations=reference):
            want = logits(model, ids)
        with apply_retrofit(model, SPARSE, operations="msa.reference"):
            assert torch.equal(logits(model, ids), want)


class TestErrors:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"topk": 1}, "^topk: wanted at least the 1 local"),
            ({"block": 0}, "^block: wanted an int above 0, got int 0"),
            ({"block": 2.5}, "^block: wanted"),
            ({"scorer": "maks"}, "^scorer: wanted one of max, .* did you mean max"),
            ({"sink_blocks": -1}, "^sink_blocks: wanted"),
            ({"local_blocks": 0}, "^local_blocks: wanted"),
        ],
    )
    def test_settings(self, settings, message):
        with pytest.raises(ValueError, match=message):
            RetrofitSettings(**settings)

    def test_dense_layer_that_does_not_exist(self):
        with pytest.raises(ValueError, match="dense_layers: wanted indices 0 to 2, got"):
            apply_retrofit(tiny(), RetrofitSettings(dense_layers=(3,)), operations=reference)

    def test_no_layer_left(self):
        model = tiny("mistral", sliding_window=8)
        with pytest.raises(ValueError, match="wanted a layer with full attention"):
            apply_retrofit(model, SPARSE, operations=reference)
        with pytest.raises(ValueError, match="wanted a layer with full attention"):
            apply_retrofit(tiny(), RetrofitSettings(dense_layers=(0, 1, 2)), operations=reference)

    def test_not_a_model_or_not_operations(self):
        with pytest.raises(TypeError, match=r"^model: wanted a model of transformers, got Linear"):
            apply_retrofit(torch.nn.Linear(1, 1), SPARSE, operations=reference)
        with pytest.raises(TypeError, match=r"^operations: wanted .* without block_scores"):
            apply_retrofit(tiny(), SPARSE, operations=object())
        with pytest.raises(ModuleNotFoundError):
            apply_retrofit(tiny(), SPARSE, operations="msa.no_such_module")

    def test_twice(self):
        model = tiny()
        with (
            apply_retrofit(model, SPARSE, operations=reference),
            pytest.raises(ValueError, match="without a retrofit"),
        ):
            apply_retrofit(model, SPARSE, operations=reference)

    def test_masks_that_cannot_be_read(self):
        model, ids = tiny(), tokens(1, 12)
        with apply_retrofit(model, SPARSE, operations=reference):
            with pytest.raises(ValueError, match=r"^attention_mask: wanted None or the 2-D"):
                logits(model, ids, attention_mask=torch.ones(1, 1, 12, 12, dtype=torch.bool))
            packed = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5]])
            with pytest.raises(ValueError, match=r"^mask_function: wanted plain causal"):
                logits(model, ids, position_ids=packed, use_cache=False)
            cache = DynamicCache(config=model.config)
            logits(model, ids, past_key_values=cache)
            with pytest.raises(ValueError, match=r"^attention_mask: wanted at least 24 columns"):
                logits(model, ids, past_key_values=cache, attention_mask=torch.ones(1, 12).long())

    def test_attention_that_is_more_than_causal_softmax(self):
        model = tiny(attention_dropout=0.5)
        with apply_retrofit(model, SPARSE, operations=reference):
            model.train()
            with pytest.raises(ValueError, match=r"without dropout, got dropout 0.5"):
                logits(model, tokens(1, 12))

    def test_capped_logits(self):
        model = tiny("gemma2", attention="eager", attn_logit_softcapping=5.0)
        with (
            apply_retrofit(model, SPARSE, operations=reference),
            pytest.raises(ValueError, match=r"^softcap: wanted a layer without it"),
        ):
            logits(model, tokens(1, 12))


def test_text_part_of_a_model_with_images():
    """The vision tower keeps its attention, the text part gets MSA."""
    text = tiny().config
    vision = transformers.CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=8,
        patch_size=4,
    )
    config = transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_id=63)
    torch.manual_seed(0)
    model = transformers.LlavaForConditionalGeneration._from_config(
        config, attn_implementation="sdpa"
    ).eval()
    ids = tokens(1, 40).clamp(max=60)
    want = logits(model, ids)
    with apply_retrofit(model, KEEP_ALL, operations=reference):
        assert model.config.text_config._attn_implementation == NAME
        assert model.config.vision_config._attn_implementation == "sdpa"
        assert_close(logits(model, ids), want)
    assert model.config.text_config._attn_implementation == "sdpa"
