"""Keep-all equals dense: largest errors on random tensors and in a model."""

from __future__ import annotations

from collections.abc import Sequence

from msa_reports.documents import Object, count, get, number, objects
from msa_reports.reproduction import sources
from msa_reports.reproduction.layout import Comparison, Section, Table

#: Logits of the model are this much apart by rounding of float32 alone.
_ROUNDING = 1e-5


def _worst(rows: list[Object], name: str) -> str:
    return f"{max((number(row, name) for row in rows), default=0.0):.1e}"


def render(result: Object) -> Section:
    """The section on the identity."""
    random, model = objects(result, "random"), objects(result, "model")
    by_name = {get(row, "implementation", str): row for row in model}
    largest = max(number(row, "keep_all") / number(row, "largest_logit") for row in model)
    why = (
        "Theirs is at the same precision on both sides and rounds alike; ours is against float64 "
        "where the tensors are random, and sums in another order in the model."
    )
    compared = (
        Comparison("keep every block, random tensors", "relative error 0", sources.CPU,
                   f"relative error {_worst(random, 'relative')}, largest absolute "
                   f"{_worst(random, 'keep_all')}; dense attention in float32 itself "
                   f"{_worst(random, 'dense_float32')}", why),
        Comparison("keep every block, in a model", "equal “down to the last digit”",
                   f"{sources.RETROFIT}, Qwen2.5-3B on CPU and GPU",
                   "; ".join(f"{name}: logits differ by at most {number(row, 'keep_all'):.1e}"
                             for name, row in by_name.items()), why),
    )  # fmt: skip
    rows = [
        (
            get(row, "implementation", str),
            f"{count(row, 'length'):,}",
            f"{count(row, 'seeds')}",
            *(f"{number(row, name):.1e}" for name in ("keep_all", "dense_float32", "half")),
        )
        for row in random
    ]
    logits = [
        (
            name,
            f"{count(row, 'texts')}",
            f"{count(row, 'blocks')} of {count(row, 'block')}",
            *(f"{number(row, key):.1e}" for key in ("keep_all", "one_fewer", "kl")),
            f"{number(row, 'agreement'):.2%}",
        )
        for name, row in by_name.items()
    ]
    held = (
        "The identity holds to rounding: what sparse attention changes is the skip and nothing "
        "else. It is the first test to write for a port, and it says nothing of the selection."
        if largest < _ROUNDING and _sound(random, model)
        else "The identity does NOT hold here: nothing below says anything about MSA."
    )
    return Section(
        title="Keeping every block is dense attention",
        claim="With a budget that covers every block, MSA is dense attention: a relative error of "
        f"zero ({sources.CPU}), on random tensors and in the real model, on CPU and GPU "
        f"({sources.RETROFIT}).",
        method="Two implementations: `torch`, which recognises such rows and hands them to dense "
        "attention, and `reference`, which gathers in float64 whatever it is given. Largest "
        "absolute difference over all that was computed, so without an interval. The controls "
        "drop blocks, and must differ.",
        comparisons=compared,
        tables=(
            Table("Random tensors, error against float64 dense attention",
                  ("implementation", "tokens", "seeds", "keep all", "dense in float32",
                   "half the blocks (control)"), rows),
            Table("Logits of the model against its dense ones",
                  ("implementation", "texts", "blocks", "keep all", "one block fewer (control)",
                   "mean KL, nats", "same likeliest byte"), logits),
        ),
        meaning=held,
    )  # fmt: skip


def _sound(random: Sequence[Object], model: Sequence[Object]) -> bool:
    """Whether random tensors agree too, and every control that drops blocks differs."""
    controls = [
        *((row, "half", "keep_all") for row in random),
        *((row, "one_fewer", "keep_all") for row in model),
    ]
    return all(number(row, "relative") < _ROUNDING for row in random) and all(
        number(row, dropped) > number(row, kept) for row, dropped, kept in controls
    )
