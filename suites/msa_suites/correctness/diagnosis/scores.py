"""Mistakes in scoring blocks, each played through on some wrong rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from msa.packing import segments
from msa_suites.correctness.diagnosis.bytes_read import misreadings
from msa_suites.correctness.diagnosis.evidence import Evidence
from msa_suites.inputs import Inputs

#: Rows that are tried, and how closely a mistake must give their scores.
_ROWS, _CLOSE = 16, 0.01
_FEWER_BITS = 0.02
#: Below it a number can only be meant as -inf.
_HIDDEN = -1e8
#: Tokens of a sequence that is tried at all.
_LONGEST = 300_000

#: Block scores ``[t, G, NB]`` of token scores ``[t, G, S]`` and of what each row may see.
Pool = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def _split(x: Tensor, block: int, fill: float) -> Tensor:
    short = -x.shape[-1] % block
    split: Tensor = torch.nn.functional.pad(x, (0, short), value=fill).unflatten(-1, (-1, block))
    return split


def _best(tokens: Tensor, seen: Tensor, _: Tensor, block: int) -> Tensor:
    best: Tensor = _split(tokens.masked_fill(~seen, -torch.inf), block, -torch.inf).amax(-1)
    return best


def _mean(tokens: Tensor, seen: Tensor, _: Tensor, block: int) -> Tensor:
    count = _split(seen.double(), block, 0.0).sum(-1)
    total = _split(tokens.masked_fill(~seen, 0.0), block, 0.0).sum(-1)
    return (total / count.clamp_min(1)).masked_fill(count == 0, -torch.inf)


def _whole_block(tokens: Tensor, _: Tensor, position: Tensor, block: int) -> Tensor:
    """No token-level mask inside the query's own block."""
    own = torch.arange(tokens.shape[-1]) // block <= (position // block)[:, None, None]
    return _best(tokens, own.expand_as(tokens), position, block)


def _everything(tokens: Tensor, _: Tensor, position: Tensor, block: int) -> Tensor:
    return _best(tokens, torch.ones_like(tokens, dtype=torch.bool), position, block)


def _absolute(tokens: Tensor, seen: Tensor, position: Tensor, block: int) -> Tensor:
    return _best(tokens.abs(), seen, position, block)


def _collapsed(tokens: Tensor, seen: Tensor, position: Tensor, block: int) -> Tensor:
    best = _best(tokens, seen, position, block)
    return best.amax(1, keepdim=True).expand_as(best)


_POOLS: tuple[tuple[str, Pool], ...] = (
    ("the mean of a block's scores is taken instead of the maximum", _mean),
    ("future tokens of the query's own block are counted", _whole_block),
    ("tokens of the future are counted, every query is taken for the newest", _everything),
    ("one selection for all groups: the maximum over the index heads", _collapsed),
    ("the magnitude of a product counts, not its sign", _absolute),
)


def cause(evidence: Evidence) -> str:
    """The mistake that gives these scores, or ""."""
    got, m = evidence.scores, evidence.material
    assert got is not None
    truth = m.scores[evidence.where].double()
    got = got.double()
    finite, theirs = truth.isfinite(), got.isfinite()
    if got[finite].numel() and not bool(got[finite].any()):
        return "the scores are all zero"
    if m.case.Hkv > 1 and bool((got == got[:, :1])[theirs].all()):
        return "one selection for all groups: their scores are equal"
    marked = (got < _HIDDEN) & theirs
    got = got.masked_fill(marked, -torch.inf)
    theirs = got.isfinite()
    scale = m.case.index_scale
    if torch.equal(finite, theirs) and _close(got[finite] * scale, truth[finite]):
        return "the scale is missing"
    sample = _sample(evidence, got, truth)
    right = sample is None or sample.explained_by(m.exactly, _best)
    if right and bool(marked.any()):
        return "what is hidden has a large negative number, not -inf"
    if bool((theirs & ~finite).any()) and _close(got[finite & theirs], truth[finite & theirs]):
        return "blocks that nobody may see hold numbers, not -inf (never written?)"
    if sample is not None and not right and (text := _replayed(evidence, sample)):
        return text
    return _by_column(got, truth) or _by_bits(got, truth, finite & theirs)


def _by_column(got: Tensor, truth: Tensor) -> str:
    """Whether one block divides right from wrong in every row that reaches it."""
    columns = truth.shape[-1]
    off = _apart(got, truth)
    hit = off.any(0).any(0).nonzero()[:, 0]
    if not len(hit) or columns < 4:
        return ""
    first, share = int(hit[0]), float(off[..., int(hit[0]) :].double().mean())
    if first == 0 or share < 0.1:
        return ""
    hidden = bool((got.isneginf() & truth.isfinite())[..., first:].any())
    what = "never scored" if hidden else "wrong"
    return (
        f"blocks before {first} are right, from there on {what}: "
        f"a buffer, a width or an offset of {first} blocks"
    )


def _by_bits(got: Tensor, truth: Tensor, both: Tensor) -> str:
    if not bool(both.any()) or not _close(got[both], truth[both], _FEWER_BITS):
        return ""
    return "right but for few bits: scores in lower precision (bfloat16, TF32)"


def _apart(got: Tensor, truth: Tensor) -> Tensor:
    """Where two scores differ by more than rounding; infinities of one sign do not."""
    return (got != truth) & ~((got - truth).abs() <= _CLOSE * truth.abs().clamp_min(0.1))


def _close(a: Tensor, b: Tensor, bound: float = _CLOSE) -> bool:
    return bool((a - b).norm() <= bound * b.norm())


@dataclass(frozen=True, slots=True)
class _Sample:
    """Some wrong rows of one sequence.

    Attributes:
        rows: int64 ``[t]``, packed.
        keys: of the sequence, packed.
        position: int64 ``[t]``.
        first: position of the sequence's first query.
        block: tokens per block.
        scale: factor on the products.
        got: scores ``[t, Hkv, NB]`` of these rows.
    """

    rows: Tensor
    keys: slice
    position: Tensor
    first: int
    block: int
    scale: float
    got: Tensor

    def explained_by(self, inputs: Inputs, pool: Pool, shift: int = 0) -> bool:
        """Whether these are the scores of ``inputs`` pooled in this way: same places, same size.

        Args:
            inputs: float64.
            pool: what becomes of the token scores of a block.
            shift: added to the position of every query.
        """
        keys = inputs.k_idx[self.keys].expand(-1, self.got.shape[1], -1)
        tokens = torch.einsum("tgd,sgd->tgs", inputs.q_idx[self.rows], keys) * self.scale
        position = (self.position + shift).clamp(0, len(keys) - 1)
        seen = torch.arange(len(keys)) <= position[:, None, None]
        played = pool(tokens, seen.expand_as(tokens), position, self.block)
        shown = played.isfinite()
        alike = torch.equal(shown, self.got.isfinite())
        alike = alike and torch.equal(played.isnan(), self.got.isnan())
        return alike and _close(self.got[shown], played[shown])


def _sample(evidence: Evidence, got: Tensor, truth: Tensor) -> _Sample | None:
    """Rows of the first sequence that is wrong, if it is short enough to be tried."""
    m, x = evidence.material, evidence.material.inputs
    wrong = _apart(got, truth).any(-1).any(-1)
    for s in segments(x.cu_q, x.cu_k):
        mine = (evidence.where >= s.q_start) & (evidence.where < s.q_stop) & wrong
        rows = mine.nonzero()[:, 0]
        if len(rows) and s.k_len <= _LONGEST:
            rows = rows[:: max(1, len(rows) // _ROWS)][:_ROWS]
            packed = evidence.where[rows]
            keys, columns = slice(s.k_start, s.k_stop), -(-s.k_len // m.case.block)
            position = packed - s.q_start + s.first_position
            part = got[rows][..., :columns]
            sizes = s.first_position, m.case.block, m.case.index_scale
            return _Sample(packed, keys, position, *sizes, part)
    return None


def _replayed(evidence: Evidence, sample: _Sample) -> str:
    m, x = evidence.material, evidence.material.exactly
    for words, pool in _POOLS:
        if sample.explained_by(x, pool):
            return words
    for words, shift in (
        ("positions count from the first query (top-left causal)", -sample.first),
        ("positions are one too high (off by one in bottom-right causality)", 1),
        ("positions are one too low (off by one in bottom-right causality)", -1),
    ):
        if shift and sample.explained_by(x, _best, shift):
            return words
    half = x.q_idx.clone()
    half[..., half.shape[-1] // 2 :] = 0
    others = ("only the first half of the index dimension is multiplied", replace(x, q_idx=half))
    for words, changed in (others, *misreadings(m, ("q_idx", "k_idx"))):
        if sample.explained_by(changed, _best):
            return words
    return ""
