"""Calls of the subject's msa that make no sense: each must be refused in words, and no others."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch

from msa_suites.method import calls

_CU = torch.tensor([0, 12, 9], dtype=torch.int32)
_SHORT = torch.tensor([0, 8], dtype=torch.int32)
#: Argument by argument, what each operation must not take.
_OPERATIONS: tuple[tuple[str, str, object], ...] = (
    ("block_scores", "q_idx", torch.zeros(9, 2, 3)),
    ("block_scores", "k_idx", torch.zeros(9, 3, 4)),
    ("block_scores", "k_idx", torch.zeros(9, 1, 4).double()),
    ("block_scores", "block", 0),
    ("block_scores", "scale", math.nan),
    ("block_scores", "cu_q", _SHORT),
    ("block_scores", "cu_k", _CU),
    ("select_blocks", "scores", torch.zeros(9, 2, 3).double()),
    ("select_blocks", "scores", torch.zeros(9, 2, 2)),
    ("select_blocks", "scores", torch.zeros(8, 2, 3)),
    ("select_blocks", "topk", 0),
    ("select_blocks", "sink_blocks", 2),
    ("select_blocks", "local_blocks", 0),
    ("select_blocks", "block", -1),
    ("select_blocks", "cu_q", _SHORT),
    ("sparse_attention", "q", torch.zeros(9, 3, 4)),
    ("sparse_attention", "k", torch.zeros(9, 2, 3)),
    ("sparse_attention", "v", torch.zeros(8, 2, 4)),
    ("sparse_attention", "v", torch.zeros(9, 2, 4).half()),
    ("sparse_attention", "selection", torch.zeros(9, 2, 2)),
    ("sparse_attention", "selection", torch.zeros(9, 1, 2, dtype=torch.int32)),
    ("sparse_attention", "scale", math.inf),
    ("sparse_attention", "block", 0),
    ("sparse_attention", "cu_k", _SHORT),
    ("combine", "outs", torch.zeros(2, 9, 4)),
    ("combine", "outs", torch.zeros(2, 9, 4, 4).double()),
    ("combine", "lses", torch.zeros(2, 9, 3)),
)
#: At the very edge of what is refused, and right: an edge that moved refuses them.
_GOOD: dict[str, Callable[[], object]] = {
    **{
        f"{name} as it should be": partial(calls.operation, name)
        for name in ("block_scores", "select_blocks", "sparse_attention", "combine")
    },
    "attend as it should be": calls.attend,
    "attend with a budget of forced blocks": lambda: calls.attend(sink_blocks=1),
    "attend with index keys a group": lambda: calls.attend(k_idx=torch.zeros(9, 2, 4)),
    "append of nothing": lambda: calls.append(calls.new_cache(), 0),
    "append of all that the pages hold": lambda: calls.append(calls.new_cache(), 12),
    "append to the last request": lambda: calls.append(calls.new_cache(), 1, request=1),
    "cache with index heads a group": lambda: calls.new_cache(index_heads=2),
    "decode of as many queries as tokens": lambda: calls.decode_step(steps=3),
    "decode of a budget of one": lambda: calls.decode_step(steps=1, topk=1),
    "index branch with all channels rotated": lambda: calls.branch()(
        torch.zeros(3, 8), torch.arange(3)
    ),
    "rotation of every channel": lambda: calls.rotate(4, 2),
    "layer with all channels rotated": lambda: calls.layer(dict),
    "mask of the queries": lambda: calls.plan(torch.ones(1, 2, dtype=torch.bool)),
    "mask of all slots": lambda: calls.plan(torch.ones(1, 4, dtype=torch.bool)),
    "pages as they should be": calls.pages,
}
_BAD: dict[str, Callable[[], object]] = {
    **{
        f"cache with {name} {value}": partial(calls.new_cache, **{name: value})
        for name, value in (
            ("requests", 0),
            ("pages", 0),
            ("kv_heads", 0),
            ("dim", 0),
            ("index_dim", -1),
            ("block", 0),
            ("index_heads", 3),
            ("dtype", torch.int32),
        )
    },
    "append to request 2 of 2": lambda: calls.append(calls.new_cache(), 1, request=2),
    "append to request -1": lambda: calls.append(calls.new_cache(), 1, request=-1),
    "append in another dtype": lambda: calls.append(calls.new_cache(), 1, dtype=torch.float64),
    "append of other values than keys": lambda: calls.append(
        calls.new_cache(), 2, v=torch.zeros(1, 2, 8)
    ),
    "append of keys in another dtype": lambda: calls.append(
        calls.new_cache(), 2, k=torch.zeros(2, 2, 8).double()
    ),
    "append of keys of another width": lambda: calls.append(
        calls.new_cache(), 2, k=torch.zeros(2, 2, 7)
    ),
    "append of values in another dtype": lambda: calls.append(
        calls.new_cache(), 2, v=torch.zeros(2, 2, 8).double()
    ),
    "append of index keys of another width": lambda: calls.append(
        calls.new_cache(), 2, k_idx=torch.zeros(2, 1, 5)
    ),
    "index keys of request 2 of 2": lambda: calls.new_cache().index_keys(2),
    "decode with a scale that is no number": lambda: calls.decode_step(steps=1, scale=math.nan),
    "decode with an index scale without end": lambda: calls.decode_step(
        steps=1, index_scale=math.inf
    ),
    "layer on more tokens than there are": lambda: calls.layer(dict, ends=(6,)),
    "layer on a sequence of less than nothing": lambda: calls.layer(dict, ends=(6, 5)),
    **{
        f"{name} with {argument} of row {row}": partial(calls.operation, name, **{argument: value})
        for row, (name, argument, value) in enumerate(_OPERATIONS)
    },
    "append of another width": lambda: calls.append(calls.new_cache(), 1, dim=7),
    "append of other heads": lambda: calls.append(calls.new_cache(), 1, heads=1),
    "append of more than the pages hold": lambda: calls.append(calls.new_cache(), 13),
    "release of request 2 of 2": lambda: calls.new_cache().release(2),
    "release of request -1": lambda: calls.new_cache().release(-1),
    "decode of more queries than tokens": lambda: calls.decode_step(steps=4),
    "decode of many more queries than tokens": lambda: calls.decode_step(steps=9),
    "decode of a request without tokens": lambda: calls.decode_step(steps=1, tokens=0),
    "decode of what is no tensor": lambda: calls.decode_step(steps=1, q=[1.0]),
    "decode of a row": lambda: calls.decode_step(steps=1, q=torch.zeros(8)),
    "decode of no query": lambda: calls.decode_step(steps=0),
    "decode of another width": lambda: calls.decode_step(steps=1, dim=7),
    "decode of another index width": lambda: calls.decode_step(steps=1, index_dim=3),
    "decode of a budget below the local block": lambda: calls.decode_step(steps=1, topk=0),
    "index branch with an odd rotation": lambda: calls.branch(rotary_dim=3),
    "index branch with a rotation above its width": lambda: calls.branch(rotary_dim=6),
    "index branch without groups": lambda: calls.branch(groups=0),
    "index branch on another width": lambda: calls.branch()(torch.zeros(3, 7), torch.arange(3)),
    "index branch with too few positions": lambda: calls.branch()(
        torch.zeros(3, 8), torch.arange(2)
    ),
    "rotation of more channels than there are": lambda: calls.rotate(3, 2),
    "rotation of one channel too many": lambda: calls.rotate(5, 3),
    **{
        f"shape of a layer with {name} {value}": partial(calls.layer_shape, **{name: value})
        for name, value in (
            ("rotary_dim", 3),
            ("rotary_dim", 6),
            ("q_heads", 3),
            ("kv_heads", 0),
            ("hidden_size", 0),
        )
    },
    "layer whose heads are no multiple": lambda: calls.layer(dict, q_heads=3),
    "layer with an odd rotation": lambda: calls.layer(dict, rotary_dim=3),
    "layer with a rotation above its width": lambda: calls.layer(dict, rotary_dim=6),
    "layer without a weight": lambda: calls.layer(lambda w: w.pop("q_norm.weight")),
    "layer with a weight too many": lambda: calls.layer(lambda w: w.update(other=torch.zeros(1))),
    "layer with a weight of another shape": lambda: calls.layer(
        lambda w: w.update({"k_norm.weight": torch.zeros(3)})
    ),
    "layer with a weight of another dtype": lambda: calls.layer(
        lambda w: w.update({"k_norm.weight": torch.zeros(4).double()})
    ),
    "layer on another width": lambda: calls.layer(dict, wide=7),
    **{
        f"attend with {value} in {name}": partial(calls.poisoned, name, value)
        for name in ("q", "k", "v", "q_idx", "k_idx")
        for value in (math.nan, -math.inf)
    },
    **{
        f"retrofitted layer with {name}": partial(calls.retrofitted, **{name: value})
        for name, value in (
            ("softcap", 50.0),
            ("s_aux", torch.zeros(4)),
            ("position_bias", torch.zeros(1, 4, 6, 6)),
            ("dropout", 0.1),
            ("is_causal", False),
        )
    },
    "retrofit of a mask of the model's own": calls.mask_of_its_own,
    "attend with running totals that fall": lambda: calls.attend(cu_q=_CU, cu_k=_CU),
    "attend with a scale that is no number": lambda: calls.attend(scale=math.nan),
    "attend with an index scale without end": lambda: calls.attend(index_scale=math.inf),
    "attend with no budget": lambda: calls.attend(topk=0),
    "attend with a block of no tokens": lambda: calls.attend(block=0),
    "attend with values of another length": lambda: calls.attend(v=torch.zeros(8, 2, 4)),
    "attend with heads that are no multiple": lambda: calls.attend(q=torch.zeros(9, 3, 4)),
    "attend with index queries of other groups": lambda: calls.attend(q_idx=torch.zeros(9, 3, 4)),
    "mask of another batch": lambda: calls.plan(torch.ones(2, 4, dtype=torch.bool)),
    "mask of numbers": lambda: calls.plan(torch.ones(1, 4)),
    "mask shorter than the queries": lambda: calls.plan(torch.ones(1, 1, dtype=torch.bool)),
    "mask longer than the keys": lambda: calls.plan(torch.ones(1, 5, dtype=torch.bool)),
    "pages with a scale that is no number": lambda: calls.pages(scale=math.nan),
    "pages of another width": lambda: calls.pages(k_pages=torch.zeros(3, 2, 4, 7)),
    "selection of other groups": lambda: calls.pages(
        selection=torch.zeros(1, 1, 3, 2, dtype=torch.int32)
    ),
    "lengths of another batch": lambda: calls.pages(k_lens=torch.tensor([5, 5], dtype=torch.int32)),
}


def misjudged() -> list[str]:
    """Bad calls that no ValueError or TypeError in words answers, good ones that one does."""
    bad = [f"{name}: {what}" for name, call in _BAD.items() if (what := _answer(call))]
    for name, call in _GOOD.items():
        try:
            call()
        except Exception as error:  # noqa: BLE001 - whatever it is, the call was right
            bad.append(f"{name}: raised {type(error).__name__}: {error}")
    return bad


def _answer(call: Callable[[], object]) -> str:
    try:
        call()
    except (ValueError, TypeError) as error:
        return "" if "wanted" in str(error) else f"said only {error}"
    except Exception as error:  # noqa: BLE001 - any other is what is looked for
        return f"raised {type(error).__name__}: {error}"
    return "was not refused"
