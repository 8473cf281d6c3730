"""These tests need triton, whose kernels they run on a CPU: `nox -s kernels` has it.

The other sessions do without triton, and leave them alone.
"""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("triton") is None:
    collect_ignore_glob = ["test_*.py"]
