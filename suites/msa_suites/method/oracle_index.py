"""The embedded model with index branches, in float64 and apart from msa: logits and training.

Heads of the index branch are those of the oracle's layer; attention and the loss are written out
over all pairs of tokens with a mask, one sequence at a time, and autograd finds the gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock

import torch
from torch import Tensor

from msa_suites.method import oracle
from msa_suites.models.attention import Network

_NAME = "msa_suites_oracle_index"
_LAYERS = 3
# Faults are measured in threads, and all of them share transformers' registry.
_ONE_AT_A_TIME = Lock()
#: Of the embedded model; an index head is wider than one of its heads, and no multiple of it.
SHAPE = oracle.Shape(
    hidden=128, Hq=4, Hkv=2, D=32, Di=48, rotary=16, eps=1e-5, block=16, topk=4, local_blocks=1
)

#: Index keys that a query finds, all right: (keys [t + 1, Di], token) -> as many.
Found = Callable[[Tensor, int], Tensor]
#: Of a group's heads: softmax ``[Hkv, R, T, T]`` -> ``[Hkv, T, T]``.
Teach = Callable[[Tensor], Tensor]


def draw_branches(seed: int) -> dict[str, Tensor]:
    """Random float32 weights of an index branch in every layer, by their names in the model."""
    found: dict[str, Tensor] = {}
    for layer in range(_LAYERS):
        drawn = oracle.draw_weights(SHAPE, seed=seed + layer)
        prefix = f"model.layers.{layer}.self_attn."
        found |= {prefix + name: w for name, w in drawn.items() if name.startswith("indexer.")}
    return found


def mean_head(weight: Tensor) -> Tensor:
    """What a group's index head learns from: the mean of its heads."""
    return weight.mean(1)


@dataclass(frozen=True, slots=True)
class Rule:
    """How the model reads and what it learns from; the defaults are right, in the sparse phase.

    Attributes:
        turn: rotation of the index heads.
        found: index keys that a query finds.
        attends: whether attention is sparse.
        learns: whether the loss is over what is selected, and not over all that is visible.
        teach: what makes one teacher of a group's heads.
    """

    turn: oracle.Turn = oracle.rotated
    found: Found = lambda keys, _: keys
    attends: bool = True
    learns: bool = True
    teach: Teach = mean_head


RIGHT = Rule()
WARMUP = Rule(attends=False, learns=False)


@dataclass(slots=True)
class Learned:
    """What a training step gives.

    Attributes:
        losses: of every layer, in nats.
        index: gradients of their sum by the weights of the index branches.
        text: gradients of the mean loss of the next token by ``TEXT_WEIGHTS``.
        decided: share of the queries whose selection no rounding can change.
    """

    losses: list[Tensor]
    index: dict[str, Tensor]
    text: dict[str, Tensor]
    decided: float


#: Weights whose gradient comes through attention.
TEXT_WEIGHTS = tuple(
    f"model.layers.{layer}.self_attn.{part}_proj.weight"
    for layer in range(_LAYERS)
    for part in ("q", "k", "v")
)


@dataclass(slots=True)
class _Reader:
    """The model's attention; what it leaves behind of one sequence is in the lists."""

    weights: Mapping[str, Tensor]
    rule: Rule
    hidden: dict[int, Tensor] = field(default_factory=dict)
    losses: dict[int, Tensor] = field(default_factory=dict)
    decided: list[bool] = field(default_factory=list)

    def __call__(
        self,
        module: Network,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: object,
        *,
        scaling: float,
        **rest: object,
    ) -> tuple[Tensor, None]:
        """One sequence: ``[1, Hq, T, D]`` and ``[1, Hkv, T, D]`` in, ``[1, T, Hq, D]`` out."""
        del mask, rest
        layer, tokens = module.layer_idx, query.shape[2]
        prefix = f"model.layers.{layer}.self_attn."
        mine = {name.removeprefix(prefix): w for name, w in self.weights.items() if prefix in name}
        q_idx, k_idx = oracle.index_heads(self.hidden[layer].detach(), mine, SHAPE, self.rule.turn)
        visible = torch.ones(tokens, tokens, dtype=torch.bool).tril().expand(SHAPE.Hkv, -1, -1)
        chosen = visible & self._kept(q_idx.detach(), k_idx.detach())
        dot = query[0].unflatten(0, (SHAPE.Hkv, -1)) @ key[0, :, None].mT * scaling
        seen = chosen if self.rule.attends else visible
        weight = dot.masked_fill(~seen[:, None], -torch.inf).softmax(-1)
        support = chosen if self.rule.learns else visible
        self.losses[layer] = self._divergence(q_idx, k_idx, dot.detach(), support)
        return (weight @ value[0, :, None]).flatten(0, 1).transpose(0, 1)[None], None

    def _kept(self, q_idx: Tensor, k_idx: Tensor) -> Tensor:
        """Tokens of the blocks that every query keeps ``[Hkv, T, T]``."""
        tokens = len(q_idx)
        kept = torch.zeros(SHAPE.Hkv, tokens, -(-tokens // SHAPE.block), dtype=torch.bool)
        for t in range(tokens):
            keys = self.rule.found(k_idx[: t + 1], t)
            for g, (best, blocks) in enumerate(oracle.choose(q_idx[t], keys, SHAPE)):
                kept[g, t, blocks] = True
                self.decided.append(oracle.is_decided(best, blocks, SHAPE))
        return kept.repeat_interleave(SHAPE.block, -1)[..., :tokens]

    def _divergence(self, q_idx: Tensor, k_idx: Tensor, dot: Tensor, support: Tensor) -> Tensor:
        """KL of the index branch to attention, summed over queries and groups."""
        weight = dot.masked_fill(~support[:, None], -torch.inf).softmax(-1)
        teacher = self.rule.teach(weight)
        score = torch.einsum("tgd,sd->gts", q_idx, k_idx) * SHAPE.Di**-0.5
        told = score.masked_fill(~support, -torch.inf).log_softmax(-1).masked_fill(~support, 0.0)
        divergence: Tensor = torch.xlogy(teacher, teacher) - teacher * told
        return divergence.sum()


@contextmanager
def _loaded(reader: _Reader) -> Iterator[Network]:
    """The model, which attends through ``reader``."""
    from msa_suites.models.loading import EMBEDDED, load_model  # isort: skip - loads it whole
    from transformers import AttentionInterface

    with _ONE_AT_A_TIME:
        # No mask is registered under this name, so transformers makes none.
        AttentionInterface.register(_NAME, reader)
        model: Network = load_model(str(EMBEDDED), dtype="float64")[0]
        model.set_attn_implementation(_NAME)
        for i, layer in enumerate(model.model.layers):
            layer.self_attn.q_proj.register_forward_pre_hook(
                lambda _, given, i=i: reader.hidden.__setitem__(i, given[0][0])
            )
        yield model


@torch.no_grad()
def logits(
    rows: Sequence[Sequence[int]],
    weights: Mapping[str, Tensor],
    rules: Sequence[Rule],
) -> tuple[list[Tensor], float]:
    """Float64 ``[length, vocabulary]`` of every row, each read by its rule; the share decided."""
    reader = _Reader(weights, RIGHT)
    found = []
    with _loaded(reader) as model:
        for row, rule in zip(rows, rules, strict=True):
            reader.rule = rule
            found.append(model(torch.tensor([list(row)]), use_cache=False).logits[0])
    return found, sum(reader.decided) / len(reader.decided)


def learned(
    rows: Sequence[Sequence[int]], weights: Mapping[str, Tensor], rule: Rule = RIGHT
) -> Learned:
    """Losses and gradients of one batch: means over the tokens of all rows."""
    leaves = {name: w.double().requires_grad_() for name, w in weights.items()}
    reader = _Reader(leaves, rule)
    tokens = sum(len(row) for row in rows)
    losses = [torch.zeros((), dtype=torch.float64) for _ in range(_LAYERS)]
    text = torch.zeros((), dtype=torch.float64)
    with _loaded(reader) as model:
        wanted = {name: model.get_parameter(name).requires_grad_() for name in TEXT_WEIGHTS}
        for row in rows:
            ids = torch.tensor(list(row))
            answer = model(ids[None], use_cache=False).logits[0]
            text = text + torch.nn.functional.cross_entropy(answer[:-1], ids[1:], reduction="sum")
            losses = [x + reader.losses[i] / (tokens * SHAPE.Hkv) for i, x in enumerate(losses)]
    index = torch.autograd.grad(torch.stack(losses).sum(), list(leaves.values()))
    through = torch.autograd.grad(text / (tokens - len(rows)), list(wanted.values()))
    return Learned(
        [x.detach() for x in losses],
        dict(zip(leaves, index, strict=True)),
        dict(zip(wanted, through, strict=True)),
        sum(reader.decided) / len(reader.decided),
    )
