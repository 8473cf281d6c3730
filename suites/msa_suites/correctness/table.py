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
        means: what is likely wrong where this check is the first to fail on a case, and the
            numbers tell nothing better; "" where that is too much to say.
    """

    function: Callable[[Trial], None]
    needs: str
    cases: str = "correctness"
    means: str = ""

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
    "scores_own_keys": Check(
        _scores.scores_own_keys,
        "block_scores",
        "invariants",
        means="one index key serves all groups where each has its own",
    ),
    "selection": Check(_scores.selection, "select_blocks"),
    "selection_nan": Check(
        _scores.selection_nan,
        "select_blocks",
        "invariants",
        means="a NaN score ranks first, or is emitted as an id",
    ),
    "selection_ties": Check(
        _scores.selection_ties,
        "select_blocks",
        "invariants",
        means="ties are broken in another way than declared",
    ),
    "selection_lowest_local": Check(
        _scores.selection_lowest_local,
        "select_blocks",
        "invariants",
        means="the local block is not forced",
    ),
    "selection_negative": Check(
        _scores.selection_negative,
        "select_blocks",
        "invariants",
        means="a zero of padding, or of an empty slot, outranks negative scores",
    ),
    "attention": Check(_given.attention, "sparse_attention"),
    "attention_lse": Check(_given.attention_lse, "sparse_attention"),
    "attention_permuted": Check(
        _given.attention_permuted,
        "sparse_attention",
        "invariants",
        means="block ids are taken to come in an order",
    ),
    "attention_empty_rows": Check(
        _given.attention_empty_rows,
        "sparse_attention",
        "invariants",
        means="an empty entry (-1) is read as a block",
    ),
    "attention_large": Check(
        _given.attention_large,
        "sparse_attention",
        "invariants",
        means="the maximum is not taken off before the exponential",
    ),
    "attention_everything": Check(
        _given.attention_everything,
        "sparse_attention",
        "invariants",
        means="a selection that is wider than k is cut",
    ),
    "attention_unread_nan": Check(
        _given.attention_unread_nan,
        "sparse_attention",
        "invariants",
        means="slots that no row may read reach the output (garbage times zero)",
    ),
    "combine": Check(
        _given.combine,
        "combine",
        "invariants",
        means="an empty part (LSE -inf) reaches the merge, or parts are not weighted by their LSE",
    ),
    "decode": Check(_paged.decode, "sparse_decode", "decode"),
    "decode_lse": Check(_paged.decode_lse, "sparse_decode", "decode"),
    "decode_empty_rows": Check(
        _paged.decode_empty_rows,
        "sparse_decode",
        "decode",
        means="an empty entry (-1) is looked up in the page table, or rows without any block fail",
    ),
    "decode_permuted": Check(
        _paged.decode_permuted,
        "sparse_decode",
        "decode",
        means="block ids are taken to come in an order",
    ),
    "paged_scores": Check(_paged.paged_scores, "paged_block_scores", "decode"),
    "paged_scores_own_keys": Check(
        _paged.paged_scores_own_keys,
        "paged_block_scores",
        "decode",
        means="one index key serves all groups where each has its own",
    ),
    "attend_paged": Check(_paged.attend_paged, "attend_paged", "decode"),
    "attend_paged_ties": Check(
        _paged.attend_paged_ties,
        "attend_paged",
        "decode",
        means="scores and selection do not agree where scores tie",
    ),
    "attend_paged_lowest_local": Check(
        _paged.attend_paged_lowest_local,
        "attend_paged",
        "decode",
        means="the local block is not forced",
    ),
    "backward": Check(_grads.backward, _BACKWARD),
    "backward_empty_rows": Check(
        _grads.backward_empty_rows,
        _BACKWARD,
        "invariants",
        means="rows without any block are not handled in the gradient",
    ),
    "backward_shared": Check(
        _grads.backward_shared,
        _BACKWARD,
        "invariants",
        means="parts of queries that share a block are lost, or counted twice",
    ),
    "index_kl": Check(_kl.index_kl, "index_kl"),
    "index_kl_own_keys": Check(
        _kl.index_kl_own_keys,
        "index_kl",
        "invariants",
        means="one index key serves all groups where each has its own",
    ),
    "index_kl_empty_rows": Check(
        _kl.index_kl_empty_rows,
        "index_kl",
        "invariants",
        means="rows without any block are not handled in the loss",
    ),
    "index_kl_large": Check(
        _kl.index_kl_large,
        "index_kl",
        "invariants",
        means="the maximum is not taken off before the exponential",
    ),
    "pipeline": Check(_whole.pipeline, "attend"),
    "keep_everything": Check(
        _whole.keep_everything,
        "attend",
        "invariants",
        means="a k of all blocks is not dense attention: a slot is lost",
    ),
    "below_budget": Check(
        _whole.below_budget,
        "attend",
        "invariants",
        means="contexts below the budget are not attended whole",
    ),
    "batch_equals_singles": Check(
        _whole.batch_equals_singles,
        "attend",
        "invariants",
        means="sequences of a batch touch: tiles across their borders, rows left over",
    ),
    "chunked_prefill": Check(
        _whole.chunked_prefill,
        "attend",
        "invariants",
        means="the position at which a chunk starts is lost, or a block that it starts in",
    ),
    "decode_equals_row": Check(
        _whole.decode_equals_row,
        "attend",
        "invariants",
        means="a single query does not stand on the last key",
    ),
    "future_changes_nothing": Check(
        _whole.future_changes_nothing, "attend", "invariants", means="tokens of the future are read"
    ),
    "groups_independent": Check(
        _whole.groups_independent,
        "attend",
        "invariants",
        means="groups share a selection, keys or values",
    ),
    "ties": Check(
        _whole.ties,
        "attend",
        "invariants",
        means="scores and selection do not agree where scores tie",
    ),
    "lowest_local": Check(
        _whole.lowest_local, "attend", "invariants", means="the local block is not forced"
    ),
    "negative": Check(
        _whole.negative,
        "attend",
        "invariants",
        means="a zero of padding, or of an empty slot, outranks negative scores",
    ),
    "large": Check(
        _whole.large,
        "attend",
        "invariants",
        means="the maximum is not taken off before the exponential",
    ),
    "deterministic": Check(
        _manners.deterministic, "", "hygiene", means="a race, or an order of sums that varies"
    ),
    "inputs_unchanged": Check(_manners.inputs_unchanged, "", "hygiene"),
    "fresh_outputs": Check(
        _manners.fresh_outputs, "", "hygiene", means="a result is kept from an earlier call"
    ),
    "scales": Check(
        _manners.scales,
        "",
        "hygiene",
        means="the scale that is given is ignored for one of the width",
    ),
    "gaps": Check(_manners.gaps, "", "hygiene", means="strides of a view are ignored"),
}
