"""The installed code against itself: what the gate's own measurements start from."""

from __future__ import annotations

import argparse
from dataclasses import replace

from msa_harness.forked import share
from msa_harness.gates import GateTable
from msa_suites import runner
from msa_suites.plan import Plan, plan_alone
from msa_suites.session import Session
from msa_suites.shared import SHARED


def self_test_plan() -> Plan:
    """Base and head, both the ``torch`` implementation that is installed here."""
    plan = plan_alone(argparse.Namespace(implementation="torch", gates=None))
    head = plan.sides["head"]
    base = replace(head, subject=replace(head.subject, label="base"))
    return replace(plan, sides={"base": base, "head": head}, self_test=True)


def self_test(
    *, timeout: float, threads: int, seed: int = 0, forked: bool = False
) -> tuple[Session, GateTable]:
    """A session of that plan in the quick profile, and the gates that judge it.

    With ``forked`` its workers share their imports.
    """
    plan = self_test_plan()
    if forked:
        share(SHARED)
    gates = runner.read_gates(plan, profile="quick", device="cpu")
    session = Session(
        sides=plan.sides,
        threads=threads,
        timeout=timeout,
        seed=seed,
        judge_paths=plan.judge_paths,
        gates=gates,
        forked=forked,
    )
    return session, gates
