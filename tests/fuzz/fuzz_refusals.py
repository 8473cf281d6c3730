"""Wrong calls of every operation: each is refused in words, and no input is written to."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from fuzz_breaking import Broken, breakages, given
from fuzz_decoding import paged
from fuzz_draws import IMPLEMENTATIONS, Case, cases, generator, index_tensors, main_tensors
from fuzz_judging import assert_refused
from fuzz_operations import unchanged
from hypothesis import strategies as st


def right_call(operation, case):
    """Arguments that the operation accepts."""
    g = generator(case)
    if operation == "sparse_decode":
        return paged(case, 1 + case.seed % 2, g)[0]
    if operation == "combine":
        shape = (case.topk, sum(q for q, _ in case.lengths), case.heads)
        return {"outs": torch.randn(*shape, case.dim, generator=g), "lses": torch.zeros(shape)}
    if operation == "select_blocks":
        return {"scores": scores_of(case, g), **case.ranking()}
    index = dict(zip(("q_idx", "k_idx"), index_tensors(case, g), strict=True))
    if operation == "block_scores":
        return {**index, **case.packing(), "scale": case.index_scale}
    main = dict(zip("qkv", main_tensors(case, g), strict=True))
    if operation == "sparse_attention":
        selection = torch.zeros(len(main["q"]), case.groups, case.topk, dtype=torch.int32)
        return {**main, "selection": selection, **case.packing(), "scale": case.scale}
    return {
        **main,
        **index,
        **case.ranking(),
        "scale": case.scale,
        "index_scale": case.index_scale,
    }


def scores_of(case, g):
    longest = max(q + before for q, before in case.lengths)
    rows = sum(q for q, _ in case.lengths)
    return torch.randn(rows, case.groups, -(-longest // case.block), generator=g)


OPERATIONS = {
    "block_scores": ("q_idx", "k_idx"),
    "select_blocks": ("scores",),
    "sparse_attention": ("q", "k", "v", "selection"),
    "attend": ("q", "k", "v", "q_idx", "k_idx"),
    "combine": ("outs", "lses"),
    "sparse_decode": ("q", "k_pages", "v_pages", "selection"),
}


def call(implementation, operation, arguments):
    """Tensors by position, the rest by name, as the contract has it."""
    positional = OPERATIONS[operation]
    rest = {name: value for name, value in arguments.items() if name not in positional}
    run = getattr(IMPLEMENTATIONS[implementation], operation)
    return run(*(arguments[name] for name in positional), **rest)


@dataclass(frozen=True)
class Wrong:
    """The ``which``-th way to break a call, counted round."""

    operation: str
    case: Case
    which: int

    def broken(self) -> Broken:
        right = right_call(self.operation, self.case)
        ways = [*breakages(given(right, paged=self.operation == "sparse_decode"))]
        if self.operation == "attend":
            ways += [*_not_finite(right, self.case)]
        return ways[self.which % len(ways)]


def _not_finite(right, case):
    for name in OPERATIONS["attend"]:
        for value in (torch.nan, torch.inf, -torch.inf):
            bad = right[name].clone()
            if bad.numel():
                bad.view(-1)[case.seed % bad.numel()] = value
                yield Broken(f"{name} holds {value}", {**right, name: bad}, frozenset({name}))


WRONG = st.builds(
    Wrong,
    operation=st.sampled_from(list(OPERATIONS)),
    case=cases().map(lambda case: replace(case, strided=False)),
    which=st.integers(0, 999),
)


def check_refusal(wrong: Wrong):
    """ValueError or TypeError that names the argument, what was wanted and what came."""
    what, arguments, names = wrong.broken()
    tensors = [x for x in arguments.values() if isinstance(x, torch.Tensor)]
    with unchanged(*tensors):
        assert_refused(
            lambda: call(wrong.case.implementation, wrong.operation, arguments),
            names,
            f"{wrong.operation}, {what}",
        )


def check_accepted(wrong: Wrong):
    """What is broken there was right before: or a refusal would say nothing about the breakage."""
    call(wrong.case.implementation, wrong.operation, right_call(wrong.operation, wrong.case))
