"""What an index branch chooses, beside the training-free scorer and the oracle, on one model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from msa_suites.models.attention import (
    MsaSettings,
    Network,
    settings_for,
    use_dense,
    use_msa,
)
from msa_suites.quality.items import Item, load_items
from msa_suites.quality.positions import token_nll
from msa_suites.reproduction.estimates import mean
from msa_suites.reproduction.setup import Setup

#: Positions at the end of a text whose choices are compared.
_RECORDED = 512
_BUDGETS = (4, 8, 16)


@dataclass(frozen=True, slots=True)
class _Read:
    """One text: nats per token, and means over layers, groups and the last positions.

    ``taught`` is what the weights of the teacher would have chosen there.
    """

    nats: float
    mass: float
    blocks: float
    taught: float
    taught_blocks: float


def compare_scorers(
    setup: Setup, name: str, folder: Path, *, against: Path
) -> Iterator[dict[str, Any]]:
    """Rows of one model, each a scorer at a budget.

    Args:
        setup: how.
        name: of the model.
        folder: a model with an index branch.
        against: the model whose dense attention is what a change of nats is from.

    Yields:
        Attention mass kept and the share of the oracle's blocks, both with an interval over texts;
        the difference of the mass from the training-free scorer, paired by text; and the change of
        perplexity from ``against`` and from the same model with dense attention. ``free_sink`` is
        the training-free scorer with the first block forced, as the retrofit has it; ``teacher``
        is a branch that has learned all there is: its token scores are the teacher's own weights.
        It attends nothing, so it has no perplexity.
    """
    from msa_suites.models.loading import load_model

    other, tokenizer = load_model(str(against), device=setup.device)
    model, _ = load_model(str(folder), device=setup.device)
    items = _items(setup)
    ids = [tokenizer.encode(item.prompt + item.answer) for item in items]
    clusters = [item.cluster for item in items]
    reference = [_nats(other, one) for one in ids]
    dense = [_nats(model, one) for one in ids]
    base = settings_for(model, {})
    ways = {
        "index": base,
        "free": replace(base, scorer="max"),
        "free_sink": replace(base, scorer="max", sink_blocks=1),
        "oracle": replace(base, scorer="oracle"),
    }

    def over(values: list[float]) -> Mapping[str, Any]:
        return mean(values, clusters, seed=setup.seed)

    def row(scorer: str, topk: int, reads: list[_Read], free: list[_Read]) -> dict[str, Any]:
        pairs = list(zip(reads, free, strict=True))
        nats = [one.nats for one in reads]
        return {
            "model": name,
            "scorer": scorer,
            "topk": topk,
            "mass": over([one.mass for one in reads]),
            "blocks": over([one.blocks for one in reads]),
            "mass_difference": over([one.mass - two.mass for one, two in pairs]),
            "nats_from_full": over([n - m for n, m in zip(nats, reference, strict=True)]),
            "nats_from_own": over([n - m for n, m in zip(nats, dense, strict=True)]),
        }

    def taught(topk: int, reads: list[_Read], free: list[_Read]) -> dict[str, Any]:
        pairs = list(zip(reads, free, strict=True))
        return {
            "model": name,
            "scorer": "teacher",
            "topk": topk,
            "mass": over([one.taught for one in reads]),
            "blocks": over([one.taught_blocks for one in reads]),
            "mass_difference": over([one.taught - two.mass for one, two in pairs]),
        }

    for topk in (4,) if setup.quick else _BUDGETS:
        setup.say(f"choices of {name} at k {topk}")
        reads = {
            way: [_read(model, one, replace(settings, topk=topk)) for one in ids]
            for way, settings in ways.items()
        }
        for way, found in reads.items():
            yield row(way, topk, found, reads["free"])
        yield taught(topk, reads["index"], reads["free"])


def _items(setup: Setup) -> tuple[Item, ...]:
    """Held-out texts without facts, and as many contexts full of them."""
    texts = [item for item in load_items("msa_perplexity", profile="full") if item.length == 2048]
    facts = {
        item.cluster: item
        for item in load_items("msa_facts", profile="full")
        if item.length == 2048
    }
    many = 1 if setup.quick else 12
    return (*texts[:many], *list(facts.values())[:many])


@torch.inference_mode()
def _nats(model: Network, ids: list[int]) -> float:
    tokens = torch.tensor(ids, device=model.device)
    return float(token_nll(model(tokens[None], use_cache=False).logits[0], tokens).mean())


def _read(model: Network, ids: list[int], settings: MsaSettings) -> _Read:
    from msa.recording import Recorder

    recorder, teacher = Recorder(last=_RECORDED, mass=True), _Teacher()
    use_msa(model, settings, recorder=_Both(recorder, teacher))
    nats = _nats(model, ids)
    use_dense(model)
    records = list(recorder)
    asked = [
        replace(record, selection=chosen)
        for record, chosen in zip(records, teacher.choices(records), strict=True)
    ]
    return _Read(nats, *_kept(records), *_kept(asked))


def _kept(records: list[Any]) -> tuple[float, float]:
    """Means over the layers: attention mass, and the share of the oracle's blocks."""
    mass = torch.stack([record.mass_recall().mean() for record in records])
    blocks = torch.stack([record.block_recall().nanmean() for record in records])
    return float(mass.mean()), float(blocks.mean())


class _Both:
    """Hands a layer's call to both recorders."""

    def __init__(self, recorder: Any, teacher: _Teacher) -> None:  # noqa: ANN401 - the subject's
        self.recorder, self.teacher = recorder, teacher

    def take(self, **call: Any) -> None:  # noqa: ANN401
        """What a recorder takes."""
        self.recorder.take(**call)
        self.teacher.take(**call)


class _Teacher:
    """Block scores of a branch that equals its teacher: the largest weight of a visible token."""

    def __init__(self) -> None:
        self.scores: list[Tensor] = []

    def take(self, *, q: Tensor, k: Tensor, scale: float, block: int, **_: object) -> None:
        """One call over one whole text: ``q`` ``[T, Hq, D]``, ``k`` ``[T, Hkv, D]``."""
        groups, tokens = k.shape[1], len(k)
        last = min(_RECORDED, tokens)
        queries = q[-last:].unflatten(1, (groups, -1)).permute(1, 2, 0, 3)  # [Hkv, R, t, D]
        logits = queries @ k.permute(1, 2, 0)[:, None] * scale  # [Hkv, R, t, T]
        future = torch.ones(last, tokens, dtype=torch.bool, device=q.device)
        weights = logits.masked_fill(future.triu(tokens - last + 1), -torch.inf).softmax(-1).mean(1)
        padded = torch.nn.functional.pad(weights, (0, -tokens % block))
        self.scores.append(padded.unflatten(-1, (-1, block)).amax(-1).transpose(0, 1))

    def choices(self, records: list[Any]) -> list[Tensor]:
        """Selections ``[t, Hkv, k]`` with the forced blocks and the budget of each record."""
        from msa.reference import select_blocks

        found = []
        for record, scores in zip(records, self.scores, strict=True):
            ends = int(record.positions[-1]) + 1
            where = {
                "cu_q": torch.tensor([0, len(scores)], dtype=torch.int32),
                "cu_k": torch.tensor([0, ends], dtype=torch.int32),
            }
            found.append(
                select_blocks(
                    scores.float().contiguous(),
                    **where,
                    block=record.block,
                    topk=record.selection.shape[-1],
                    local_blocks=record.local_blocks,
                    sink_blocks=record.sink_blocks,
                )
            )
        return found
