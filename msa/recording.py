"""What a retrofitted model chose, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from msa.packing import cumulative, segments
from msa.recall import block_recall, mass_recall
from msa.scorers import find_scorer


@dataclass(frozen=True, slots=True)
class LayerRecord:
    """One call of one sparse layer; T counts the recorded queries.

    Attributes:
        layer: index of the layer.
        sequence: int64 ``[T]``, the sequence of the batch that a query belongs to.
        positions: int64 ``[T]``, its position among the real tokens of that sequence.
        selection: int32 ``[T, Hkv, k]``.
        scores: float32 ``[T, Hkv, NB]``, what the selection was made from.
        mass: float32 ``[T, Hkv, NB]``, true attention mass, or None where it was not asked for.
        block: tokens per block.
        local_blocks: newest blocks that were forced.
        sink_blocks: first blocks that were forced.
    """

    layer: int
    sequence: Tensor
    positions: Tensor
    selection: Tensor
    scores: Tensor
    mass: Tensor | None
    block: int
    local_blocks: int
    sink_blocks: int

    def mass_recall(self) -> Tensor:
        """Share of the attention mass that was kept, float32 ``[T, Hkv]``."""
        return mass_recall(self._mass(), self.selection)

    def block_recall(self) -> Tensor:
        """Share of the oracle's free choices that was kept, ``[T, Hkv]``, NaN without a choice."""
        return block_recall(
            self._mass(),
            self.selection,
            positions=self.positions,
            block=self.block,
            topk=self.selection.shape[-1],
            local_blocks=self.local_blocks,
            sink_blocks=self.sink_blocks,
        )

    def _mass(self) -> Tensor:
        if self.mass is None:
            raise ValueError("mass: wanted a recorder with mass=True, got one without")
        return self.mass


@dataclass(slots=True)
class Recorder:
    """Takes a record of every call of a sparse layer.

    Attributes:
        last: record only this many newest queries of every sequence and call; None records all.
        mass: compute the true attention mass as well, which costs a dense attention.
        sink: called with every record instead of keeping it.
        records: records kept, oldest first.
    """

    last: int | None = None
    mass: bool = False
    sink: Callable[[LayerRecord], None] | None = None
    records: list[LayerRecord] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.last is not None and self.last < 1:
            raise ValueError(f"last: wanted an int above 0 or None, got {self.last!r}")

    def __iter__(self) -> Iterator[LayerRecord]:
        return iter(self.records)

    def take(
        self,
        *,
        layer: int,
        q: Tensor,
        k: Tensor,
        scores: Tensor,
        selection: Tensor,
        cu_q: Tensor,
        cu_k: Tensor,
        block: int,
        scale: float,
        local_blocks: int,
        sink_blocks: int,
    ) -> None:
        """Record one call: tensors packed as in :mod:`msa.packing`, ``q`` with every head."""
        rows, sequence, positions, lengths = [], [], [], []
        for index, s in enumerate(segments(cu_q, cu_k)):
            kept = s.q_len if self.last is None else min(self.last, s.q_len)
            lengths.append(kept)
            rows.append(torch.arange(s.q_stop - kept, s.q_stop, device=q.device))
            positions.append(s.positions(q.device)[s.q_len - kept :])
            sequence.append(torch.full_like(rows[-1], index))
        chosen = torch.cat(rows)
        mass = None
        if self.mass:
            mass = find_scorer("oracle")(
                q[chosen],
                k,
                cu_q=cumulative(lengths, q.device),
                cu_k=cu_k,
                block=block,
                scale=scale,
            )
        record = LayerRecord(
            layer=layer,
            sequence=torch.cat(sequence),
            positions=torch.cat(positions),
            selection=selection[chosen],
            scores=scores[chosen],
            mass=mass,
            block=block,
            local_blocks=local_blocks,
            sink_blocks=sink_blocks,
        )
        if self.sink is None:
            self.records.append(record)
        else:
            self.sink(record)
