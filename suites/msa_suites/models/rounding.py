"""Products of bfloat16 matrices at the speed of float32, whatever instructions a CPU has.

torch's Muon orthogonalises in bfloat16 (Newton-Schulz, five iterations). Where a CPU has no such
instructions torch emulates them one element at a time: on AVX2 a 384 x 128 matrix takes 35 ms
instead of 3, which was most of the time of training. A product of two bfloat16 numbers is exact in
float32 and torch adds up in float32 in any case, so that only the order of the sum can differ, as
it does between two machines. It is done on every CPU, so that all train alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

#: Functions, and how many tensors each takes.
_PRODUCTS: dict[object, int] = {
    torch.addmm: 3,
    torch.matmul: 2,
    Tensor.matmul: 2,
    Tensor.__matmul__: 2,
}


class RoundedProducts(TorchFunctionMode):
    """Inside it, ``a @ b`` and ``addmm(c, a, b)`` of bfloat16 on a CPU are float32, rounded once.

    What is called in another way, with tensors by name say, and everything else is as without.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        given = [*args, *(x for x in kwargs.values() if isinstance(x, Tensor))]
        if len(given) == len(args) == _PRODUCTS.get(func) and all(map(_is_narrow, args)):
            return func(*(tensor.float() for tensor in args), **kwargs).bfloat16()
        return func(*args, **kwargs)


def _is_narrow(x: object) -> bool:
    return isinstance(x, Tensor) and x.dtype is torch.bfloat16 and x.device.type == "cpu"
