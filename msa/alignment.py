"""Training of the index branch beside a model: what it learns from, and gradients of attention.

The index branch learns to look where attention looks: KL(teacher || student) per query and group
over the tokens that are attended (METHOD: the paper, section 3, training). Whatever the loss, it
moves the index branch alone: the hidden states that enter its projections are detached, and the
teacher's queries and keys are constants of :func:`msa.reference.index_kl`.

Warm-up has full attention, and a loss over all that is visible; after it both are sparse. Both run
through the operations of an implementation, so a model trains with the code that serves it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from msa.packing import block_columns, segments

#: What a sparse layer does while its index branch learns.
PHASES = ("warmup", "sparse")


class _SparseAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's
        q: Tensor,
        k: Tensor,
        v: Tensor,
        selection: Tensor,
        operations: Any,  # noqa: ANN401 - an implementation
        where: dict[str, Any],
    ) -> Tensor:
        out: Tensor
        out, lse = operations.sparse_attention(q, k, v, selection, **where)
        ctx.save_for_backward(q, k, v, out, lse, selection)
        ctx.operations, ctx.where = operations, where
        return out

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        q, k, v, out, lse, selection = ctx.saved_tensors
        backward = ctx.operations.sparse_attention_backward
        grads = backward(dout.contiguous(), q, k, v, out, lse, selection, **ctx.where)
        return (*grads, None, None, None)


class _IndexKL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's
        q_idx: Tensor,
        k_idx: Tensor,
        q: Tensor,
        k: Tensor,
        selection: Tensor,
        operations: Any,  # noqa: ANN401 - an implementation
        where: dict[str, Any],
    ) -> Tensor:
        loss: Tensor
        loss, dq, dk = operations.index_kl(q_idx, k_idx, q, k, selection, **where)
        ctx.save_for_backward(dq, dk)
        ctx.dtype = q_idx.dtype
        return loss

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        dq, dk = ctx.saved_tensors
        return ((up * dq).to(ctx.dtype), (up * dk).to(ctx.dtype), *[None] * 5)


def _require(operations: object, name: str) -> None:
    if not callable(getattr(operations, name, None)):
        called = getattr(operations, "__name__", type(operations).__qualname__)
        raise TypeError(f"operations: wanted {name}, which training needs, got none in {called}")


def attend_sparse(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    selection: Tensor,
    *,
    operations: Any,  # noqa: ANN401 - an implementation
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    scale: float,
) -> Tensor:
    """``sparse_attention`` of an implementation, differentiable by q, k and v where these ask.

    Args:
        q: ``[Tq, Hq, D]``.
        k: ``[Tk, Hkv, D]``.
        v: ``[Tk, Hkv, D]``.
        selection: int32 ``[Tq, Hkv, k]``; no gradient goes through it.
        operations: the implementation.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: tokens per block.
        scale: factor on the logits.

    Returns:
        ``[Tq, Hq, D]``.

    Raises:
        TypeError: a gradient is asked for, and the implementation has no
            ``sparse_attention_backward``.
    """
    where = {"cu_q": cu_q, "cu_k": cu_k, "block": block, "scale": scale}
    if torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v)):
        _require(operations, "sparse_attention_backward")
        out: Tensor = _SparseAttention.apply(q, k, v, selection, operations, where)  # type: ignore[no-untyped-call]
        return out
    out, _ = operations.sparse_attention(q, k, v, selection, **where)
    return out


def index_loss(
    q_idx: Tensor,
    k_idx: Tensor,
    q: Tensor,
    k: Tensor,
    selection: Tensor,
    *,
    operations: Any,  # noqa: ANN401 - an implementation
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    scale: float,
    index_scale: float,
) -> Tensor:
    """``index_kl`` of an implementation, differentiable by q_idx and k_idx and by nothing else.

    Arguments as of :func:`msa.reference.index_kl`, and the implementation.

    Returns:
        float32 ``[]`` in nats, the mean over queries and groups.

    Raises:
        TypeError: the implementation has no ``index_kl``.
    """
    _require(operations, "index_kl")
    where = {"cu_q": cu_q, "cu_k": cu_k, "block": block, "scale": scale}
    where |= {"index_scale": index_scale}
    given = (q_idx, k_idx, q.detach(), k.detach(), selection)
    loss: Tensor = _IndexKL.apply(*given, operations, where)  # type: ignore[no-untyped-call]
    return loss


def visible_blocks(*, cu_q: Tensor, cu_k: Tensor, block: int, groups: int) -> Tensor:
    """The selection that keeps every block a query can see: the support of the warm-up.

    Args:
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: tokens per block.
        groups: Hkv.

    Returns:
        int32 ``[Tq, groups, NB]``, -1 behind the last visible block; a view over the groups.
    """
    positions = torch.cat([s.positions(cu_q.device) for s in segments(cu_q, cu_k)])
    ids = torch.arange(block_columns(cu_k, block), dtype=torch.int32, device=cu_q.device)
    visible = ids <= (positions // block)[:, None]  # [Tq, NB]
    return torch.where(visible, ids, -1)[:, None].expand(-1, groups, -1)


@dataclass(slots=True)
class Alignment:
    """What a retrofitted model does in a forward pass with gradients, and the losses it leaves.

    Attributes:
        phase: ``warmup`` or ``sparse``.
        coefficient: lambda, for all layers or layer by layer (the paper does not publish it).
        detach: whether the loss stops at the inputs of the index projections; without it, it moves
            the model too.
        measure: the loss of a layer; :func:`index_loss`, unless an experiment has another.
        losses: loss of each layer of the last forward pass, in nats, without the coefficient.

    Raises:
        ValueError: an unknown phase, or a coefficient below zero.
    """

    phase: str = "sparse"
    coefficient: float | Mapping[int, float] = 1.0
    detach: bool = True
    measure: Any = index_loss
    losses: dict[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.phase not in PHASES:
            raise ValueError(f"phase: wanted one of {', '.join(PHASES)}, got {self.phase!r}")
        known = self.coefficient
        for value in known.values() if isinstance(known, Mapping) else (known,):
            if not value >= 0:
                raise ValueError(f"coefficient: wanted a number of at least 0, got {value!r}")

    def total(self) -> Tensor:
        """Sum over the layers, each times its coefficient; the losses are kept.

        Raises:
            ValueError: no sparse layer has run with gradients.
            KeyError: a layer has no coefficient.
        """
        if not self.losses:
            raise ValueError("losses: wanted a forward pass with gradients before, got none")
        known = self.coefficient
        parts = [
            (known[layer] if isinstance(known, Mapping) else known) * loss
            for layer, loss in self.losses.items()
        ]
        return torch.stack(parts).sum()
