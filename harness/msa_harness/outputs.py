"""What the code under test returned, as plain values. Imports torch and the standard library."""

from __future__ import annotations

from collections.abc import Sequence

from msa_harness import protocol


class OutputError(Exception):
    """The code under test returned what cannot be checked."""


def checked(output: object, rows: Sequence[int] = ()) -> object:
    """The output as plain values, of its longer tensors only some rows; empty: all.

    Raises:
        OutputError: Something in it is no plain value, a promise of a tensor, say.
    """
    try:
        return protocol.plain(protocol.sampled(output, rows) if rows else output, "output")
    except TypeError as error:
        raise OutputError(str(error)) from error


def few_rows(device: str) -> Sequence[int]:
    """As few rows as show that an output is one: elsewhere than on the CPU, others are copied."""
    return () if device == "cpu" else (0,)
