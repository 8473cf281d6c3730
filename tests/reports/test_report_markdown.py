from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from msa_harness.verdicts import Outcome, SeriesVerdict, Verdict
from msa_reports.markdown import LIMIT, MARKER, render

COLUMNS = 11


def _tokens(text):
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    tokens = parser.parse(text)
    return [inner for token in tokens for inner in [token, *(token.children or [])]]


def _rows(text):
    rows, cells = [], None
    for token in _tokens(text):
        if token.type == "tr_open":
            cells = 0
        elif token.type in ("td_open", "th_open"):
            cells += 1
        elif token.type == "tr_close":
            rows.append(cells)
    return rows


def test_says_the_verdict_first_and_the_worst_series_first(mixed):
    text = render(Outcome(Verdict.REGRESSION, tuple(mixed)))
    lines = text.splitlines()
    assert lines[0] == MARKER
    assert lines[1].startswith("## ✗ REGRESSION: 2 of 12 series got worse; worst:")
    names = [line.split("|")[1].strip() for line in lines if line.startswith("| ")][1:]
    assert names[:2] == ["✗ REGRESSION"] * 2
    assert names[2:] == [
        "!! ERROR", "! INVALID", "- REMOVED", "? INCONCLUSIVE", "~ WAIVED", "○ NO SIGNAL",
        "verdict", "+ NEW", "▲ IMPROVED", "✓ PASS", "✓ PASS",
    ]  # fmt: skip


def test_repeats_every_series_that_needs_a_look(mixed):
    text = render(Outcome(Verdict.REGRESSION, tuple(mixed)))
    assert text.count("```sh\n") == 8
    assert "\nnox -s quality -- --task msa_facts\n" in text


@pytest.mark.parametrize(
    ("upper", "said"),
    [(None, "each bound at 99%"), (0.99, "each bound at 99%"),
     (0.999, "lower bound at 99%, upper at 99.9%")],
)  # fmt: skip
def test_says_at_what_confidence_the_bounds_hold(make_series, upper, said):
    slow = make_series(verdict=Verdict.REGRESSION, confidence=0.99, pass_confidence=upper)
    assert said in render(Outcome(Verdict.REGRESSION, (slow,)))


@pytest.mark.parametrize("verdict", [Verdict.PASS, Verdict.REGRESSION])
def test_hostile_strings_stay_text(make_series, hostile, verdict):
    series = make_series(
        name=hostile, suite=hostile, unit=hostile, direction=hostile, note=hostile, repro=hostile,
        verdict=verdict,
    )  # fmt: skip
    text = render(Outcome(verdict, (series,), (hostile,)), subjects=[hostile])
    _assert_safe(text)
    assert set(_rows(text)) == {COLUMNS}


@settings(deadline=None)
@given(
    st.text(st.characters(codec=None)),
    st.sampled_from(["", "::", "##[", "- ", "+ ", "# ", "> ", "1. ", "12) ", "=="]),
)
def test_any_string_keeps_the_structure(text, start):
    from_file = {"name": start + text, "note": start + text, "repro": start + text}
    series = _series(**from_file)
    shown = render(Outcome(Verdict.REGRESSION, (series,), (start + text,)))
    plain = render(Outcome(Verdict.REGRESSION, (_series(name="x", note="x", repro="x"),), ("x",)))
    _assert_safe(shown)
    counts = Counter(token.type for token in _tokens(shown) if token.type != "text")
    expected = Counter(token.type for token in _tokens(plain) if token.type != "text")
    if series.note.strip() and series.repro.strip():
        assert counts == expected
    assert set(_rows(shown)) == {COLUMNS}


def _series(**changes):
    given_ = {"suite": "s", "unit": "s", "direction": "lower", "verdict": Verdict.REGRESSION}
    return SeriesVerdict(**{**given_, **changes})


def _assert_safe(text):
    for line in text.split("\n"):
        assert not line.lstrip().startswith("::")
        assert "##[" not in line
    for token in _tokens(text):
        assert token.type not in ("link_open", "image", "em_open", "s_open")
        if token.type in ("html_inline", "html_block"):
            allowed = ("<code>", "</code>", MARKER, "<details><summary>", "</details>")
            assert token.content.strip().startswith(allowed)
        if token.type == "text":
            for sign in "@#":
                for after in token.content.split(sign)[1:]:
                    assert not after[:1].isalnum()


def test_mentions_references_and_links_are_parted(make_series):
    note = "@someone #12 GH-7 https://example.invalid www.example.invalid"
    series = make_series(verdict=Verdict.REGRESSION, note=note)
    text = render(Outcome(Verdict.REGRESSION, (series,)))
    for live in ("@someone", "#12", "GH-7", "https://", "www.example"):
        assert live not in text


@pytest.mark.parametrize("verdict", [Verdict.PASS, Verdict.REGRESSION])
def test_two_thousand_series_fit_and_the_rest_is_counted(make_series, verdict):
    series = tuple(
        make_series(name=f"speed/{'|' * 50}/{i}", verdict=verdict, note="|" * 400)
        for i in range(2000)
    )
    text = render(Outcome(verdict, series))
    assert len(text) < LIMIT
    rows = len(_rows(text)) - 1
    assert rows > 50
    assert f"{2000 - rows:,} series left out here for length." in text


def test_nothing_measured_is_said():
    text = render(Outcome(Verdict.ERROR, ()))
    assert "ERROR: nothing was measured, which is never a pass" in text


def test_too_small_a_limit_is_refused():
    with pytest.raises(ValueError, match="at least 4000 characters, got 100"):
        render(Outcome(Verdict.PASS, ()), limit=100)
