"""What an ablation switches off or adds, beside what a training plan can say.

A loss that stops nowhere, a top-k that forces nothing, and a value head on the index branch: none
of them is part of MSA, so they live here and reach it through what it calls.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from msa.packing import segments
from msa.recall import selected_blocks
from msa_suites.models.attention import Network

#: Queries whose logits are in memory at once.
_ROWS = 256
#: Attribute of an attention module that holds its value head.
VALUE_HEAD = "index_value"


def loose_loss(
    q_idx: Tensor,
    k_idx: Tensor,
    q: Tensor,
    k: Tensor,
    selection: Tensor,
    *,
    operations: object,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    scale: float,
    index_scale: float,
) -> Tensor:
    """:func:`msa.alignment.index_loss` with gradients by all four tensors, the teacher's too.

    Arguments and value are the same; ``operations`` is not asked, since it knows no such gradient.
    """
    del operations
    total = q_idx.new_zeros((), dtype=torch.float32)
    for s in segments(cu_q, cu_k):
        for start in range(0, s.q_len, _ROWS):
            rows = slice(s.q_start + start, min(s.q_start + start + _ROWS, s.q_stop))
            positions = s.positions(q.device)[start : start + _ROWS]
            keys = slice(s.k_start, s.k_start + int(positions[-1]) + 1)
            seen = _seen(selection[rows], positions, block)
            given = (q_idx[rows], k_idx[keys], q[rows], k[keys], seen, scale, index_scale)
            piece: Tensor = checkpoint(_divergence, *given, use_reentrant=False)
            total = total + piece
    mean: Tensor = total / (q_idx.shape[0] * q_idx.shape[1])
    return mean


def _seen(selection: Tensor | None, positions: Tensor, block: int, groups: int = 1) -> Tensor:
    """Which tokens are attended, bool ``[Hkv, T, S]`` up to the last query; all where no choice."""
    tokens = torch.arange(int(positions[-1]) + 1, device=positions.device)
    causal = tokens <= positions[:, None]  # [T, S]
    if selection is None:
        return causal.expand(groups, -1, -1)
    held = selected_blocks(selection, int(tokens[-1]) // block + 1)  # [T, Hkv, NB]
    return held.transpose(0, 1).repeat_interleave(block, -1)[..., : len(tokens)] & causal


def _divergence(
    q_idx: Tensor,
    k_idx: Tensor,
    q: Tensor,
    k: Tensor,
    seen: Tensor,
    scale: float,
    index_scale: float,
) -> Tensor:
    """KL(teacher || student), summed over the queries and groups of a piece."""
    share = q.shape[1] // k.shape[1]
    keys = k.repeat_interleave(share, 1).float()
    logits = torch.einsum("thd,shd->hts", q.float(), keys) * scale
    hidden = ~seen.repeat_interleave(share, 0)
    teacher = logits.masked_fill(hidden, -torch.inf).softmax(-1)
    teacher = teacher.unflatten(0, (-1, share)).mean(1)  # [Hkv, T, S]
    asked = k_idx.float().expand(-1, q_idx.shape[1], -1)
    told = torch.einsum("tgd,sgd->gts", q_idx.float(), asked) * index_scale
    told = told.masked_fill(~seen, -torch.inf).log_softmax(-1).masked_fill(~seen, 0.0)
    # A probability that underflows adds nothing, and its logarithm must have no gradient.
    certain = teacher.masked_fill(teacher <= 0, 1.0)
    total: Tensor = (teacher * (certain.log() - told)).sum()
    return total


class Delegate:
    """An implementation that does what another does, unless a subclass says otherwise."""

    def __init__(self, inner: Any) -> None:  # noqa: ANN401 - an implementation
        self._inner = inner

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._inner, name)


class PlainTopk(Delegate):
    """Selects the k best visible blocks, whatever blocks the settings force."""

    def select_blocks(self, scores: Tensor, *, topk: int, **_: object) -> Tensor:
        """int32 ``[Tq, Hkv, topk]``, ascending block ids, then -1."""
        columns = scores.shape[-1]
        best = scores.topk(min(topk, columns), dim=-1)
        # What a query cannot see scores -inf; it goes to the end.
        ids = best.indices.masked_fill(best.values == -torch.inf, columns).sort(-1).values
        ids = nn.functional.pad(ids, (0, topk - ids.shape[-1]), value=columns)
        return ids.masked_fill(ids == columns, -1).int()


class ValueHead(nn.Module):
    """Values for the index branch's own softmax; its output starts at zero.

    Args:
        hidden_size: width of the hidden states.
        groups: index query heads.
        dim: channels of a value.
    """

    def __init__(self, hidden_size: int, groups: int, dim: int) -> None:
        super().__init__()
        self.v_proj = nn.Linear(hidden_size, dim, bias=False)
        self.out_proj = nn.Linear(groups * dim, hidden_size, bias=False)
        nn.init.zeros_(self.out_proj.weight)

    def forward(
        self, hidden: Tensor, q_idx: Tensor, k_idx: Tensor, selection: Tensor | None, block: int
    ) -> Tensor:
        """What to add to attention's output, ``[B, L, hidden_size]``.

        Args:
            hidden: ``[B, L, hidden_size]``.
            q_idx: ``[B * L, Hkv, Di]``.
            k_idx: ``[B * L, 1, Di]``.
            selection: int32 ``[B * L, Hkv, k]``; None where every visible token is attended.
            block: tokens per block.
        """
        batch, length = hidden.shape[:2]
        positions = torch.arange(length, device=hidden.device)
        parts = []
        for index in range(batch):
            rows = slice(index * length, (index + 1) * length)
            chosen = None if selection is None else selection[rows]
            seen = _seen(chosen, positions, block, groups=q_idx.shape[1])
            keys, width = k_idx[rows, 0], q_idx.shape[-1]
            logits = torch.einsum("tgd,sd->gts", q_idx[rows], keys) * width**-0.5
            weight = logits.masked_fill(~seen, -torch.inf).softmax(-1)
            read = torch.einsum("gts,sd->tgd", weight, self.v_proj(hidden[index]))
            parts.append(read.flatten(1))
        out: Tensor = self.out_proj(torch.stack(parts))
        return out


class ValueHeads(Delegate):
    """The value heads of a model, and the implementation that tells them what was selected.

    They read whole sequences, without a cache. After :meth:`listen` the model must ask its index
    branch in every forward pass.

    Args:
        model: gets a head in every layer, which is trained as its other weights are.
        inner: the implementation that selects.
        dim: channels of a value.
        block: tokens per block.
        seed: of their weights.
    """

    def __init__(
        self,
        model: Network,
        inner: Any,  # noqa: ANN401 - an implementation
        *,
        dim: int,
        block: int,
        seed: int,
    ) -> None:
        super().__init__(inner)
        torch.manual_seed(seed)
        self._layers = [layer.self_attn for layer in model.model.layers]
        self._block = block
        self._index: tuple[Tensor, Tensor] | None = None
        self._selection: Tensor | None = None
        for attention in self._layers:
            config = model.config
            head = ValueHead(config.hidden_size, config.num_key_value_heads, dim)
            setattr(attention, VALUE_HEAD, head.to(next(attention.parameters())))

    def select_blocks(self, scores: Tensor, **settings: Any) -> Tensor:  # noqa: ANN401
        """The inner selection, which the layer's value head then reads too."""
        selection: Tensor = self._inner.select_blocks(scores, **settings)
        self._selection = selection
        return selection

    def listen(self) -> None:
        """Add what the heads read to each layer's output; the index branches are in place."""
        for attention in self._layers:
            attention.indexer.register_forward_hook(self._heard)
            attention.register_forward_hook(self._add, with_kwargs=True)

    def _heard(self, _: nn.Module, args: object, output: tuple[Tensor, Tensor]) -> None:
        del args
        self._index, self._selection = output, None

    def _add(
        self,
        attention: nn.Module,
        args: Any,  # noqa: ANN401 - torch's
        given: dict[str, Any],
        output: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        if self._index is None:
            raise RuntimeError("value head: wanted the index branch to have run, got none")
        hidden = given["hidden_states"] if "hidden_states" in given else args[0]
        head: Any = getattr(attention, VALUE_HEAD)
        more = head(hidden, *self._index, self._selection, self._block)
        self._index = None
        return (output[0] + more, *output[1:])
