"""The plots of a run, from its samples and from the files that lie beside them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from msa_harness.records import Sample
from msa_harness.verdicts import Outcome, Verdict
from msa_reports import cost, plots, positions, roofline, speedups, summary, sweep
from msa_reports.figures import Figure

MAX_DISTRIBUTIONS = 24


def run_figures(
    directory: Path, samples: Sequence[Sample], outcome: Outcome | None
) -> tuple[list[Figure], list[str]]:
    """Return the plots this run has the data for, and a sentence for each it has not.

    Raises:
        RunError: A file is foreign or broken; the text names it.
    """
    figures: list[Figure] = []
    missing: list[str] = []
    figures += _of_sweep(directory / sweep.FILE, missing)
    by_position = list(positions.nll_figures(samples))
    if not by_position:
        missing.append(
            "Token NLL by position and selection maps: the run has no samples of "
            "quality/positions. msa-bench gate --suite quality records them."
        )
    figures += by_position
    figures += _of_speed(samples, cost.read_cost(directory / cost.FILE), missing)
    if outcome is not None:
        figures += _distributions(samples, outcome, missing)
    figures += positions.selection_figures(samples, missing)
    return figures, missing


def _of_sweep(path: Path, missing: list[str]) -> list[Figure]:
    recorded = sweep.read_sweep(path)
    if recorded is not None and recorded.rows:
        return [*sweep.budget_figures(recorded), *sweep.scorer_figure(recorded)]
    missing.append(
        f"Budget curve and comparison of scorers: the run has no {sweep.FILE}. Write it with "
        "msa-bench sweep --out DIRECTORY-OF-THE-RUN, then msa-bench report."
    )
    return []


def _of_speed(
    samples: Sequence[Sample], recorded: cost.Cost | None, missing: list[str]
) -> list[Figure]:
    figures: list[Figure] = []
    limits = None if recorded is None else recorded.limits
    for dtype, times in plots.prefill_times(samples).items():
        if "dense" in times and len(times) > 1:
            turns = speedups.speedups(samples)
            figures += plots.crossover_figures(times, limits, dtype=dtype, turns=turns)
    if not figures:
        missing.append(
            "Crossover plot: the run has no speed samples of both dense and MSA prefill "
            "(series speed/dense/LENGTH and speed/prefill/LENGTH/OVERLAP). "
            "msa-bench check --suite speed times both."
        )
    elif limits is None:
        missing.append(
            f"Arithmetic limit of the speed-up: the run has no {cost.FILE}. Write it with "
            "msa-bench cost --json at the shapes of the speed suite."
        )
    roofs = [] if recorded is None else list(roofline.roofline_figures(samples, recorded))
    if not roofs:
        missing.append(
            f"Roofline: the run has no {cost.FILE} with the peaks of its machine, or timed none "
            "of the calls in it. msa-bench check --suite speed records both."
        )
    return figures + roofs


def _distributions(samples: Sequence[Sample], outcome: Outcome, missing: list[str]) -> list[Figure]:
    by_series: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for sample in samples:
        by_series[sample.suite, sample.series].append(sample)
    # What is counted or passes a check has no distribution.
    noisy = [s for s in summary.worst_first(outcome.series) if s.method not in ("hard", "exact")]
    marked = [s for s in noisy if summary.needs_attention(s) or s.verdict is Verdict.IMPROVED]
    figures: list[Figure] = []
    beyond = 0
    for s in marked:
        pairs = plots.paired_effects(s, by_series[s.suite, s.name])
        if not pairs:
            continue
        if len(figures) == MAX_DISTRIBUTIONS:
            beyond += 1
            continue
        figures.append(plots.distribution_figure(s, pairs, name=f"pairs-{len(figures)}"))
    if beyond:
        missing.append(f"Distributions of {beyond:,} more series that are not PASS, for length.")
    return figures
