# ruff: noqa: ARG001 - a fault often is an argument that nobody reads
"""A suite made vacuous: items too short, exchanged, left out, or never read."""

from __future__ import annotations

from dataclasses import replace

import torch

from msa_suites.faults.code import Code
from msa_suites.faults.table import Given, fault, wrapping

_ITEMS = "msa_suites.quality.items.load_items"
#: The cheapest of the tasks: what is wrong here is wrong with any.
_NEEDLE = "quality:msa_niah_single"


@fault("harness", _NEEDLE)
@wrapping(_ITEMS)
def contexts_below_the_budget(right: Given, *args: Given, **kwargs: Given) -> Given:
    """Contexts are cut to a length at which MSA is dense attention."""
    return tuple(
        replace(item, context=item.context[-100:], length=100) for item in right(*args, **kwargs)
    )


@fault("harness", _NEEDLE)
@wrapping(_ITEMS)
def half_of_the_items_left_out(right: Given, *args: Given, **kwargs: Given) -> Given:
    """Head answers half of what base answered."""
    return tuple(right(*args, **kwargs)[::2])


@fault("harness", _NEEDLE)
@wrapping(_ITEMS)
def other_items_than_base(right: Given, *args: Given, **kwargs: Given) -> Given:
    """Head answers other items, which cannot be paired."""
    return tuple(replace(item, hash=item.hash[::-1]) for item in right(*args, **kwargs))


@fault("harness", _NEEDLE)
@wrapping(_ITEMS)
def no_items(right: Given, *args: Given, **kwargs: Given) -> Given:
    """Nothing is asked: a gate that measures nothing and passes."""
    return ()


@fault("harness", "quality:fidelity")
@wrapping("msa.fast.attention.sparse_attention")
def everything_attended_in_a_model(
    right: Given, q: Given, k: Given, v: Given, selection: Given, **rest: Given
) -> Given:
    """A model falls back to all blocks without a word: nothing sparse is ever measured."""
    blocks = torch.arange(-(-len(k) // rest["block"]), dtype=torch.int32)
    everything = blocks.expand(*selection.shape[:2], -1)
    return right(q, k, v, everything, **rest)


@fault("harness", _NEEDLE)
@wrapping("msa.retrofit_attention.mask")
def model_replaced_by_noise(right: Given, **arguments: Given) -> Given:
    """The model under the retrofit is broken: dense and sparse alike know nothing."""
    raise RuntimeError("the mask cannot be made")


@fault("harness", "quality:msa_facts")
def dense_reference_spoiled_too(code: Code) -> None:
    """Torch's own attention is patched with the change: no task seems to have a signal."""
    functional: Given = torch.nn.functional
    right = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = lambda q, *rest, **more: right(0 * q, *rest, **more)
    code.wrap("msa.fast.scoring.score_rows", lambda scores: lambda *args: 0 * scores(*args))


@fault("harness", "correctness:group-of-3")
def operations_renamed(code: Code) -> None:
    """An operation disappears, and with it every check of it."""
    from msa import fast

    del fast.sparse_attention
    code.wrap("msa.fast.scoring.score_rows", lambda right: right)  # shows that it was asked for


@fault("harness", "correctness:bfloat16")
def dtype_no_longer_offered(code: Code) -> None:
    """CAPABILITIES forgets a dtype that base has, and with it every check in it."""
    from msa import fast

    fast.CAPABILITIES = {"dtypes": ["float32", "float16"]}
    code.wrap("msa.fast.scoring.score_rows", _no_bfloat16)


def _no_bfloat16(right: Given) -> Given:
    def refusing(q: Given, *rest: Given) -> Given:
        if "bfloat16" in str(q.dtype):
            raise TypeError("q_idx: wanted float32 or float16, got bfloat16")
        return right(q, *rest)

    return refusing


@fault("harness", "method:recall")
@wrapping("msa.recall.mass_recall")
def recall_that_praises_itself(right: Given, *args: Given) -> Given:
    """The measure of a selection, which comes with the change, finds every selection perfect."""
    return torch.ones_like(right(*args))
