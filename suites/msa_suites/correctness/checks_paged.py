"""Checks of the operations over a paged cache: shuffled pages, NaN in tails and unused pages."""

from __future__ import annotations

from typing import cast

from torch import Tensor

from msa_suites.correctness.checks_attention import compare_given, compare_lse, permuted
from msa_suites.correctness.checks_selection import judge_scores
from msa_suites.correctness.material import Material
from msa_suites.correctness.subject import Arguments, Failed, Skipped
from msa_suites.correctness.trial import Trial
from msa_suites.hostile import page_cache
from msa_suites.inputs import TENSORS
from msa_suites.session import WITHHELD

OPERATIONS = ("sparse_decode", "paged_block_scores", "attend_paged")


def decode(t: Trial) -> None:
    """Attention to selected pages of a cache."""
    _decode(t, t.material.selection)


def decode_lse(t: Trial) -> None:
    """Natural log-sum-exp of the same."""
    _, lse = t.run("sparse_decode", paged_arguments(t, "sparse_decode"))
    if lse is None:
        raise Skipped(f"{WITHHELD}it returns no LSE")
    compare_lse(t, lse.flatten(0, 1), t.material.truth[1], t.material.eager[1])


def decode_empty_rows(t: Trial) -> None:
    """The same with rows that select nothing."""
    chosen = t.material.selection.clone()
    chosen[::2, 0] = -1
    _decode(t, chosen)


def decode_permuted(t: Trial) -> None:
    """The order of a selection's entries changes nothing."""
    _decode(t, permuted(t.material.selection, t.case.seed))


def paged_scores(t: Trial) -> None:
    """Block scores of a cache, -inf behind the last block of a request."""
    _score(t, t.material)


def paged_scores_own_keys(t: Trial) -> None:
    """The same with an index key of its own for every group."""
    _score(t, t.material.variant("own_keys"))


def attend_paged(t: Trial) -> None:
    """One decode step: output, and selection where one is returned."""
    _attend(t, "plain")


def attend_paged_ties(t: Trial) -> None:
    """The same where most block scores tie."""
    _attend(t, "ties")


def attend_paged_lowest_local(t: Trial) -> None:
    """The same where the newest block scores lowest: it is kept all the same."""
    _attend(t, "lowest_local")


def paged_arguments(
    t: Trial, operation: str, *, material: Material | None = None, chosen: Tensor | None = None
) -> Arguments:
    """Tensors and keywords of an operation over a cache.

    Raises:
        Skipped: the case is none of decoding.
    """
    m = material or t.material
    queries, x, case = t.case.decode_queries, m.inputs, t.case
    if not queries:
        raise Skipped("it is no decode case: the same few queries in every sequence")
    cache = page_cache(x, case.block, seed=case.seed)
    each = (len(case.q_lens), queries)
    pages: dict[str, object] = {"page_table": cache.page_table, "k_lens": cache.k_lens}
    q, q_idx = x.q.unflatten(0, each), x.q_idx.unflatten(0, each)
    if operation == "paged_block_scores":
        keywords = {"scale": case.index_scale, **cache.factors(x, "q_idx", "k_idx")}
        return (q_idx, cache.index_pages), {**pages, **keywords}
    if operation == "attend_paged":
        settings = {name: value for name, value in case.settings.items() if name != "block"}
        scales = {"scale": case.scale, "index_scale": case.index_scale}
        whole = (q, q_idx, cache.k_pages, cache.v_pages, cache.index_pages)
        return whole, {**pages, **settings, **scales, **cache.factors(x, *TENSORS)}
    selection = m.selection if chosen is None else chosen
    tensors = (q, cache.k_pages, cache.v_pages, selection.unflatten(0, each))
    return tensors, {**pages, "scale": case.scale, **cache.factors(x, "q", "k", "v")}


def _decode(t: Trial, chosen: Tensor) -> None:
    arguments = paged_arguments(t, "sparse_decode", chosen=chosen)
    out, lse = t.run("sparse_decode", arguments)
    assert out is not None
    sums = None if lse is None else lse.flatten(0, 1)
    compare_given(t, out.flatten(0, 1), sums, chosen, paged=arguments)


def _score(t: Trial, m: Material) -> None:
    arguments = paged_arguments(t, "paged_block_scores", material=m)
    (got,) = t.run("paged_block_scores", arguments)
    scores = cast(Tensor, got).flatten(0, 1)
    columns = m.scores.shape[-1]
    behind = ~scores[..., columns:].isneginf()
    if bool(behind.any()):
        row, group, column = (int(i) for i in behind.nonzero()[0])
        raise Failed(
            f"scores: wanted -inf behind the last block, got "
            f"{scores[row, group, columns + column].item():.6g} at row {row}, group {group}, "
            f"block {columns + column}"
        )
    judge_scores(t, scores[..., :columns], m, arguments)


def _attend(t: Trial, variant: str) -> None:
    m = t.material.variant(variant)
    out, selection = t.run("attend_paged", paged_arguments(t, "attend_paged", material=m))
    chosen = None if selection is None else selection.flatten(0, 1)
    t.judge_attended(cast(Tensor, out).flatten(0, 1), chosen, material=m)
