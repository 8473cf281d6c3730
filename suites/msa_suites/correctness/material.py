"""What the judge knows of a case: inputs, oracle results and yardsticks, computed once each."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from msa import reference
from msa_suites.case import Case
from msa_suites.correctness import second_oracle
from msa_suites.correctness.eager import eager_attention
from msa_suites.correctness.margins import Geometry, clear_rows, score_tolerance
from msa_suites.correctness.variants import VARIANTS
from msa_suites.inputs import Inputs, make_inputs, stored


class Material:
    """Oracle results of one case. Everything is computed when first asked for, in float64.

    Attributes:
        case: the case.
        inputs: its tensors.
        exact: whether the subject declares exact block scores; widens the tolerance if not.
    """

    def __init__(self, case: Case, inputs: Inputs, *, exact: bool = True) -> None:
        self.case = case
        self.inputs = inputs
        self.exact = exact
        self._variants: dict[str, Material] = {"plain": self}

    @classmethod
    def of(cls, case: Case, *, exact: bool = True) -> Material:
        return cls(case, make_inputs(case), exact=exact)

    def variant(self, name: str) -> Material:
        """The same shapes with other inputs: one of :data:`VARIANTS`."""
        if name not in self._variants:
            changed = stored(self.case, VARIANTS[name](self.case, self.inputs.wide(torch.float32)))
            self._variants[name] = Material(self.case, changed, exact=self.exact)
        return self._variants[name]

    @cached_property
    def lengths(self) -> dict[str, Any]:
        """``cu_q`` and ``cu_k`` as keyword arguments."""
        return {"cu_q": self.inputs.cu_q, "cu_k": self.inputs.cu_k}

    @cached_property
    def exactly(self) -> Inputs:
        """The inputs' values in float64."""
        return self.inputs.double()

    @cached_property
    def geometry(self) -> Geometry:
        return Geometry.of(self.case, self.inputs)

    @cached_property
    def scores(self) -> Tensor:
        """float32 ``[Tq, Hkv, NB]``."""
        return reference.block_scores(
            self.exactly.q_idx,
            self.exactly.k_idx,
            block=self.case.block,
            scale=self.case.index_scale,
            **self.lengths,
        )

    @cached_property
    def tolerance(self) -> Tensor:
        """Of scores, float64 ``[Tq, Hkv]``."""
        return score_tolerance(self.case, self.exactly, exact=self.exact)

    @cached_property
    def selection(self) -> Tensor:
        """int32 ``[Tq, Hkv, k]``."""
        return reference.select_blocks(self.scores, **self.lengths, **self.case.settings)

    @cached_property
    def clear(self) -> Tensor:
        """Bool ``[Tq, Hkv]``: rows whose selection no rounding can change."""
        return clear_rows(self.scores, self.selection, self.geometry, self.tolerance)

    @cached_property
    def truth(self) -> tuple[Tensor, Tensor]:
        """Out float64 ``[Tq, Hq, D]`` and LSE ``[Tq, Hq]`` of the oracle's selection."""
        return self.truth_of(self.selection)

    def truth_of(self, selection: Tensor) -> tuple[Tensor, Tensor]:
        """Out and LSE of any selection."""
        exact = self.exactly
        return reference.sparse_attention(
            exact.q,
            exact.k,
            exact.v,
            selection,
            block=self.case.block,
            scale=self.case.scale,
            **self.lengths,
        )

    @cached_property
    def eager(self) -> tuple[Tensor, Tensor]:
        """Out and LSE of an eager run in the inputs' dtype, the oracle's selection."""
        return self.eager_of(self.selection)

    def eager_of(self, selection: Tensor) -> tuple[Tensor, Tensor]:
        """The same for any selection."""
        inputs = self.inputs.unpacked()
        return eager_attention(
            inputs.q,
            inputs.k,
            inputs.v,
            selection,
            block=self.case.block,
            scale=self.case.scale,
            **inputs.factors("q", "k", "v"),
            **self.lengths,
        )

    @cached_property
    def dense(self) -> Tensor:
        """Causal attention over everything, float64, from the second oracle."""
        exact = self.exactly
        return second_oracle.dense_attention(
            exact.q, exact.k, exact.v, scale=self.case.scale, **self.lengths
        )

    @cached_property
    def everything(self) -> Tensor:
        """The selection of every visible block, int32 ``[Tq, Hkv, NB]``."""
        visible = self.geometry.visible
        ids = torch.where(visible, torch.arange(visible.shape[1]), -1).to(torch.int32)
        return ids[:, None].expand(-1, self.case.Hkv, -1).contiguous()

    def part(self, rows: list[tuple[int, int, int, int]]) -> tuple[Inputs, Tensor]:
        """Pieces of the sequences as a batch of their own.

        Args:
            rows: (q_start, q_stop, k_start, k_stop) of every piece, in packed rows.

        Returns:
            The inputs of the batch, and the packed row of each of its queries.
        """
        inputs = self.inputs
        queries = torch.cat([torch.arange(a, b) for a, b, _, _ in rows])
        keys = torch.cat([torch.arange(c, d) for _, _, c, d in rows])
        totals = (
            torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
            for lengths in ([b - a for a, b, _, _ in rows], [d - c for _, _, c, d in rows])
        )
        cu_q, cu_k = totals
        where = dict.fromkeys(("q", "q_idx"), queries) | dict.fromkeys(("k", "v", "k_idx"), keys)
        taken = {name: inputs.rows(name, at) for name, at in where.items()}
        factors = {name: x for name, (_, x) in taken.items() if x is not None}
        tensors = {name: x for name, (x, _) in taken.items()}
        return replace(inputs, **tensors, cu_q=cu_q, cu_k=cu_k, descales=factors), queries
