"""The log of what the documents do not say."""

from __future__ import annotations

from msa_reports.documents import Object, get, objects
from msa_reports.reproduction import sources
from msa_reports.reproduction.layout import Section, Table

_COLUMNS = ("question", "what the documents say", "assumed here", "how much hangs on it", "section")


def render(result: Object) -> Section:
    """The section on assumptions."""
    names = ("question", "sources", "assumed", "sensitivity", "section")
    rows = [tuple(get(row, name, str) for name in names) for row in objects(result, "log")]
    return Section(
        title="Assumptions",
        claim="A reproduction should “track assumptions and missing details in an experiment log” "
        f"({sources.CARD}).",
        method="What the documents leave open, what is assumed in its place, and the section that "
        "shows how much hangs on it.",
        tables=(Table("The log", _COLUMNS, rows, shut=False),),
    )
