"""What needs no statistics: checks, counts, and requirements on one subject alone."""

from __future__ import annotations

from dataclasses import replace

from msa_harness.series import Series, lost_items, mean, shown
from msa_harness.verdicts import SeriesVerdict, Verdict


def judge_hard(series: Series) -> SeriesVerdict:
    """Verdict on checks: any check that fails on head is a REGRESSION."""
    head, base = series.values("head"), series.values("base")
    odd = [sample for sample in series.all() if sample.value not in (None, 0.0, 1.0)]
    if odd:
        note = f"{odd[0].item}: wanted 1 (passed) or 0 (failed), got {odd[0].value}"
        return series.verdict(Verdict.ERROR, note)
    failed = [sample for sample in series.head.values() if sample.value == 0.0]

    def counted(verdict: Verdict, note: str) -> SeriesVerdict:
        said = series.verdict(verdict, note)
        return replace(said, n=len(head), effect=len(failed) / len(head))

    if failed:
        also = [sample.item for sample in failed if base.get(sample.item) == 0.0]
        note = f"{len(failed)} of {len(head)} checks failed: {shown(failed)}"
        if also:
            note += f" (base fails {len(also)} of them too)"
        return replace(
            counted(Verdict.REGRESSION, note),
            repro=failed[0].repro or series.verdict(Verdict.PASS).repro,
        )
    problem = lost_items(series)
    if problem is not None:
        return problem
    skipped = sum(sample.value is None for sample in series.head.values())
    mended = sum(value == 0.0 for value in base.values())
    note = f"{len(head)} checks passed" + (f", {skipped} skipped" if skipped else "")
    if mended:
        return counted(Verdict.IMPROVED, f"{note}; base fails {mended}")
    return counted(Verdict.PASS, note)


def judge_exact(series: Series) -> SeriesVerdict:
    """Verdict on counts: an increase gates, a decrease is an improvement or, flagged, a fault."""
    problem = lost_items(series)
    if problem is not None:
        return problem
    gate, items = series.gate, series.paired()
    base, head = series.values("base"), series.values("head")
    sign = 1.0 if gate.direction == "lower" else -1.0
    changes = {item: sign * _change(base[item], head[item]) for item in items}
    up, down = max(items, key=lambda i: changes[i]), min(items, key=lambda i: changes[i])
    text = "{0}: {1:g} on base, {2:g} on head".format
    verdict, at, why = Verdict.PASS, up, ""
    if changes[up] > gate.threshold:
        verdict, why = Verdict.REGRESSION, gate.means and f"; likely cause: {gate.means}"
    elif changes[down] < -gate.threshold:
        at, verdict = down, Verdict.IMPROVED
        if gate.must_not_decrease:
            verdict, why = Verdict.REGRESSION, "; what should be counted here is missing"
    note = "" if verdict is Verdict.PASS else text(at, base[at], head[at]) + why
    effect = changes[at] if base[at] != 0 or changes[at] == 0 else None
    return replace(
        series.verdict(verdict, note),
        base=sum(base[item] for item in items),
        head=sum(head[item] for item in items),
        effect=effect,
        low=effect,
        high=effect,
        n=len(items),
        mde=gate.threshold,
    )


def _change(base: float, head: float) -> float:
    """Change as a fraction of base; from nothing, any change is infinite."""
    if head == base:
        return 0.0
    return (head - base) / abs(base) if base else (1.0 if head > 0 else -1.0) * float("inf")


def judge_alone(series: Series) -> SeriesVerdict:
    """Verdict on head alone, against the gate's fixed floor and ceiling."""
    gate, value = series.gate, mean(series.values("head").values())
    if gate.floor is None and gate.ceiling is None:
        return series.verdict(Verdict.NEW, "measured alone, no fixed requirement")
    low = gate.floor is not None and value is not None and value < gate.floor
    high = gate.ceiling is not None and value is not None and value > gate.ceiling
    wanted = [f"at least {gate.floor:g}"] if gate.floor is not None else []
    wanted += [f"at most {gate.ceiling:g}"] if gate.ceiling is not None else []
    note = f"wanted {' and '.join(wanted)}, got {value:.4g}"
    return series.verdict(Verdict.REGRESSION if low or high else Verdict.PASS, note)
