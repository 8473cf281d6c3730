"""Rows of a sweep on disk, so that an interrupted one goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msa_harness.records import write_atomic
from msa_suites.quality.sweep import SweepRow, as_json


def keep_rows(file: Path, rows: Sequence[SweepRow], setup: Mapping[str, Any]) -> None:
    """Write the rows so far, and what they were measured with."""
    document = {**as_json(rows), "setup": setup}
    write_atomic(file, json.dumps(document, indent=1) + "\n")


def kept_rows(file: Path | None, setup: Mapping[str, Any], *, resume: bool) -> list[SweepRow]:
    """Rows of an interrupted sweep with the same set-up; none for a new one.

    Args:
        file: where they are; None if none are kept.
        setup: what this sweep is measured with.
        resume: whether there must be rows; else there must be none.

    Raises:
        ValueError: there are rows where none were wanted, or none, others or damaged ones.
    """
    if not resume:
        if file is not None and file.exists():
            raise ValueError(f"--out: a sweep is at {file} already; go on with --resume")
        return []
    if file is None or not file.exists():
        raise ValueError(f"--resume: wanted a sweep in --out, got none at {file}")
    try:
        kept = json.loads(file.read_text())
        rows = [SweepRow(**row) for row in [kept["dense"], *kept["rows"]] if row]
        before = kept["setup"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: wanted a recorded sweep, got {error}") from error
    if before != setup:
        raise ValueError(f"{file}: wanted a sweep with {setup}, got one with {before}")
    return rows
