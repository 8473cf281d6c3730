"""MSA's relatives as rules on one model: who chooses, in what pieces, and what is always kept.

A rule spends a budget of attended tokens; all rules get the same one, so that a table of them
compares choices and not amounts. Blocks are a quarter of those in the papers, as the embedded
model's 32 stand for the 128 of MSA. Nothing is trained: what a method learns is left out or has a
stand-in, and each rule says which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from msa_suites.models.attention import MsaSettings

#: Budgets in tokens: k 4, 8 and 16 of MSA's blocks of 32.
BUDGETS = (128, 256, 512)


@dataclass(frozen=True, slots=True)
class Rule:
    """How a method spends its budget.

    Attributes:
        name: of the rule.
        scorer: name in :data:`msa.scorers.SCORERS`.
        block: tokens per block.
        sink_blocks: first blocks that are always kept.
        local_blocks: newest blocks that are always kept, at least.
        local_share: part of the budget that a method with a sliding window spends on it.
        source: where the method is described.
        faithful: what of it the rule does, in one sentence.
        stand_in: what it does otherwise, in one sentence.
    """

    name: str
    scorer: str
    block: int
    sink_blocks: int
    local_blocks: int
    source: str
    faithful: str
    stand_in: str
    local_share: float = 0.0

    @property
    def pieces(self) -> str:
        """Who chooses what, and what is always kept, for people."""
        window = f"a window of up to {self.local_share:.0%} of the budget"
        local = window if self.local_share else f"{self.local_blocks} local"
        size = f"blocks of {self.block}" if self.block > 1 else "single tokens"
        return f"scorer {self.scorer}, {size}, kept: {self.sink_blocks} sink and {local}"


_RULES = (
    Rule(
        name="msa",
        scorer="max",
        block=32,
        sink_blocks=1,
        local_blocks=1,
        source="arXiv 2606.13392",
        faithful="Each group ranks blocks by their best visible token; the own block takes a slot.",
        stand_in="The mean query of the group and the model's keys stand for the trained index "
        "branch, and the first block is kept too.",
    ),
    Rule(
        name="moba",
        scorer="mean",
        block=64,
        sink_blocks=0,
        local_blocks=1,
        source="arXiv 2502.13189",
        faithful="Large blocks (the paper's finest, 256) are ranked by the query's product with "
        "their mean key; the own block takes a slot.",
        stand_in="A group chooses by its mean query where each head chooses for itself, and the "
        "model was not trained with the gate.",
    ),
    Rule(
        name="infllm_v2",
        scorer="infllm_v2",
        block=16,
        sink_blocks=1,
        local_blocks=1,
        local_share=1 / 3,
        source="arXiv 2509.24663",
        faithful="Softmax over mean keys of overlapping windows, summed over the group's heads, "
        "the largest window per block; first block kept, a third of the budget is the local "
        "window.",
        stand_in="Windows of 8 tokens every 4 stand for 32 every 16, and the model was not "
        "trained with them; the selection itself has no parameters in the paper either.",
    ),
    Rule(
        name="nsa_standin",
        scorer="nsa_standin",
        block=16,
        sink_blocks=1,
        local_blocks=2,
        local_share=1 / 3,
        source="arXiv 2502.11089",
        faithful="Importance of a block is the softmax mass of its compressed keys, summed over "
        "the group's heads; first block kept, a third of the budget is the local window.",
        stand_in="Mean keys stand for the learned compression; compressed values, gates and the "
        "window's own keys and values are left out: one softmax over selected and local tokens.",
    ),
    Rule(
        name="dsa_standin",
        scorer="dsa_standin",
        block=1,
        sink_blocks=0,
        local_blocks=1,
        source="arXiv 2512.02556",
        faithful="Single tokens are ranked by a sum over heads of ReLU(q . k), and all heads share "
        "one selection.",
        stand_in="The model's query heads with equal weights and the keys of their groups stand "
        "for the trained indexer; the own token is always kept.",
    ),
    Rule(
        name="quest",
        scorer="quest",
        block=4,
        sink_blocks=0,
        local_blocks=1,
        source="arXiv 2406.10774",
        faithful="Pages (16 tokens in the paper) are ranked by an upper bound from the extremes "
        "of their keys, with nothing trained.",
        stand_in="A group chooses by its mean query where each head chooses for itself; prefill "
        "is sparse too, and so are the first two layers.",
    ),
)

#: Name of a rule -> the rule.
RULES: Mapping[str, Rule] = {rule.name: rule for rule in _RULES}


def settings_of(rule: Rule, budget_tokens: int, *, base: MsaSettings | None = None) -> MsaSettings:
    """The settings with which ``rule`` attends at most ``budget_tokens`` tokens.

    Args:
        rule: the rule.
        budget_tokens: tokens a query may attend, the forced ones among them.
        base: everything that no rule says (seed, dense layers, implementation).

    Returns:
        k is the whole blocks of the budget; a rule with a window keeps its part of them local.

    Raises:
        ValueError: the budget leaves no block to choose beside the forced ones.
    """
    topk = budget_tokens // rule.block
    local = max(rule.local_blocks, int(topk * rule.local_share))
    least = rule.sink_blocks + rule.local_blocks + 1
    if topk <= rule.sink_blocks + local:
        raise ValueError(
            f"budget_tokens: wanted at least {least * rule.block} for {rule.name} ({least} blocks "
            f"of {rule.block}: {rule.sink_blocks} sink, {rule.local_blocks} local, one to "
            f"choose), got {budget_tokens}"
        )
    return replace(
        base or MsaSettings(),
        scorer=rule.scorer,
        topk=topk,
        block=rule.block,
        sink_blocks=rule.sink_blocks,
        local_blocks=local,
    )


def rule_points(
    rules: Sequence[Rule], budgets: Sequence[int], base: MsaSettings
) -> dict[tuple[str, int], MsaSettings]:
    """Every pair of rule and budget in tokens, in that order, with its settings.

    Raises:
        ValueError: a budget is too small for a rule.
    """
    return {
        (rule.name, tokens): settings_of(rule, tokens, base=base)
        for rule in rules
        for tokens in budgets
    }
