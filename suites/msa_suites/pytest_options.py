"""Options of the conformance tests under pytest: a plugin, since ``--pyargs`` reads no conftest.

pytest loads it in every run of an environment that has msa-bench, so it imports nothing.
"""

from __future__ import annotations

from typing import Any


def pytest_addoption(parser: Any) -> None:  # noqa: ANN401  # pytest.Parser, not imported
    """``--implementation``, ``--msa-profile`` and ``--msa-cases``."""
    group = parser.getgroup("msa-bench", "conformance of an MSA implementation")
    group.addoption(
        "--implementation",
        default="torch",
        metavar="NAME",
        help="a name from `msa-bench list implementations`, module:object or file.py:object",
    )
    group.addoption(
        "--msa-profile", default="quick", choices=("quick", "standard", "full"), help="which cases"
    )
    group.addoption("--msa-cases", default=None, metavar="FILE", help="own shapes as JSON lines")
