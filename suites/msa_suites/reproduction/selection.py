"""Which blocks each layer and group keeps on held-out text, and how far groups differ.

Only the local block is forced, as in the paper: whatever else is kept, the first block too, was
chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from msa_suites.models.attention import MsaSettings, use_dense, use_msa
from msa_suites.reproduction import picking
from msa_suites.reproduction.estimates import Estimate, mean
from msa_suites.reproduction.points import BLOCK
from msa_suites.reproduction.setup import Setup, load

TOPK = 8
LENGTH = 2048
TEXTS = 12
#: What is measured of each group: see :class:`picking.LayerPicks`.
TRAITS = ("first", "chance_first", "diagonal", "chance_diagonal", "stripes", "bands", "reach")


@torch.inference_mode()
def measure(setup: Setup) -> dict[str, Any]:
    """Maps of the first text; shares and distances over all, with intervals over texts."""
    from msa.recording import Recorder
    from msa_suites.quality.positions import kept_blocks
    from msa_suites.quality.sweep import sweep_items

    model, tokenizer = load(setup)
    items = sweep_items(LENGTH, contexts=2 if setup.quick else TEXTS)[1]
    settings = MsaSettings(topk=TOPK, block=BLOCK, sink_blocks=0, seed=setup.seed)
    maps: list[dict[str, Any]] = []
    texts: list[dict[int, picking.LayerPicks]] = []
    for number, item in enumerate(items, start=1):
        setup.say(f"selection: text {number}/{len(items)}")
        recorder = Recorder()
        use_msa(model, settings, recorder=recorder)
        tokens = torch.tensor([tokenizer.encode(item.prompt + item.answer)], device=model.device)
        model(tokens, use_cache=False)
        texts.append({one.layer: picking.picks(one, seed=setup.seed + number) for one in recorder})
        if number > 1:
            continue
        for one in recorder:
            for group in range(one.selection.shape[1]):
                shares = kept_blocks(one.selection[:, group], one.positions, one.block)
                maps.append({"layer": one.layer, "group": group, "rows": _rounded(shares)})
    use_dense(model)
    clusters = [item.cluster for item in items]
    layers = [_layer(layer, [text[layer] for text in texts], clusters, setup) for layer in texts[0]]
    return {
        "length": LENGTH,
        "block": BLOCK,
        "topk": TOPK,
        "texts": len(items),
        "maps": maps,
        "layers": layers,
    }


def _rounded(rows: list[list[float]]) -> list[list[float]]:
    return [[round(share, 3) for share in row] for row in rows]


def _layer(
    layer: int, texts: Sequence[picking.LayerPicks], clusters: Sequence[str], setup: Setup
) -> dict[str, Any]:
    def over(values: Sequence[float]) -> Estimate:
        return mean(values, clusters, seed=setup.seed)

    groups = [
        {name: over([text.groups[group][name] for text in texts]) for name in TRAITS}
        for group in range(len(texts[0].groups))
    ]
    pairs = []
    for a in range(len(groups)):
        for b in range(a + 1, len(groups)):
            apart = {
                name: over([text.groups[a][name] - text.groups[b][name] for text in texts])
                for name in ("first", "diagonal", "reach")
            }
            pairs.append({"groups": [a, b], **apart})
    distances = {
        name: over([text.distances[name] for text in texts])
        for name in ("groups", "neighbours", "chance")
        if name in texts[0].distances
    }
    return {"layer": layer, "groups": groups, "pairs": pairs, "distances": distances}
