"""The Hub kernel ``MiniMaxAI/msa``, loaded with Hugging Face's ``kernels``; SM100 alone.

It has attention over a selection, and neither scores nor a selector. ``MSA_BENCH_HUB_KERNEL`` names
a folder to load instead of the Hub: a kernel team's own build before it is published.
"""

from __future__ import annotations

import functools
import importlib
import os
from pathlib import Path
from typing import Any

from torch import Tensor

from msa_kernels.adapters import converting, csr_attention
from msa_kernels.adapters.csr_attention import BLOCK, DIM, GROUPS

CAPABILITIES: dict[str, object] = {
    "dtypes": ["bfloat16"],
    "devices": ["cuda"],
    "layouts": ["packed"],
    "head_dims": [DIM],
    "block_sizes": [BLOCK],
    "group_sizes": list(GROUPS),
}
#: Distributions whose code this runs; the record of a run names their versions.
RUNS = ("kernels",)

REPOSITORY, VERSION = "MiniMaxAI/msa", 0
#: Environment variable: a folder with the kernel's ``build``.
FOLDER = "MSA_BENCH_HUB_KERNEL"


def unavailable() -> str | None:
    """Why it cannot run here, or None."""
    return converting.why_no_gpu("kernels", (10,))


@functools.cache
def _kernel(folder: str) -> Any:  # noqa: ANN401 - a module from outside
    hub = importlib.import_module("kernels")
    if folder:
        return hub.get_local_kernel(Path(folder))
    # Who asks for it by name trusts it, whether the Hub lists its publisher or not.
    return hub.get_kernel(REPOSITORY, version=VERSION, trust_remote_code=[REPOSITORY])


def sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    selection: Tensor,
    *,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """:func:`csr_attention.attend_selected` with the Hub kernel's functions."""
    return csr_attention.attend_selected(
        _kernel(os.environ.get(FOLDER, "")),
        *(q, k, v, selection),
        cu_q=cu_q,
        cu_k=cu_k,
        block=block,
        scale=scale,
    )
