"""Fragments of gates.toml: right ones are read as written, wrong ones name the key."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from datetime import date

import pytest
from hypothesis import strategies as st

from msa_harness.gate import DIRECTIONS, METHODS, Gate
from msa_harness.gates import parse_gates, table_from_dict

_TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)
_NAMED = _TEXTS.filter(str.strip)
_PARTS = st.floats(0, 1, allow_subnormal=False) | st.integers(0, 3)
_DATES = st.dates(date(2000, 1, 1), date(2100, 1, 1))
_OPTIONAL = {
    "direction": st.sampled_from(DIRECTIONS),
    "unit": _TEXTS,
    "confidence": st.floats(0.51, 0.999),
    "pairs": st.integers(2, 8),
    "max_pairs": st.integers(8, 30),
    "alternations": st.integers(1, 50),
    "control": _TEXTS,
    "drift": _PARTS,
    "signal_from": _TEXTS,
    "signal_floor": _PARTS,
    "must_not_decrease": st.booleans(),
    "floor": _PARTS,
    "ceiling": _PARTS,
}
#: Values that no gate may have, by key.
_NOT_FINITE = [float("nan"), float("inf"), -float("inf"), 10**400]
_NO_PART = st.sampled_from([*_NOT_FINITE, "0.1", True, [0.1]])
_WRONG = {
    "method": st.sampled_from(["", "sped", "SPEED", 1, True, ["speed"]]),
    "direction": st.sampled_from(["", "up", 1, False]),
    "unit": st.sampled_from([1, True, ["s"]]),
    "series": st.sampled_from(["", 3, True]),
    "threshold": _NO_PART | st.just(-0.1),
    "margin": _NO_PART | st.just(-0.1),
    "drift": _NO_PART | st.just(-1),
    "signal_floor": _NO_PART,
    "floor": _NO_PART,
    "ceiling": _NO_PART,
    "confidence": _NO_PART | st.sampled_from([0.5, 0, 1, 1.5, -1]),
    "pairs": st.sampled_from([0, 1, -3, 10**6, 2.0, "8", True]),
    "max_pairs": st.sampled_from([0, 1, -3, 2.5, "8", True]),
    "alternations": st.sampled_from([0, -1, 1.5, "4", True]),
    "must_not_decrease": st.sampled_from([0, 1, "true", [True]]),
    "control": st.sampled_from([0, True]),
    "treshold": st.just(0.1),
    "Series": st.just("speed/*"),
    "margins": st.just(1),
}


@dataclass(frozen=True)
class Fragment:
    """Tables of a gates.toml, of which ``wrong`` names the key that cannot be."""

    gates: tuple[dict[str, object], ...]
    waivers: tuple[dict[str, object], ...] = ()
    profile: tuple[str, dict[str, object]] | None = None
    wrong: str = ""

    def text(self) -> str:
        lines: list[str] = []
        for gate in self.gates:
            lines += ["[[gate]]", *_pairs(gate)]
        if self.profile is not None:  # of the last gate
            lines += [f"[gate.profile.{self.profile[0]}]", *_pairs(self.profile[1])]
        for waiver in self.waivers:
            lines += ["[[waiver]]", *_pairs(waiver)]
        return "\n".join(lines)


def _pairs(table):
    return [f"{json.dumps(key)} = {_toml(value)}" for key, value in table.items()]


def _toml(value) -> str:
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float):
        return repr(value)  # nan and inf are spelled as in Python
    return json.dumps(value)


@st.composite
def _gate(draw):
    threshold = draw(st.floats(0, 0.4))
    optional = draw(st.fixed_dictionaries({}, optional=_OPTIONAL))
    return {
        "series": draw(_NAMED),
        "method": draw(st.sampled_from(METHODS)),
        "threshold": threshold,
        "margin": threshold + draw(st.floats(0.01, 1)),
        **optional,
    }


_WAIVER = st.fixed_dictionaries({"series": _NAMED, "reason": _NAMED, "expires": _DATES})
_NO_WAIVER = {
    "series": st.sampled_from(["", "  ", 3]),
    "reason": st.sampled_from(["", "\t", False]),
    "expires": st.sampled_from(["2027-01-31", 2027, True]),
    "expire": st.just(1),
}


@st.composite
def fragments(draw):
    gates = draw(st.lists(_gate(), min_size=1, max_size=3))
    waivers = draw(st.lists(_WAIVER, max_size=2))
    extra = {"margin": gates[-1]["margin"] + draw(st.floats(0, 1))}
    profile = draw(st.none() | st.tuples(st.sampled_from(["full", "quick"]), st.just(extra)))
    where = draw(st.sampled_from(["", "", "gate", "waiver", "profile", "missing"]))
    if where in ("gate", "profile"):
        name = draw(st.sampled_from(sorted(_WRONG)))
        bad = {name: draw(_WRONG[name])}
        if where == "gate":
            gates[draw(st.integers(0, len(gates) - 1))].update(bad)
        else:  # also one that does not apply is checked; series and method cannot differ there
            profile = (draw(st.sampled_from(["full", "other"])), bad)
        return Fragment(tuple(gates), tuple(waivers), profile, name)
    if where == "waiver":
        name = draw(st.sampled_from(sorted(_NO_WAIVER)))
        waivers.append({**draw(_WAIVER), name: draw(_NO_WAIVER[name])})
        return Fragment(tuple(gates), tuple(waivers), profile, name)
    if where == "missing":
        name = draw(st.sampled_from(["series", "method", "reason", "expires"]))
        if name in gates[0]:
            del gates[0][name]
        else:
            waivers.append({**draw(_WAIVER)})
            del waivers[-1][name]
        return Fragment(tuple(gates), tuple(waivers), profile, name)
    return Fragment(tuple(gates), tuple(waivers), profile)


FRAGMENTS = fragments()


def check_gates(fragment: Fragment):
    """The table as written, or ValueError with the key in it."""
    text = fragment.text()
    if fragment.wrong:
        with pytest.raises(ValueError, match=r"gates\.toml") as caught:
            parse_gates(text)
        assert type(caught.value) is ValueError, caught.value
        assert fragment.wrong in str(caught.value), (fragment.wrong, caught.value)
        return
    table = parse_gates(text, profile="full")
    for made, written in zip(table.gates, fragment.gates, strict=True):
        expected = dict(written)
        applies = fragment.profile is not None and fragment.profile[0] == "full"
        if applies and written is fragment.gates[-1]:
            expected.update(fragment.profile[1])
        default = asdict(Gate(series="x", method="report"))
        assert asdict(made) == {f.name: expected.get(f.name, default[f.name]) for f in fields(Gate)}
    assert [asdict(w) for w in table.waivers] == list(fragment.waivers)
    assert table_from_dict(json.loads(json.dumps(table.to_dict()))) == table
    for waiver in table.waivers:
        assert (waiver in table.expired(date(2050, 1, 1))) == (waiver.expires < date(2050, 1, 1))
