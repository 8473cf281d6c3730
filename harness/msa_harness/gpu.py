"""The state of a GPU from NVML: clocks, throttling, heat, power, memory errors, other processes.

`nvidia-ml-py` is an extra (`msa-bench[gpu]`) and is imported when a GPU is asked for. Whatever a
board or a container does not tell is None and judged by nobody.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar, cast

#: Bits of nvmlDeviceGetCurrentClocksThrottleReasons that void a timing.
THROTTLES: Final[Mapping[int, str]] = {
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}
#: A board that works hard may run at its power limit: recorded, not voided.
_POWER_CAP: Final = 0x04
_SM_CLOCK, _CORE_SENSOR, _UNCORRECTED, _VOLATILE = 1, 0, 1, 0

Result = TypeVar("Result")


class Nvml(Protocol):
    """What is called of the module `pynvml`; handles are opaque."""

    NVMLError: type[Exception]

    def nvmlInit(self) -> None: ...
    def nvmlSystemGetDriverVersion(self) -> str: ...
    def nvmlDeviceGetHandleByIndex(self, index: int, /) -> object: ...
    def nvmlDeviceGetHandleByUUID(self, uuid: str, /) -> object: ...
    def nvmlDeviceGetName(self, handle: object, /) -> str: ...
    def nvmlDeviceGetUUID(self, handle: object, /) -> str: ...
    def nvmlDeviceGetPowerManagementLimit(self, handle: object, /) -> int: ...
    def nvmlDeviceGetMaxClockInfo(self, handle: object, kind: int, /) -> int: ...
    def nvmlDeviceGetClockInfo(self, handle: object, kind: int, /) -> int: ...
    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: object, /) -> int: ...
    def nvmlDeviceGetTemperature(self, handle: object, sensor: int, /) -> int: ...
    def nvmlDeviceGetPowerUsage(self, handle: object, /) -> int: ...
    def nvmlDeviceGetTotalEccErrors(self, handle: object, kind: int, counter: int, /) -> int: ...
    def nvmlDeviceGetComputeRunningProcesses(self, handle: object, /) -> Sequence[Any]: ...


@dataclass(frozen=True, slots=True)
class GpuState:
    """A GPU at one moment.

    Attributes:
        sm_hz: Clock of the multiprocessors.
        throttled: Reasons that void a timing, in words; empty for none.
        power_capped: Whether the board runs at its power limit.
        celsius: Temperature of the core.
        watts: Power it draws.
        ecc_errors: Uncorrected memory errors since the driver started.
        foreign: Compute processes that are not ours.
    """

    sm_hz: float | None
    throttled: tuple[str, ...] | None
    power_capped: bool | None
    celsius: float | None
    watts: float | None
    ecc_errors: int | None
    foreign: int | None


class Gpu:
    """One GPU, as NVML sees it."""

    def __init__(self, nvml: Nvml, handle: object) -> None:
        """Use `find_gpu`."""
        self._nvml = nvml
        self._handle = handle

    def describe(self) -> dict[str, str]:
        """What does not change during a run, as texts; what the board does not tell is left out."""
        nvml, handle = self._nvml, self._handle
        limit = self._ask(lambda: nvml.nvmlDeviceGetPowerManagementLimit(handle))
        clock = self._ask(lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, _SM_CLOCK))
        found = {
            "name": _text(self._ask(lambda: nvml.nvmlDeviceGetName(handle))),
            "uuid": _text(self._ask(lambda: nvml.nvmlDeviceGetUUID(handle))),
            "driver": _text(self._ask(nvml.nvmlSystemGetDriverVersion)),
            "power_limit": f"{limit / 1000:g} W" if limit is not None else "",
            "max_sm_clock": f"{clock} MHz" if clock is not None else "",
        }
        return {name: text for name, text in found.items() if text}

    def state(self, own: Sequence[int]) -> GpuState:
        """The state now.

        Args:
            own: Processes that may use it.
        """
        nvml, handle = self._nvml, self._handle
        clock = self._ask(lambda: nvml.nvmlDeviceGetClockInfo(handle, _SM_CLOCK))
        reasons = self._ask(lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))
        heat = self._ask(lambda: nvml.nvmlDeviceGetTemperature(handle, _CORE_SENSOR))
        power = self._ask(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
        return GpuState(
            sm_hz=clock * 1e6 if clock else None,
            throttled=None if reasons is None else _reasons(reasons),
            power_capped=None if reasons is None else bool(reasons & _POWER_CAP),
            celsius=float(heat) if heat is not None else None,
            watts=power / 1000 if power is not None else None,
            ecc_errors=self._ask(
                lambda: nvml.nvmlDeviceGetTotalEccErrors(handle, _UNCORRECTED, _VOLATILE)
            ),
            foreign=self._foreign(own),
        )

    def _foreign(self, own: Sequence[int]) -> int | None:
        """Processes beside ours. In a container NVML tells the host's numbers: then by count."""
        running = self._ask(lambda: self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle))
        if running is None:
            return None
        pids = {int(process.pid) for process in running}
        if pids.isdisjoint(own):
            workers = len(own) - 1  # the judge has no context on the GPU
            return max(0, len(pids) - workers)
        return len(pids - set(own))

    def _ask(self, call: Callable[[], Result]) -> Result | None:
        try:
            return call()
        except self._nvml.NVMLError:
            return None


def find_gpu(nvml: Nvml | None = None, visible: str | None = None) -> Gpu | None:
    """The first GPU that CUDA sees; None without nvidia-ml-py, a driver or such a GPU.

    Args:
        nvml: The module; None imports `pynvml`.
        visible: CUDA_VISIBLE_DEVICES; None reads the environment.
    """
    if nvml is None:
        try:
            nvml = cast(Nvml, importlib.import_module("pynvml"))
        except ImportError:
            return None
    text = os.environ.get("CUDA_VISIBLE_DEVICES", "") if visible is None else visible
    first = text.split(",")[0].strip()
    try:
        nvml.nvmlInit()
        if first and not first.isdecimal():
            return Gpu(nvml, nvml.nvmlDeviceGetHandleByUUID(first))
        return Gpu(nvml, nvml.nvmlDeviceGetHandleByIndex(int(first or 0)))
    except nvml.NVMLError:
        return None


def _reasons(bits: int) -> tuple[str, ...]:
    return tuple(name for bit, name in THROTTLES.items() if bits & bit)


def _text(value: str | bytes | None) -> str:
    """Older versions of nvidia-ml-py answer in bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""
