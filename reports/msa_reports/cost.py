"""A recorded cost table (the JSON of ``cost --json``): how much faster MSA can be."""

from __future__ import annotations

import json
from pathlib import Path

from msa_harness.records import RunError
from msa_reports.sweep import optional_number

FILE = "cost.json"


def read_limits(path: Path) -> dict[int, float] | None:
    """Return length -> dense operations over MSA operations, None if there is no file at ``path``.

    Raises:
        RunError: The file is not the JSON of ``cost --json``; the text names what is wrong.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: wanted JSON of `cost --json`, got {error}") from error
    if not isinstance(data, dict) or not isinstance(data.get("rows"), list):
        raise RunError(f"{path}: wanted an object with a list 'rows', got {data!r:.80}")
    limits: dict[int, float] = {}
    for i, row in enumerate(data["rows"]):
        length = row.get("length") if isinstance(row, dict) else None
        if isinstance(length, bool) or not isinstance(length, int) or length < 1:
            raise RunError(f"{path}: rows[{i}].length: wanted a positive integer, got {length!r}")
        ratio = optional_number(path, f"rows[{i}].ratio", row.get("ratio"))
        if ratio is not None and ratio > 0:
            limits[length] = ratio
    return limits
