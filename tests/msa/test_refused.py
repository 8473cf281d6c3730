"""Calls that once crashed, or were answered, and are refused now. The fuzzing found them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from msa import fast, reference
from msa.cache import PagedCache, decode
from msa.config import MSAConfig
from msa.retrofit_settings import RetrofitSettings

CU = torch.tensor([0, 9], dtype=torch.int32)
BOTH = pytest.mark.parametrize("run", [fast, reference], ids=["fast", "reference"])


def attend(run: Any, **changed: Any) -> None:
    given = {
        **{name: torch.zeros(9, heads, 4) for name, heads in (("q", 4), ("k", 2), ("v", 2))},
        **{"q_idx": torch.zeros(9, 2, 4), "k_idx": torch.zeros(9, 1, 4), "cu_q": CU, "cu_k": CU},
        **{"block": 4, "topk": 2, "scale": 1.0, "index_scale": 1.0, **changed},
    }
    run.attend(**given)


@BOTH
@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"q": None}, "q: wanted a floating tensor"),
        # The fused kernel divides by the number of heads: this ended the process.
        ({"q": torch.zeros(9, 0, 4)}, "q: wanted shape .* with Hq above 0"),
        ({"q_idx": torch.zeros(9, 3, 4)}, r"q_idx: wanted shape \[9, 2, Di\]"),
        ({"q_idx": torch.zeros(9, 2, 0), "k_idx": torch.zeros(9, 1, 0)}, "q_idx: .* Di above 0"),
        ({"scale": float("nan")}, "scale: wanted a finite number, got float nan"),
        ({"index_scale": None}, "index_scale: wanted a finite number"),
        ({"scale": 10**400}, "scale: wanted a finite number"),
    ],
)
def test_attend(run: Any, changed: dict[str, Any], text: str) -> None:
    with pytest.raises((ValueError, TypeError), match=rf"^{text}"):
        attend(run, **changed)


@BOTH
def test_other_operations(run: Any) -> None:
    with pytest.raises(ValueError, match=r"^outs: wanted .* with n above 0"):
        run.combine(torch.zeros(0, 3, 2, 4), torch.zeros(0, 3, 2))
    half = torch.zeros(2, 3, 2, 4, dtype=torch.bfloat16)
    with pytest.raises(TypeError, match=r"^outs: wanted float32"):
        run.combine(half, half[..., 0])
    ranking: dict[str, Any] = {"cu_q": CU, "cu_k": CU, "block": 4, "topk": 2}
    with pytest.raises(TypeError, match=r"^scores: wanted float32"):
        run.select_blocks(None, **ranking)
    with pytest.raises(ValueError, match=r"^scores: wanted"):
        run.select_blocks(torch.zeros(9, 0, 3), **ranking)
    with pytest.raises(ValueError, match=r"^q_idx: wanted .* with Hkv above 0"):
        run.block_scores(
            torch.zeros(9, 0, 4), torch.zeros(9, 1, 4), cu_q=CU, cu_k=CU, block=4, scale=1.0
        )


@BOTH
@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"page_table": None}, r"page_table: wanted int32 \[1, W\], got NoneType"),
        ({"page_table": torch.tensor(0, dtype=torch.int32)}, r"page_table: wanted int32 \[1, W\]"),
        ({"k_lens": None}, r"k_lens: wanted int32 \[1\], got NoneType"),
        ({"q": torch.zeros(1, 0, 4, 8)}, "q: wanted .* with Q above 0"),
        ({"k_pages": torch.zeros(3, 2, 0, 8)}, "k_pages: wanted .* with block above 0"),
    ],
)
def test_decode_over_pages(run: Any, changed: dict[str, Any], text: str) -> None:
    given = {
        "q": torch.zeros(1, 1, 4, 8),
        "k_pages": torch.zeros(3, 2, 4, 8),
        "v_pages": torch.zeros(3, 2, 4, 8),
        "selection": torch.zeros(1, 1, 2, 2, dtype=torch.int32),
        "page_table": torch.zeros(1, 2, dtype=torch.int32),
        "k_lens": torch.tensor([5], dtype=torch.int32),
        **changed,
    }
    with pytest.raises(ValueError, match=rf"^{text}"):
        run.sparse_decode(**given, scale=1.0)


def test_the_cache() -> None:
    sizes = {"requests": 2, "pages": 3, "kv_heads": 2, "dim": 8, "index_dim": 4, "block": 4}
    with pytest.raises(TypeError, match=r"^dtype: wanted a floating dtype"):
        PagedCache(**sizes, dtype=torch.int32)
    with pytest.raises(ValueError, match=r"^index_heads: wanted an int"):
        PagedCache(**sizes, index_heads=True)
    cache = PagedCache(**sizes)
    k, k_idx = torch.zeros(1, 2, 8), torch.zeros(1, 1, 4)
    for request in (True, 0.0, "0", None):
        with pytest.raises(ValueError, match=r"^request: wanted 0 to 1"):
            cache.append(k, k, k_idx, request=request)
        with pytest.raises(ValueError, match=r"^request: wanted 0 to 1"):
            cache.index_keys(request)
    for no_tensor in (None, torch.tensor(0.0)):
        with pytest.raises((ValueError, TypeError), match=r"^k: wanted"):
            cache.append(no_tensor, k, k_idx, request=0)
    for request in (0, 1):
        cache.append(k, k, k_idx, request=request)
    asked = (torch.zeros(2, 1, 4, 8), torch.zeros(2, 1, 2, 4))
    with pytest.raises(ValueError, match=r"^index_scale: wanted a finite number"):
        decode(cache, *asked, topk=1, scale=1.0, index_scale=float("nan"))


def test_settings() -> None:
    entries = {
        "sparse_index_dim": 128,
        "sparse_topk_blocks": 16,
        "sparse_block_size": 128,
        "sparse_init_block": 0,
        "sparse_local_block": 1,
    }
    for wrong in (2.5, None, "128"):  # 2.5 was taken for 2
        with pytest.raises(ValueError, match=r"^sparse_block_size: wanted an int"):
            MSAConfig.from_m3({**entries, "sparse_block_size": wrong})
    with pytest.raises(ValueError, match=r"^sparse_attention_freq: wanted a list of 0 and 1"):
        MSAConfig.from_m3({**entries, "sparse_attention_freq": "0001"})
    with pytest.raises(ValueError, match=r"^sparse_topk_blocks: wanted at least"):
        MSAConfig.from_m3({**entries, "sparse_init_block": 16})
    with pytest.raises(ValueError, match=r"^scorer: wanted one of"):
        RetrofitSettings(scorer=["max"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^seed: wanted an int"):
        RetrofitSettings(seed=1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^dense_layers: wanted a tuple of ints"):
        RetrofitSettings(dense_layers=3)  # type: ignore[arg-type]
