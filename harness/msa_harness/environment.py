"""The machine and the versions behind a run, as a frozen record. Imports nothing heavy."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

PACKAGES = ("torch", "numpy", "scipy", "statsmodels", "transformers", "lm-eval", "triton")
_CPUINFO = Path("/proc/cpuinfo")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")

# Two runs that differ in one of these cannot be compared by the clock, nor with another version of
# what computes.
_COMPUTING = ("torch", "triton")
COMPARABLE = (
    "python",
    "platform",
    "cpu_model",
    "cores",
    "threads",
    "device",
    "device_class",
    "governor",
    "gpu",
)


@dataclass(frozen=True, slots=True)
class Environment:
    """What a measurement depends on besides the code.

    Attributes:
        python: Version of the interpreter of the judge.
        executable: Its path.
        platform: Operating system and machine.
        cpu_model: As the kernel names it.
        cores: Cores this process may use.
        threads: torch's threads in the workers.
        load: Load averages over 1, 5 and 15 minutes at the start; None where unknown.
        governor: Frequency governor; empty where unreadable.
        shared: Whether the CPU is shared with strangers (virtual machine, or a quota).
        device: "cpu", or the name of the GPU.
        device_class: What margins go by: "shared-cpu", "cpu", or the name of the GPU.
        packages: Versions of the distributions that matter; missing ones left out.
        commit: Commit that is measured, head's; empty where it has none.
        dirty: Whether head differs from that commit.
        gpu: Name, uuid, driver, limits as NVML tells them; empty on a CPU or without NVML.
    """

    python: str
    executable: str
    platform: str
    cpu_model: str
    cores: int
    threads: int
    load: tuple[float, float, float] | None
    governor: str
    shared: bool
    device: str
    device_class: str
    packages: Mapping[str, str]
    commit: str
    dirty: bool
    gpu: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, object]:
        """Plain values for `run.json`."""
        return {**asdict(self), "load": list(self.load) if self.load else None}


def capture(
    *,
    threads: int,
    device: str = "cpu",
    commit: str = "",
    dirty: bool = False,
    packages: Sequence[str] = PACKAGES,
) -> Environment:
    """Read the environment of this process and machine.

    Args:
        threads: torch's threads in the workers.
        device: "cpu", or the name of the GPU as a worker's `info` gives it.
        commit: Of the code that is measured.
        dirty: Whether that code differs from its commit.
        packages: Distributions whose versions are recorded.
    """
    info = _read(_CPUINFO)
    shared = _shared(info)
    return Environment(
        python=platform.python_version(),
        executable=sys.executable,
        platform=f"{platform.system()} {platform.machine()}",
        cpu_model=_cpu_model(info),
        cores=len(os.sched_getaffinity(0)),
        threads=threads,
        load=os.getloadavg(),
        governor=_read(_GOVERNOR).strip(),
        shared=shared,
        device=device,
        device_class=device if device != "cpu" else "shared-cpu" if shared else "cpu",
        packages=versions(packages),
        commit=commit,
        dirty=dirty,
        gpu=_gpu() if device != "cpu" else {},
    )


def versions(names: Sequence[str]) -> dict[str, str]:
    """Versions of installed distributions, without importing them."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def incomparable(first: Mapping[str, object], second: Mapping[str, object]) -> list[str]:
    """Why clock times of two recorded environments cannot be compared; empty where they can."""
    pairs = {name: (first.get(name) or None, second.get(name) or None) for name in COMPARABLE}
    for name in _COMPUTING:
        pairs[name] = (_version(first, name), _version(second, name))
    return [
        f"{name}: {one!r} and {other!r}" for name, (one, other) in pairs.items() if one != other
    ]


def _version(environment: Mapping[str, object], package: str) -> str:
    packages = environment.get("packages")
    return str(packages.get(package, "")) if isinstance(packages, Mapping) else ""


def _gpu() -> dict[str, str]:
    from msa_harness.gpu import find_gpu

    found = find_gpu()
    return found.describe() if found is not None else {}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _cpu_model(info: str) -> str:
    for line in info.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def _shared(info: str) -> bool:
    """A hypervisor below, or a quota above: others use these cores too."""
    flags = next((line for line in info.splitlines() if line.startswith("flags")), "")
    quota = _read(_QUOTA).split()
    return "hypervisor" in flags.split() or bool(quota and quota[0] != "max")
