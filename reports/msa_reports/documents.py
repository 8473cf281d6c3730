"""Fields of a JSON document that someone else may have written, each checked when it is taken."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from msa_harness.records import RunError

Object = Mapping[str, Any]
T = TypeVar("T")
P = ParamSpec("P")


def read(path: Path, parse: Callable[[str], T]) -> T | None:
    """Return what ``parse`` makes of the text at ``path``, None if there is no such file.

    Raises:
        RunError: The file cannot be read, or ``parse`` raised ValueError; the text names the file.
    """
    try:
        return parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except RecursionError as error:
        raise RunError(f"{path}: wanted a flat document, got one nested too deep") from error
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: {error}") from error


def parse_object(text: str, *, of: str) -> Object:
    """Return the object of a JSON text; ``of``: the command that writes it, for the error.

    Raises:
        ValueError: It is no JSON, or no object.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        raise ValueError(f"wanted JSON of `{of}`, got {error}") from error
    if not isinstance(document, dict):
        raise ValueError(f"wanted an object of `{of}`, got {document!r:.80}")
    return document


def within(where: str, parse: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return ``parse(...)``; a ValueError of it names ``where`` in front."""
    try:
        return parse(*args, **kwargs)
    except ValueError as error:
        raise ValueError(f"{where}.{error}") from error


def as_object(name: str, value: object) -> Object:
    """Return ``value`` where it is an object, else raise ValueError."""
    if not isinstance(value, dict):
        raise ValueError(f"{name}: wanted an object, got {value!r:.80}")
    return value


def objects(row: Object, name: str) -> list[Object]:
    """Return the list of objects ``row[name]``, else raise ValueError."""
    return [as_object(f"{name}[{i}]", one) for i, one in enumerate(get(row, name, list))]


def get(row: Object, name: str, kind: type[T]) -> T:
    """Return ``row[name]`` where it is a ``kind``, else raise ValueError."""
    value = row.get(name)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{name}: wanted {kind.__name__}, got {value!r:.80}")
    return value


def number(row: Object, name: str) -> float:
    """Return ``row[name]`` where it is a finite number, else raise ValueError."""
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name}: wanted a finite number, got {value!r:.80}")
    return float(value)


def optional_number(row: Object, name: str) -> float | None:
    """Return ``row[name]`` as :func:`number`, None where it is null or missing."""
    return None if row.get(name) is None else number(row, name)


def positive(row: Object, name: str) -> float:
    """Return ``row[name]`` where it is a number above zero, else raise ValueError."""
    value = number(row, name)
    if value <= 0:
        raise ValueError(f"{name}: wanted a number above 0, got {value}")
    return value


def count(row: Object, name: str) -> int:
    """Return ``row[name]`` where it is a positive integer, else raise ValueError."""
    value = get(row, name, int)
    if value < 1:
        raise ValueError(f"{name}: wanted a positive integer, got {value}")
    return value
