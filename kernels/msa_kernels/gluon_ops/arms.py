"""The two architectures that the kernels are written for, and how each is run."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from msa.quantized import E4M3, NVFP4


@dataclass(frozen=True, slots=True)
class Arm:
    """Where kernels run.

    Attributes:
        name: of the implementation.
        capabilities: compute capabilities (major, minor) of the GPUs that can.
        tensor_memory: whether products go to tensor memory (tcgen05), or to registers (wgmma).
        warps: of the partition that works on products: a row of them per thread in tensor memory,
            two warpgroups in registers, where 128 x 128 sums would not fit into one.
        simulated: whether the kernels' source runs on a CPU instead.
    """

    name: str
    capabilities: tuple[tuple[int, int], ...]
    tensor_memory: bool
    warps: int
    simulated: bool = False

    @property
    def device(self) -> str:
        return "cpu" if self.simulated else "cuda"

    def unavailable(self) -> str | None:
        """Why it cannot run here, or None."""
        if self.simulated:
            return None
        wanted = " or ".join(f"sm_{major}{minor}" for major, minor in self.capabilities)
        if not torch.cuda.is_available():
            hint = f"{self.name}_simulated runs the same source"
            return f"wanted a GPU of {wanted}, got none; on a CPU, {hint}"
        major, minor = torch.cuda.get_device_capability()
        if (major, minor) in self.capabilities:
            return None
        others = [arm.name for arm in ARMS if (major, minor) in arm.capabilities]
        hint = f"; the same schedule for it is {others[0]}" if others else ""
        return f"wanted a GPU of {wanted}, got sm_{major}{minor}{hint}"

    def require(self, **tensors: Tensor) -> None:
        """All tensors are on one device that this arm runs on, floats in dtypes that it takes.

        Raises:
            TypeError: a dtype.
            ValueError: a device.
        """
        first = next(iter(tensors.values())).device
        for name, x in tensors.items():
            if x.device.type != self.device or x.device != first:
                wanted = first if first.type == self.device else self.device
                raise ValueError(f"{name}: wanted a tensor on {wanted}, got one on {x.device}")
            if x.is_floating_point() and x.dtype not in DTYPES:
                known = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
                got = str(x.dtype).removeprefix("torch.")
                raise TypeError(f"{name}: wanted one of {known}, got {got}")
        if first.type == "cuda":
            found = torch.cuda.get_device_capability(first)
            if found not in self.capabilities:
                wanted = " or ".join(f"sm_{a}{b}" for a, b in self.capabilities)
                raise ValueError(
                    f"{self.name}: wanted tensors on a GPU of {wanted}, got sm_{found[0]}{found[1]}"
                )


#: Of float32 itself tensor cores keep 11 bits.
DTYPES = (torch.float16, torch.bfloat16, E4M3, NVFP4)
#: What fits a swizzle of bulk copies and the depth of a product of eight-bit elements.
DIMS = (32, 64, 128)
#: Of which a row in NVFP4 fits a swizzle.
PACKED_DIMS = (64, 128)
BLOCKS = (16, 32, 64, 128)
TOPK_VALUES = range(1, 65)
GROUP_SIZES = range(1, 65)

SM100 = Arm("sm100", ((10, 0), (10, 3)), tensor_memory=True, warps=4)
SM90 = Arm("sm90", ((9, 0),), tensor_memory=False, warps=8)
ARMS = (SM100, SM90)


def simulated(arm: Arm) -> Arm:
    """The same arm on a CPU."""
    return replace(arm, name=f"{arm.name}_simulated", simulated=True)


def require_size(name: str, what: str, got: int, known: tuple[int, ...]) -> None:
    """A size is one that the kernels are built for.

    Raises:
        ValueError: it is not.
    """
    if got not in known:
        raise ValueError(f"{name}: wanted {what} of {', '.join(map(str, known))}, got {got}")


def require_cached(name: str, x: Tensor, other: str, like: Tensor) -> None:
    """Keys or values have the queries' dtype, or are E4M3; or NVFP4 beside queries of 16 bits.

    Raises:
        TypeError: they are not.
        ValueError: NVFP4 of a size that no kernel takes.
    """
    known = dict.fromkeys((like.dtype, E4M3, *(() if like.dtype == E4M3 else (NVFP4,))))
    if x.dtype not in known:
        first, *others, got = (str(one).removeprefix("torch.") for one in (*known, x.dtype))
        wanted = " or ".join((f"{first} as {other}", *others))
        raise TypeError(f"{name}: wanted {wanted}, got {got}")
    if x.dtype == NVFP4:
        require_size(other, "beside NVFP4 a size", like.shape[-1], PACKED_DIMS)
