"""Whether results of the pass are right, on one row each: a wrong one is not timed."""

from __future__ import annotations

import torch
from torch import Tensor

from msa_suites.gpu.drawing import Stored
from msa_suites.gpu.shapes import Timed

#: Relative L2 error of a checked row: bfloat16 twice rounded.
ALLOWED = 3e-2


def attended_wrong(
    row: Timed, out: Tensor, selection: Tensor, q: Tensor, k: Stored, v: Stored, *, at: int
) -> str:
    """Whether the output of row ``at`` of the first sequence follows from its selection."""
    for group in range(row.groups):
        keys, values = (x.head(group).values() for x in (k, v))
        wrong = row_wrong(row, out[at], selection[at], q[at], keys, values, group)
        if wrong:
            return f"output of row {at}, group {group}: {wrong}"
    return ""


def row_wrong(
    row: Timed, out: Tensor, selection: Tensor, q: Tensor, k: Tensor, v: Tensor, group: int
) -> str:
    """The same of one query ``[Hq, D]`` that sees all of ``k``, ``v`` ``[N, D]`` of its group."""
    share = row.heads // row.groups
    chosen = selection[group]
    chosen = chosen[chosen >= 0].long()
    tokens = (chosen[:, None] * row.block + torch.arange(row.block, device=q.device)).flatten()
    tokens = tokens[tokens < row.length]
    heads = slice(group * share, (group + 1) * share)
    logits = q[heads].double() @ k[tokens].double().T * row.dim**-0.5
    wanted = logits.softmax(-1) @ v[tokens].double()
    return far(out[heads].double(), wanted)


def far(got: Tensor, wanted: Tensor) -> str:
    """Whether a row is further off than rounding; empty where it is not."""
    error = float((got - wanted).norm() / wanted.norm())
    return "" if error <= ALLOWED else f"relative error {error:.3g}"


def block_maxima(row: Timed, q_idx: Tensor, k_idx: Tensor) -> Tensor:
    """Scores float64 ``[G, N / Bk]`` of an index query ``[G, Di]`` that sees all ``[N, Di]``."""
    token = q_idx.double() @ k_idx.double().T * row.dim**-0.5
    best: Tensor = token.view(len(token), -1, row.block).amax(-1)
    return best


def unlike_the_best(
    row: Timed, selection: Tensor, scores: Tensor, *, slack: float = ALLOWED
) -> str:
    """Whether ``selection`` ``[G, k]`` holds the newest block and others as good as the best."""
    newest = scores.shape[-1] - 1
    count = min(row.topk, newest + 1)
    for group in range(row.groups):
        ids = selection[group][selection[group] >= 0].long()
        others = ids[ids != newest]
        # Before it is used as an index: on a GPU a wrong one ends the context.
        if (
            bool((ids > newest).any())
            or ids.unique().numel() != count
            or others.numel() != count - 1
        ):
            return f"selection of group {group}: {ids.tolist()}"
        if not others.numel():
            continue
        best = scores[group, :newest].topk(count - 1).values
        least, wanted = float(scores[group, others].min()), float(best.min())
        if least < wanted - slack * max(abs(wanted), float(best.std(correction=0)), 1e-3):
            return f"selection of group {group}: a block of {least:.4g}, the least was {wanted:.4g}"
    return ""
