"""The checks: each asks a worker and says what is wrong, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from msa_harness.client import Worker
from msa_harness.protocol import ref
from msa_suites.method import causes, oracle, oracle_model
from msa_suites.session import SUBJECT

_SUBJECT = "msa_suites.method.subject"
#: Relative L2 error of a row, and the share of rows that must be free of ties to count.
BOUND, _DECIDED = 1e-4, 0.9
#: Lengths above topk * block, none a multiple of a block, so that rows of both sequences select.
_LENGTHS = (167, 93)
#: Newest tokens that are read through the cache: single ones, and several at once.
_STEPS = (1, 1, 5, 1, 20, 1)
#: Share of a row's positions that may answer another token: a near tie may fall the other way.
_CHANGED = 0.02
#: A length with positions that bfloat16 rounds, and what the median row and nine rows in ten may be
#: off: rounding gives 0.005 and 0.006, rounded positions 0.3 in the latter.
_LONG, _BFLOAT16 = 330, (0.01, 0.05)
SETTINGS: dict[str, Any] = {"block": 32, "topk": 4, "sink_blocks": 1}
_TOKENS = (400, 290)
#: Tokens that are read singly after a prompt: a larger share of a row than may differ.
_SINGLE = 16

Check = Callable[[Worker], str]


@cache
def _layer(
    local_blocks: int = 2,
) -> tuple[oracle.Shape, dict[str, Tensor], list[Tensor], list[oracle.Rows]]:
    shape = oracle.Shape(local_blocks=local_blocks)
    weights = oracle.draw_weights(shape, seed=5)
    hidden = [oracle.draw_hidden(shape, n, seed=n) for n in _LENGTHS]
    return shape, weights, hidden, [oracle.layer(one, weights, shape) for one in hidden]


def check_layer(worker: Worker) -> str:
    """Projections, norms, rotation, index branch, selection and attention, two sequences packed."""
    shape, weights, hidden, rows = _layer()
    worker.load("prefill", f"{_SUBJECT}:prefill")
    out, selection = worker.call("prefill", "", [ref(SUBJECT), hidden, weights, asdict(shape)])
    found = zip(out.split(_LENGTHS), selection.split(_LENGTHS), strict=True)
    for b, ((mine, ids), want) in enumerate(zip(found, rows, strict=True)):
        if problem := _rows_problem(f"sequence {b}", mine, ids, want.hidden, want):
            return problem + likely(partial(causes.of_layer, ids, hidden[b], weights, shape))
    return ""


def check_layer_bfloat16(worker: Worker) -> str:
    """The layer in bfloat16, beyond the 256 positions that bfloat16 can count."""
    shape, _, _, _ = _layer()
    weights = {name: one.bfloat16() for name, one in oracle.draw_weights(shape, seed=5).items()}
    hidden = oracle.draw_hidden(shape, _LONG, seed=6).bfloat16()
    want = oracle.layer(
        hidden.double(), {name: one.double() for name, one in weights.items()}, shape
    )
    worker.load("prefill", f"{_SUBJECT}:prefill")
    given = [ref(SUBJECT), [hidden], weights, asdict(shape)]
    out, _ = worker.call("prefill", "", given)
    if out.shape != want.hidden.shape or out.dtype != torch.bfloat16:
        return f"wanted bfloat16 {list(want.hidden.shape)}, got {out.dtype} {list(out.shape)}"
    error = (out.double() - want.hidden).norm(dim=1) / want.hidden.norm(dim=1)
    # A near tie that falls the other way changes a row; few rows have one.
    middle, most = (float(error.nan_to_num(torch.inf).quantile(part)) for part in (0.5, 0.9))
    if middle > _BFLOAT16[0] or most > _BFLOAT16[1]:
        return f"relative error of a row in bfloat16: median {middle:.1e}, nine in ten {most:.1e}"
    return ""


def check_cache(worker: Worker) -> str:
    """Prefill in chunks and decoding over a paged cache give the rows of one prefill."""
    # One local block, as models have: a second hides index keys that come a page late.
    shape, weights, hidden, rows = _layer(local_blocks=1)
    worker.load("cached", f"{_SUBJECT}:cached")
    last = sum(_STEPS)
    for used in (True, False):
        given = [hidden, weights, asdict(shape), list(_STEPS), used]
        outs, chosen = worker.call("cached", "", given)
        for b, want in enumerate(rows):
            who = f"request {b} on {'used' if used else 'fresh'} pages"
            part = want.last(last)
            problem = _rows_problem(who, outs[b], chosen[b], part.out, part)
            if not problem:
                continue
            before = len(hidden[b]) - last
            cut = before // 2 + 3  # as the subject appends the rest: in two chunks
            why = partial(
                causes.of_cache,
                chosen[b],
                hidden[b],
                weights,
                shape,
                chunks=(cut, before - cut, *_STEPS),
                shortest=len(hidden[b]) - min(_LENGTHS),
            )
            return problem + likely(why)
    return ""


def likely(search: Callable[[], str]) -> str:
    """What a search for a cause says, to be added to a problem; never an error."""
    try:
        cause = search()
    except Exception as error:  # noqa: BLE001 - a guess must not end the suite
        return f"; no search for a cause: it ended in {type(error).__name__}: {error}"
    return f"; likely cause: {cause}" if cause else ""


def _rows_problem(
    who: str, out: Tensor, selection: Tensor, want_out: Tensor, want: oracle.Rows
) -> str:
    if out.shape != want_out.shape or selection.shape != want.selection.shape:
        wanted = f"{list(want_out.shape)} and {list(want.selection.shape)}"
        return f"{who}: wanted {wanted}, got {list(out.shape)} and {list(selection.shape)}"
    if float(want.decided.float().mean()) < _DECIDED:
        return f"{who}: the check's own inputs are full of ties"
    other = (selection != want.selection).any(-1) & want.decided  # [T, Hkv]
    if bool(other.any()):
        t, g = (int(x) for x in other.nonzero()[0])
        return (
            f"{who}: selection of {int(other.any(-1).sum())} of {len(other)} rows; first at row "
            f"{t}, group {g}: wanted {want.selection[t, g].tolist()}, "
            f"got {selection[t, g].tolist()}"
        )
    whole = want.decided.all(-1)
    have, should = out[whole].double().flatten(1), want_out[whole].flatten(1)
    error = (have - should).norm(dim=1) / should.norm(dim=1)
    wrong = ~(error <= BOUND)
    if bool(wrong.any()):
        worst = float(error.nan_to_num(torch.inf).max())
        return f"{who}: {int(wrong.sum())} of {len(wrong)} rows wrong, relative error {worst:.1e}"
    return ""


def first(problems: Iterable[str]) -> str:
    """The first problem that is one; empty for none."""
    return next((text for text in problems if text), "")


@cache
def texts() -> tuple[tuple[int, ...], ...]:
    """Bytes of two of the quality suite's contexts: the embedded model reads bytes."""
    from msa_suites.quality.items import load_items

    documents = {item.cluster: item.context for item in load_items("msa_facts")}
    texts = list(documents.values())[: len(_TOKENS)]
    return tuple(tuple(text[:n].encode()[:n]) for text, n in zip(texts, _TOKENS, strict=True))


@cache
def _expected() -> list[Tensor]:
    return oracle_model.logits(texts(), **SETTINGS)


def retrofitted_logits(
    worker: Worker, rows: Sequence[Sequence[int]], **how: object
) -> list[Tensor]:
    """Logits of rows of token ids, asked as `subject.Retrofitted.logits` is."""
    given = {"settings": SETTINGS, **how}
    answer: list[Tensor] = worker.call(
        "retrofitted", "logits", [[list(row) for row in rows]], given, check_inputs=False
    )
    return answer


def agree(what: str, got: Sequence[Tensor], want: Sequence[Tensor]) -> str:
    """Where logits of rows differ by more than near ties can explain; empty where they do not."""
    for b, (mine, other) in enumerate(zip(got, want, strict=True)):
        if mine.shape != other.shape or not bool(mine.isfinite().all()):
            return f"{what}: row {b}: wanted finite {list(other.shape)}, got {list(mine.shape)}"
        changed = float((mine.argmax(-1) != other.argmax(-1)).float().mean())
        apart = float(((mine - other).abs().amax(-1) > 0.05).float().mean())
        if max(changed, apart) > _CHANGED:
            return f"{what}: row {b}: {apart:.1%} of the positions differ, {changed:.1%} in answer"
    return ""


def _alone(worker: Worker) -> list[Tensor]:
    return [retrofitted_logits(worker, [row])[0] for row in texts()]


def check_retrofit(worker: Worker) -> str:
    """Sparse logits of whole prompts; padding, chunks and caches are then compared with them."""
    return agree("whole prompts", _alone(worker), _expected())


def check_padding(worker: Worker) -> str:
    """Padding on either side moves no block."""
    alone = _alone(worker)
    return first(
        agree(f"{side} padding", retrofitted_logits(worker, texts(), padding=side), alone)
        for side in ("left", "right")
    )


def check_chunks(worker: Worker) -> str:
    """Chunks that start inside a block, single tokens, a static cache: logits of one prefill."""
    wide = max(map(len, texts()))
    alone = _alone(worker)
    chunks = [150, 77, wide - 150 - 77 - _SINGLE, *[1] * _SINGLE]
    return first(
        agree(
            f"chunks of a {'static' if static else 'dynamic'} cache",
            retrofitted_logits(worker, texts(), chunks=chunks, static=static),
            alone,
        )
        for static in (False, True)
    )


def check_keep_all(worker: Worker) -> str:
    """A budget for all blocks is dense attention, and a smaller one is not."""
    rows = texts()
    everything = {**SETTINGS, "topk": 64}
    dense = [retrofitted_logits(worker, [row], settings=None)[0] for row in rows]
    kept = [retrofitted_logits(worker, [row], settings=everything)[0] for row in rows]
    if problem := agree("keep-all", kept, dense):
        return problem
    sparse = retrofitted_logits(worker, [rows[0]])[0]
    apart = float((sparse - dense[0]).abs().amax())
    return "" if apart > 1e-3 else "topk 4 of 13 blocks: wanted other logits than dense, got them"


def check_refusals(worker: Worker) -> str:
    """Shapes, lengths, budgets and indices that make no sense are refused in words, no others."""
    worker.load("misjudged", "msa_suites.method.refusals:misjudged")
    wrong: list[str] = worker.call("misjudged")
    return f"{len(wrong)} calls: {wrong[0]}" if wrong else ""


def load_retrofit(worker: Worker) -> None:
    """Load the embedded model with the subject's retrofit."""
    worker.load("retrofitted", f"{_SUBJECT}:Retrofitted", [ref(SUBJECT)])
