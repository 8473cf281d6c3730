"""What MSA costs on paper: equation 12, the exact causal count, bytes and rooflines.

A multiply-add counts as two operations. Equation 12 halves the quadratic terms for causality and
charges k whole blocks to every query, the first ones included; :func:`exact_flops` counts the
pairs that are really computed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from msa.checks import require_groups, require_positive, require_scale
from msa.packing import count_blocks


@dataclass(frozen=True, slots=True)
class CostShape:
    """One layer. Defaults: the paper's 109B model; ``index_dim`` 128 is inferred from 28.4x.

    Bytes may be a fraction: an NVFP4 element with its share of the scale of 16 has 0.5625.

    Raises:
        ValueError: a size below one, bytes that are no number above zero, or query heads that are
            no multiple of the KV heads.
    """

    q_heads: int = 64
    kv_heads: int = 4
    dim: int = 128
    index_dim: int = 128
    block: int = 128
    topk: int = 16
    element_bytes: float = 2
    index_element_bytes: float = 2

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name.endswith("bytes"):
                require_scale(name, value)
                if not value > 0:
                    raise ValueError(f"{name}: wanted a number above 0, got {value!r}")
            else:
                require_positive(name, value)
        require_groups(self.q_heads, self.kv_heads)

    @property
    def ceiling(self) -> float:
        """Limit of the ratio as N grows: ``2 Hq D / (Hkv Di)``."""
        return 2 * self.q_heads * self.dim / (self.kv_heads * self.index_dim)

    @property
    def break_even(self) -> float:
        """Length at which MSA costs as much as dense attention; inf where it never does."""
        saved = 2 * self.q_heads * self.dim - self.kv_heads * self.index_dim
        spent = 4 * self.q_heads * self.dim * self.topk * self.block
        return spent / saved if saved > 0 else math.inf


@dataclass(frozen=True, slots=True)
class CostRow:
    """Costs of one layer at one length: FLOP of a whole prefill, bytes read per decoded token."""

    length: int
    dense_flops: float
    msa_flops: float
    ratio: float
    index_flops: float
    exact_dense_flops: float
    exact_msa_flops: float
    exact_ratio: float
    dense_decode_bytes: float
    msa_decode_bytes: float
    decode_ratio: float


@dataclass(frozen=True, slots=True)
class Roofline:
    """The two floors of a piece of work on a device; the larger one binds."""

    seconds: float
    compute_seconds: float
    memory_seconds: float
    bound: str


def equation_12(shape: CostShape, length: int) -> tuple[float, float]:
    """FLOP of dense and of MSA attention at ``length`` tokens (the paper, equation 12)."""
    dense = 2.0 * shape.q_heads * shape.dim * length**2
    index = 1.0 * shape.kv_heads * shape.index_dim * length**2
    main = 4.0 * shape.q_heads * shape.dim * length * shape.topk * shape.block
    return dense, index + main


def attended_tokens(position: int, *, block: int, topk: int) -> int:
    """Tokens that a query at ``position`` attends: ``(n - 1) Bk + position % Bk + 1``."""
    kept = min(topk, position // block + 1)
    return (kept - 1) * block + position % block + 1


def attended_pairs(length: int, *, block: int, topk: int) -> int:
    """Sum of :func:`attended_tokens` over the positions 0 to ``length - 1``, in closed form."""
    whole, rest = divmod(length, block)
    inside = block * (block + 1) // 2
    # Blocks 0 .. whole-1 are full of queries; block b's queries keep min(topk, b + 1) blocks.
    growing = min(whole, topk)
    kept_before = growing * (growing - 1) // 2 + (whole - growing) * (topk - 1)
    pairs = kept_before * block * block + whole * inside
    return pairs + rest * (min(topk, whole + 1) - 1) * block + rest * (rest + 1) // 2


def scored_pairs(length: int) -> int:
    """Causal (query, key) pairs of a prefill, the diagonal included."""
    return length * (length + 1) // 2


def exact_flops(shape: CostShape, length: int) -> tuple[float, float]:
    """FLOP of dense and of MSA attention over exactly the causal pairs."""
    dense = 4.0 * shape.q_heads * shape.dim * scored_pairs(length)
    index = 2.0 * shape.kv_heads * shape.index_dim * scored_pairs(length)
    pairs = attended_pairs(length, block=shape.block, topk=shape.topk)
    return dense, index + 4.0 * shape.q_heads * shape.dim * pairs


def decode_bytes(shape: CostShape, length: int) -> tuple[float, float]:
    """Cache bytes that decoding one token reads, dense and MSA."""
    per_token = 2.0 * shape.kv_heads * shape.dim * shape.element_bytes
    attended = attended_tokens(length - 1, block=shape.block, topk=shape.topk)
    index = 1.0 * shape.index_dim * shape.index_element_bytes * length
    return per_token * length, index + per_token * attended


def cost_rows(shape: CostShape, lengths: Sequence[int]) -> list[CostRow]:
    """One :class:`CostRow` per length.

    Raises:
        ValueError: a length below one.
    """
    rows = []
    for length in lengths:
        require_positive("lengths", length)
        dense, sparse = equation_12(shape, length)
        exact_dense, exact_sparse = exact_flops(shape, length)
        dense_bytes, sparse_bytes = decode_bytes(shape, length)
        rows.append(
            CostRow(
                length=length,
                dense_flops=dense,
                msa_flops=sparse,
                ratio=dense / sparse,
                index_flops=1.0 * shape.kv_heads * shape.index_dim * length**2,
                exact_dense_flops=exact_dense,
                exact_msa_flops=exact_sparse,
                exact_ratio=exact_dense / exact_sparse,
                dense_decode_bytes=dense_bytes,
                msa_decode_bytes=sparse_bytes,
                decode_ratio=dense_bytes / sparse_bytes,
            )
        )
    return rows


def prefill_bytes(shape: CostShape, length: int) -> float:
    """Least bytes of an MSA prefill: every input read once, output and selection written once."""
    main = (2 * shape.q_heads + 2 * shape.kv_heads) * shape.dim * shape.element_bytes
    index = (shape.kv_heads + 1) * shape.index_dim * shape.index_element_bytes
    return length * (main + index + 4.0 * shape.kv_heads * shape.topk)


def roofline(
    flops: float, moved_bytes: float, *, flops_per_second: float, bytes_per_second: float
) -> Roofline:
    """Least time of a piece of work on a device with these two rates.

    Raises:
        ValueError: a rate that is not above zero.
    """
    for name, rate in (
        ("flops_per_second", flops_per_second),
        ("bytes_per_second", bytes_per_second),
    ):
        if not rate > 0:
            raise ValueError(f"{name}: wanted a rate above 0, got {rate}")
    compute, memory = flops / flops_per_second, moved_bytes / bytes_per_second
    bound = "compute" if compute >= memory else "memory"
    return Roofline(max(compute, memory), compute, memory, bound)


def blocks_scored(length: int, block: int) -> int:
    """(query, block) scores of a causal prefill that are not -inf."""
    whole, rest = divmod(length, block)
    return block * whole * (whole + 1) // 2 + rest * count_blocks(length, block)
