"""What an answer may differ by, from the rounding of its own terms; and what a refusal says.

Letters: u is the unit roundoff of the arithmetic (2^-53 for float64 inputs, else 2^-24), L the sum
of absolute terms of the largest logit. A dot product of n terms carries at most n u of that sum
(Higham, Accuracy and Stability, 3.1), and with the scale's own rounding, its product and the final
store n + 4; all below to first order, doubled.
"""

from __future__ import annotations

import re

import numpy as np
import torch
from fuzz_model import forced_blocks, keep_blocks

_SINGLE = 2.0**-24
#: Relative error of the cubic exponential (Malossi and others 2015) that PyTorch's fused kernel
#: takes for 16-bit inputs where the processor has AVX-512: 1.07e-4 at zero, its worst place.
_CUBIC = 1.1e-4


def numbers(x):
    """A tensor as float64 numpy."""
    return x.detach().double().numpy()


def _roundoff(dtype):
    return torch.finfo(dtype).eps / 2


def _working(dtype):
    return _roundoff(torch.float64) if dtype == torch.float64 else _SINGLE


def score_slack(reach, dim):
    """Scores are stored in float32 whatever they were computed in."""
    return 2 * (dim + 4) * _SINGLE * reach


def judge_scores(got, scored, dim):
    """got float32 [nb'] of one row and group; blocks behind the visible ones are -inf."""
    visible = len(scored.scores)
    error = np.abs(got[:visible] - scored.scores)
    assert (error <= score_slack(scored.reach, dim)).all(), (got, scored)
    assert (got[visible:] == -np.inf).all(), (got, scored)


def judge_selection(got, scored, position, *, block, topk, local, sinks, dim, exact):
    """The kept blocks of one row and group: the very ones, or as good as the rounding can tell."""
    kept = [int(b) for b in got if b >= 0]
    assert list(got) == kept + [-1] * (topk - len(kept)), f"not packed to the left: {got}"
    right = keep_blocks(scored.scores, position, block, topk, local, sinks)
    assert kept == sorted(set(kept)) and len(kept) == len(right), (got, right)
    if kept == right:
        return
    assert not exact, (got, right, scored)
    assert (
        forced_blocks(position, block, local, sinks) <= set(kept) <= set(range(len(scored.scores)))
    ), (got, right)
    # Either of two scores may be off by the slack.
    worst = min(scored.scores[b] for b in kept if b not in right)
    best = max(scored.scores[b] for b in right if b not in kept)
    assert best - worst <= 2 * score_slack(scored.reach, dim), (got, right, scored)


def judge_attention(out, lse, want, dtype):
    """out [R, D] and lse [R] of one row and group, in float64, of inputs of ``dtype``.

    A logit is rounded like a dot product and once more when the shift of the softmax, at most as
    large, is taken off: twice L. A weight then carries exp's own 20 units, the sum of all tokens
    and the division. Below float32 a fused kernel has a coarser exponential and stores its weights
    in the dtype of the inputs. Every output is rounded to that dtype.
    """
    if not want.tokens:
        assert (out == 0).all() and (lse == -np.inf).all(), (out, lse)
        return
    u, dim, half = _working(dtype), out.shape[1], dtype in (torch.float16, torch.bfloat16)
    logit = 2 * 2 * (dim + 4) * u * want.reach  # [R]
    total = 2 * (want.tokens + 24) * u + (_CUBIC if half else 0.0)
    weight = np.expm1(2 * logit) + 2 * total
    store, least = _roundoff(dtype), torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    if half:
        weight = weight + 2 * store + want.tokens * least
    bound = (weight * (1 + store) + store) * want.largest + least
    error = np.abs(out - want.out)
    assert (error <= bound[:, None]).all(), (error.max(), bound, out, want)
    lse_error = np.abs(lse - want.lse)
    lse_bound = logit + total + 2 * _SINGLE * np.abs(want.lse)
    assert (lse_error <= lse_bound).all(), (lse_error, lse_bound, lse, want)


def judge_merge(out, lse, want, want_lse, outs, lses):
    """Merged parts: a weight is exp of a difference of two stored numbers, of float32."""
    assert ((lse == -np.inf) == (want_lse == -np.inf)).all(), (lse, want_lse)
    empty = want_lse == -np.inf
    assert (out[empty] == 0).all()
    finite = np.where(np.isfinite(lses), lses, 0.0)
    size = np.abs(finite).max(0) + len(lses)
    exponent = 4 * _SINGLE * size
    weight = np.expm1(2 * exponent) + 2 * (len(lses) + 24) * _SINGLE
    largest = np.abs(np.where(np.isfinite(lses)[..., None], outs, 0.0)).max((0, -1), initial=0.0)
    bound = (weight * (1 + _SINGLE) + _SINGLE) * largest + 1e-44
    assert (np.abs(out - want) <= bound[..., None]).all(), (out, want)
    seen = ~empty
    error = np.abs(lse[seen] - want_lse[seen])
    assert (error <= (exponent + 2 * (len(lses) + 24) * _SINGLE)[seen]).all(), (lse, want_lse)


def assert_refused(call, names, what):
    """``call`` raises ValueError or TypeError that opens with one of ``names``."""
    error = _raised(call)
    assert error is not None, f"{what}: was not refused"
    # A subclass of ValueError (json's, Unicode's) would be a traceback of another type.
    assert type(error) in (ValueError, TypeError), f"{what}: {error!r}"
    text = str(error)
    assert re.match(rf"({'|'.join(map(re.escape, sorted(names)))}): ", text), f"{what}: {text}"
    assert "wanted" in text and "got" in text, f"{what}: {text}"


def _raised(call):
    try:
        call()
    except Exception as error:  # noqa: BLE001 - any other type is what is looked for
        return error
    return None
