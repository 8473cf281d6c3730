"""The gate's own page of a directory with evidence: ``gate.html`` and ``gate.md``."""

from __future__ import annotations

from pathlib import Path

from msa_harness.records import write_atomic
from msa_reports import html
from msa_reports.evidence import read_evidence
from msa_reports.gate_page import GatePage, build
from msa_reports.gate_tables import Table
from msa_reports.report import ReportPaths
from msa_reports.text import markdown

MARKDOWN = "gate.md"
HTML = "gate.html"
#: A comment on a pull request has a limit; the page has all rows.
_MOST_ROWS = 120


def write_gate_report(directory: Path) -> ReportPaths:
    """Write the page and its Markdown beside the files they show.

    Reads ``faults.json`` (what ``faults --json`` prints), ``calibration.json`` and
    ``mutants.jsonl``, those that are there.

    Raises:
        RunError: A file is broken or foreign; the text names it.
    """
    page = build(read_evidence(directory))
    paths = ReportPaths(markdown=directory / MARKDOWN, html=directory / HTML)
    write_atomic(paths.markdown, _markdown(page))
    write_atomic(paths.html, html.render(page))
    return paths


def _markdown(page: GatePage) -> str:
    lines = [f"## {page.verdict.mark} {page.verdict.word}: {page.headline}", ""]
    lines += [f"- {markdown(note)}" for note in page.notes]
    for table in page.tables:
        lines += ["", f"### {table.name}", "", *_rows(table)]
    if page.missing:
        lines += ["", "### What is missing", "", *(f"- {markdown(one)}" for one in page.missing)]
    return "\n".join(lines) + "\n"


def _rows(table: Table) -> list[str]:
    shown = table.rows[:_MOST_ROWS]
    lines = [f"| {' | '.join(table.columns)} |", f"|{'---|' * len(table.columns)}"]
    for row in shown:
        first, *others = (markdown(cell.text, limit=160) for cell in row.cells)
        lines.append(f"| {' | '.join([first, f'{row.look.mark} {row.look.word}', *others])} |")
    if len(table.rows) > len(shown):
        lines += ["", f"{len(table.rows) - len(shown)} more are on the page."]
    return lines
