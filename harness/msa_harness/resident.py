"""A bound on the memory of a worker, so that a leak ends the worker and not its judge.

The judge looks at the worker's resident memory while it waits for an answer. Address-space limits
(`ulimit -v`) would not do: CUDA reserves far more than it uses. What grows faster than the judge
looks, or in a child of the worker, is left to the kernel, which is told to end workers first.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")
_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
_PAGE = os.sysconf("SC_PAGE_SIZE")
_GIB = 1 << 30
# Two workers live at once, beside the judge.
_SHARE = 0.45
# Seconds between two looks; one takes some ten microseconds.
LOOK_SECONDS = 0.1


class MemoryLimit:
    """What a process may take.

    Attributes:
        limit: Bytes.
    """

    def __init__(self, pid: int, limit: float | None = None) -> None:
        """Bound a process.

        Args:
            pid: The process; where memory runs out, the kernel is to end it before others.
            limit: Bytes; None for 45 % of what this machine or container has.
        """
        self.limit = usable_bytes() * _SHARE if limit is None else limit
        self._statm = _PROC / str(pid) / "statm"
        with suppress(OSError):
            (_PROC / str(pid) / "oom_score_adj").write_text("1000")

    def exceeded(self) -> str:
        """What is wrong, in words; empty while it keeps to its limit, or is gone."""
        try:
            resident = int(self._statm.read_text().split()[1]) * _PAGE
        except (OSError, IndexError):
            return ""
        if resident <= self.limit:
            return ""
        return (
            f"wanted at most {self.limit / _GIB:.3g} GiB of memory, "
            f"got {resident / _GIB:.3g} GiB, and was killed"
        )


def usable_bytes() -> int:
    """Memory of the machine, or of the container where that is less."""
    total = os.sysconf("SC_PHYS_PAGES") * _PAGE
    for path in _CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # no such group, or "max"
            total = min(total, int(path.read_text()))
    return total
