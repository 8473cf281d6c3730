"""How close sparse attention stays to dense, token by token; no task, no answer, no luck.

On held-out text: Kullback-Leibler divergence of the next-byte distributions, agreement of the
likeliest byte, the share of the oracle's blocks and of the true attention mass that the selection
keeps; and the mass it keeps on random tensors (:mod:`msa_suites.quality.regimes`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from msa_suites.quality.errors import QualityInvalid
from msa_suites.quality.evaluate import refuse_own
from msa_suites.quality.items import load_items
from msa_suites.quality.regimes import mass_on_random_tensors

TASK = "fidelity"
#: Positions of each text whose selection is compared with the oracle's.
RECORDED = 256
#: Mean KL (nats) that rounding explains: no block was dropped. One of 64 gives 3e-7.
UNTOUCHED = 1e-9


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
        QualityInvalid: the text is too short for any block to be dropped, or none was.
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
    if float(kl.mean()) < UNTOUCHED:
        raise QualityInvalid(
            f"fidelity: wanted logits other than dense attention's where context exceeds "
            f"{settings.budget} tokens, got the same (KL {float(kl.mean()):.0e}): MSA did not run"
        )
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
    """Rows of :class:`Fidelity` for half the texts of ``msa_perplexity``, then of the regimes.

    Arguments and shape of the rows as in :func:`msa_suites.quality.evaluate.evaluate`; the mass
    kept on random tensors has the metrics ``mass_<regime>_<budget>`` and a seed for an item.

    Raises:
        QualityInvalid: a text does not exceed topk * block.
    """
    from msa_suites.models.loading import EMBEDDED, load_model

    model, tokenizer = load_model(model_dir or str(EMBEDDED), device=device, dtype=dtype)
    refuse_own(model)
    chosen = settings_for(model, settings or {})
    rows = []
    for item in load_items("msa_perplexity", profile=profile)[::2][:limit]:
        found = compare_text(model, tokenizer.encode(item.prompt + item.answer), chosen)
        values = {"kl": found.kl, "agreement": found.agreement, "mass": found.mass}
        if found.blocks is not None:
            values["blocks"] = found.blocks
        rows += [_row(name, item.hash, item.cluster, value) for name, value in values.items()]
    for drawn in mass_on_random_tensors(chosen.implementation, device=device):
        name = f"mass_{drawn.regime}_{drawn.topk}"
        rows.append(_row(name, f"seed-{drawn.seed}", f"seed-{drawn.seed}", drawn.mass))
    return rows


def _row(metric: str, item: str, cluster: str, value: float) -> dict[str, Any]:
    row = {"task": TASK, "metric": metric, "item": item, "cluster": cluster}
    return {**row, "attention": "msa", "value": value}
