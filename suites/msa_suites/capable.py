"""Whether an implementation declares that it can run a case: asked before anything is called."""

from __future__ import annotations

from msa_kernels.contract import Capabilities
from msa_suites.case import E4M3, NVFP4, Case

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
_TRAINING = ("sparse_attention_backward", "index_kl")
_INDEX, _MAIN = ("q_idx", "k_idx"), ("q", "k", "v")


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
    names = [
        *(_INDEX if operation in _INDEXING else ()),
        *(_MAIN if operation in _ATTENDING else ()),
    ]
    dtypes = {str(case.dtypes[name]).removeprefix("torch.") for name in names}
    for dtype in sorted(dtypes & {E4M3, NVFP4}):
        if operation in _TRAINING:
            return f"dtype {dtype}: {operation} is not defined for it"
        # Its factors are arguments that nobody need have: who takes them says so.
        if capabilities.dtypes is None:
            return f"dtype {dtype}: its capabilities do not name it"
    for dtype in sorted(dtypes):
        if reason := capabilities.why_not(dtype=dtype):
            return reason
    for name in names:
        if str(case.dtypes[name]) == f"torch.{NVFP4}":
            dim = case.Di if name in _INDEX else case.D
            if reason := capabilities.why_not(packed_dim=dim):
                return reason
    wanted: dict[str, str | int] = {
        "device": device,
        "layout": "paged" if operation in _PAGED else "packed",
    }
    if operation != "combine":
        wanted["block_size"] = case.block
        wanted["topk_value"] = topk or case.topk
    if operation in _INDEXING:
        wanted["index_dim"] = case.Di
    if operation in _ATTENDING:
        wanted |= {"head_dim": case.D, "group_size": case.group_size}
    sinks = case.sink_blocks if operation in ("select_blocks", "attend", "attend_paged") else 0
    return capabilities.why_not(sinks=sinks, **wanted)
