"""How close sparse attention stays to dense, token by token; no task, no answer, no luck.

On held-out text: Kullback-Leibler divergence of the next-byte distributions, agreement of the
likeliest byte, the share of the oracle's blocks and of the true attention mass that the selection
keeps. On random tensors: the mass kept where attention is concentrated and where it is white noise,
the two regimes between which real attention lies.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from msa_suites.models.attention import MsaSettings, Network, use_dense, use_msa
from msa_suites.quality.errors import QualityInvalid
from msa_suites.quality.items import load_items

TASK = "msa_fidelity"
#: Positions of each text whose selection is compared with the oracle's.
RECORDED = 256
#: The shapes of the paper's budget: 16 blocks of 128 tokens.
PAPER_BLOCK, PAPER_BUDGETS = 128, (16, 32)


@dataclass(frozen=True, slots=True)
class Fidelity:
    """Means over the positions of one text that see more than topk * block tokens.

    For ``blocks`` and ``mass``, over the last :data:`RECORDED` of them, layers and groups.

    Attributes:
        kl: KL(dense || sparse) of the next-token distribution, nats.
        agreement: share of positions where both find the same token likeliest.
        blocks: share of the oracle's freely chosen blocks that were chosen; None without a choice.
        mass: share of the true attention mass in the chosen blocks.
    """

    kl: float
    agreement: float
    blocks: float | None
    mass: float


def divergence(dense: Tensor, sparse: Tensor) -> tuple[Tensor, Tensor]:
    """KL(dense || sparse) in nats and whether the argmax agrees, per position.

    Args:
        dense: logits ``[T, V]``.
        sparse: logits ``[T, V]``.

    Returns:
        float64 ``[T]`` and bool ``[T]``.
    """
    p, q = dense.double().log_softmax(-1), sparse.double().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1), p.argmax(-1) == q.argmax(-1)


@torch.inference_mode()
def compare_text(model: Network, tokens: Sequence[int], settings: MsaSettings) -> Fidelity:
    """Read one text densely and sparsely; the model is left dense.

    Args:
        model: a causal language model of transformers.
        tokens: token ids; more than ``settings.budget`` of them.
        settings: :class:`msa_suites.models.attention.MsaSettings`.

    Raises:
        QualityInvalid: the text is too short for any block to be dropped.
    """
    from msa.recording import Recorder

    if len(tokens) <= settings.budget:
        raise QualityInvalid(
            f"context: wanted more than topk * block = {settings.budget} tokens, "
            f"got {len(tokens)}: MSA equals dense attention there"
        )
    row = torch.tensor([list(tokens)], device=model.device)  # [1, T]
    use_dense(model)
    dense = model(row, use_cache=False).logits[0, settings.budget :]
    # The true mass costs a dense attention with its scores written out, so only for the end.
    recorder = Recorder(last=min(RECORDED, len(row[0]) - settings.budget), mass=True)
    use_msa(model, settings, recorder=recorder)
    sparse = model(row, use_cache=False).logits[0, settings.budget :]
    use_dense(model)
    kl, agrees = divergence(dense, sparse)
    # The oracle's view of each layer, given what the layers below really passed on.
    blocks = [record.block_recall().nanmean() for record in recorder]
    mass = [record.mass_recall().mean() for record in recorder]
    found = float(torch.stack(blocks).mean())
    return Fidelity(
        kl=float(kl.mean()),
        agreement=float(agrees.double().mean()),
        blocks=None if math.isnan(found) else found,
        mass=float(torch.stack(mass).mean()),
    )


def measure_fidelity(
    model_dir: str = "",
    *,
    settings: Mapping[str, Any] | None = None,
    profile: str = "quick",
    device: str = "cpu",
    dtype: str = "float32",
    limit: int | None = None,
) -> list[dict[str, Any]]:
    """Rows of :class:`Fidelity` for every text of ``msa_perplexity``; arguments as ``evaluate``.

    Raises:
        QualityInvalid: a text does not exceed topk * block.
    """
    from msa_suites.models.loading import EMBEDDED, load_model

    chosen = MsaSettings.from_mapping(settings or {})
    model, tokenizer = load_model(model_dir or str(EMBEDDED), device=device, dtype=dtype)
    rows = []
    for item in load_items("msa_perplexity", profile=profile)[:limit]:
        found = compare_text(model, tokenizer.encode(item.prompt + item.answer), chosen)
        values = {"kl": found.kl, "agreement": found.agreement, "mass": found.mass}
        if found.blocks is not None:
            values["blocks"] = found.blocks
        rows += [
            {
                "task": TASK,
                "metric": metric,
                "attention": "msa",
                "item": item.hash,
                "cluster": item.cluster,
                "value": value,
            }
            for metric, value in values.items()
        ]
    return rows


@dataclass(frozen=True, slots=True)
class MassRecall:
    """Attention mass kept on random tensors, mean over queries, groups and seeds.

    Attributes:
        regime: ``concentrated`` or ``white_noise``.
        topk: blocks kept.
        mass: share of the true mass in the selected blocks.
        uniform: the same for randomly chosen blocks.
        error: relative L2 error of the sparse output.
        spread: half-width of the 95 % interval of ``mass`` over the seeds.
    """

    regime: str
    topk: int
    mass: float
    uniform: float
    error: float
    spread: float


def draw_attention(
    regime: str, *, length: int, dim: int, seed: int, queries: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of one head, float32 ``[queries, 1, dim]`` and ``[length, 1, dim]``.

    ``white_noise``: independent normal numbers. ``concentrated``: keys wander (neighbours are
    alike, as in text) and each query is a noisy, scaled copy of one earlier key.

    Raises:
        ValueError: unknown regime.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    values = normal(length, 1, dim)
    if regime == "white_noise":
        return normal(queries, 1, dim), normal(length, 1, dim), values
    if regime != "concentrated":
        raise ValueError(f"regime: wanted concentrated or white_noise, got {regime!r}")
    topics = normal(-(-length // 64), dim).repeat_interleave(64, 0)[:length]
    keys = (0.8 * topics + 0.6 * normal(length, dim))[:, None]
    wanted = torch.randint(length - queries, (queries,), generator=generator)
    asked = 2.0 * keys[wanted] + 0.5 * normal(queries, 1, dim)
    return asked, keys, values


def mass_on_random_tensors(
    implementation: str = "torch",
    *,
    regimes: Sequence[str] = ("concentrated", "white_noise"),
    budgets: Sequence[int] = PAPER_BUDGETS,
    block: int = PAPER_BLOCK,
    length: int = 8192,
    dim: int = 64,
    queries: int = 64,
    seeds: Sequence[int] = tuple(range(8)),
) -> Iterator[MassRecall]:
    """The selector's share of the true mass in either regime, for the last queries of a context.

    Args:
        implementation: whose scores, selection and attention are measured.
        regimes: of :func:`draw_attention`.
        budgets: blocks kept.
        block: tokens per block.
        length: tokens of context.
        dim: head dim.
        queries: how many of the last positions ask.
        seeds: one drawing each.
    """
    from msa.packing import cumulative
    from msa.recall import mass_recall
    from msa.scorers import find_scorer
    from msa_kernels import load

    operations: Any = load(implementation)
    where: dict[str, Any] = {
        "cu_q": cumulative([queries]),
        "cu_k": cumulative([length]),
        "block": block,
    }
    for regime in regimes:
        found: dict[int, list[tuple[float, float, float]]] = {topk: [] for topk in budgets}
        for seed in seeds:
            q, k, v = draw_attention(regime, length=length, dim=dim, seed=seed, queries=queries)
            scale = dim**-0.5
            mass = find_scorer("oracle")(q, k, **where, scale=scale)
            scores = operations.block_scores(q, k, **where, scale=scale)
            chance = find_scorer("random")(q, k, **where, scale=scale, seed=seed)
            every = operations.select_blocks(scores, **where, topk=-(-length // block))
            dense = operations.sparse_attention(q, k, v, every, **where, scale=scale)[0]
            for topk in budgets:
                kept = operations.select_blocks(scores, **where, topk=topk)
                drawn = operations.select_blocks(chance, **where, topk=topk)
                out = operations.sparse_attention(q, k, v, kept, **where, scale=scale)[0]
                error = float((out - dense).norm() / dense.norm())
                shares = (mass_recall(mass, s).mean().item() for s in (kept, drawn))
                found[topk].append((*shares, error))  # type: ignore[arg-type]  # two shares
        for topk, rows in found.items():
            table = torch.tensor(rows, dtype=torch.float64)  # [seeds, 3]
            spread = 1.96 * float(table[:, 0].std()) / math.sqrt(len(rows)) if rows[1:] else 0.0
            share, uniform, error = table.mean(0).tolist()
            yield MassRecall(regime, topk, share, uniform, error, spread)
