"""What a failed check knows: the result, where its rows stand, and what was asked for."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from msa_suites.correctness.material import Material
from msa_suites.correctness.subject import Arguments


@dataclass(frozen=True, slots=True)
class Evidence:
    """A wrong result.

    Attributes:
        material: what the judge knows of the case.
        where: int64 ``[t]``, packed row of each row of the result.
        out: ``[t, Hq, D]`` or None.
        selection: int32 ``[t, Hkv, k]`` or None.
        scores: block scores ``[t, Hkv, NB]`` or None.
        given: the selection that an attention was given, int32 ``[Tq, Hkv, k]``; None where the
            subject selects by itself.
        paged: the operation over a cache and its arguments, or None.
    """

    material: Material
    where: Tensor
    out: Tensor | None = None
    selection: Tensor | None = None
    scores: Tensor | None = None
    given: Tensor | None = None
    paged: tuple[str, Arguments] | None = None
