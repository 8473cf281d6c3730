"""These tests interpret kernels on a CPU: `nox -s kernels` sets TRITON_INTERPRET=1 for them.

Triton decides whether it interprets when a kernel is defined, so it is a matter of the whole
process. The other sessions do without triton, and leave them alone; this one fails where triton
is missing.
"""

from __future__ import annotations

import os

if os.environ.get("TRITON_INTERPRET") != "1":
    collect_ignore_glob = ["test_*.py"]
