"""A task that could not be measured, as a sample of it."""

from __future__ import annotations

from msa_harness.client import CallFailedError, WorkerError
from msa_harness.records import INVALID, WRONG, Sample
from msa_suites.quality.samples import main_series
from msa_suites.session import Session

#: Errors of what is measured with, and not of the subject.
_NOT_THE_SUBJECT = ("FileNotFoundError", "FixtureError", "ItemsError", "ModelError")


def failure(session: Session, label: str, task: str, error: CallFailedError) -> Sample:
    """The sample of a task whose call failed; contexts that are too short void the run.

    Raises:
        WorkerError: the model or the items are at fault.
    """
    if error.type in _NOT_THE_SUBJECT:
        raise WorkerError(error.message)
    detail = INVALID if error.type == "QualityInvalid" else WRONG
    series, unit = main_series(task)
    return Sample(
        suite="quality",
        series=series,
        subject=label,
        unit=unit,
        item="all",
        value=None,
        detail=f"{detail}{error.type}: {error.message}",
        ran=session.ran(label),
        repro=session.repro("quality"),
    )
