"""The one table of checks. A new check is one function and one row here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from msa_suites.correctness import checks_hygiene, checks_operations, checks_pipeline
from msa_suites.correctness.trial import Trial


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Attributes:
        function: raises ``Failed`` or ``Skipped``; returns nothing.
        needs: the operation without which it is skipped; "" where it sees to that itself.
        cases: tag of the cases it runs on.
    """

    function: Callable[[Trial], None]
    needs: str
    cases: str = "correctness"

    @property
    def title(self) -> str:
        """First line of the function's docstring."""
        return (self.function.__doc__ or "").strip().partition("\n")[0]


_ops, _whole, _manners = checks_operations, checks_pipeline, checks_hygiene

CHECKS: dict[str, Check] = {
    "scores": Check(_ops.scores, "block_scores"),
    "selection": Check(_ops.selection, "select_blocks"),
    "selection_nan": Check(_ops.selection_nan, "select_blocks", "invariants"),
    "selection_ties": Check(_ops.selection_ties, "select_blocks", "invariants"),
    "selection_lowest_local": Check(_ops.selection_lowest_local, "select_blocks", "invariants"),
    "attention": Check(_ops.attention, "sparse_attention"),
    "attention_lse": Check(_ops.attention_lse, "sparse_attention"),
    "attention_permuted": Check(_ops.attention_permuted, "sparse_attention", "invariants"),
    "attention_empty_rows": Check(_ops.attention_empty_rows, "sparse_attention", "invariants"),
    "attention_everything": Check(_ops.attention_everything, "sparse_attention", "invariants"),
    "attention_unread_nan": Check(_ops.attention_unread_nan, "sparse_attention", "invariants"),
    "combine": Check(_ops.combine, "combine", "invariants"),
    "decode": Check(_ops.decode, "sparse_decode", "decode"),
    "decode_empty_rows": Check(_ops.decode_empty_rows, "sparse_decode", "decode"),
    "pipeline": Check(_whole.pipeline, "attend"),
    "keep_everything": Check(_whole.keep_everything, "attend", "invariants"),
    "below_budget": Check(_whole.below_budget, "attend", "invariants"),
    "batch_equals_singles": Check(_whole.batch_equals_singles, "attend", "invariants"),
    "chunked_prefill": Check(_whole.chunked_prefill, "attend", "invariants"),
    "decode_equals_row": Check(_whole.decode_equals_row, "attend", "invariants"),
    "future_changes_nothing": Check(_whole.future_changes_nothing, "attend", "invariants"),
    "groups_independent": Check(_whole.groups_independent, "attend", "invariants"),
    "ties": Check(_whole.ties, "attend", "invariants"),
    "lowest_local": Check(_whole.lowest_local, "attend", "invariants"),
    "deterministic": Check(_manners.deterministic, "", "hygiene"),
    "inputs_unchanged": Check(_manners.inputs_unchanged, "", "hygiene"),
    "fresh_outputs": Check(_manners.fresh_outputs, "", "hygiene"),
    "gaps": Check(_manners.gaps, "", "hygiene"),
}
