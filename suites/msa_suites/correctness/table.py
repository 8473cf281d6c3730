"""The one table of checks. A new check is one function and one row here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from msa_suites.correctness import (
    checks_attention,
    checks_backward,
    checks_hygiene,
    checks_index_kl,
    checks_paged,
    checks_pipeline,
    checks_selection,
)
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


_scores, _given = checks_selection, checks_attention
_grads, _BACKWARD = checks_backward, "sparse_attention_backward"
_kl, _paged = checks_index_kl, checks_paged
_whole, _manners = checks_pipeline, checks_hygiene

CHECKS: dict[str, Check] = {
    "scores": Check(_scores.scores, "block_scores"),
    "scores_own_keys": Check(_scores.scores_own_keys, "block_scores", "invariants"),
    "selection": Check(_scores.selection, "select_blocks"),
    "selection_nan": Check(_scores.selection_nan, "select_blocks", "invariants"),
    "selection_ties": Check(_scores.selection_ties, "select_blocks", "invariants"),
    "selection_lowest_local": Check(_scores.selection_lowest_local, "select_blocks", "invariants"),
    "selection_negative": Check(_scores.selection_negative, "select_blocks", "invariants"),
    "attention": Check(_given.attention, "sparse_attention"),
    "attention_lse": Check(_given.attention_lse, "sparse_attention"),
    "attention_permuted": Check(_given.attention_permuted, "sparse_attention", "invariants"),
    "attention_empty_rows": Check(_given.attention_empty_rows, "sparse_attention", "invariants"),
    "attention_large": Check(_given.attention_large, "sparse_attention", "invariants"),
    "attention_everything": Check(_given.attention_everything, "sparse_attention", "invariants"),
    "attention_unread_nan": Check(_given.attention_unread_nan, "sparse_attention", "invariants"),
    "combine": Check(_given.combine, "combine", "invariants"),
    "decode": Check(_paged.decode, "sparse_decode", "decode"),
    "decode_lse": Check(_paged.decode_lse, "sparse_decode", "decode"),
    "decode_empty_rows": Check(_paged.decode_empty_rows, "sparse_decode", "decode"),
    "paged_scores": Check(_paged.paged_scores, "paged_block_scores", "decode"),
    "paged_scores_own_keys": Check(_paged.paged_scores_own_keys, "paged_block_scores", "decode"),
    "attend_paged": Check(_paged.attend_paged, "attend_paged", "decode"),
    "attend_paged_ties": Check(_paged.attend_paged_ties, "attend_paged", "decode"),
    "attend_paged_lowest_local": Check(_paged.attend_paged_lowest_local, "attend_paged", "decode"),
    "backward": Check(_grads.backward, _BACKWARD),
    "backward_empty_rows": Check(_grads.backward_empty_rows, _BACKWARD, "invariants"),
    "backward_shared": Check(_grads.backward_shared, _BACKWARD, "invariants"),
    "index_kl": Check(_kl.index_kl, "index_kl"),
    "index_kl_own_keys": Check(_kl.index_kl_own_keys, "index_kl", "invariants"),
    "index_kl_empty_rows": Check(_kl.index_kl_empty_rows, "index_kl", "invariants"),
    "index_kl_large": Check(_kl.index_kl_large, "index_kl", "invariants"),
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
    "negative": Check(_whole.negative, "attend", "invariants"),
    "large": Check(_whole.large, "attend", "invariants"),
    "deterministic": Check(_manners.deterministic, "", "hygiene"),
    "inputs_unchanged": Check(_manners.inputs_unchanged, "", "hygiene"),
    "fresh_outputs": Check(_manners.fresh_outputs, "", "hygiene"),
    "scales": Check(_manners.scales, "", "hygiene"),
    "gaps": Check(_manners.gaps, "", "hygiene"),
}
