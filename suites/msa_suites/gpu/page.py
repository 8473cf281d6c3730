"""The result of a pass as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from msa_suites.gpu.shapes import formats

#: The last two: shares of the measured product's FLOP/s and of the measured copy's bytes/s.
_COLUMNS = (
    *("work", "tokens", "batch", "overlap", "heads", "ms"),
    *("torch's fastest", "ms", "ratio", "of FLOP/s", "of bytes/s"),
)


def markdown(document: Mapping[str, Any]) -> str:
    """Device, what passed, and one table of all times."""
    device, ceilings = document["device"], document["ceilings"]
    lines = [
        f"# {document['implementation']} on {device['name']}",
        "",
        f"{document['ran']}; torch {device['torch']}, triton {device['triton'] or 'none'}, driver "
        f"{device['driver'] or 'unknown'}, Python {device['python']}; commit {document['commit']}.",
        "",
        f"    {document['command']}",
        "",
        f"Copy {ceilings['bytes_per_second'] / 1e12:.2f} TB/s, product "
        f"{ceilings['flops_per_second'] / 1e12:.3g} TFLOP/s, measured in this run.",
        "",
        _conformance(document["conformance"]),
        *(f"- {one}" for one in document["conformance"].get("failures", ())),
        _races(document["races"]),
        *(f"{row['name']}: {row['problem'] or 'found nothing'}." for row in document["sanitizer"]),
        "",
        "Medians of all calls; the ratio is to the fastest of torch's own at the same shape, the "
        "shares are of this run's product and copy. Captured in a CUDA graph: "
        f"{', '.join(_captured(document['rows'])) or 'nothing'}.",
        "",
        f"| {' | '.join(_COLUMNS)} |",
        "|---" * len(_COLUMNS) + "|",
        *(_line(row, ceilings) for row in document["rows"]),
    ]
    return "\n".join(lines) + "\n"


def _captured(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Kinds of work with rows that were, and how many of those that were timed."""
    found = []
    for what in dict.fromkeys(row["what"] for row in rows):
        timed = [row for row in rows if row["what"] == what and "seconds" in row]
        count = sum(not row["not_captured"] for row in timed)
        found += [f"{what} {count} of {len(timed)}"] if count else []
    return found


def _conformance(found: Mapping[str, Any]) -> str:
    if "passed" not in found:
        return f"Conformance: {found['problem']}."
    return (
        f"Conformance: {found['passed']} passed, {found['failed']} failed, "
        f"{found['skipped']} skipped."
    )


def _races(found: Sequence[Mapping[str, Any]]) -> str:
    if not found:
        return "Same bits in repeated calls: not asked for."
    captured = [row for row in found if row["name"].startswith("captured/")]
    plain = [row for row in found if row not in captured]
    good = sum(not row["problem"] for row in plain)
    parts = [f"Same bits in {plain[0]['calls']} calls: {good} of {len(plain)}."]
    if captured:
        good = sum(not row["problem"] for row in captured)
        parts.append(f"Captured steps that follow the lengths: {good} of {len(captured)}.")
    parts += [f"{row['name']}: {row['problem']}" for row in found if row["problem"]]
    return " ".join(parts)


def _line(row: Mapping[str, Any], ceilings: Mapping[str, float]) -> str:
    narrow = formats(row.get("index_dtype", ""), row.get("kv_dtype", ""))
    heads = ", ".join([f"{row['heads']}/{row['groups']}", *narrow])
    shape = f"| {row['what']} | {row['length']:,} | {row['batch']} | {row['overlap']} | {heads} |"
    if row["problem"]:
        return f"{shape} {row['problem'].replace('|', '/')} | | | | | |"
    other = "| | |"
    if "other" in row:
        other = f"{row['other']} | {1e3 * statistics.median(row['other_seconds']):.3g} |"
        other += f" {row['ratio']:.2f}{' as calls' if 'seconds_as_calls' in row else ''} |"
    product = row["flops_per_second"] / ceilings["flops_per_second"]
    copied = row["bytes_per_second"] / ceilings["bytes_per_second"]
    middle = 1e3 * statistics.median(row["seconds"])
    return f"{shape} {middle:.3g} | {other} {product:.0%} | {copied:.0%} |"
