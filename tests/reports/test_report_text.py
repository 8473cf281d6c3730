from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msa_reports.text import clean, log_safe, number, plural, share, signed


@settings(deadline=None)
@given(st.text(st.characters(codec=None)))
def test_clean_is_one_visible_line(text):
    shown = clean(text)
    assert shown.splitlines() in ([shown], [])
    assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    shown.encode()  # no unpaired surrogate is left


def test_clean_spells_out_what_would_steer_a_terminal_or_reorder_a_line():
    assert clean("a\x1b[31mb\u202ec\ud800\U000e0001") == "a\\x1b[31mb\\u202ec\\ud800\\U000e0001"
    assert clean(" a\r\n\tb\u2028c ") == "a b c"


def test_clean_counts_what_it_cuts():
    assert clean("x" * 12, limit=10) == "x" * 10 + " ... (2 more characters)"


@settings(deadline=None)
@given(st.text())
def test_no_line_of_a_log_is_a_workflow_command(text):
    for line in ("  ::error::x", "##[group]x", text):
        safe = log_safe(line)
        assert not safe.lstrip().startswith("::")
        assert "##[" not in safe


def test_log_safe_leaves_a_command_with_a_test_id_as_it_is():
    assert log_safe("repeat: pytest a.py::test_b") == "repeat: pytest a.py::test_b"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "n/a"),
        (0.0, "0"),
        (-0.0, "0"),
        (16252928.0, "16,252,928"),
        (0.0512345, "0.05123"),
        (1.5e-7, "1.5e-07"),
        (float("inf"), "inf"),
        (float("nan"), "nan"),
        (1e300, "1e+300"),
    ],
)
def test_number(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "n/a"), (0.31, "+31.0%"), (-0.0012, "-0.1%"), (0.00012, "+0.012%"), (2.5, "+250%")],
)
def test_share_of_a_change(value, text):
    assert share(value, sign=True) == text


def test_share_of_a_threshold_has_no_idle_digits():
    assert (share(0.02), share(0.025), share(0.99), share(0.0)) == ("2%", "2.5%", "99%", "0%")


def test_signed_and_plural():
    assert (signed(0.2), signed(-0.02), signed(None)) == ("+0.2", "-0.02", "n/a")
    assert (plural(1, "pair"), plural(2, "pair"), plural(2, "series")) == (
        "1 pair",
        "2 pairs",
        "2 series",
    )
