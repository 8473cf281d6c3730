"""Calls of the subject's msa with one thing changed at a time, in its own process."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor


def new_cache(**sizes: Any) -> Any:  # noqa: ANN401 - the subject's
    from msa.cache import PagedCache

    given = {"requests": 2, "pages": 3, "kv_heads": 2, "dim": 8, "index_dim": 4, "block": 4}
    return PagedCache(**given | sizes)


def append(
    cache: Any,  # noqa: ANN401 - the subject's
    count: int,
    *,
    dim: int = 8,
    request: int = 0,
    heads: int = 2,
    dtype: torch.dtype = torch.float32,
    **other: Tensor,
) -> None:
    k = torch.zeros(count, heads, dim, dtype=dtype)
    given = {"k": k, "v": k, "k_idx": torch.zeros(count, 1, 4, dtype=dtype), **other}
    cache.append(**given, request=request)


def decode_step(
    *,
    steps: int,
    tokens: int = 3,
    dim: int = 8,
    index_dim: int = 4,
    topk: int = 2,
    scale: float = 1.0,
    index_scale: float = 1.0,
    q: Any = None,  # noqa: ANN401 - what is no tensor
) -> None:
    from msa.cache import decode

    cache = new_cache()
    for request in (0, 1):
        append(cache, tokens, request=request)
    decode(
        cache,
        torch.zeros(2, steps, 4, dim) if q is None else q,
        torch.zeros(2, steps, 2, index_dim),
        topk=topk,
        scale=scale,
        index_scale=index_scale,
    )


def branch(**sizes: int) -> Any:  # noqa: ANN401
    from msa.index_branch import IndexBranch

    given = {"hidden_size": 8, "groups": 2, "index_dim": 4, "rotary_dim": 4, **sizes}
    return IndexBranch(**given)


def layer(
    change: Callable[[dict[str, Tensor]], object],
    *,
    wide: int = 8,
    ends: tuple[int, ...] = (5,),
    **sizes: int,
) -> None:
    from msa.layer import LayerShape, layer_inputs

    given = {"hidden_size": 8, "q_heads": 4, "kv_heads": 2, "head_dim": 4, "rotary_dim": 4, **sizes}
    shape = LayerShape(**given)
    weights = {name: torch.zeros(size) for name, size in shape.weight_shapes(4).items()}
    change(weights)
    cu = torch.tensor([0, *ends], dtype=torch.int32)
    layer_inputs(torch.zeros(5, wide), weights, cu=cu, shape=shape, index_dim=4)


def layer_shape(**sizes: int) -> None:
    from msa.layer import LayerShape

    given = {"hidden_size": 8, "q_heads": 4, "kv_heads": 2, "head_dim": 4, "rotary_dim": 4}
    LayerShape(**given | sizes)


def rotate(channels: int, half: int) -> None:
    from msa.index_branch import rotate

    rotate(torch.zeros(3, 1, channels), torch.ones(3, half), torch.zeros(3, half))


def attend(**changed: Any) -> None:  # noqa: ANN401
    from msa import fast

    cu = torch.tensor([0, 9], dtype=torch.int32)
    given: dict[str, Any] = {
        **{name: torch.zeros(9, heads, 4) for name, heads in (("q", 4), ("k", 2), ("v", 2))},
        **{"q_idx": torch.zeros(9, 2, 4), "k_idx": torch.zeros(9, 1, 4), "cu_q": cu, "cu_k": cu},
        **{"block": 4, "topk": 2, "scale": 1.0, "index_scale": 1.0, **changed},
    }
    fast.attend(**given)


def operation(name: str, **changed: Any) -> None:  # noqa: ANN401
    from msa import fast

    cu = torch.tensor([0, 9], dtype=torch.int32)
    tables: dict[str, dict[str, Any]] = {
        "block_scores": {"q_idx": torch.zeros(9, 2, 4), "k_idx": torch.zeros(9, 1, 4)},
        "select_blocks": {"scores": torch.zeros(9, 2, 3), "topk": 2},
        "sparse_attention": {
            **{part: torch.zeros(9, heads, 4) for part, heads in (("q", 4), ("k", 2), ("v", 2))},
            "selection": torch.zeros(9, 2, 2, dtype=torch.int32),
        },
        "combine": {"outs": torch.zeros(2, 9, 4, 4), "lses": torch.zeros(2, 9, 4)},
    }
    given = tables[name]
    if name != "combine":
        given |= {"cu_q": cu, "cu_k": cu, "block": 4}
    if name in ("block_scores", "sparse_attention"):
        given["scale"] = 1.0
    getattr(fast, name)(**given | changed)


def plan(mask: Tensor, batch: int = 1, q_len: int = 2, k_len: int = 4) -> None:
    from msa.padding import plan_packing

    plan_packing(mask, batch, q_len, k_len, torch.zeros(1))


def pages(*, scale: float = 1.0, **changed: Tensor) -> None:
    from msa import fast

    given = {
        "q": torch.zeros(1, 1, 4, 8),
        "k_pages": torch.zeros(3, 2, 4, 8),
        "v_pages": torch.zeros(3, 2, 4, 8),
        "selection": torch.zeros(1, 1, 2, 2, dtype=torch.int32),
        "page_table": torch.zeros(1, 2, dtype=torch.int32),
        "k_lens": torch.tensor([5], dtype=torch.int32),
        **changed,
    }
    fast.sparse_decode(**given, scale=scale)


def poisoned(name: str, value: float) -> None:
    heads = {"q": 4, "k_idx": 1}.get(name, 2)
    tensor = torch.zeros(9, heads, 4)
    tensor[3, 0, 1] = value
    attend(**{name: tensor})


def retrofitted(**extras: object) -> None:
    """The attention function of a layer whose model passes on more than a mask."""
    from msa import retrofit_attention

    config = SimpleNamespace(msa_retrofit="refusals", msa_dense_layers=(), layer_types=None)
    layer: Any = SimpleNamespace(config=config, layer_idx=0, is_causal=True)
    q, k = torch.zeros(1, 4, 6, 8), torch.zeros(1, 2, 6, 8)
    retrofit_attention.ACTIVE["refusals"] = nobody = cast("Any", None)
    try:
        retrofit_attention.attention(layer, q, k, k, nobody, **extras)
    finally:
        del retrofit_attention.ACTIVE["refusals"]


def mask_of_its_own() -> None:
    from msa.retrofit_dense import build_mask

    build_mask(1, 6, 6, mask_function=lambda *_: True)
