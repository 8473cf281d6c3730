"""What the functions share: arguments that must be left out, and places for results."""

from __future__ import annotations

from torch import Tensor


def refuse(**given: object) -> None:
    """Every argument is None.

    Raises:
        ValueError: one is not; the message names it.
    """
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"{name}: wanted None, all that is supported, got {value!r:.60}")


def kept_in(place: Tensor | None, result: Tensor) -> Tensor:
    """``result``, copied into the caller's tensor where it brought one."""
    return result if place is None else place.copy_(result)
