"""MiniMax-M3 as transformers has it: sparse of its own, so that it needs no retrofit.

Its sparse layers have an index branch that keeps ``topk_blocks`` blocks a query and group. With
room for every block it keeps all that are visible, and the layer is dense attention on the same
weights; no other layer looks at that number.
"""

from __future__ import annotations

import sys
from typing import Any

_MODEL_TYPE = "minimax_m3_vl_text"


def _layers(model: Any) -> list[Any]:  # noqa: ANN401 - transformers is untyped
    config: Any = getattr(model, "config", None)
    if config is None or config.get_text_config(decoder=True).model_type != _MODEL_TYPE:
        return []
    return list(model.get_decoder().layers)


def index_branches(model: Any) -> list[Any]:  # noqa: ANN401 - transformers is untyped
    """Index branches of the sparse layers, in order; none where ``model`` is no sparse MiniMax-M3.

    An M3 whose layers are all dense is a model like any other, to be retrofitted.
    """
    found = (layer.self_attn.indexer for layer in _layers(model))
    return [indexer for indexer in found if indexer is not None]


def own_values(model: Any) -> dict[str, Any] | None:  # noqa: ANN401 - transformers is untyped
    """Settings that such a model brings along, in the retrofit's words; None for another model.

    ``scorer`` is ``index``, the trained index branch, and ``implementation`` is ``transformers``.
    """
    if not index_branches(model):
        return None
    config = model.config.get_text_config(decoder=True)
    return {
        "scorer": "index",
        "topk": config.index_topk_blocks,
        "block": config.index_block_size,
        "sink_blocks": 0,
        "local_blocks": config.index_local_blocks,
        "seed": 0,
        "dense_layers": tuple(
            i for i, layer in enumerate(_layers(model)) if layer.self_attn.indexer is None
        ),
        "implementation": "transformers",
    }


def keep_blocks(model: Any, *, every: bool) -> None:  # noqa: ANN401 - transformers is untyped
    """Let the index branches keep every block, which is dense attention, or the model's own k."""
    for indexer in index_branches(model):
        indexer.topk_blocks = sys.maxsize if every else indexer.config.index_topk_blocks
