"""What arithmetic and the machine allow, as recorded (``cost --json``, or a run that was timed)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from msa_reports import documents
from msa_reports.documents import Object, as_object, count, get, optional_number, positive

FILE = "cost.json"
_COMMAND = "cost --json"


@dataclass(frozen=True, slots=True)
class Work:
    """What one timed call has to do at least.

    Attributes:
        what: "dense", "prefill" or "decode".
        dtype: "float32".
        length: tokens.
        flops: operations.
        bytes: moved, if each input is read once and each output written once.
    """

    what: str
    dtype: str
    length: int
    flops: float
    bytes: float


@dataclass(frozen=True, slots=True)
class Peaks:
    """What the machine did at best, measured beside the run.

    Attributes:
        flops_per_second: by dtype.
        bytes_per_second: of a copy, bytes read and bytes written.
        how: how it was measured.
    """

    flops_per_second: Mapping[str, float]
    bytes_per_second: float
    how: str


@dataclass(frozen=True, slots=True)
class Cost:
    """The whole file.

    Attributes:
        limits: length -> dense operations over MSA operations.
        work: of the timed calls; empty where the file is of ``cost --json``.
        peaks: None where they were not measured.
    """

    limits: Mapping[int, float] = field(default_factory=dict)
    work: tuple[Work, ...] = ()
    peaks: Peaks | None = None


def read_cost(path: Path) -> Cost | None:
    """Return what is recorded at ``path``, None if there is no such file.

    Raises:
        RunError: The file is foreign or broken; the text names what is wrong.
    """
    return documents.read(path, _cost)


def _cost(text: str) -> Cost:
    document = documents.parse_object(text, of=_COMMAND)
    rows = documents.objects(document, "rows")
    ratios = [documents.within(f"rows[{i}]", _ratio, row) for i, row in enumerate(rows)]
    limits = {length: ratio for length, ratio in ratios if ratio is not None and ratio > 0}
    if document.get("roofline") is None:
        return Cost(limits)
    roofline = as_object("roofline", document["roofline"])
    work = documents.within("roofline", documents.objects, roofline, "work")
    peaks = as_object("roofline.peaks", roofline.get("peaks"))
    return Cost(
        limits,
        tuple(documents.within(f"roofline.work[{i}]", _work, row) for i, row in enumerate(work)),
        documents.within("roofline.peaks", _peaks, peaks),
    )


def _ratio(row: Object) -> tuple[int, float | None]:
    return count(row, "length"), optional_number(row, "ratio")


def _work(row: Object) -> Work:
    return Work(
        what=get(row, "what", str),
        dtype=get(row, "dtype", str),
        length=count(row, "length"),
        flops=positive(row, "flops"),
        bytes=positive(row, "bytes"),
    )


def _peaks(row: Object) -> Peaks:
    rates = as_object("flops_per_second", row.get("flops_per_second"))
    return Peaks(
        flops_per_second={dtype: positive(rates, dtype) for dtype in rates},
        bytes_per_second=positive(row, "bytes_per_second"),
        how=get(row, "how", str),
    )
