"""Reports of a run directory: ``report.md`` and ``report.html`` beside the records."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from msa_harness.records import RunError, RunHeader, RunStore, Sample, write_atomic
from msa_harness.verdicts import Outcome, SeriesVerdict, outcome_from_json
from msa_reports import cost, gate_page, html, markdown, page, speedups
from msa_reports.evidence import has_evidence, read_evidence
from msa_reports.run_figures import run_figures
from msa_reports.text import clean, plural

VERDICT = "verdict.json"
MARKDOWN = "report.md"
HTML = "report.html"


@dataclass(frozen=True, slots=True)
class ReportPaths:
    """Where the faces of a report were written."""

    markdown: Path
    html: Path


def write_report(run_dir: Path | str) -> ReportPaths:
    """Write the Markdown comment and the HTML page of a run into its directory.

    Reads ``run.json``, ``samples.jsonl``, ``verdict.json`` and, where they are, ``sweep.json`` and
    ``cost.json`` (what ``sweep --json`` and ``cost --json`` print), and what is recorded of the
    gate itself (`evidence.FILES`). A run without ``verdict.json``
    gets a page that says it was not judged. Each file is replaced as a whole.

    Raises:
        RunError: There is no run, or one of its files is foreign or broken; the text names it.
    """
    directory = Path(run_dir)
    store = RunStore.open(directory)
    samples = store.samples()
    outcome = read_outcome(directory / VERDICT)
    figures, missing = run_figures(directory, samples, outcome)
    shown = page.build(
        store.header,
        samples,
        outcome,
        figures=figures,
        missing=[*_missing_suites(samples, outcome), *missing],
        notes=_self_test(store.header) + store.notes,
        gate=gate_page.build(read_evidence(directory)) if has_evidence(directory) else None,
    )
    paths = ReportPaths(markdown=directory / MARKDOWN, html=directory / HTML)
    rows = _speedups(directory, samples)
    write_atomic(paths.markdown, _comment(store.header, samples, outcome, rows))
    write_atomic(paths.html, html.render(shown))
    return paths


def read_speedups(run_dir: Path | str) -> list[tuple[str, ...]]:
    """The cells of `speedups.table` of a run; none where it timed no dense attention."""
    return _speedups(Path(run_dir), RunStore.open(Path(run_dir)).samples())


def _speedups(directory: Path, samples: Sequence[Sample]) -> list[tuple[str, ...]]:
    recorded = cost.read_cost(directory / cost.FILE)
    limits = None if recorded is None else recorded.limits
    return speedups.table(speedups.speedups(samples), limits)


def read_outcome(path: Path) -> Outcome | None:
    """Return the outcome recorded in ``verdict.json`` at ``path``, None if there is no such file.

    Raises:
        RunError: The file is not such a document; the text names what is wrong.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        outcome = outcome_from_json(data)
        for series in outcome.series:
            _check_types(series)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: {error}") from error
    if not all(isinstance(note, str) for note in outcome.notes):
        raise RunError(f"{path}: notes: wanted texts, got {outcome.notes!r:.80}")
    return outcome


def _check_types(series: SeriesVerdict) -> None:
    """Raise ValueError where a field that came from a file is not of its type."""
    for field in fields(SeriesVerdict):
        value = getattr(series, field.name)
        if field.type == "float | None":
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            good = value is None or (is_number and math.isfinite(value))
        elif field.name == "n":
            good = isinstance(value, int) and not isinstance(value, bool)
        else:
            good = isinstance(value, str) or (value is None and field.name == "more")
        if not good:
            raise ValueError(
                f"series {series.name!r:.80}: {field.name}: wanted {field.type}, got {value!r:.80}"
            )


def _comment(
    header: RunHeader,
    samples: Sequence[Sample],
    outcome: Outcome | None,
    rows: Sequence[tuple[str, ...]],
) -> str:
    if outcome is None:
        return (
            f"{markdown.MARKER}\n## {page.NOT_JUDGED.mark} {page.NOT_JUDGED.word}\n\n"
            "The run has no verdict, so it passed nothing. It was interrupted or is still "
            f"running; {plural(len(samples), 'sample')} recorded so far.\n"
        )
    subjects = _self_test(header)
    subjects += [f"{name}: {_subject(header, name)}" for name in ("base", "head")]
    return markdown.render(outcome, subjects=subjects, speedups=rows)


def _missing_suites(samples: Sequence[Sample], outcome: Outcome | None) -> Iterator[str]:
    """Yield a sentence for every suite that only the verdict or only the samples know."""
    if outcome is None:
        return
    judged = {series.suite for series in outcome.series}
    measured = {sample.suite for sample in samples}
    for suite in sorted(judged - measured):
        yield f"Suite {suite}: {VERDICT} judges it, and the run has no sample of it."
    for suite in sorted(measured - judged):
        yield f"Suite {suite}: the run has samples of it, and {VERDICT} says nothing of it."


def _subject(header: RunHeader, name: str) -> str:
    about = header.subjects.get(name)
    if not isinstance(about, dict):
        return "not measured"
    text = about.get("description") or about.get("revision") or about.get("python")
    return clean(str(text or "not recorded"), limit=200)


def _self_test(header: RunHeader) -> list[str]:
    """Return the remark that base and head are the same code, where they are."""
    base, head = (header.subjects.get(name) for name in ("base", "head"))
    if not isinstance(base, dict) or not isinstance(head, dict):
        return []
    same = all(base.get(key) == head.get(key) for key in ("python", "revision", "digest"))
    if not same or not base.get("revision"):
        return []
    return ["self-test: nothing compared (base and head are the same code)"]
