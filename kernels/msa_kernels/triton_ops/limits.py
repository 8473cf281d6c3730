"""Where the kernels run, and what they refuse: the limits that ``CAPABILITIES`` declares."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch
import triton
from torch import Tensor

from msa.quantized import E4M3
from msa_kernels.triton_ops.interpreting import prepare_once

#: Whether this process interprets kernels on the CPU. Triton decides it when a kernel is defined,
#: so setting TRITON_INTERPRET=1 after this import changes nothing.
INTERPRETED: bool = bool(triton.knobs.runtime.interpret)
if INTERPRETED:
    prepare_once()

DEVICE = "cpu" if INTERPRETED else "cuda"
#: The interpreter's products and sums of bfloat16 are wrong without a word (errors of 1e10).
WIDE = (torch.float32, torch.float16, *(() if INTERPRETED else (torch.bfloat16,)))
#: What the first devices have whose instructions know E4M3: Ada and Hopper.
_EIGHT_BITS = (8, 9)
#: Elsewhere the compiler has no E4M3.
HAS_E4M3 = (
    INTERPRETED
    or not torch.cuda.is_available()
    or torch.cuda.get_device_capability() >= _EIGHT_BITS
)
DTYPES = (*WIDE, *((E4M3,) if HAS_E4M3 else ()))
HEAD_DIMS = range(16, 129, 16)
BLOCK_SIZES = range(16, 129)
TOPK_VALUES = range(1, 65)
GROUP_SIZES = range(1, 17)

CAPABILITIES: dict[str, object] = {
    "dtypes": list(DTYPES),
    "devices": [DEVICE],
    "layouts": ["packed", "paged"],
    "head_dims": list(HEAD_DIMS),
    "index_dims": list(HEAD_DIMS),
    "block_sizes": list(BLOCK_SIZES),
    "topk_values": list(TOPK_VALUES),
    "group_sizes": list(GROUP_SIZES),
    "nan_scores": True,
    "tie_rule": "lower block first",
    "sink_blocks": True,
    "exact_scores": True,
}


def unavailable() -> str | None:
    """Why no kernel can run here, or None."""
    if INTERPRETED or torch.cuda.is_available():
        return None
    return "wanted a CUDA device, or TRITON_INTERPRET=1 to interpret kernels on a CPU, got neither"


def require_tensors(**tensors: Tensor) -> None:
    """All tensors are on the first one's device, which kernels can reach, and floats are known.

    Raises:
        TypeError: a floating dtype that no kernel takes.
        ValueError: a device that no kernel reaches, or another one than the first tensor's.
    """
    device = next(iter(tensors.values())).device
    for name, x in tensors.items():
        if x.device.type != DEVICE:
            how = "is" if INTERPRETED else "is not"
            raise ValueError(
                f"{name}: wanted a tensor on {DEVICE} (TRITON_INTERPRET {how} set), "
                f"got one on {x.device}"
            )
        if x.device != device:
            raise ValueError(f"{name}: wanted a tensor on {device}, got one on {x.device}")
        if x.is_floating_point() and x.dtype not in DTYPES:
            wanted = ", ".join(_plain(dtype) for dtype in DTYPES)
            raise TypeError(f"{name}: wanted one of {wanted}, got {_plain(x.dtype)}")


def require_sizes(
    *, dim: int = 16, block: int = 16, topk: int = 1, share: int = 1, index_dim: int = 16
) -> None:
    """Sizes are within the declared ones.

    Raises:
        ValueError: one is not; the message names it.
    """
    for name, value, allowed in (
        ("q: wanted a head dim", dim, HEAD_DIMS),
        ("q_idx: wanted an index dim", index_dim, HEAD_DIMS),
        ("block: wanted a size", block, BLOCK_SIZES),
        ("topk: wanted a number of slots", topk, TOPK_VALUES),
        ("q: wanted a number of heads a group", share, GROUP_SIZES),
    ):
        if value not in allowed:
            step = f" in steps of {allowed.step}" if allowed.step > 1 else ""
            raise ValueError(f"{name} from {allowed[0]} to {allowed[-1]}{step}, got {value}")


def on(x: Tensor) -> AbstractContextManager[object]:
    """Triton launches on the current device: makes that the tensor's."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
