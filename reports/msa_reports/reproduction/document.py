"""The document: how to rebuild it, what it was measured on, and section after section."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from msa_harness.records import RunError, write_atomic
from msa_reports.documents import Object
from msa_reports.reproduction import (
    ablations,
    assumptions,
    clock,
    cost,
    identity,
    mass,
    recalling,
    relatives,
    routes,
    scoring,
    selection,
    sources,
)
from msa_reports.reproduction.layout import Section, anchor, heading, render, table
from msa_reports.reproduction.reading import DATA, Recorded, read_all
from msa_reports.reproduction.standalone import standalone
from msa_reports.text import markdown, markdown_code

Render = Callable[[Object], Section]

#: Name of a section -> what makes it of its data. The order is that of the document.
SECTIONS: dict[str, Render] = {
    "cost": cost.render,
    "identity": identity.render,
    "mass": mass.render,
    "budget": recalling.budget,
    "needles": recalling.needles,
    "scorers": scoring.scorers,
    "blindness": scoring.blindness,
    "relatives": relatives.render,
    "ablations": ablations.render,
    "clock": clock.render,
    "selection": selection.render,
    "routes": routes.render,
    "assumptions": assumptions.render,
}

_INTRODUCTION = """# Reproduction

MiniMax Sparse Attention (MSA) lets each query attend to the k blocks of keys that score best,
instead of to all. Documents about it claim that this saves most of the work and loses next to
nothing, and say where that stops being true. Here their experiments are run again on models of
this repository. Each section has the claim, the published figures beside ours with the reason why
they differ, plots, and what follows for someone who builds with it. Our figures in tables and
plots come from the data beside this page.
"""


def write_reproduction(folder: Path) -> Path:
    """Write ``folder``'s document beside it, as ``<folder>.md``, and its plots into it.

    Args:
        folder: what ``msa-bench reproduce --out`` wrote.

    Returns:
        Path of the document.

    Raises:
        RunError: a section's data are broken or there are none, or a file cannot be written.
    """
    recorded = read_all(folder, SECTIONS)
    name = folder.resolve().name
    sections = {one: _section(folder, found) for one, found in recorded.items()}
    parts = [_INTRODUCTION, *_front(recorded, sections)]
    for one in SECTIONS:
        made = sections.get(one)
        if made is None:
            parts.append(_not_measured(one, recorded))
            continue
        command = f"msa-bench reproduce --out runs/{one} --only {one}"
        parts.append(render(made, folder=name, command=command))
        for plot in made.plots:
            write_atomic(folder / f"{plot.name}.svg", standalone(plot.chart, name=plot.name))
    document = folder.resolve().with_name(f"{name}.md")
    write_atomic(document, "\n".join(parts))
    return document


def _not_measured(name: str, recorded: Mapping[str, Recorded]) -> str:
    why = recorded[name].why_not if name in recorded else "It was not asked for."
    command = f"{next(iter(recorded.values())).command} --only {name} --resume"
    return (
        f"{heading(name.capitalize())}\n**Not measured.** {markdown(why)}\n\n"
        f"Measured by {markdown_code(command)}\n"
    )


def _section(folder: Path, recorded: Recorded) -> Section | None:
    if recorded.result is None:
        return None
    try:
        return SECTIONS[recorded.section](recorded.result)
    except (ValueError, LookupError, ZeroDivisionError) as error:
        path = folder / DATA / f"{recorded.section}.json"
        raise RunError(f"{path}: result: {error}") from error


def _front(recorded: Mapping[str, Recorded], sections: Mapping[str, Section | None]) -> list[str]:
    """How to rebuild it, the documents, and where each section was measured."""
    first = next(iter(recorded.values()))
    quick = [name for name, one in recorded.items() if one.quick]
    parts = []
    if quick:
        parts.append(
            "> **Quick sizes.** This was measured with `--quick`, to see that the command works. "
            f"It reproduces nothing: {', '.join(quick)}.\n"
        )
    commands = list(dict.fromkeys(one.command for one in recorded.values()))
    lines = "\n\n".join(markdown_code(command) for command in commands)
    parts.append(f"{heading('Build it again')}\n{lines}\n")
    total = sum(one.seconds for one in recorded.values())
    parts.append(
        f"The last calls took {max(1, round(total / 60))} min on the machine below; models and "
        "short conversions that were trained before were taken over, and training them takes up "
        "to two hours more. The data are in `data/`; `--resume` goes on with what is missing. Of a "
        "section that is there already, delete the file first.\n"
    )
    parts.append(table(("measured on", ""), _machine(first.setup)))
    odd = [name for name, one in recorded.items() if one.setup != first.setup]
    if odd:
        parts.append(f"Measured on another machine or with another model: {', '.join(odd)}.\n")
    rows = [
        f"| {name} | [{_title(name, sections)}](#{anchor(_title(name, sections))}) | "
        f"{'measured' if one.result is not None else 'not measured'} | {one.seconds:g} | "
        f"{markdown(_commit(one))} |"
        for name in SECTIONS
        if (one := recorded.get(name)) is not None
    ]
    parts.append(
        "\n".join(["| section | | | seconds | commit |", "|---|---|---|--:|---|", *rows]) + "\n"
    )
    parts.append(
        f"{heading('The documents')}\n" + table(("here called", "what it is"),
                                               list(sources.DOCUMENTS.items()))
    )  # fmt: skip
    return parts


def _title(name: str, sections: Mapping[str, Section | None]) -> str:
    made = sections.get(name)
    return name.capitalize() if made is None else made.title


def _commit(one: Recorded) -> str:
    return (one.commit[:12] or "unknown") + (" and uncommitted changes" if one.dirty else "")


def _machine(setup: Object) -> list[tuple[str, str]]:
    """The set-up as people read it: nested values in one line."""
    rows = []
    for name, value in setup.items():
        if name == "quick":
            continue
        parts = value.items() if isinstance(value, dict) else ()
        shown = ", ".join(f"{key} {part}"[:30] for key, part in parts if part)
        rows.append((name, shown or str(value)))
    return rows
