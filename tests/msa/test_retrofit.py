"""A retrofit put in place and taken away again, its settings, and what it refuses."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from transformers import DynamicCache

from msa import reference
from msa.retrofit import NAME, RetrofitSettings, apply_retrofit, remove_retrofit

from .retrofitted import KEEP_ALL, SPARSE, assert_close, logits, tiny, tokens

pytestmark = pytest.mark.usefixtures("one_thread")


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

    @pytest.mark.parametrize(
        ("kind", "more", "settings"),
        [
            ("mistral", {"sliding_window": 8}, SPARSE),
            ("qwen2", {}, RetrofitSettings(dense_layers=(0, 1, 2))),
        ],
    )
    def test_no_layer_left(self, kind, more, settings):
        with pytest.raises(ValueError, match="wanted a layer with full attention"):
            apply_retrofit(tiny(kind, **more), settings, operations=reference)

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
