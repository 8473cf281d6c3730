from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import pytest

from msa_harness.gates import judging_day, parse_gates, table_from_dict

SHIPPED = Path(__file__).parents[2] / "suites" / "msa_suites" / "gates.toml"
MINIMAL = """
[[gate]]
series = "speed/decode/*"
method = "speed"
threshold = 0.05
margin = 0.2
[[gate]]
series = "speed/*"
method = "speed"
margin = 0.15
[gate.profile.full]
margin = 0.10
pairs = 12
[gate.device.gpu]
margin = 0.05
[[waiver]]
series = "speed/decode/8192"
reason = "known"
expires = 2026-06-30
"""


def test_the_first_match_wins_and_keeps_its_numbers():
    table = parse_gates(MINIMAL)
    assert table.gate_for("speed/decode/1").threshold == 0.05
    assert table.gate_for("speed/prefill/1").threshold == 0.0
    assert table.gate_for("work/x") is None


@pytest.mark.parametrize(
    ("profile", "device", "margin", "pairs"),
    [
        ("quick", "shared-cpu", 0.15, 8),
        ("full", "cpu", 0.10, 12),
        ("quick", "NVIDIA H100", 0.05, 8),
        ("full", "NVIDIA H100", 0.05, 12),
    ],
)
def test_profiles_and_devices_override(profile, device, margin, pairs):
    gate = parse_gates(MINIMAL, profile=profile, device=device).gate_for("speed/x")
    assert (gate.margin, gate.pairs) == (margin, pairs)


def test_waivers_expire():
    table = parse_gates(MINIMAL)
    assert table.waiver_for("speed/decode/8192", date(2026, 6, 30)).reason == "known"
    assert table.waiver_for("speed/decode/8192", date(2026, 7, 1)) is None
    assert table.waiver_for("speed/other", date(2026, 6, 30)) is None
    assert len(table.expired(date(2026, 7, 1))) == 1


def test_a_table_survives_the_run_header():
    table = parse_gates(MINIMAL)
    assert table_from_dict(table.to_dict()) == table
    assert len(table.sha256) == 64
    assert parse_gates(MINIMAL + "\n").sha256 != table.sha256


@pytest.mark.parametrize("expires", [{}, {"expires": "soon"}])
def test_a_run_header_with_a_waiver_without_an_end_is_refused(expires):
    data = parse_gates(MINIMAL).to_dict()
    data["waivers"] = [{"series": "a", "reason": "b", **expires}]
    with pytest.raises(ValueError, match=r"waivers\[0\]: expires: wanted a date"):
        table_from_dict(data)


GATE = '[[gate]]\nseries = "a"\nmethod = "hard"\n'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "at least one"),
        ("gates = 1", "unknown key 'gates'.*did you mean gate"),
        ("[gate]\nseries = 'a'", r"wanted \[\[gate\]\]"),
        ("[[gate]", "gates.toml: "),
        (GATE + "treshold = 1", r"gate 1 \('a'\): unknown key 'treshold'.*did you mean threshold"),
        (GATE + "margin = 'wide'", "margin: wanted float, got 'wide'"),
        (GATE + "pairs = true", "pairs: wanted int, got True"),
        (GATE + "pairs = 1", "2 <= pairs <= max_pairs, got 1 and 16"),
        (GATE + "confidence = 99", "confidence"),
        (GATE + "pass_confidence = 0.98", r"pass_confidence: wanted .*\[confidence, 1\), got 0.98"),
        (GATE + "pass_confidence = 1.0", "pass_confidence: .* got 1.0"),
        (GATE + "resolution = -0.1", "resolution: wanted at least 0"),
        (GATE + "resolution = 0.1", "resolution: wanted them of the method speed alone, got hard"),
        (GATE + "pass_confidence = 0.999", "wanted them of the method speed alone, got hard"),
        (
            '[[gate]]\nseries = "a"\nmethod = "speed"\nmargin = 0.1\nresolution = 0.2',
            "resolution: wanted at most the margin 0.1, got 0.2",
        ),
        (GATE + "threshold = -1", "threshold: wanted at least 0"),
        (GATE + "margin = nan", "margin: wanted a finite number, got nan"),
        (GATE + "ceiling = inf", "ceiling: wanted a finite number, got inf"),
        (GATE + "threshold = 1" + "0" * 400, "threshold: wanted a finite number"),
        (GATE + "direction = 'lwer'", "direction: .*did you mean lower"),
        ('[[gate]]\nmethod = "hard"', "missing key series"),
        ('[[gate]]\nseries = "a"\nmethod = "speeed"\nmargin = 1', "did you mean speed"),
        ('[[gate]]\nseries = "a"\nmethod = "speed"\nthreshold = 0.1\nmargin = 0.1', "more than"),
        (GATE + "[gate.profile.full]\nmethod = 'exact'", "unknown key 'method'"),
        (GATE + "[gate.device.gpu]\nmargins = 1", "did you mean margin"),
        (GATE + "[gate.device]\ngpu = 1", "wanted tables by name"),
        (GATE + "[[waiver]]\nseries = 'a'\nexpires = 2026-01-01", "reason"),
        (GATE + "[[waiver]]\nseries = 'a'\nreason = ' '\nexpires = 2026-01-01", "reason"),
        (GATE + "[[waiver]]\nseries = 'a'\nreason = 'x'\nexpires = '2026'", "wanted a date"),
        (GATE + "[[waiver]]\nseries = 'a'\nreason = 'x'", "expires: wanted a date"),
    ],
)
def test_mistakes_are_named(text, reason):
    with pytest.raises(ValueError, match=reason):
        parse_gates(text)


@pytest.mark.parametrize("profile", ["quick", "standard", "full"])
@pytest.mark.parametrize("device", ["shared-cpu", "cpu", "NVIDIA H100 80GB"])
def test_the_shipped_table_is_valid(profile, device):
    table = parse_gates(SHIPPED.read_text(), profile=profile, device=device)
    methods = {
        "correctness/selection": "hard",
        "speed/prefill/8192/low": "speed",
        "speed/control/dense": "report",
        "speed/startup": "report",
        "work/peak_bytes/a": "exact",
        "quality/msa_facts/recall": "binary",
        "quality/msa_facts/recall/dense": "report",
        "quality/msa_tail_nll/nll_512": "paired_mean",
        "quality/fidelity/kl": "paired_mean",
        "quality/fidelity/agreement": "paired_mean",
    }
    found = {name: table.gate_for(name).method for name in methods}
    assert found == methods
    assert table.gate_for("work/attended_tokens/a").must_not_decrease
    assert table.gate_for("quality/fidelity/kl").direction == "lower"
    assert table.gate_for("quality/fidelity/agreement").direction == "higher"


def test_a_clock_set_back_does_not_revive_a_waiver():
    today = date.today()
    started = datetime.combine(today + timedelta(days=40), time(12), UTC).isoformat()
    assert judging_day("2026-01-01T00:00:00+00:00") == today
    day = judging_day(started, "2026-01-01T00:00:00+00:00")
    assert day >= today + timedelta(days=39)
    expires = (today + timedelta(days=20)).isoformat()
    text = '[[gate]]\nseries = "*"\nmethod = "hard"\n[[waiver]]\nseries = "*"\nreason = "soon"\n'
    gates = parse_gates(f"{text}expires = {expires}\n")
    assert gates.waiver_for("a", today) is not None
    assert gates.waiver_for("a", day) is None
    with pytest.raises(ValueError, match=r"run\.json: created: wanted an ISO time, got 'noon'"):
        judging_day("noon")
