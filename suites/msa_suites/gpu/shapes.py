"""What the pass times, and how much work it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from msa import cost
from msa_suites.case import E4M3, NVFP4

#: One measured line: its name, its problem or "", and what was found.
Row = dict[str, Any]
#: Tokens a block, and so the step of all lengths.
BLOCK = 128
OVERLAPS = ("low", "half", "high")
LENGTHS = (4096, 8192, 16384, 32768, 65536, 131072, 262144, 524288, 1048576)
BATCHES = (1, 8, 32, 128)
#: Neighbouring queries that share an index query, by overlap.
SPANS = {"low": 1, "half": 16, "high": 512}
#: Bytes of a channel, of NVFP4 with its share of a scale; what the table calls a format.
_BYTES = {"float32": 4.0, "bfloat16": 2.0, E4M3: 1.0, NVFP4: 0.5625}
_FORMATS = {E4M3: "fp8", NVFP4: "nvfp4"}
#: Query and KV heads: the paper's, and slices of it for two and four devices.
HEADS = ((64, 4), (32, 2), (16, 1))


@dataclass(frozen=True, slots=True)
class Timed:
    """One row of the table (letters as in the paper).

    Attributes:
        what: ``prefill`` (scores, selection and attention), ``decode`` (the same for one token over
            a paged cache), ``scores`` or ``topk``.
        length: tokens of each sequence.
        batch: sequences.
        overlap: of neighbouring selections.
        heads: Hq.
        groups: Hkv.
        dim: D and Di.
        block: Bk.
        topk: k.
        dtype: of queries, keys and values.
        index_dtype: of index keys: "" for ``dtype``, ``float8_e4m3fn``, which index queries then
            have too, or ``float4_e2m1fn_x2``.
        kv_dtype: of keys and values: "" for ``dtype``, or one of these two.
    """

    what: str
    length: int
    batch: int = 1
    overlap: str = "low"
    heads: int = 64
    groups: int = 4
    dim: int = 128
    block: int = BLOCK
    topk: int = 16
    dtype: str = "bfloat16"
    index_dtype: str = ""
    kv_dtype: str = ""

    @property
    def name(self) -> str:
        """Stable: a run that goes on finds its rows by it."""
        return (
            f"{self.what}/{self.length}/batch-{self.batch}/{self.overlap}"
            f"/{self.heads}-{self.groups}"
        ) + "".join(
            f"/{kept.replace(' ', '-')}" for kept in formats(self.index_dtype, self.kv_dtype)
        )

    @property
    def shape(self) -> cost.CostShape:
        """For the arithmetic of :mod:`msa.cost`."""
        return cost.CostShape(
            q_heads=self.heads,
            kv_heads=self.groups,
            dim=self.dim,
            index_dim=self.dim,
            block=self.block,
            topk=self.topk,
            element_bytes=_BYTES[self.kv_dtype or self.dtype],
            index_element_bytes=_BYTES[self.index_dtype or self.dtype],
        )

    @property
    def bytes_held(self) -> int:
        """Inputs and outputs of MSA and of dense attention together, at most."""
        rows = self.batch * {"decode": 1, "prefill": self.length}.get(self.what, self.rows)
        keys = self.batch * self.length
        each = 2 if self.dtype != "float32" else 4
        # Queries and one output at a time; keys and values, paged and plain, and index keys.
        queries = 5 * rows * (self.heads + self.groups) * self.dim * each // 2
        scores = 4 * rows * self.groups * (self.length // self.block)
        parts = 3 << 30 if self.what == "prefill" else scores  # chunks of scores and of partials
        return queries + 5 * keys * self.groups * self.dim * each + min(scores, parts)

    @property
    def rows(self) -> int:
        """Queries of ``scores`` and ``topk``: the last ones, so that all scores fit in memory."""
        return min(self.length, 4096)


def formats(index_dtype: str, kv_dtype: str) -> list[str]:
    """What is kept in fewer bits than the rest, in words: ``fp8 index``, ``nvfp4 kv``."""
    kept = {"index": index_dtype, "kv": kv_dtype}
    return [f"{_FORMATS[dtype]} {what}" for what, dtype in kept.items() if dtype]


def table(lengths: Iterable[int] = LENGTHS) -> list[Timed]:
    """All rows, the plain line first, short ones first."""
    lengths = sorted(lengths)
    rows = [
        *(Timed("prefill", n, overlap=o) for n in lengths for o in OVERLAPS),
        *(Timed("prefill", n, heads=h, groups=g) for n in lengths for h, g in HEADS[1:]),
        *(Timed("prefill", lengths[0], batch=b) for b in BATCHES[1:3]),
        *(Timed("decode", n, batch=b) for n in lengths for b in BATCHES),
        *(Timed(what, n) for n in lengths for what in ("scores", "topk")),
        *(Timed(what, n, index_dtype=E4M3) for n in lengths for what in ("prefill", "scores")),
        *(Timed("decode", n, batch=b, index_dtype=E4M3) for n in lengths for b in BATCHES[:2]),
        *(Timed("scores", n, index_dtype=NVFP4) for n in lengths),
        *(Timed("prefill", n, index_dtype=NVFP4, kv_dtype=NVFP4) for n in lengths),
        *(
            Timed("decode", n, batch=b, index_dtype=NVFP4, kv_dtype=NVFP4)
            for n in lengths
            for b in BATCHES[:2]
        ),
    ]
    # What matters most first, should the time run out: the plain line, then the rest by its length.
    plain = ("low", *HEADS[0])
    rows.sort(
        key=lambda row: (
            (row.overlap, row.heads, row.groups) != plain,
            row.length * row.batch,
        )
    )
    return rows
