"""What runs and the gate's own measurements record, made up."""

from __future__ import annotations

from typing import Any

from msa_harness.records import Sample
from msa_harness.verdicts import SeriesVerdict


def fault(name, **changes):
    row = {"name": name, "class": "selection", "summary": "Wrong.", "seen": "", "needs": "cpu",
           "gate": "correctness:decode", "verdict": "REGRESSION", "detail": "all rows wrong",
           "caught": True, "applied": True, "seconds": 3.25}  # fmt: skip
    return row | changes


def power(series, slowdown, found, **changes):
    verdicts = {"REGRESSION": round(100 * found), "PASS": 100 - round(100 * found)}
    row = {"slowdown": slowdown, "series": series, "gates": 100, "verdicts": verdicts,
           "own": verdicts if series else {}, "flagged": {}, "passed_without_saying": 0,
           "mde": {series: 0.07} if series else {},
           "regression": [found, max(0.0, found - 0.04), min(1.0, found + 0.04)]}  # fmt: skip
    return row | changes


def calibration(alarms=0.0, found=0.97):
    slowed = [
        power(f"speed/{name}", size, share)
        for name in "abcdefgh"
        for size, share in ((0.05, 0.4), (0.1, found))
    ]
    return {"pairs": 160, "real": {"PASS": 20}, "simulated": [power("", 0.0, alarms), *slowed],
            "recall": [power("quality/msa_facts/recall", 0.1, 0.9)]}  # fmt: skip


def mutant(name, **changes):
    row = {"mutant": name, "what": "1 -> 2", "source": "x = 1", "gate": "correctness",
           "series": "correctness/scores", "detail": "wrong", "seconds": 2.0}  # fmt: skip
    return row | changes


def paired_samples(series: SeriesVerdict, count: int) -> list[Sample]:
    samples = []
    for i in range(count):
        for subject, value in (("base", series.base), ("head", series.head)):
            if value is not None:
                samples.append(
                    Sample(
                        suite=series.suite.replace("\ud800", ""),
                        # A samples file is UTF-8; only an escape in JSON can be unpaired.
                        series=series.name.replace("\ud800", ""),
                        subject=subject,
                        unit=series.unit,
                        item=f"pair-{i:02d}",
                        value=value * (1 + 0.004 * ((i * 7) % 5)),
                        ran=f"msa.fast 0.1.0 sha256:{subject}",
                    )
                )
    return samples


def position_samples() -> list[Sample]:
    """NLL at two positions of two texts, and the blocks that one layer keeps of four."""
    samples = []
    for subject, more in (("base", 0.05), ("head", 0.2)):
        about: dict[str, Any] = {"suite": "quality", "subject": subject}
        for item in ("aa/0", "aa/128", "bb/0", "bb/128"):
            nll = 1.1 if item.endswith("/0") else 1.1 + more
            name = "quality/positions/nll"
            samples.append(Sample(series=name, unit="nats", item=item, value=nll, **about))
            if subject == "base":
                name += "/dense"
                samples.append(Sample(series=name, unit="nats", item=item, value=1.1, **about))
        for block in range(4):
            kept = [1.0] * block + [1.0]
            if subject == "head" and block == 3:
                kept = [0.0, 0.25, 0.5, 1.0]
            samples.append(
                Sample(
                    series="quality/positions/distinct",
                    unit="blocks",
                    item=f"layer-0/group-1/block-{block}",
                    value=float(sum(share > 0 for share in kept)),
                    raw=tuple(kept),
                    **about,
                )
            )
    return samples


ROOFLINE: dict[str, Any] = {
    "work": [
        {"what": what, "dtype": "float32", "length": n, "flops": flops * 1e9, "bytes": 4e6 * n}
        for what, n, flops in (("dense", 2048, 2), ("prefill", 2048, 3), ("prefill", 4096, 7))
    ],
    "peaks": {
        "flops_per_second": {"float32": 1e11},
        "bytes_per_second": 1e10,
        "how": "product of 8 x 8 matrices",
    },
}


def speed_samples() -> list[Sample]:
    """Dense attention and MSA at three lengths, three pairs each."""
    times = ((2048, 0.03, 0.05), (4096, 0.1, 0.11), (16384, 2, 1))
    return [
        Sample("speed", f"speed/{line}", "head", "s", f"pair-{i}", value + i / 1e3)
        for length, dense, sparse in times
        for line, value in ((f"dense/{length}", dense), (f"prefill/{length}/mid", sparse))
        for i in range(3)
    ]


def swept(text: str = "") -> dict[str, Any]:
    """A sweep of three scorers, with ``text`` behind their names."""
    rows = [
        {
            "scorer": scorer + text,
            "budget": k,
            "perplexity": 4.4 + 1 / k,
            "perplexity_change": 1 / k / 4.4,
            "recall": min(0.99, recall * k / 4),
            "recall_low": 0.9 * min(0.99, recall * k / 4),
            "recall_high": 1.0,
            "n": 96,
        }
        for scorer, recall in (("max", 0.99), ("mean", 0.2), ("random", 0.03))
        for k in (2, 4, 8, 16)
    ]
    return {"rows": rows, "dense": {"perplexity": 4.4, "recall": 0.99}}
