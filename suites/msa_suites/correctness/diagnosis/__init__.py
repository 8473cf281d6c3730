"""Guessing why a result is wrong: known mistakes are played through and compared with it.

Only a few wrong rows are tried, and only after a check has failed. A guess is named when the
subject's rows are what that mistake would have given; no guess is better than a wrong one.
"""

from __future__ import annotations

from msa_suites.correctness.diagnosis import pages, replay, scores, symptoms
from msa_suites.correctness.diagnosis.evidence import Evidence
from msa_suites.correctness.passrule import Mismatch

__all__ = ["Evidence", "likely_cause", "symptoms"]


def likely_cause(wrong: Mismatch, evidence: Evidence) -> str:
    """The mistake that explains a mismatch, or "" if none is known to.

    Args:
        wrong: what the pass rule says.
        evidence: what was computed.
    """
    if evidence.paged is not None and (cause := pages.cause(evidence)):
        return cause
    if evidence.scores is not None:
        return scores.cause(evidence)
    return replay.cause(evidence, wrong)
