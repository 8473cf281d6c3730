"""MSA against dense attention: turn against turn, never across processes."""

from __future__ import annotations

from io import StringIO

import pytest

from msa_harness.records import RunStore, Sample
from msa_reports.report import read_speedups, write_report
from msa_reports.speedups import COLUMNS, speedups, table
from msa_reports.terminal import print_speedups


def sample(series, raw, item="pair-00", subject="head"):
    value = sorted(raw)[len(raw) // 2] if raw else None
    return Sample("speed", series, subject, "s", item, value, raw=tuple(raw))


def test_drift_between_turns_does_not_enter():
    # The machine slows down threefold in the second process; the ratio is 2 throughout.
    rows = speedups(
        [
            sample("speed/prefill/8192/low", (0.5, 0.6, 0.5)),
            sample("speed/dense/8192", (1.0, 1.2, 1.0)),
            sample("speed/prefill/8192/low", (1.5, 1.5), "pair-01"),
            sample("speed/dense/8192", (3.0, 3.0), "pair-01"),
            sample("speed/prefill-bfloat16/8192/low", (1.0,)),  # no dense beside it
            sample("speed/prefill/8192/low", (9.0,), subject="base"),
            sample("speed/dense/4096", ()),
        ]
    )
    (row,) = rows
    assert (row.dtype, row.tokens, row.overlap, row.turns) == ("float32", 8192, "low", 5)
    assert (row.ratio, row.low, row.high) == (2.0, 2.0, 2.0)
    (cells,) = table(rows, {8192: 2.5})
    assert cells[-2:] == ("2.00 (2.00 to 2.00, 5 turns)", "2.50")
    assert table(rows, None)[0][-1] == "n/a"


@pytest.fixture
def run(make_run, mixed):
    directory = make_run(mixed)
    with RunStore.open(directory, resume=True) as store:
        store.append(
            [
                sample("speed/prefill/8192/low", (0.5, 0.25), "turns"),
                sample("speed/dense/8192", (1.0, 1.0), "turns"),
            ]
        )
    return directory


def test_the_table_is_in_the_comment_and_on_the_terminal(run):
    rows = read_speedups(run)
    assert [row[:3] for row in rows] == [("float32", "8,192", "low")]
    paths = write_report(run)
    # The page shows the same ratio, not that of the two medians (2.00).
    page = paths.html.read_text(encoding="utf-8")
    assert ">3.00<" in page
    text = paths.markdown.read_text(encoding="utf-8")
    assert "### MSA against dense attention" in text
    assert "3.00 (2.00 to 4.00, 2 turns)" in text
    stream = StringIO()
    print_speedups(rows, stream=stream)
    assert all(name in stream.getvalue() for name in (*COLUMNS, "3.00 (2.00 to 4.00"))
    nothing = StringIO()
    print_speedups([], stream=nothing)
    assert nothing.getvalue() == ""
