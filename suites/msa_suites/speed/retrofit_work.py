"""The exact work of one forward of the embedded model with the subject's retrofit, in its process.

A retrofit that computes all products and uses some, holds a mask of every pair of tokens, or makes
the same plan again in every layer, gives the right logits; only this shows.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from msa_harness.memory import memory_of
from msa_suites.speed.counting import counted
from msa_suites.speed.planning import count_planning

#: Of the two rows, one padded; blocks and budget as in the quality suite's model.
_TOKENS, _PADDING = 1024, 100
_SETTINGS: dict[str, Any] = {"block": 32, "topk": 4, "sink_blocks": 1}


@torch.inference_mode()
def count_forward(implementation: Any, device: str = "cpu") -> dict[str, int]:  # noqa: ANN401
    """Operations and bytes of one forward, after another that filled what is kept.

    And the operators that plan one step of one token, where they weigh most.
    """
    from msa.retrofit import apply_retrofit
    from msa.retrofit_settings import RetrofitSettings
    from msa_suites.models.loading import EMBEDDED, load_model

    model: Any = load_model(str(EMBEDDED), device=device)[0]
    ids = torch.randint(1, 128, (2, _TOKENS), generator=torch.Generator().manual_seed(0))
    ids = ids.to(device)
    mask = torch.ones_like(ids)
    mask[1, :_PADDING] = 0
    forward = partial(model, input_ids=ids, attention_mask=mask, use_cache=False)
    with apply_retrofit(model, RetrofitSettings(**_SETTINGS), operations=implementation):
        flops = counted(forward)
        memory = memory_of(forward)
        past = model(input_ids=ids, attention_mask=mask, use_cache=True).past_key_values
        longer = torch.nn.functional.pad(mask, (0, 1), value=1)
        step = partial(
            model,
            input_ids=ids[:, -1:],
            attention_mask=longer,
            past_key_values=past,
            use_cache=True,
        )
        planning = count_planning(step)
    return {
        "flops/retrofit": flops,
        "planning/retrofit-step": planning,
        "peak_bytes/retrofit": memory.peak,
        "held_bytes/retrofit": memory.held,
    }
