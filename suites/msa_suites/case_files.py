"""Reading users' own cases: one JSON object per line, the fields of :class:`Case`.

    {"name": "mine", "q_lens": [4096], "Hq": 8, "Hkv": 2, "D": 64, "weight": 0.7}

``k_lens`` defaults to ``q_lens``, ``Di`` to ``D``, the rest to the method's defaults.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from msa_suites.case import Case

_REQUIRED = ("name", "q_lens", "Hq", "Hkv", "D")
_LENGTHS = ("q_lens", "k_lens")
_STRINGS = ("name", "dtype", "kv_dtype", "index_dtype", "overlap")
_FIELDS = tuple(field.name for field in fields(Case))


class CaseError(ValueError):
    """A file of cases that cannot be used; names the file, the line and the field."""


def load_cases(path: Path | str) -> tuple[Case, ...]:
    """The cases of a file in JSON lines, in order. Blank lines and lines with ``#`` are skipped.

    Raises:
        FileNotFoundError: no such file.
        CaseError: anything in it that is not a valid case, a name that stands twice, or no case.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"cases: wanted a file of JSON lines, got {file}, which is no file")
    cases: list[Case] = []
    lines: dict[str, int] = {}
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CaseError(f"{file}: wanted UTF-8 text, got bytes that are not: {error}") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            case = _case(line)
        except (ValueError, TypeError) as error:
            raise CaseError(f"{file}:{number}: {error}") from error
        if case.name in lines:
            raise CaseError(
                f"{file}:{number}: name: wanted a name of its own, got {case.name!r}, which line "
                f"{lines[case.name]} has"
            )
        lines[case.name] = number
        cases.append(case)
    if not cases:
        raise CaseError(f"{file}: wanted at least one case, got none")
    return tuple(cases)


def _case(line: str) -> Case:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"wanted a JSON object, got {line.strip()[:60]!r} ({error})") from error
    if not isinstance(record, dict):
        raise TypeError(f"wanted a JSON object, got {type(record).__name__}")
    for name in record:
        if name not in _FIELDS:
            near = difflib.get_close_matches(name, _FIELDS, n=3, cutoff=0.5)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise ValueError(
                f"field {name!r}: wanted one of {', '.join(_FIELDS)}, got {name!r}{hint}"
            )
    missing = [name for name in _REQUIRED if name not in record]
    if missing:
        raise ValueError(
            f"field {missing[0]!r}: wanted {', '.join(_REQUIRED)}, got none of {', '.join(missing)}"
        )
    values: dict[str, Any] = {name: _value(name, value) for name, value in record.items()}
    values.setdefault("k_lens", values["q_lens"])
    values.setdefault("Di", values["D"])
    return Case(**values)


def _value(name: str, value: object) -> object:
    if name in _LENGTHS:
        if not isinstance(value, list) or not all(_is_int(item) for item in value):
            raise TypeError(f"field {name!r}: wanted a list of ints, got {value!r}")
        return tuple(value)
    if name == "tags":
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise TypeError(f"field {name!r}: wanted a list of strings, got {value!r}")
        return tuple(value)
    if name in _STRINGS:
        if not isinstance(value, str):
            raise TypeError(f"field {name!r}: wanted a string, got {value!r}")
        return value
    if name == "weight":
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"field {name!r}: wanted a number, got {value!r}")
        return float(value)
    if not _is_int(value):
        raise TypeError(f"field {name!r}: wanted an int, got {value!r}")
    return value


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
