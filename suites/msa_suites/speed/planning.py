"""Operators that plan: their inputs are masks, lengths and page tables, and nothing of a layer.

What they find is the same in every layer, so a call that plans once per forward has few, and one
that plans again in each layer has more. Counted by following the data inside the subject's process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Planning(TorchDispatchMode):
    """Floating-point tensors belong to a layer, and so does what is computed from one."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operators = 0
        self._of_a_layer: dict[int, bool] = {}
        # A storage that is let go would give its address, and its mark, to another.
        self._alive: list[torch.UntypedStorage] = []

    def __torch_dispatch__(
        self,
        operator: Callable[..., Any],
        _types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the operator returns
        kwargs = kwargs or {}
        read = _tensors((args, kwargs))
        of_a_layer = any(x.is_floating_point() or self._marked(x) for x in read)
        self.operators += bool(read) and not of_a_layer
        result = operator(*args, **kwargs)
        for x in _tensors(result):
            storage = x.untyped_storage()
            self._alive.append(storage)
            self._of_a_layer[storage._cdata] = of_a_layer or self._marked(x)
        return result

    def _marked(self, x: Tensor) -> bool:
        return self._of_a_layer.get(x.untyped_storage()._cdata, False)


def _tensors(tree: object) -> list[Tensor]:
    return [x for x in tree_leaves(tree) if isinstance(x, Tensor)]


def count_planning(call: Callable[[], object]) -> int:
    """Operators of a call that read tensors, none of them of a layer.

    On one thread: torch shows what the calling thread does, and no other.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        planning = _Planning()
        with planning:
            call()
    finally:
        torch.set_num_threads(threads)
    return planning.operators
