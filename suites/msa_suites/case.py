"""The record of one case: shapes, lengths, settings and seed, as data that can be stored."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import torch

DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float8_e4m3fn": torch.float8_e4m3fn,
}
#: Of eight bits: the one with a factor for each head.
E4M3 = "float8_e4m3fn"
#: Of four bits, for caches alone: the one with a scale for 16 channels.
NVFP4 = "float4_e2m1fn_x2"
_CACHES = {**DTYPES, NVFP4: torch.float4_e2m1fn_x2}
OVERLAPS = ("low", "high")
PROFILES = ("quick", "standard", "full")
#: Queries of a request in one decode step: the newest token and drafts.
MAX_DECODE_QUERIES = 16


@dataclass(frozen=True, slots=True)
class Case:
    """One shape to check or to time (letters as in the paper).

    Attributes:
        name: unique, stable: recorded series carry it.
        q_lens: queries of every sequence.
        k_lens: keys of every sequence, its queries' own included; query i of a sequence sits at
            position ``k_len - q_len + i``.
        Hq: query heads.
        Hkv: KV heads, which are the groups.
        D: head dim.
        Di: index dim.
        block: tokens per block, Bk.
        topk: blocks kept per query and group, k.
        local_blocks: newest blocks that are always kept.
        sink_blocks: first blocks that are always kept.
        dtype: ``float32``, ``float16``, ``bfloat16`` or ``float8_e4m3fn``.
        kv_dtype: of keys and values; "" for ``dtype``, or ``float8_e4m3fn`` beside any, or
            ``float4_e2m1fn_x2`` beside those of 16 bits and more.
        index_dtype: of index queries and index keys; "" for ``dtype``; of ``float4_e2m1fn_x2`` are
            index keys alone, and index queries of ``dtype``.
        overlap: ``low``: every query chooses for itself; ``high``: neighbours choose alike.
        seed: of the inputs.
        weight: share of the owner's traffic; 1 for all in our own table.
        tags: what the case is for, and the smallest profile that has it.

    Raises:
        ValueError: a field that makes no sense; the message names it.
    """

    name: str
    q_lens: tuple[int, ...]
    k_lens: tuple[int, ...]
    Hq: int
    Hkv: int
    D: int
    Di: int
    block: int = 128
    topk: int = 16
    local_blocks: int = 1
    sink_blocks: int = 0
    dtype: str = "float32"
    kv_dtype: str = ""
    index_dtype: str = ""
    overlap: str = "low"
    seed: int = 0
    weight: float = 1.0
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name: wanted a name, got ''")
        for name in ("Hq", "Hkv", "D", "Di", "block", "topk", "local_blocks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: wanted an int above 0, got {getattr(self, name)}")
        if self.sink_blocks < 0:
            raise ValueError(f"sink_blocks: wanted an int of 0 or more, got {self.sink_blocks}")
        if len(self.q_lens) != len(self.k_lens) or not self.q_lens:
            raise ValueError(
                f"k_lens: wanted one length per sequence of q_lens ({len(self.q_lens)}), "
                f"got {len(self.k_lens)}"
            )
        for q_len, k_len in zip(self.q_lens, self.k_lens, strict=True):
            if not 0 <= q_len <= k_len:
                raise ValueError(
                    f"q_lens: wanted lengths between 0 and the sequence's keys ({k_len}), "
                    f"got {q_len}"
                )
        if not sum(self.q_lens):
            raise ValueError(f"q_lens: wanted at least one query, got {list(self.q_lens)}")
        if self.Hq % self.Hkv:
            raise ValueError(f"Hq: wanted a multiple of Hkv ({self.Hkv}), got {self.Hq}")
        if self.topk < self.local_blocks + self.sink_blocks:
            raise ValueError(
                f"topk: wanted at least the {self.local_blocks} local + {self.sink_blocks} sink "
                f"blocks that are forced, got {self.topk}"
            )
        packed = () if self.dtype == E4M3 else (NVFP4,)
        for name, valid in (
            ("dtype", tuple(DTYPES)),
            ("kv_dtype", ("", self.dtype, E4M3, *packed)),
            ("index_dtype", ("", *DTYPES, *packed)),
            ("overlap", OVERLAPS),
        ):
            if getattr(self, name) not in valid:
                listed = ", ".join(filter(None, valid))
                raise ValueError(f"{name}: wanted one of {listed}, got {getattr(self, name)!r}")
        for name, dtype, dim in (("D", self.kv_dtype, self.D), ("Di", self.index_dtype, self.Di)):
            if dtype == NVFP4 and dim % 16:
                raise ValueError(f"{name}: wanted a multiple of 16 for {NVFP4}, got {dim}")
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise ValueError(f"weight: wanted a finite number above 0, got {self.weight}")

    @property
    def torch_dtype(self) -> torch.dtype:
        return DTYPES[self.dtype]

    @property
    def dtypes(self) -> dict[str, torch.dtype]:
        """The dtype of each tensor of ``attend``, by its name."""
        kv, index = self.kv_dtype or self.dtype, self.index_dtype or self.dtype
        asked = self.dtype if index == NVFP4 else index
        names = {"q": self.dtype, "k": kv, "v": kv, "q_idx": asked, "k_idx": index}
        return {name: _CACHES[dtype] for name, dtype in names.items()}

    @property
    def has_bytes(self) -> bool:
        """Whether one of the tensors is in E4M3 or NVFP4."""
        return any(dtype.itemsize == 1 for dtype in self.dtypes.values())

    @property
    def group_size(self) -> int:
        """R, query heads per group."""
        return self.Hq // self.Hkv

    @property
    def scale(self) -> float:
        """``D ** -0.5``."""
        return float(self.D**-0.5)

    @property
    def index_scale(self) -> float:
        """``Di ** -0.5``."""
        return float(self.Di**-0.5)

    @property
    def budget_tokens(self) -> int:
        """k * Bk: at or below this context MSA is dense attention and tests no selection."""
        return self.topk * self.block

    @property
    def exceeds_budget(self) -> bool:
        """Whether some query has more context than the budget, so that a selection matters."""
        return any(
            q_len and k_len > self.budget_tokens
            for q_len, k_len in zip(self.q_lens, self.k_lens, strict=True)
        )

    @property
    def decode_queries(self) -> int | None:
        """Q if this is a decode case: the same few queries in every sequence. Else None."""
        same = len(set(self.q_lens)) == 1 and self.q_lens[0] <= MAX_DECODE_QUERIES
        return self.q_lens[0] if same else None

    @property
    def settings(self) -> dict[str, Any]:
        """The keyword arguments of ``select_blocks`` beside the lengths."""
        return {
            "block": self.block,
            "topk": self.topk,
            "local_blocks": self.local_blocks,
            "sink_blocks": self.sink_blocks,
        }

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as in a file of cases."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
        }
