"""The operations that a pipeline needs of an implementation: their type, and how to find them."""

from __future__ import annotations

import importlib
from typing import Any, Protocol

from torch import Tensor

#: What runs where nothing was chosen.
DEFAULT_OPERATIONS = "msa.fast"

_NEEDED = ("block_scores", "select_blocks", "sparse_attention")


class Operations(Protocol):
    """A module or object with the three operations of an MSA forward pass.

    Shapes, dtypes and conventions: :mod:`msa.reference`, which is one of them.
    """

    def block_scores(
        self, q_idx: Tensor, k_idx: Tensor, *, cu_q: Tensor, cu_k: Tensor, block: int, scale: float
    ) -> Tensor:
        """float32 ``[Tq, Hkv, NB]``."""
        ...

    def select_blocks(
        self,
        scores: Tensor,
        *,
        cu_q: Tensor,
        cu_k: Tensor,
        block: int,
        topk: int,
        local_blocks: int = 1,
        sink_blocks: int = 0,
    ) -> Tensor:
        """int32 ``[Tq, Hkv, topk]``."""
        ...

    def sparse_attention(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        selection: Tensor,
        *,
        cu_q: Tensor,
        cu_k: Tensor,
        block: int,
        scale: float,
    ) -> tuple[Tensor, Tensor | None]:
        """(out ``[Tq, Hq, D]``, LSE float32 ``[Tq, Hq]`` or None)."""
        ...


def find_operations(operations: Operations | str | None = None) -> Operations:
    """The operations of a forward pass, from an object or a ``module`` or ``module:object`` name.

    Raises:
        ImportError: there is no such module.
        AttributeError: the module has no such object.
        TypeError: an operation is missing; the message names it.
    """
    found: Any = DEFAULT_OPERATIONS if operations is None else operations
    if isinstance(found, str):
        module, _, attribute = found.partition(":")
        found = importlib.import_module(module)
        for part in filter(None, attribute.split(".")):
            found = getattr(found, part)
    missing = [name for name in _NEEDED if not callable(getattr(found, name, None))]
    if missing:
        raise TypeError(
            f"operations: wanted an object with {', '.join(_NEEDED)}, "
            f"got {found!r} without {', '.join(missing)}"
        )
    checked: Operations = found
    return checked
