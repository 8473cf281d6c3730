"""Faulty implementations by name: ``msa_suites.faults.injected:mean_pooling``.

Asking for one makes the code of this process wrong, for good: for worker processes only.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from types import ModuleType

from msa_suites.faults.code import MARKS, Code
from msa_suites.faults.table import faults


@cache  # who looks an attribute up may ask for it twice
def __getattr__(name: str) -> ModuleType:
    from msa import fast

    found = faults().get(name.replace("_", "-"))
    if found is None:
        raise AttributeError(name)
    folder = os.environ.get(MARKS)
    found.inject(Code(Path(folder) / found.name if folder else None))
    return fast
