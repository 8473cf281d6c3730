"""Ways to select and to attend wrongly, each as what it changes in the method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from msa_suites.inputs import Inputs

#: Stands for the last block of a sequence, whichever that is.
LAST = 1 << 30


@dataclass(frozen=True, slots=True)
class Mistake:
    """A way to be wrong: each field differs from the method in one respect."""

    cause: str
    pooling: str = "max"
    shared: bool = False
    forced: bool = True
    local_open: bool = False
    shift: int = 0
    top_left: bool = False
    scale: float | None = None
    heads: str = "blocked"
    dense: bool = False
    block_factor: float = 1.0
    budget: int = 0
    reading: Callable[[Tensor], Tensor] | None = None
    inputs: Inputs | None = None


def _heads_first(given: Tensor) -> Tensor:
    """Ids as somebody has them who takes ``[T, H, k]`` for ``[H, T, k]``."""
    rows, groups, width = given.shape
    return given.reshape(groups, rows, width).transpose(0, 1)


def _ascending_only(given: Tensor) -> Tensor:
    """What a merge of sorted lists keeps of an unsorted one."""
    before = torch.nn.functional.pad(given[..., :-1], (1, 0), value=-1).cummax(-1).values
    return given.masked_fill(given <= before, -1)


def _first_half(given: Tensor) -> Tensor:
    kept = torch.arange(given.shape[-1]) < max(1, given.shape[-1] // 2)
    return given.masked_fill(~kept, -1)


def _second_half(given: Tensor) -> Tensor:
    lost = torch.arange(given.shape[-1]) < given.shape[-1] // 2
    return given.masked_fill(lost, -1)


def _without(slot: int) -> Callable[[Tensor], Tensor]:
    """A slot of those that are used is lost: 0 the first, -1 the last."""

    def read(given: Tensor) -> Tensor:
        used = (given >= 0).sum(-1, keepdim=True)
        lost = torch.zeros_like(used) if slot == 0 else used - 1
        return given.masked_fill(torch.arange(given.shape[-1]) == lost, -1)

    return read


RIGHT = Mistake("")
SELECTING = (
    Mistake("the mean of a block's scores is taken instead of the maximum", pooling="mean"),
    Mistake("one selection for all groups", shared=True),
    Mistake("the local block is not forced", forced=False),
    Mistake("everything is attended, nothing selected", dense=True),
    Mistake("one block too few is kept", budget=-1),
    Mistake("one block too many is kept", budget=1),
    Mistake("another block size is used (a page size?): half of it", block_factor=0.5),
    Mistake("another block size is used (a page size?): twice it", block_factor=2.0),
)
ATTENDING = (
    Mistake(
        "future tokens of the local block are visible (or a query is taken for the newest one)",
        local_open=True,
    ),
    Mistake("positions are one too high (off by one in bottom-right causality)", shift=1),
    Mistake("positions are one too low (off by one in bottom-right causality)", shift=-1),
    Mistake("positions count from the first query (top-left causal)", top_left=True),
    Mistake("the scale of the logits is missing", scale=1.0),
    Mistake("query head h reads group h % Hkv instead of h // R", heads="modulo"),
)


#: Ways to read a selection that was given.
READING = (
    Mistake("block ids are read in another unit (a page size?): half a block", block_factor=0.5),
    Mistake("block ids are read in another unit (a page size?): two blocks", block_factor=2.0),
    Mistake("everything is attended, whatever is selected", dense=True),
    Mistake("an empty entry (-1) is read as the first block", reading=lambda ids: ids.clamp_min(0)),
    Mistake(
        "an empty entry (-1) is read as the last block",
        reading=lambda ids: torch.where(ids < 0, LAST, ids),
    ),
    Mistake("block ids are one too low", reading=lambda ids: torch.where(ids > 0, ids - 1, ids)),
    Mistake("block ids are one too high", reading=lambda ids: torch.where(ids >= 0, ids + 1, ids)),
    Mistake("the layout is swapped: a selection [T, H, k] read as [H, T, k]", reading=_heads_first),
    Mistake(
        "one selection for all groups: every group uses that of the first",
        reading=lambda ids: ids[:, :1].expand_as(ids),
    ),
    Mistake("block ids are taken to come in ascending order", reading=_ascending_only),
    Mistake("only the first half of the selected blocks is attended", reading=_first_half),
    Mistake("only the second half of the selected blocks is attended", reading=_second_half),
    Mistake("the last selected block is lost", reading=_without(-1)),
    Mistake("the first selected block is lost", reading=_without(0)),
)
