"""Calling an implementation under test, and refusing results of the wrong structure.

The subject is reached through one function, so that it may live in another process. Whatever it
raises is a failure of the check in hand, never of the suite.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from msa_kernels.contract import Capabilities
from msa_suites.capable import why_not
from msa_suites.case import Case

Arguments = tuple[tuple[Tensor, ...], dict[str, object]]


class Failed(Exception):  # an outcome, not an error
    """The check failed.

    Args:
        what: the detail that people read.
        cause: of what is wrong, where a known mistake gives the same; else "".
        look: what the wrong numbers look like, or "".
        judged: numbers were judged; where it is not so, the detail says itself what is wrong.
    """

    def __init__(self, what: str, *, cause: str = "", look: str = "", judged: bool = False) -> None:
        super().__init__(what)
        self.cause, self.look, self.judged = cause, look, judged


class Skipped(Exception):  # an outcome, not an error
    """The check does not apply; the message is the reason."""


class Call(Protocol):
    """Runs one operation of the subject: tensors positional, the rest by keyword."""

    def __call__(self, operation: str, /, *tensors: Tensor, **keywords: object) -> object:
        """The operation's result as it came."""
        ...


class Retaining(Protocol):
    """A :class:`Call` in another process, where a result cannot be watched after it was sent."""

    def retained(self, operation: str, first: Arguments, second: Arguments) -> object:
        """The result of a first call, as it stands after a second one."""
        ...


def local_call(implementation: object) -> Call:
    """The :class:`Call` of an implementation in this process."""

    def call(operation: str, /, *tensors: Tensor, **keywords: object) -> object:
        with torch.no_grad():
            return getattr(implementation, operation)(*tensors, **keywords)

    return call


@dataclass(frozen=True, slots=True)
class Expected:
    """What one tensor of a result has to look like.

    Attributes:
        name: of the result in messages.
        shape: exact.
        dtype: exact.
        optional: whether None is allowed.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Subject:
    """An implementation under test.

    Attributes:
        call: reaches it.
        capabilities: what it declares.
        device: where its tensors live.
    """

    call: Call
    capabilities: Capabilities
    device: str = "cpu"

    def why_not(self, operation: str, case: Case, *, topk: int | None = None) -> str | None:
        """Why ``operation`` cannot run ``case``, or None."""
        return why_not(self.capabilities, operation, case, device=self.device, topk=topk)

    def require(self, operation: str, case: Case, *, topk: int | None = None) -> None:
        """Skip the check with the reason if ``operation`` cannot run ``case``."""
        if reason := self.why_not(operation, case, topk=topk):
            raise Skipped(reason)

    def run(
        self, operation: str, tensors: tuple[Tensor, ...], keywords: dict[str, object]
    ) -> object:
        """Call an operation; its result as it came.

        Raises:
            Failed: it raised, or it wrote to an input, which is put right again for the next check.
        """
        given = [*tensors, *(x for x in keywords.values() if isinstance(x, Tensor))]
        before = [x.clone() for x in given]
        try:
            return self._call(operation, tensors, keywords)
        finally:
            written = [i for i, x in enumerate(given) if not same(before[i], x)]
            for i in written:
                given[i].copy_(before[i])
            if written:
                raise Failed(f"{operation}: tensor argument {written[0]} was written to")

    def retained(self, operation: str, first: Arguments, second: Arguments) -> object:
        """The subject's own :meth:`Retaining.retained`; None if it has none.

        Raises:
            Failed: a call raised.
        """
        ask = getattr(self.call, "retained", None)
        if ask is None:
            return None
        try:
            return ask(operation, self._moved(first), self._moved(second))
        except Exception as error:
            raise Failed(f"{operation} raised {type(error).__name__}: {error}") from error

    def _moved(self, arguments: Arguments) -> Arguments:
        tensors, keywords = arguments
        named = {
            name: value.to(self.device) if isinstance(value, Tensor) else value
            for name, value in keywords.items()
        }
        return tuple(x.to(self.device) for x in tensors), named

    def _call(
        self, operation: str, tensors: tuple[Tensor, ...], keywords: dict[str, object]
    ) -> object:
        moved, named = self._moved((tensors, keywords))
        try:
            return self.call(operation, *moved, **named)
        except TypeError as error:
            raise Failed(
                f"{operation} does not take the documented arguments "
                f"({len(tensors)} tensors; {', '.join(keywords)}): TypeError: {error}"
            ) from error
        except Exception as error:  # the subject's own: any of it is a failed check
            raise Failed(f"{operation} raised {type(error).__name__}: {error}") from error


def structured(operation: str, result: object, wanted: tuple[Expected, ...]) -> list[Tensor | None]:
    """The tensors of a result on the CPU, if they are what the contract says.

    Raises:
        Failed: another structure, type, shape or dtype; the detail names the result.
    """
    if len(wanted) == 1:
        parts: list[object] = [result]
    elif isinstance(result, tuple | list) and len(result) == len(wanted):
        parts = list(result)
    else:
        raise Failed(
            f"{operation} returns the wrong structure: wanted "
            f"({', '.join(one.name for one in wanted)}), got {_shown(result)}"
        )
    tensors: list[Tensor | None] = []
    for part, one in zip(parts, wanted, strict=True):
        if part is None and one.optional:
            tensors.append(None)
            continue
        dtype = str(one.dtype).removeprefix("torch.")
        fits = (
            isinstance(part, Tensor) and tuple(part.shape) == one.shape and part.dtype == one.dtype
        )
        if not fits:
            raise Failed(
                f"{operation} returns the wrong {one.name}: wanted {dtype} {list(one.shape)}, "
                f"got {_shown(part)}"
            )
        assert isinstance(part, Tensor)
        tensors.append(part.detach().cpu())
    return tensors


def same(a: Tensor | None, b: Tensor | None) -> bool:
    """Whether two results have the same bits; NaN equals NaN, unread slots are full of it."""
    if a is None or b is None:
        return a is b
    if a.is_floating_point() and a.itemsize == 1:
        return bool(torch.equal(a.view(torch.uint8), b.view(torch.uint8)))
    if a.is_floating_point():
        return bool(torch.equal(a.nan_to_num(nan=12345.0), b.nan_to_num(nan=12345.0)))
    return bool(torch.equal(a, b))


def _shown(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    if isinstance(value, tuple | list):
        return f"{type(value).__name__} of {len(value)} ({', '.join(map(_shown, value))})"
    return type(value).__name__
