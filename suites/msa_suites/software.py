"""Whether two sides run on equal software: where torch differs, a clock says nothing of the code.

Two revisions in one environment cannot differ; two environments can. The versions are recorded
with every timed comparison of two sides.
"""

from __future__ import annotations

from collections.abc import Iterable

from msa_harness.records import Sample
from msa_suites.session import Session

SERIES = "speed/machine/software"


def software_samples(session: Session) -> list[Sample]:
    """How many versions differ that may not, the same value on both sides.

    Raises:
        WorkerError: a side's worker does not start.
    """
    found = session.software()
    base, head = found["base"], found["head"]
    differ = [name for name in {**base, **head} if base.get(name) != head.get(name)]
    allowed = [name for name in differ if name in session.may_differ]
    barred = [name for name in differ if name not in session.may_differ]
    texts = {
        name: f"{name} {base.get(name, 'none')} in base, {head.get(name, 'none')} in head"
        for name in differ
    }
    said = [f"differs: {texts[name]}" for name in barred]
    said += [f"may differ: {texts[name]}" for name in allowed]
    return [
        Sample(
            suite="speed",
            series=SERIES,
            subject=label,
            unit="differences",
            item="all",
            value=float(len(barred)),
            detail="; ".join([*said, ", ".join(f"{n} {v}" for n, v in versions.items())]),
            ran=session.ran(label),
            repro=session.repro("speed"),
        )
        for label, versions in found.items()
    ]


def check_resumed(samples: Iterable[Sample], recorded: Iterable[Sample]) -> None:
    """A resumed run must go on with the software it began with.

    Raises:
        ValueError: the text has the versions that are recorded and those that are here.
    """
    before = {one.key: one for one in recorded}
    for one in samples:
        old = before.get(one.key)
        if old is not None and old.detail != one.detail:
            raise ValueError(
                f"--resume: wanted {one.subject} on the recorded {old.detail}, got {one.detail}"
            )


def voids(samples: list[Sample], session: Session) -> bool:
    """Whether the gates forbid what was found, so that timing would be in vain."""
    gate = session.gates.gate_for(SERIES) if session.gates is not None else None
    ceiling = gate.ceiling if gate is not None else None
    return ceiling is not None and any((one.value or 0.0) > ceiling for one in samples)
