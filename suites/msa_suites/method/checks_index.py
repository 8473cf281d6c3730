"""Checks of a trained index branch inside a model: what it selects, its cache, its training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any

from torch import Tensor

from msa_harness.client import Worker
from msa_harness.protocol import ref
from msa_suites.case import Case
from msa_suites.method import causes_index, oracle_index
from msa_suites.method.checks import agree, first, likely, texts
from msa_suites.method.oracle_index import SHAPE, Learned
from msa_suites.session import SUBJECT

_SUBJECT = "msa_suites.method.subject_index"
_HANDLE = "indexed"
_SEED = 11
#: Lengths above topk * block, none a multiple of a block; the shorter row is padded on the left.
_LENGTHS = (150, 93)
#: Chunks of the padded slots: the first ends and the second begins inside blocks of both rows.
_CHUNKS = (70, 43, 33, 1, 1, 1, 1)
_SETTINGS: dict[str, Any] = {
    **{"block": SHAPE.block, "topk": SHAPE.topk, "scorer": "index"},
    **{"local_blocks": SHAPE.local_blocks, "sink_blocks": SHAPE.sink_blocks},
}
#: What an implementation must be able to run; in the warm-up a selection has every block.
CASE = Case(
    "index-branch",
    q_lens=_LENGTHS,
    k_lens=_LENGTHS,
    Hq=SHAPE.Hq,
    Hkv=SHAPE.Hkv,
    D=SHAPE.D,
    Di=SHAPE.Di,
    block=SHAPE.block,
    topk=SHAPE.topk,
    local_blocks=SHAPE.local_blocks,
    sink_blocks=SHAPE.sink_blocks,
)
#: Relative errors of losses and of gradients: float32 gives 3e-7 and 5e-5.
_LOSS_BOUND, _GRADIENT_BOUND = 1e-5, 1e-3
#: Share of the queries that no rounding may send elsewhere.
_DECIDED = 0.99


@cache
def _weights() -> dict[str, Tensor]:
    return oracle_index.draw_branches(_SEED)


def _rows() -> list[tuple[int, ...]]:
    return [row[:length] for row, length in zip(texts(), _LENGTHS, strict=True)]


@cache
def _expected() -> tuple[list[Tensor], float]:
    return oracle_index.logits(_rows(), _weights(), [oracle_index.RIGHT] * len(_LENGTHS))


def _load(worker: Worker) -> None:
    shape: dict[str, float] = {"index_dim": SHAPE.Di, "rotary_dim": SHAPE.rotary}
    shape |= {"theta": SHAPE.theta, "eps": SHAPE.eps}
    worker.load(_HANDLE, f"{_SUBJECT}:Indexed", [ref(SUBJECT), _weights(), shape])


def _logits(worker: Worker, **how: object) -> list[Tensor]:
    given = {"settings": _SETTINGS, **how}
    rows = [list(row) for row in _rows()]
    answer: list[Tensor] = worker.call(_HANDLE, "logits", [rows], given, check_inputs=False)
    return answer


def check_index(worker: Worker) -> str:
    """Logits of a padded batch whose blocks a trained index branch selects."""
    _load(worker)
    want, decided = _expected()
    if decided < _DECIDED:
        return "the check's own inputs are full of ties"
    return agree("a padded batch", _logits(worker), want)


def check_index_chunks(worker: Worker) -> str:
    """Index keys follow dynamic and static caches: chunks give the logits of one prefill."""
    _load(worker)
    want, _ = _expected()

    def problems() -> Iterator[str]:
        for kind in ("dynamic", "static"):
            got = _logits(worker, chunks=_CHUNKS, static=kind == "static")
            if problem := agree(f"chunks of a {kind} cache", got, want):
                search = partial(causes_index.of_chunks, got, _rows(), _weights(), _CHUNKS)
                yield problem + likely(search)

    return first(problems())


def check_training(worker: Worker) -> str:
    """Losses of the index branch in both phases and what they move; the text's way through it."""
    _load(worker)
    return first(_training_problem(worker, phase) for phase in ("warmup", "sparse"))


@cache
def _taught(phase: str) -> Learned:
    rule = oracle_index.WARMUP if phase == "warmup" else oracle_index.RIGHT
    return oracle_index.learned(_rows(), _weights(), rule)


def _training_problem(worker: Worker, phase: str) -> str:
    want = _taught(phase)
    if want.decided < _DECIDED:
        return f"{phase}: the check's own inputs are full of ties"
    how = {"settings": _SETTINGS, "phase": phase, "text_weights": oracle_index.TEXT_WEIGHTS}
    rows = [list(row) for row in _rows()]
    got: dict[str, Any] = worker.call(_HANDLE, "learn", [rows], how, check_inputs=False)
    if got["elsewhere"] != 0.0:
        return (
            f"{phase}: the index branch's loss has gradients up to {got['elsewhere']:.1e} by "
            "weights of the model, wanted none: its inputs or its teacher are not detached"
        )
    if problem := _learning_problem(got, want):
        search = partial(causes_index.of_learning, got["losses"], _rows(), _weights(), phase)
        return f"{phase}: {problem}{likely(search)}"
    if problem := _differ("gradient of the text", got["text"], want.text):
        search = partial(causes_index.of_text, got["text"], want.text)
        return f"{phase}: {problem}{likely(search)}"
    return ""


def _learning_problem(got: Mapping[str, Any], want: Learned) -> str:
    if len(got["losses"]) != len(want.losses):
        return f"wanted losses of {len(want.losses)} layers, got {len(got['losses'])}"
    return first(_loss_problems(got["losses"], want.losses)) or _differ(
        "gradient of the loss", got["index"], want.index
    )


def _loss_problems(got: Sequence[Tensor], want: Sequence[Tensor]) -> Iterable[str]:
    for layer, (mine, right) in enumerate(zip(got, want, strict=True)):
        if not abs(float(mine) - float(right)) <= _LOSS_BOUND * float(right):
            yield f"loss of layer {layer}: wanted {float(right):.6f}, got {float(mine):.6f}"


def _differ(what: str, got: Mapping[str, Tensor], want: Mapping[str, Tensor]) -> str:
    """The last weight whose gradient is wrong: an error there spoils those of earlier layers."""
    for name in reversed(list(want)):
        if name not in got:
            return f"{what} by {name}: wanted one, got none"
        error = float((got[name].double() - want[name]).norm() / want[name].norm())
        if not error <= _GRADIENT_BOUND:
            return f"{what} by {name}: relative error {error:.1e}"
    return ""
