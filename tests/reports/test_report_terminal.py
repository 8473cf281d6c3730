from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msa_harness.verdicts import Outcome, SeriesVerdict, Verdict
from msa_reports.summary import LOOKS
from msa_reports.terminal import print_outcome


class Terminal(io.StringIO):
    def isatty(self):
        return True


def _printed(outcome, *, width=None, stream=None):
    stream = stream or io.StringIO()
    print_outcome(outcome, stream=stream, width=width)
    return stream.getvalue()


def test_verdict_in_words_first_then_the_worst(mixed):
    lines = _printed(Outcome(Verdict.REGRESSION, tuple(mixed), ("one note",))).splitlines()
    assert lines[0].startswith("REGRESSION: 2 of 12 series got worse")
    assert lines[1] == "note: one note"
    words = [line.split("│")[1].strip() for line in lines if line.startswith("│")]
    assert words == [
        "REGRESSION", "REGRESSION", "ERROR", "INVALID", "REMOVED", "INCONCLUSIVE", "WAIVED",
        "NO SIGNAL", "NEW", "IMPROVED", "PASS", "PASS",
    ]  # fmt: skip


def test_columns_of_the_table(mixed):
    lines = _printed(Outcome(Verdict.REGRESSION, tuple(mixed))).splitlines()
    header = next(line for line in lines if "verdict" in line and "unit" in line)
    assert [cell.strip() for cell in header.strip("┃").split("┃")] == [
        "verdict", "series", "unit", "better", "base", "head", "effect [interval]", "threshold",
        "n",
    ]  # fmt: skip
    row = next(line for line in lines if "speed/prefill/8192/high" in line and "│" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        "REGRESSION", "speed/prefill/8192/high", "s", "lower", "0.44", "0.575",
        "+31.0% [+28.0%, +34.0%]", "2%", "8",
    ]  # fmt: skip


@pytest.mark.parametrize("width", [40, 80, 129, 150])
def test_why_and_how_to_repeat_at_any_width(mixed, width):
    text = _printed(Outcome(Verdict.REGRESSION, tuple(mixed)), width=width)
    assert "    why: 19 items lost\n" in text
    assert "    repeat: nox -s quality -- --task msa_facts\n" in text
    assert "    smallest effect this run could detect: 4.4%\n" in text
    for series in mixed:
        assert series.name in text


def test_narrow_lines_fit_except_what_is_there_to_be_copied(mixed):
    text = _printed(Outcome(Verdict.REGRESSION, tuple(mixed)), width=60)
    facts = [
        line for line in text.splitlines()
        if line.startswith("    ") and not line.startswith(("    repeat", "    why"))
    ]  # fmt: skip
    assert max(map(len, facts)) <= 60


def test_colour_only_on_a_terminal(mixed, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    outcome = Outcome(Verdict.REGRESSION, tuple(mixed))
    assert "\x1b[" not in _printed(outcome)
    assert "\x1b[" in _printed(outcome, stream=Terminal(), width=140)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in _printed(outcome, stream=Terminal(), width=140)


def test_a_stream_that_is_not_utf8_gets_what_it_can_encode(mixed):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    print_outcome(Outcome(Verdict.REGRESSION, tuple(mixed)), stream=stream)
    stream.flush()
    assert b"REGRESSION" in raw.getvalue()
    stream.detach()


def test_hostile_strings_steer_nothing(make_series, hostile):
    series = make_series(
        name=hostile, suite=hostile, unit=hostile, direction=hostile, note=hostile, repro=hostile,
        verdict=Verdict.ERROR,
    )  # fmt: skip
    for width in (40, 80, 150):
        _assert_safe(_printed(Outcome(Verdict.ERROR, (series,), (hostile,)), width=width))


@settings(deadline=None)
@given(st.text(st.characters(codec=None)), st.integers(40, 160))
def test_any_string_at_any_width(text, width):
    series = SeriesVerdict(
        name="::" + text, suite=text, unit="::" + text, direction="lower", note="::" + text,
        repro="::" + text, verdict=Verdict.INVALID,
    )  # fmt: skip
    _assert_safe(_printed(Outcome(Verdict.INVALID, (series,), ("::" + text,)), width=width))


def _assert_safe(text):
    text.encode()
    assert "\x1b" not in text
    assert "\u202e" not in text
    for line in text.split("\n"):
        assert not line.lstrip().startswith("::")
        assert "##[" not in line


def test_every_verdict_has_a_look_of_its_own():
    assert set(LOOKS) == set(Verdict)
    assert len({look.rank for look in LOOKS.values()}) == len(LOOKS)
    assert len({look.mark for look in LOOKS.values()}) == len(LOOKS)


def test_nothing_measured_is_an_error_in_words():
    text = _printed(Outcome(Verdict.ERROR, ()))
    assert text == "ERROR: nothing was measured, which is never a pass\n"


def test_what_is_only_recorded_is_not_a_complaint(make_series):
    series = make_series(verdict=Verdict.NO_SIGNAL, method="report", note="recorded")
    text = _printed(Outcome(Verdict.PASS, (make_series(name="a"), series)))
    assert "1 PASS, 1 RECORDED." in text
    assert "why:" not in text
    assert "without signal" not in text


def test_a_series_measured_alone_has_no_base_to_show(make_series):
    series = make_series(base=None, effect=None, low=None, high=None, verdict=Verdict.NEW)
    text = _printed(Outcome(Verdict.PASS, (series,)), width=80)
    assert "    head 0.444 s (lower is better)" in text
