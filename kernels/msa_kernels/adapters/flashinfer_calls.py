"""What the calls of ``flashinfer_msa`` and ``flashinfer_scores`` share."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from msa.checks import came
from msa_kernels.adapters import converting

#: Tokens of a block and of a page, and channels of a head.
SIZE = 128
TOPK = 16
#: Query heads per group that both prefill and decoding take on every device.
GROUPS = (1, 2, 4, 8, 16)

_DTYPES = (torch.float16, torch.bfloat16)


def api() -> Any:  # noqa: ANN401 - not installed where this is checked
    """The module ``flashinfer.msa_ops``."""
    return importlib.import_module("flashinfer.msa_ops")


def is_12(device: torch.device | None = None) -> bool:
    """Whether a device, by default the current one, has compute capability 12.x."""
    return torch.cuda.is_available() and torch.cuda.get_device_capability(device)[0] == 12


def require_sizes(block: int, **tensors: Tensor) -> None:
    """Refuse what the kernels are not built for.

    Raises:
        TypeError: a tensor neither in float16 nor in bfloat16.
        ValueError: another block or width than 128.
    """
    if block != SIZE:
        raise ValueError(f"block: wanted {SIZE}, all that it is built for, got {block}")
    for name, x in tensors.items():
        if x.dtype not in _DTYPES:
            raise TypeError(f"{name}: wanted float16 or bfloat16, got {came(x)}")
        if x.shape[-1] != SIZE:
            raise ValueError(f"{name}: wanted a width of {SIZE}, got {came(x)}")


def steps(q: Tensor) -> Tensor:
    """``[0, Q, 2 Q, ...]`` int32 ``[B + 1]`` of queries ``[B, Q, ...]``."""
    batch, each = q.shape[:2]
    return torch.arange(0, batch * each + 1, each, dtype=torch.int32, device=q.device)


def blocks_first(scores: Tensor) -> Tensor:
    """Scores ``[Tq, Hkv, NB]`` as a dense ``[Hkv, NB, Tq]``."""
    return scores.permute(1, 2, 0).contiguous()


def lists(selection: Tensor, cu_q: Tensor, cu_k: Tensor, heads: int) -> Tensor:
    """Ids ``[Tq, Hkv, k]`` as attention takes them: ``[Hkv, Tq, 16]``, ascending, then -1.

    Without blocks of the future: one behind the cache would be looked up in the page table.

    Raises:
        ValueError: more than 16 slots, or ``heads`` query heads in groups of another size.
    """
    share = heads // selection.shape[1]
    if share not in GROUPS:
        listed = ", ".join(map(str, GROUPS))
        raise ValueError(f"q: wanted {listed} heads per group, got {share}")
    wide = converting.widened(selection, (TOPK,))
    return converting.heads_first(converting.without_hidden(wide, cu_q, cu_k, SIZE))
