"""How much of the true attention mass the selected blocks hold: two regimes, and real text."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from msa_suites.models.attention import MsaSettings
from msa_suites.reproduction.estimates import mean
from msa_suites.reproduction.points import BLOCK
from msa_suites.reproduction.setup import Setup, load

#: The document's two budgets, and those around them.
BUDGETS = (4, 8, 16, 32, 48)
#: Context and head dim: the document states neither, so the result is shown for several.
SIZES = ((8192, 64), (4096, 64), (16384, 64), (8192, 128))
TEXT_BUDGETS = (4, 8, 16, 32)
#: Factors on the queries: the sharper, the more mass lies in few blocks. 1 is the regime as it is.
SHARPNESS = (0.25, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)


def measure(setup: Setup) -> dict[str, Any]:
    """Mass kept by the selector and by chance, and the error of the output, with intervals."""
    sizes = SIZES[1:2] if setup.quick else SIZES
    rows = [row for length, dim in sizes for row in _random(setup, length, dim)]
    return {
        "block": 128,
        "random": rows,
        "sharpness": [_sharpened(setup, factor) for factor in SHARPNESS],
        "text": _on_text(setup),
    }


def _random(setup: Setup, length: int, dim: int) -> list[dict[str, Any]]:
    from msa_suites.quality.regimes import REGIMES, mass_on_random_tensors

    budgets = tuple(k for k in BUDGETS if k * 128 < length)
    seeds = range(setup.seed, setup.seed + (2 if setup.quick else 8))
    rows = []
    for regime in REGIMES:
        setup.say(f"mass: {regime}, {length} tokens, head dim {dim}")
        drawn = mass_on_random_tensors(
            regimes=[regime],
            budgets=budgets,
            length=length,
            dim=dim,
            seeds=list(seeds),
            device=setup.device,
        )
        ordered = sorted(drawn, key=lambda one: one.topk)
        for topk, found in groupby(ordered, key=lambda one: one.topk):
            ones = list(found)
            names = [f"{one.seed}" for one in ones]
            row: dict[str, Any] = {"regime": regime, "length": length, "dim": dim, "topk": topk}
            for field in ("mass", "uniform", "error"):
                values = [getattr(one, field) for one in ones]
                row[field] = mean(values, names, seed=setup.seed, least=0.0)
            rows.append(row)
    return rows


def _sharpened(setup: Setup, factor: float) -> dict[str, Any]:
    """The concentrated regime with its queries times ``factor``, at the document's two budgets.

    :func:`mass_on_random_tensors` draws at one sharpness; which one the document has is not known.
    """
    from msa.packing import cumulative
    from msa.recall import mass_recall
    from msa.scorers import find_scorer
    from msa_kernels import load as load_operations
    from msa_suites.quality.regimes import PAPER_BUDGETS, draw_attention

    operations: Any = load_operations("torch")
    length, dim = SIZES[0]
    queries = 32
    cu_q, cu_k = (cumulative([n]).to(setup.device) for n in (queries, length))
    where: dict[str, Any] = {"cu_q": cu_q, "cu_k": cu_k, "block": 128}
    seeds = range(setup.seed, setup.seed + (2 if setup.quick else 8))
    kept: dict[int, list[float]] = {topk: [] for topk in PAPER_BUDGETS}
    for seed in seeds:
        drawn = draw_attention("concentrated", length=length, dim=dim, seed=seed, queries=queries)
        q, k = (tensor.to(setup.device) for tensor in drawn[:2])
        mass = find_scorer("oracle")(factor * q, k, **where, scale=dim**-0.5)
        scores = operations.block_scores(q, k, **where, scale=dim**-0.5)
        for topk, values in kept.items():
            selection = operations.select_blocks(scores, **where, topk=topk)
            values.append(float(mass_recall(mass, selection).mean()))
    names = [f"{seed}" for seed in seeds]
    rows = [
        {"topk": topk, "mass": mean(values, names, seed=setup.seed, least=0.0)}
        for topk, values in kept.items()
    ]
    return {"factor": factor, "rows": rows}


def _on_text(setup: Setup) -> dict[str, Any]:
    """The same share on held-out text, layers and groups averaged, in the model."""
    from msa_suites.quality.fidelity import compare_text
    from msa_suites.quality.sweep import sweep_items

    model, tokenizer = load(setup)
    budgets = TEXT_BUDGETS[:1] if setup.quick else TEXT_BUDGETS
    items = sweep_items(2048, contexts=2 if setup.quick else 6)[1]
    rows = []
    for topk in budgets:
        setup.say(f"mass: held-out text, k {topk}")
        settings = MsaSettings(topk=topk, block=BLOCK, sink_blocks=0)
        values = [
            compare_text(model, tokenizer.encode(item.prompt + item.answer), settings).mass
            for item in items
        ]
        found = mean(values, [item.cluster for item in items], seed=setup.seed, least=0.0)
        rows.append({"topk": topk, "mass": found})
    return {"length": 2048, "block": BLOCK, "rows": rows}
