"""Calls of the subject's msa that make no sense: each must be refused in words."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor


def _cache() -> Any:  # noqa: ANN401 - the subject's
    from msa.cache import PagedCache

    return PagedCache(requests=2, pages=3, kv_heads=2, dim=8, index_dim=4, block=4)


def _append(cache: Any, count: int, *, dim: int = 8, request: int = 0, heads: int = 2) -> None:  # noqa: ANN401
    k = torch.zeros(count, heads, dim)
    cache.append(k, k, torch.zeros(count, 1, 4), request=request)


def _decode(
    *, steps: int, tokens: int = 3, dim: int = 8, index_dim: int = 4, topk: int = 2
) -> None:
    from msa.cache import decode

    cache = _cache()
    for request in (0, 1):
        _append(cache, tokens, request=request)
    decode(
        cache,
        torch.zeros(2, steps, 4, dim),
        torch.zeros(2, steps, 2, index_dim),
        topk=topk,
        scale=1.0,
        index_scale=1.0,
    )


def _branch(**sizes: int) -> Any:  # noqa: ANN401
    from msa.index_branch import IndexBranch

    given = {"hidden_size": 8, "groups": 2, "index_dim": 4, "rotary_dim": 4, **sizes}
    return IndexBranch(**given)


def _layer(change: Callable[[dict[str, Tensor]], object], *, wide: int = 8, **sizes: int) -> None:
    from msa.layer import LayerShape, layer_inputs

    given = {"hidden_size": 8, "q_heads": 4, "kv_heads": 2, "head_dim": 4, "rotary_dim": 4, **sizes}
    shape = LayerShape(**given)
    weights = {name: torch.zeros(size) for name, size in shape.weight_shapes(4).items()}
    change(weights)
    cu = torch.tensor([0, 5], dtype=torch.int32)
    layer_inputs(torch.zeros(5, wide), weights, cu=cu, shape=shape, index_dim=4)


def _rotate(channels: int, half: int) -> None:
    from msa.index_branch import rotate

    rotate(torch.zeros(3, 1, channels), torch.ones(3, half), torch.zeros(3, half))


def _attend(**changed: Any) -> None:  # noqa: ANN401
    from msa import fast

    cu = torch.tensor([0, 9], dtype=torch.int32)
    given: dict[str, Any] = {
        **{name: torch.zeros(9, heads, 4) for name, heads in (("q", 4), ("k", 2), ("v", 2))},
        **{"q_idx": torch.zeros(9, 2, 4), "k_idx": torch.zeros(9, 1, 4), "cu_q": cu, "cu_k": cu},
        **{"block": 4, "topk": 2, "scale": 1.0, "index_scale": 1.0, **changed},
    }
    fast.attend(**given)


def _plan(mask: Tensor, batch: int = 1, q_len: int = 2, k_len: int = 4) -> None:
    from msa.padding import plan_packing

    plan_packing(mask, batch, q_len, k_len, torch.zeros(1))


def _pages(**changed: Tensor) -> None:
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
    fast.sparse_decode(**given, scale=1.0)


def _poisoned(name: str, value: float) -> None:
    heads = {"q": 4, "k_idx": 1}.get(name, 2)
    tensor = torch.zeros(9, heads, 4)
    tensor[3, 0, 1] = value
    _attend(**{name: tensor})


def _retrofitted(**extras: object) -> None:
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


def _mask_of_its_own() -> None:
    from msa.retrofit_dense import build_mask

    build_mask(1, 6, 6, mask_function=lambda *_: True)


_CU = torch.tensor([0, 12, 9], dtype=torch.int32)
_BAD: dict[str, Callable[[], object]] = {
    "append to request 2 of 2": lambda: _append(_cache(), 1, request=2),
    "append to request -1": lambda: _append(_cache(), 1, request=-1),
    "append of another width": lambda: _append(_cache(), 1, dim=7),
    "append of other heads": lambda: _append(_cache(), 1, heads=1),
    "append of more than the pages hold": lambda: _append(_cache(), 13),
    "release of request 2 of 2": lambda: _cache().release(2),
    "release of request -1": lambda: _cache().release(-1),
    "decode of more queries than tokens": lambda: _decode(steps=4),
    "decode of no query": lambda: _decode(steps=0),
    "decode of another width": lambda: _decode(steps=1, dim=7),
    "decode of another index width": lambda: _decode(steps=1, index_dim=3),
    "decode of a budget below the local block": lambda: _decode(steps=1, topk=0),
    "index branch with an odd rotation": lambda: _branch(rotary_dim=3),
    "index branch with a rotation above its width": lambda: _branch(rotary_dim=6),
    "index branch without groups": lambda: _branch(groups=0),
    "index branch on another width": lambda: _branch()(torch.zeros(3, 7), torch.arange(3)),
    "index branch with too few positions": lambda: _branch()(torch.zeros(3, 8), torch.arange(2)),
    "rotation of more channels than there are": lambda: _rotate(3, 2),
    "layer whose heads are no multiple": lambda: _layer(dict, q_heads=3),
    "layer with an odd rotation": lambda: _layer(dict, rotary_dim=3),
    "layer with a rotation above its width": lambda: _layer(dict, rotary_dim=6),
    "layer without a weight": lambda: _layer(lambda w: w.pop("q_norm.weight")),
    "layer with a weight too many": lambda: _layer(lambda w: w.update(other=torch.zeros(1))),
    "layer with a weight of another shape": lambda: _layer(
        lambda w: w.update({"k_norm.weight": torch.zeros(3)})
    ),
    "layer with a weight of another dtype": lambda: _layer(
        lambda w: w.update({"k_norm.weight": torch.zeros(4).double()})
    ),
    "layer on another width": lambda: _layer(dict, wide=7),
    **{
        f"attend with {value} in {name}": partial(_poisoned, name, value)
        for name in ("q", "k", "v", "q_idx", "k_idx")
        for value in (math.nan, -math.inf)
    },
    **{
        f"retrofitted layer with {name}": partial(_retrofitted, **{name: value})
        for name, value in (
            ("softcap", 50.0),
            ("s_aux", torch.zeros(4)),
            ("position_bias", torch.zeros(1, 4, 6, 6)),
            ("dropout", 0.1),
            ("is_causal", False),
        )
    },
    "retrofit of a mask of the model's own": _mask_of_its_own,
    "attend with running totals that fall": lambda: _attend(cu_q=_CU, cu_k=_CU),
    "attend with no budget": lambda: _attend(topk=0),
    "attend with a block of no tokens": lambda: _attend(block=0),
    "attend with values of another length": lambda: _attend(v=torch.zeros(8, 2, 4)),
    "attend with heads that are no multiple": lambda: _attend(q=torch.zeros(9, 3, 4)),
    "attend with index queries of other groups": lambda: _attend(q_idx=torch.zeros(9, 3, 4)),
    "mask of another batch": lambda: _plan(torch.ones(2, 4, dtype=torch.bool)),
    "mask of numbers": lambda: _plan(torch.ones(1, 4)),
    "mask shorter than the queries": lambda: _plan(torch.ones(1, 1, dtype=torch.bool)),
    "mask longer than the keys": lambda: _plan(torch.ones(1, 5, dtype=torch.bool)),
    "pages of another width": lambda: _pages(k_pages=torch.zeros(3, 2, 4, 7)),
    "selection of other groups": lambda: _pages(
        selection=torch.zeros(1, 1, 3, 2, dtype=torch.int32)
    ),
    "lengths of another batch": lambda: _pages(k_lens=torch.tensor([5, 5], dtype=torch.int32)),
}


def not_refused() -> list[str]:
    """The calls that were not answered by a ValueError or TypeError that says what was wanted."""
    return [f"{name}: {what}" for name, call in _BAD.items() if (what := _answer(call))]


def _answer(call: Callable[[], object]) -> str:
    try:
        call()
    except (ValueError, TypeError) as error:
        return "" if "wanted" in str(error) else f"said only {error}"
    except Exception as error:  # noqa: BLE001 - any other is what is looked for
        return f"raised {type(error).__name__}: {error}"
    return "was not refused"
