"""Keep every block, and MSA must be dense attention: on random tensors and in a model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from msa_suites.case import Case
from msa_suites.inputs import TENSORS, Inputs, make_inputs
from msa_suites.models.attention import MsaSettings, Network, use_dense, use_msa
from msa_suites.reproduction.points import BLOCK
from msa_suites.reproduction.setup import Setup, load

#: ``torch`` hands rows that see no more than k blocks to dense attention, so that it is exact there
#: by construction; ``reference`` gathers the blocks it is given, in float64, whatever they are.
IMPLEMENTATIONS = ("torch", "reference")
#: A whole number of blocks, one token less and one more.
LENGTHS = (1024, 1023, 1025)
SEEDS = 3
TEXTS = 3
#: Bytes of each text.
READ = 1024


def measure(setup: Setup) -> dict[str, Any]:
    """Largest errors; no interval, since each is a maximum over everything that was computed."""
    lengths, seeds, texts = (LENGTHS[2:], 1, 1) if setup.quick else (LENGTHS, SEEDS, TEXTS)
    return {
        "random": [
            _random(setup, name, length, seeds) for name in IMPLEMENTATIONS for length in lengths
        ],
        "model": [_in_model(setup, name, texts) for name in IMPLEMENTATIONS],
    }


def _random(setup: Setup, name: str, length: int, seeds: int) -> dict[str, Any]:
    """Errors against float64 dense attention: keep-all, dense in float32, half the blocks."""
    setup.say(f"identity: {name}, {length} tokens")
    blocks = -(-length // 128)
    case = Case("identity", (length,), (length,), Hq=8, Hkv=2, D=64, Di=64, topk=blocks)
    found: dict[str, float] = {}
    for seed in range(setup.seed, setup.seed + seeds):
        inputs = _placed(make_inputs(case, seed=seed), setup.device)
        q, k, v = inputs.tensors[:3]
        exact = _dense(q.double(), k.double(), v.double())
        kept = _sparse(name, case, inputs, blocks) - exact
        errors = {
            "keep_all": kept.abs().max(),
            "dense_float32": (_dense(q, k, v) - exact).abs().max(),
            "half": (_sparse(name, case, inputs, blocks // 2) - exact).abs().max(),
            "relative": kept.norm() / exact.norm(),
        }
        found = {what: max(float(one), found.get(what, 0.0)) for what, one in errors.items()}
    return {"implementation": name, "length": length, "seeds": seeds, **found}


def _placed(inputs: Inputs, device: str) -> Inputs:
    moved = {name: getattr(inputs, name).to(device) for name in (*TENSORS, "cu_q", "cu_k")}
    return replace(inputs, **moved)


def _sparse(name: str, case: Case, inputs: Inputs, topk: int) -> Tensor:
    from msa_kernels import load as load_operations

    operations: Any = load_operations(name)
    scales = {"scale": case.scale, "index_scale": case.index_scale}
    where = {"cu_q": inputs.cu_q, "cu_k": inputs.cu_k, "block": case.block, "topk": topk}
    out: Tensor = operations.attend(*inputs.tensors, **where, **scales)[0]
    return out


def _dense(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    attend = torch.nn.functional.scaled_dot_product_attention
    return attend(q, k, v, is_causal=True, enable_gqa=True)[0].transpose(0, 1)


@torch.inference_mode()
def _in_model(setup: Setup, name: str, texts: int) -> dict[str, Any]:
    """The model's logits with every block kept, and with one block fewer, against dense ones."""
    from msa_suites.quality.fidelity import divergence
    from msa_suites.quality.sweep import sweep_items

    model, tokenizer = load(setup)
    items = sweep_items(2048, contexts=texts)[1]
    rows: list[dict[str, float]] = []
    blocks = 0
    for item in items:
        tokens = tokenizer.encode(item.prompt + item.answer)[:READ]
        row = torch.tensor([tokens], device=model.device)
        blocks = max(blocks, -(-len(tokens) // BLOCK))
        dense = _logits(model, row, None, name)
        kept = _logits(model, row, blocks, name)
        fewer = _logits(model, row, blocks - 1, name)
        kl, agrees = divergence(dense, kept)
        rows.append(
            {
                "keep_all": float((kept - dense).abs().max()),
                "one_fewer": float((fewer - dense).abs().max()),
                "kl": float(kl.mean().clamp(min=0.0)),
                "agreement": float(agrees.double().mean()),
                "largest_logit": float(dense.abs().max()),
            }
        )
    least = min(row["agreement"] for row in rows)
    worst = {what: max(row[what] for row in rows) for what in rows[0]} | {"agreement": least}
    sizes = {"texts": len(rows), "blocks": blocks, "block": BLOCK}
    return {"implementation": name, **sizes, **worst}


def _logits(model: Network, row: Tensor, topk: int | None, implementation: str) -> Tensor:
    if topk is not None:
        use_msa(model, MsaSettings(topk=topk, block=BLOCK, implementation=implementation))
    logits: Tensor = model(row, use_cache=False).logits[0]
    use_dense(model)
    return logits
