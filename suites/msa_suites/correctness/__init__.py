"""Is an implementation right? One table of checks, on any implementation, against two oracles."""

from __future__ import annotations

from msa_suites.correctness.run import (
    CheckResult,
    Materials,
    Progress,
    conforms,
    iterate_checks,
    plan,
    run_checks,
    to_document,
    to_samples,
)
from msa_suites.correctness.subject import Call, Failed, Skipped, local_call
from msa_suites.correctness.table import CHECKS, Check

__all__ = [
    "CHECKS",
    "Call",
    "Check",
    "CheckResult",
    "Failed",
    "Materials",
    "Progress",
    "Skipped",
    "conforms",
    "iterate_checks",
    "local_call",
    "plan",
    "run_checks",
    "to_document",
    "to_samples",
]
