"""Whether an implementation declares that it can run a case: asked before anything is called."""

from __future__ import annotations

from msa_kernels.contract import Capabilities
from msa_suites.case import Case

_INDEXING = ("block_scores", "paged_block_scores", "index_kl", "attend", "attend_paged")
_PAGED = ("paged_block_scores", "sparse_decode", "attend_paged")
_ATTENDING = (
    "sparse_attention",
    "sparse_decode",
    "sparse_attention_backward",
    "index_kl",
    "attend",
    "attend_paged",
)


def why_not(
    capabilities: Capabilities,
    operation: str,
    case: Case,
    *,
    device: str,
    topk: int | None = None,
) -> str | None:
    """Why ``operation`` cannot run ``case`` there, or None.

    Args:
        capabilities: what the implementation declares.
        operation: of the contract.
        case: shapes and settings.
        device: where the tensors would live.
        topk: slots of the selection where they are not the case's own.
    """
    if operation not in capabilities.operations:
        return f"it has no {operation}"
    wanted: dict[str, str | int] = {
        "device": device,
        "layout": "paged" if operation in _PAGED else "packed",
    }
    if operation != "combine":
        wanted["block_size"] = case.block
        wanted["topk_value"] = topk or case.topk
    if operation in _INDEXING:
        wanted |= {"dtype": case.dtype, "index_dim": case.Di}
    if operation in _ATTENDING:
        wanted |= {"dtype": case.dtype, "head_dim": case.D, "group_size": case.group_size}
    sinks = case.sink_blocks if operation in ("select_blocks", "attend", "attend_paged") else 0
    return capabilities.why_not(sinks=sinks, **wanted)
