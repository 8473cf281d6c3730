"""What the first builder who put MSA into a model of his own would say to a configuration.

Three rules (seed 000, "What I'd tell a builder"): k well above the blocks that are kept for free,
the maximum over a block and no average, and no MSA where it computes more than it saves. They are
advice: nothing is measured here, and no verdict depends on them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from msa.cost import CostShape, equation_12
from msa_suites.models.attention import MsaSettings

#: Slots beside the forced blocks with which his model recalled all of twelve facts (k 8, two of
#: them forced), and what it recalled with fewer.
ENOUGH = 6
_SEEN = {0: "none", 1: "a third", 2: "almost all"}
#: Scorers that take the best token of a block; ``index`` is a trained index branch.
BEST_TOKEN = ("max", "index", "dsa_standin")
#: Budgets in a context from which MSA pays: "about 8K" at 2,048 tokens.
WORTH = 4
#: One layer of the paper's model, where none is known.
_PAPER = {"q_heads": 64, "kv_heads": 4, "dim": 128, "index_dim": 128}


@dataclass(frozen=True, slots=True)
class Advice:
    """What one rule says.

    Attributes:
        rule: ``budget``, ``pooling`` or ``length``.
        level: ``warning`` or ``ok``.
        text: why, with the numbers.
    """

    rule: str
    level: Literal["ok", "warning"]
    text: str


def advise(
    settings: MsaSettings, *, context: int | None = None, layer: Mapping[str, int] | None = None
) -> list[Advice]:
    """What the three rules say to a configuration.

    Args:
        settings: of MSA; k has room for the forced blocks.
        context: tokens that are to be served; None if nobody said.
        layer: ``q_heads``, ``kv_heads``, ``dim`` and ``index_dim`` of the model; None for those of
            the paper's.

    Returns:
        One piece of advice a rule, always in the same order.

    Raises:
        ValueError: sizes that make no layer.
    """
    return [
        advise_budget(settings),
        advise_pooling(settings),
        advise_length(settings, context=context, layer=layer),
    ]


def advise_budget(settings: MsaSettings) -> Advice:
    """Rule 1: k stands well above the blocks that are kept for free."""
    forced = settings.sink_blocks + settings.local_blocks
    free = settings.topk - forced
    kept = f"the blocks that are always kept ({settings.sink_blocks} sink + "
    kept += f"{settings.local_blocks} local)"
    fewer = f" {_SEEN[free]} of twelve facts so, and" if free in _SEEN else ""
    seen = f"A retrofitted Qwen2.5-3B recalled{fewer} all twelve with {ENOUGH} free slots (k "
    seen += f"{forced + ENOUGH} here)"
    if free == 0:
        return Advice(
            "budget",
            "warning",
            f"k {settings.topk} is eaten by {kept}: no slot is left for a block that the scorer "
            f"chose; the model is blind to all else, and no error says so. {seen}",
        )
    text = f"k {settings.topk} leaves {free} free slot{'s' * (free > 1)} beside {kept}"
    if free >= ENOUGH:
        return Advice("budget", "ok", text)
    return Advice("budget", "warning", f"{text}. {seen}")


def advise_pooling(settings: MsaSettings) -> Advice:
    """Rule 2: a block is as good as its best token."""
    name = settings.scorer
    if name in BEST_TOKEN:
        return Advice("pooling", "ok", f"scorer {name}: a block is as good as its best token")
    return Advice(
        "pooling",
        "warning",
        f"scorer {name}: keep the max. A fact is one sentence of a block, and only the best token "
        "shows it: of twelve facts a retrofitted Qwen2.5-3B with k 8 recalled all by the max, none "
        "by mean or Quest's bound, and none by random blocks at any k",
    )


def advise_length(
    settings: MsaSettings, *, context: int | None = None, layer: Mapping[str, int] | None = None
) -> Advice:
    """Rule 3: contexts long enough that something is saved (the paper, equation 12)."""
    sizes: Mapping[str, Any] = layer or _PAPER
    shape = CostShape(**sizes, block=settings.block, topk=settings.topk)
    budget = settings.budget
    whose = "of this model" if layer else "of the paper's model"
    even = (
        f"by equation 12 a layer {whose} breaks even at {shape.break_even:,.0f} tokens"
        if math.isfinite(shape.break_even)
        else f"by equation 12 a layer {whose} never breaks even: its index costs what it saves"
    )
    skipped = f"up to k * block = {budget:,} tokens nothing is skipped"
    if context is None:
        return Advice("length", "ok", f"{skipped}; {even}. --context judges a length")
    dense, sparse = equation_12(shape, context)
    work = f"dense attention is {dense / sparse:.2f} times MSA's work"
    if context <= budget:
        text = f"{context:,} tokens fit into k * block = {budget:,}: nothing is skipped, and {work}"
        return Advice("length", "warning", f"{text}; {even}")
    text = f"at {context:,} tokens {work}; {skipped}; {even}"
    if context < shape.break_even:
        return Advice("length", "warning", f"{text}. Here dense attention costs less")
    if context < WORTH * budget:
        return Advice(
            "length",
            "warning",
            f"{text}. The builder's limit is about 8K where a query attends 2,048, {WORTH} times "
            f"as many: {WORTH * budget:,} tokens here",
        )
    return Advice("length", "ok", text)
