"""The machine and the versions behind a run, as a frozen record. Imports nothing heavy."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

PACKAGES = ("torch", "numpy", "scipy", "statsmodels", "transformers", "lm-eval", "triton")
_CPUINFO = Path("/proc/cpuinfo")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")

# Two runs that differ in one of these cannot be compared by the clock.
COMPARABLE = (
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
        commit: Commit of the judge's directory; empty where it has none.
        dirty: Whether that directory differs from its commit.
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
    repo: Path | None = None,
    packages: Sequence[str] = PACKAGES,
) -> Environment:
    """Read the environment of this process and machine.

    Args:
        threads: torch's threads in the workers.
        device: "cpu", or the name of the GPU as a worker's `info` gives it.
        repo: Directory whose commit is recorded.
        packages: Distributions whose versions are recorded.
    """
    info = _read(_CPUINFO)
    shared = _shared(info)
    commit, dirty = _commit(repo)
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
    return [
        f"{name}: {first.get(name)!r} and {second.get(name)!r}"
        for name in COMPARABLE
        if (first.get(name) or None) != (second.get(name) or None)
    ]


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


def _commit(repo: Path | None) -> tuple[str, bool]:
    if repo is None:
        return "", False
    texts = []
    for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain"]):
        try:
            done = subprocess.run(
                ["git", "-C", str(repo), *arguments], capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            return "", False
        texts.append(done.stdout.strip())
    return texts[0], bool(texts[1])
