"""``attend`` out of scores, selection and attention, for libraries that have these three."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Scores(Protocol):
    """``block_scores`` of the contract."""

    def __call__(
        self, q_idx: Tensor, k_idx: Tensor, *, cu_q: Tensor, cu_k: Tensor, block: int, scale: float
    ) -> Tensor:
        """Float32 ``[Tq, Hkv, NB]``."""


class Select(Protocol):
    """``select_blocks`` of the contract."""

    def __call__(
        self,
        scores: Tensor,
        *,
        cu_q: Tensor,
        cu_k: Tensor,
        block: int,
        topk: int,
        local_blocks: int = 1,
        sink_blocks: int = 0,
    ) -> Tensor:
        """int32 ``[Tq, Hkv, k]``."""


class Attention(Protocol):
    """``sparse_attention`` of the contract."""

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        selection: Tensor,
        *,
        cu_q: Tensor,
        cu_k: Tensor,
        block: int,
        scale: float,
    ) -> tuple[Tensor, Tensor | None]:
        """Out ``[Tq, Hq, D]`` and LSE ``[Tq, Hq]`` or None."""


class Attend(Protocol):
    """``attend`` of the contract."""

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        q_idx: Tensor,
        k_idx: Tensor,
        *,
        cu_q: Tensor,
        cu_k: Tensor,
        block: int,
        topk: int,
        local_blocks: int = 1,
        sink_blocks: int = 0,
        scale: float,
        index_scale: float,
    ) -> tuple[Tensor, Tensor]:
        """Out ``[Tq, Hq, D]`` and selection int32 ``[Tq, Hkv, k]``."""


def one_after_the_other(scores: Scores, select: Select, attention: Attention) -> Attend:
    """The whole pipeline of three operations, which refuse what they cannot run."""

    def attend(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        q_idx: Tensor,
        k_idx: Tensor,
        *,
        cu_q: Tensor,
        cu_k: Tensor,
        block: int,
        topk: int,
        local_blocks: int = 1,
        sink_blocks: int = 0,
        scale: float,
        index_scale: float,
    ) -> tuple[Tensor, Tensor]:
        """Scores, selection and attention; arguments and results of the contract."""
        found = scores(q_idx, k_idx, cu_q=cu_q, cu_k=cu_k, block=block, scale=index_scale)
        selection = select(
            found,
            cu_q=cu_q,
            cu_k=cu_k,
            block=block,
            topk=topk,
            local_blocks=local_blocks,
            sink_blocks=sink_blocks,
        )
        out, _ = attention(q, k, v, selection, cu_q=cu_q, cu_k=cu_k, block=block, scale=scale)
        return out, selection

    return attend
