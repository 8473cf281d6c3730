"""Checks of what stands around a layer: scorers, settings of every kind, costs on paper."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from msa_harness.client import Worker
from msa_harness.protocol import ref
from msa_suites.method import oracle_model, oracle_scorers
from msa_suites.method.checks import BOUND, SETTINGS, agree, first, retrofitted_logits, texts
from msa_suites.session import SUBJECT

_SUBJECT = "msa_suites.method.subject_settings"
_BLOCK, _SCALE = 16, 0.3
#: Queries and keys of two sequences: a chunk that starts inside a block, and a whole one.
_LENGTHS = ((45, 101), (67, 67))
_GROUPS, _HEADS, _DIM = 2, 3, 12
#: Of the paper: 109B parameters, at 2^20 tokens; then a layer that can be counted pair by pair.
_PAPER = {"q_heads": 64, "kv_heads": 4, "dim": 128, "index_dim": 128, "block": 128, "topk": 16}
_SMALL = {"q_heads": 6, "kv_heads": 2, "dim": 5, "index_dim": 3, "block": 4, "topk": 3}
_COUNTED = (1, 4, 11, 12, 13, 50)
#: Settings of the retrofit that the other checks leave alone.
_VARIANTS: tuple[dict[str, Any], ...] = (
    {**SETTINGS, "dense_layers": (1,)},
    {**SETTINGS, "scorer": "mean", "local_blocks": 2},
    {**SETTINGS, "scorer": "recent", "topk": 3},
)


def _drawn(heads: int, rows: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, heads, _DIM, generator=generator)


def _packed() -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Query heads ``[Tq, Hq, D]``, keys ``[Tk, Hkv, D]`` and their lengths."""
    cumulative = [
        torch.tensor([0, *sizes]).cumsum(0).int() for sizes in zip(*_LENGTHS, strict=True)
    ]
    q = _drawn(_GROUPS * _HEADS, int(cumulative[0][-1]), 1)
    k = _drawn(_GROUPS, int(cumulative[1][-1]), 2)
    return q, k, {"cu_q": cumulative[0], "cu_k": cumulative[1]}


def check_scorers(worker: Worker) -> str:
    """Every scorer against its definition; the random one is even, repeatable and of no pattern."""
    worker.load("scored", f"{_SUBJECT}:scored")
    problem = first(_scorer_problem(worker, name) for name in oracle_scorers.RULES)
    return problem or _random_problem(worker)


def _asked(name: str, q: Tensor) -> Tensor:
    return q if name in oracle_scorers.ALL_HEADS else q[:, ::_HEADS].contiguous()


def _scorer_problem(worker: Worker, name: str) -> str:
    q, k, lengths = _packed()
    q = _asked(name, q)
    how: dict[str, Any] = {"block": _BLOCK, "scale": _SCALE}
    got: Tensor = worker.call("scored", "", [name, q, k, lengths], how)
    cu_q, cu_k = (lengths[side].tolist() for side in ("cu_q", "cu_k"))
    for b in range(len(_LENGTHS)):
        mine = got[cu_q[b] : cu_q[b + 1]].double()
        want = oracle_scorers.block_scores(
            name, q[cu_q[b] : cu_q[b + 1]], k[cu_k[b] : cu_k[b + 1]], **how
        )
        blocks = want.shape[-1]
        if mine.shape[-1] < blocks or bool((mine[..., blocks:] != -torch.inf).any()):
            return (
                f"{name}: sequence {b}: wanted -inf beyond {blocks} blocks, got {list(mine.shape)}"
            )
        mine = mine[..., :blocks]
        hidden = want.isinf()
        if not torch.equal(mine.isinf(), hidden):
            return f"{name}: sequence {b}: wanted -inf where no token is visible, and nowhere else"
        error = float((mine - want)[~hidden].abs().max() / want[~hidden].abs().max())
        if not error <= BOUND:
            return f"{name}: sequence {b}: relative error of the scores {error:.1e}"
    return ""


def _random_problem(worker: Worker) -> str:
    q, k, lengths = _packed()
    q = _asked("random", q)
    how = {"block": _BLOCK, "scale": _SCALE}

    def scores(seed: int, *, last: int = 0) -> Tensor:
        """Of the second sequence: its last queries, or all of them."""
        cut, cu_q = (q[-last:], torch.tensor([0, 0, last])) if last else (q, lengths["cu_q"])
        given = {**lengths, "cu_q": cu_q.int()}
        found: Tensor = worker.call("scored", "", ["random", cut, k, given], {**how, "seed": seed})
        return found[-last or -_LENGTHS[1][0] :]

    whole, chunk, other = scores(3), scores(3, last=10), scores(4)
    seen = whole[whole.isfinite()]
    if not bool(((seen >= 0) & (seen < 1)).all()) or abs(float(seen.mean()) - 0.5) > 0.1:
        return f"random: wanted even scores in [0, 1), got a mean of {float(seen.mean()):.2f}"
    if not torch.equal(chunk, whole[-10:]):
        return "random: wanted a chunk to score as the whole does"
    apart = {
        "seed": (whole, other),
        "query": (whole[-1, :, :4], whole[-2, :, :4]),
        "group": (whole[-1, 0, :4], whole[-1, 1, :4]),
    }
    for what, (one, another) in apart.items():
        if torch.equal(one, another):
            return f"random: wanted other scores for another {what}, got the same"
    return ""


def check_cost(worker: Worker) -> str:
    """Equation 12 and its limits; counts and bytes, pair by pair."""
    worker.load("costs", f"{_SUBJECT}:costs")
    paper = worker.call("costs", "", [_PAPER, [1 << 20]])
    row = paper["rows"][0]
    wanted = {"ceiling": 32.0, "break_even": 131072 / 31, "ratio": 256 / 9}
    problem = _numbers("paper", {**paper, "ratio": row["ratio"]}, wanted)
    small = worker.call("costs", "", [_SMALL, list(_COUNTED)])
    problems = (
        _numbers(f"{length} tokens", row, _counted(length))
        for length, row in zip(_COUNTED, small["rows"], strict=True)
    )
    return problem or first(problems)


def _counted(length: int) -> dict[str, float]:
    """What a prefill of the small layer computes, counted; and what its last token reads."""
    heads, groups = _SMALL["q_heads"], _SMALL["kv_heads"]
    dim, index_dim, block = _SMALL["dim"], _SMALL["index_dim"], _SMALL["block"]

    def attended(t: int) -> int:
        kept = sorted({s // block for s in range(t + 1)})[-_SMALL["topk"] :]
        return sum(s // block in kept for s in range(t + 1))

    pairs = sum(t + 1 for t in range(length))
    main = sum(attended(t) for t in range(length))
    dense, sparse = 4 * heads * dim * pairs, 4 * heads * dim * main
    return {
        "exact_dense_flops": dense,
        "exact_msa_flops": sparse + 2 * groups * index_dim * pairs,
        "dense_decode_bytes": 2 * groups * dim * 2 * length,
        "msa_decode_bytes": 2 * groups * dim * 2 * attended(length - 1) + 2 * index_dim * length,
    }


def _numbers(who: str, got: Mapping[str, Any], want: Mapping[str, float]) -> str:
    return first(
        f"{who}: {name}: wanted {value:.7g}, got {got[name]:.7g}"
        for name, value in want.items()
        if not abs(got[name] - value) <= 1e-6 * abs(value)
    )


def check_retrofit_settings(worker: Worker) -> str:
    """Dense layers, scorers and forced blocks of the retrofit, against the oracle's model."""
    rows = texts()[-1:]

    def problems() -> Iterable[str]:
        for settings in _VARIANTS:
            shown = ", ".join(f"{name} {value}" for name, value in settings.items())
            want = oracle_model.logits(rows, **settings)
            yield agree(shown, retrofitted_logits(worker, rows, settings=settings), want)

    return first(problems())


def check_unscaled(worker: Worker) -> str:
    """A model that names no scale gets that of its head dim."""
    worker.load("unscaled", f"{_SUBJECT}:unscaled")
    said, unsaid = worker.call("unscaled", "", [ref(SUBJECT), 60])
    error = float((said - unsaid).abs().max())
    return "" if error <= BOUND else f"no scale given: logits differ by {error:.1e}"


def check_windows(worker: Worker) -> str:
    """A model with sliding windows and a scale of its own: windows stay, and so does the scale."""
    worker.load("windowed", f"{_SUBJECT}:windowed")

    def logits(topk: int | None, window: int) -> list[Tensor]:
        found: list[Tensor] = worker.call("windowed", "", [ref(SUBJECT), topk, window, 60])
        return found

    dense, kept, sparse, wide = logits(None, 10), logits(64, 10), logits(2, 10), logits(None, 30)
    if problem := _rows_agree("all blocks kept", kept, dense):
        return problem
    if not _rows_agree("", sparse, dense) or not _rows_agree("", wide, dense):
        return "the check's own model: wanted blocks and windows that matter, got none"
    return ""


def _rows_agree(what: str, got: list[Tensor], want: list[Tensor]) -> str:
    for b, (mine, other) in enumerate(zip(got, want, strict=True)):
        error = float((mine - other).norm() / other.norm())
        if not error <= BOUND:
            return f"{what}: row {b}: relative error of the logits {error:.1e}"
    return ""
