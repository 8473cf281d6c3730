"""Recall and perplexity against budget and scorer, on one model: the budget curve.

One weight load; the dense row first, then one row per scorer and budget, each handed out as soon
as it is measured, so that an interrupted sweep can go on with what is missing. MSA's relatives are
measured in the same way: a rule of :mod:`msa_suites.quality.relatives` in place of a scorer.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from msa_suites.models.attention import MsaSettings, Network, use_dense, use_msa
from msa_suites.quality.errors import QualityInvalid
from msa_suites.quality.items import Item, load_items

#: Name of the row without sparsity.
DENSE = "dense"


@dataclass(frozen=True, slots=True)
class SweepRow:
    """One point of the curve.

    Attributes:
        scorer: name of the scorer or of the relative's rule, or ``dense``.
        budget: blocks kept, forced ones included, or tokens for a rule; 0 for dense.
        perplexity: per byte of held-out text.
        perplexity_change: as a fraction of dense.
        recall: share of facts recalled.
        recall_low: 95 % Wilson interval of it.
        recall_high: the same.
        n: facts asked for.
    """

    scorer: str
    budget: int
    perplexity: float
    perplexity_change: float
    recall: float
    recall_low: float
    recall_high: float
    n: int


def sweep_items(length: int, *, contexts: int) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """Questions on ``contexts`` contexts of ``length`` bytes, and as many texts of that length.

    Raises:
        ValueError: no shipped items have that length.
    """
    asked = load_items("msa_facts", profile="full")
    lengths = sorted({item.length for item in asked})
    if length not in lengths:
        raise ValueError(f"length: wanted one of {lengths}, got {length}")
    facts = [item for item in asked if item.length == length]
    kept = list(dict.fromkeys(item.cluster for item in facts))[:contexts]
    texts = load_items("msa_perplexity", profile="full")
    if length not in {item.length for item in texts}:
        texts = load_items("msa_tail_nll", profile="full")
    texts = tuple(item for item in texts if item.length == length)[:contexts]
    return tuple(item for item in facts if item.cluster in kept), texts


def scorer_points(
    scorers: Sequence[str], budgets: Sequence[int], base: MsaSettings
) -> dict[tuple[str, int], MsaSettings]:
    """Every pair of scorer and budget, in that order, with its settings."""
    return {
        (scorer, budget): replace(base, scorer=scorer, topk=budget)
        for scorer in scorers
        for budget in budgets
    }


def measure_points(
    model_dir: str,
    points: Mapping[tuple[str, int], MsaSettings],
    *,
    length: int = 2048,
    contexts: int = 8,
    device: str = "cpu",
    dtype: str = "float32",
    done: Collection[SweepRow] = (),
) -> Iterator[SweepRow]:
    """Measure the dense row and every point, in that order.

    Args:
        model_dir: model directory or hub id; empty means the embedded model.
        points: name and budget of a row, and the settings that are measured for it.
        length: bytes of context.
        contexts: contexts with twelve facts each, and texts for perplexity.
        device: a torch device.
        dtype: dtype of the weights.
        done: rows of an earlier, interrupted sweep: yielded again, not measured again.

    Yields:
        The rows; dense first.

    Raises:
        QualityInvalid: the settings of a point reach the whole context.
        ValueError, FileNotFoundError: names, sizes or a model that are not right.
    """
    from msa_suites.models.loading import EMBEDDED, load_model

    widest = max(points.values(), key=lambda one: one.budget, default=None)
    if widest is not None and widest.budget >= length:
        raise QualityInvalid(
            f"budgets: wanted topk * block below the context of {length} bytes, got "
            f"{widest.topk} * {widest.block}: MSA equals dense attention there"
        )
    known = {(row.scorer, row.budget): row for row in done}
    items = sweep_items(length, contexts=contexts)
    missing = {(DENSE, 0), *points} - known.keys()
    model, tokenizer = None, None
    if missing:
        model, tokenizer = load_model(model_dir or str(EMBEDDED), device=device, dtype=dtype)
    dense = known.get((DENSE, 0)) or _measure(model, tokenizer, items, (DENSE, 0), None, None)
    yield dense
    for point, settings in points.items():
        yield known.get(point) or _measure(model, tokenizer, items, point, settings, dense)


def read_items(
    model: Network,
    tokenizer: Any,  # noqa: ANN401
    items: tuple[tuple[Item, ...], tuple[Item, ...]],
    settings: MsaSettings | None,
) -> tuple[list[bool], list[float]]:
    """Read questions and texts with one attention; the model keeps it.

    Args:
        model: a causal language model of transformers.
        tokenizer: its own.
        items: questions, and texts.
        settings: of MSA; None reads densely.

    Returns:
        Whether each answer was right, and the log-likelihood of each text in nats, in their order.
    """
    from msa_suites.models.scoring import Request, score_requests

    if settings is None:
        use_dense(model)
    else:
        use_msa(model, settings)

    def request(item: Item) -> Request:
        prompt = tuple(tokenizer.encode(item.prompt))
        return Request(prompt, tuple(tokenizer.encode(item.prompt + item.answer))[len(prompt) :])

    facts, texts = items
    asked = dict(score_requests(model, [request(item) for item in facts], share=True))
    read = dict(score_requests(model, [request(item) for item in texts], share=False))
    hits = [asked[i].greedy for i in range(len(facts))]
    return hits, [read[i].log_likelihood for i in range(len(texts))]


def _measure(
    model: Network,
    tokenizer: Any,  # noqa: ANN401
    items: tuple[tuple[Item, ...], tuple[Item, ...]],
    point: tuple[str, int],
    settings: MsaSettings | None,
    dense: SweepRow | None,
) -> SweepRow:
    from msa_harness.statistics import wilson

    hits, likelihoods = read_items(model, tokenizer, items, settings)
    perplexity = math.exp(-sum(likelihoods) / sum(len(item.answer) for item in items[1]))
    recall = sum(hits) / len(hits)
    low, high = wilson(sum(hits), len(hits))
    return SweepRow(
        scorer=point[0],
        budget=point[1],
        perplexity=perplexity,
        perplexity_change=perplexity / dense.perplexity - 1 if dense else 0.0,
        recall=recall,
        # Rounding may put a bound of 0 or 1 a little inside.
        recall_low=min(low, recall),
        recall_high=max(high, recall),
        n=len(hits),
    )


def as_json(rows: Sequence[SweepRow]) -> dict[str, Any]:
    """The document of ``sweep --json``: ``rows``, and ``dense`` apart."""
    dense = next((asdict(row) for row in rows if row.scorer == DENSE), None)
    return {"rows": [asdict(row) for row in rows if row.scorer != DENSE], "dense": dense}
