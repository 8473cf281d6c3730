"""What is timed: one table of series over the case table, and the inputs of each.

Every series is an operation of the contract on one case. Dense attention at the same lengths is
timed beside them: as the control that judges the machine, and as the other line of the crossover.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from msa_suites.cases import PROFILES, Case, cases_for
from msa_suites.hostile import page_cache
from msa_suites.inputs import Inputs, make_inputs
from msa_suites.speed.recorded import recorded_inputs

DENSE_TARGET = "torch.nn.functional:scaled_dot_product_attention"
#: Input sets that calls rotate through, so that an answer kept from the last call is wrong.
SETS = 2


@dataclass(frozen=True, slots=True)
class Call:
    """One set of arguments of an operation."""

    args: tuple[Tensor, ...]
    kwargs: Mapping[str, Tensor | int | float | bool]


@dataclass(frozen=True, slots=True)
class SpeedSeries:
    """One timed series.

    Attributes:
        name: ``speed/<what>/<tokens>[/<overlap>]``.
        operation: of the contract, or ``dense``.
        case: shapes and lengths.
        overlap: low, high or recorded; empty where there is none.
        control: whether it is the unchanged kernel that judges the machine.
    """

    name: str
    operation: str
    case: Case
    overlap: str = ""
    control: bool = False

    def first_call(self) -> Call:
        """The first argument set, drawn from the case's seed."""
        return self.call(self.draw(0))

    def call(self, inputs: Inputs) -> Call:
        """The arguments of the operation on ``inputs``."""
        return _BUILDERS[self.operation](self, inputs)

    def draw(self, index: int) -> Inputs:
        """Packed inputs of argument set ``index``."""
        inputs = make_inputs(self.case, seed=self.case.seed + index)
        return recorded_inputs(inputs, index) if self.overlap == "recorded" else inputs


def _lengths(inputs: Inputs) -> dict[str, Tensor | int | float | bool]:
    return {"cu_q": inputs.cu_q, "cu_k": inputs.cu_k}


def _attend(series: SpeedSeries, inputs: Inputs) -> Call:
    case = series.case
    settings = {**case.settings, "scale": case.scale, "index_scale": case.index_scale}
    return Call(inputs.tensors, {**_lengths(inputs), **settings})


def _block_scores(series: SpeedSeries, inputs: Inputs) -> Call:
    case = series.case
    kwargs = {**_lengths(inputs), "block": case.block, "scale": case.index_scale}
    return Call((inputs.q_idx, inputs.k_idx), kwargs)


def _scores(case: Case, inputs: Inputs) -> Tensor:
    from msa import fast

    return fast.block_scores(
        inputs.q_idx,
        inputs.k_idx,
        cu_q=inputs.cu_q,
        cu_k=inputs.cu_k,
        block=case.block,
        scale=case.index_scale,
    )


def _select_blocks(series: SpeedSeries, inputs: Inputs) -> Call:
    scores = _scores(series.case, inputs)
    return Call((scores,), {**_lengths(inputs), **series.case.settings})


def _sparse_decode(series: SpeedSeries, inputs: Inputs) -> Call:
    from msa import fast

    case = series.case
    selection = fast.select_blocks(
        _scores(case, inputs), cu_q=inputs.cu_q, cu_k=inputs.cu_k, **case.settings
    )
    cache = page_cache(inputs, case.block, seed=case.seed)
    # One request: [B, Q, ...] with B = Q = 1.
    return Call(
        (inputs.q[None], cache.k_pages, cache.v_pages, selection[None]),
        {"page_table": cache.page_table, "k_lens": cache.k_lens, "scale": case.scale},
    )


def _dense(series: SpeedSeries, inputs: Inputs) -> Call:
    heads_first = (x.transpose(0, 1)[None].contiguous() for x in inputs.tensors[:3])
    del series
    return Call(tuple(heads_first), {"is_causal": True, "enable_gqa": True})


_BUILDERS: dict[str, Callable[[SpeedSeries, Inputs], Call]] = {
    "attend": _attend,
    "block_scores": _block_scores,
    "select_blocks": _select_blocks,
    "sparse_decode": _sparse_decode,
    "dense": _dense,
}


def _suffix(case: Case) -> str:
    return "" if case.dtype == "float32" else f"-{case.dtype}"


def speed_series(
    profile: str, *, dense: bool = False, cases: Iterable[Case] | None = None
) -> Iterator[SpeedSeries]:
    """The series of a profile, cheap ones first.

    Args:
        profile: quick, standard or full.
        dense: also time dense attention at every prefill length, for the crossover.
        cases: the user's own shapes instead of the table's: each is one prefill or decode series.
    """
    if cases is not None:
        yield from _own_series(tuple(cases))
        return
    timed = cases_for("speed", profile=profile)
    yield _control()
    for case in (case for case in timed if "decode" in case.tags):
        tokens = case.k_lens[0]
        yield SpeedSeries(f"speed/decode{_suffix(case)}/{tokens}", "sparse_decode", case)
        name = f"speed/decode_scores{_suffix(case)}/{tokens}"
        yield SpeedSeries(name, "block_scores", case)
    parts = max((c for c in cases_for("speed") if "prefill" in c.tags), key=_tokens)
    yield SpeedSeries(f"speed/block_scores/{_tokens(parts)}", "block_scores", parts)
    yield SpeedSeries(f"speed/select_blocks/{_tokens(parts)}", "select_blocks", parts)
    timed_dense = set()
    chunks = [case for case in timed if "chunk" in case.tags]
    yield from (_attend_series("chunk", case) for case in chunks)
    yield _attend_series("chunk", chunks[0], "recorded")
    yield from (_attend_series("ragged", case) for case in timed if "ragged" in case.tags)
    for case in (case for case in timed if "prefill" in case.tags):
        yield _attend_series("prefill", case)
        if dense and (case.dtype, _tokens(case)) not in timed_dense:
            timed_dense.add((case.dtype, _tokens(case)))
            yield SpeedSeries(f"speed/dense{_suffix(case)}/{_tokens(case)}", "dense", case)


def counted_series(cases: Iterable[Case] | None = None) -> Iterator[SpeedSeries]:
    """The calls whose exact work is counted, the same in every profile.

    Args:
        cases: the user's own shapes instead of the table's.
    """
    if cases is not None:
        yield from (one for one in _own_series(tuple(cases)) if not one.control)
        return
    counted = cases_for("work", profile=PROFILES[-1])
    whole = [case for case in counted if "prefill" in case.tags]
    yield from (_attend_series("prefill", case) for case in whole)
    yield _attend_series("prefill", whole[0], "recorded")
    yield from (_attend_series("ragged", case) for case in counted if "ragged" in case.tags)
    decoded = next(case for case in cases_for("speed", profile="quick") if "decode" in case.tags)
    yield SpeedSeries(f"speed/decode/{_tokens(decoded)}", "sparse_decode", decoded)


def _attend_series(kind: str, case: Case, overlap: str = "") -> SpeedSeries:
    overlap = overlap or case.overlap
    if overlap != case.overlap:
        case = replace(case, name=f"{kind}-{_tokens(case)}-{overlap}{_suffix(case)}")
    name = f"speed/{kind}{_suffix(case)}/{_tokens(case)}/{overlap}"
    return SpeedSeries(name, "attend", case, overlap)


def _own_series(cases: tuple[Case, ...]) -> Iterator[SpeedSeries]:
    yield _control()
    for case in cases:
        yield SpeedSeries(f"speed/attend/{case.name}", "attend", case)


def _tokens(case: Case) -> int:
    return case.k_lens[0]


def _control() -> SpeedSeries:
    case = replace(cases_for("prefill")[0], name="control", q_lens=(2048,), k_lens=(2048,))
    return SpeedSeries("speed/control/dense", "dense", case, control=True)
