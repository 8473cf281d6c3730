"""Thresholds as frozen records, read from the text of `gates.toml`.

The text is passed in, not a path, because it is read from the base revision. The first gate whose
pattern matches a series holds for it. A gate may be tightened or loosened for a profile
(`[gate.profile.full]`) and for a device class (`[gate.device.gpu]`, where "gpu" stands for every
class that is not a CPU); the device has the last word.
"""

from __future__ import annotations

import hashlib
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import date, datetime
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, Final

from msa_harness.gate import Gate, Waiver


def judging_day(*created: str) -> date:
    """The day that decides which waivers hold: today, but no earlier than any of the runs began.

    A wall clock that was set back must not revive a waiver that had expired.

    Args:
        created: When the runs began, as their headers say it.

    Raises:
        ValueError: That is no time.
    """
    days = [date.today()]
    for text in created:
        try:
            days.append(datetime.fromisoformat(text).astimezone().date())
        except ValueError as error:
            raise ValueError(f"run.json: created: wanted an ISO time, got {text!r}") from error
    return max(days)


@dataclass(frozen=True, slots=True)
class GateTable:
    """All gates and waivers of one `gates.toml`, resolved for one profile and device class."""

    gates: tuple[Gate, ...]
    waivers: tuple[Waiver, ...]
    sha256: str
    profile: str
    device: str

    def gate_for(self, series: str) -> Gate | None:
        """The first gate that matches, or None."""
        return next((gate for gate in self.gates if gate.matches(series)), None)

    def waiver_for(self, series: str, today: date) -> Waiver | None:
        """The first waiver that matches and still holds, or None."""
        found = (w for w in self.waivers if fnmatchcase(series, w.series) and w.holds(today))
        return next(found, None)

    def expired(self, today: date) -> tuple[Waiver, ...]:
        """Waivers that no longer hold."""
        return tuple(waiver for waiver in self.waivers if not waiver.holds(today))

    def to_dict(self) -> dict[str, object]:
        """Plain values for `run.json`."""
        waivers = [{**asdict(w), "expires": w.expires.isoformat()} for w in self.waivers]
        return {
            "sha256": self.sha256,
            "profile": self.profile,
            "device": self.device,
            "gates": [asdict(gate) for gate in self.gates],
            "waivers": waivers,
        }


def table_from_dict(data: Mapping[str, object]) -> GateTable:
    """Read back what `GateTable.to_dict` wrote (the `gates` of a run's header).

    Raises:
        ValueError: It is not such a table.
    """
    wanted = ("sha256", "profile", "device", "gates", "waivers")
    if missing := [name for name in wanted if name not in data]:
        raise ValueError(f"gate table: wanted {', '.join(wanted)}, got none of {missing}")
    gates = [_record(f"gates[{i}]", row) for i, row in _rows(data, "gates")]
    waivers = [
        _waiver(f"waivers[{i}]", {**row, "expires": _date(f"waivers[{i}]", row)})
        for i, row in _rows(data, "waivers")
    ]
    texts = [str(data[name]) for name in ("sha256", "profile", "device")]
    return GateTable(tuple(gates), tuple(waivers), *texts)


def _date(where: str, row: Mapping[str, object]) -> date:
    try:
        return date.fromisoformat(str(row.get("expires")))
    except ValueError as error:
        raise ValueError(f"{where}: expires: wanted a date as text, got {row!r:.80}") from error


def parse_gates(text: str, *, profile: str = "quick", device: str = "shared-cpu") -> GateTable:
    """Read and validate the text of `gates.toml`.

    Args:
        text: The file's text, as the base revision has it.
        profile: "quick", "standard" or "full": which `[gate.profile.*]` applies.
        device: Device class of the run: which `[gate.device.*]` applies.

    Raises:
        ValueError: Broken TOML, an unknown key (near matches are listed), a wrong type or value.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"gates.toml: {error}") from error
    _known("gates.toml", data, ("gate", "waiver"))
    if not data.get("gate"):
        raise ValueError("gates.toml: wanted at least one [[gate]], got none")
    gates = []
    for index, row in _rows(data, "gate"):
        where = f"gates.toml: gate {index + 1} ({row.get('series', 'no series')!r})"
        plain = {key: value for key, value in row.items() if key not in ("profile", "device")}
        gate = _record(where, plain)
        for kind, name in (("profile", profile), ("device", device)):
            for choice, extra in _choices(where, row.get(kind, {}), kind):
                changed = _overridden(f"{where}.{kind}.{choice}", gate, extra)
                if _applies(choice, name):
                    gate = changed
        gates.append(gate)
    waivers = [_waiver(f"gates.toml: waiver {i + 1}", row) for i, row in _rows(data, "waiver")]
    digest = hashlib.sha256(text.encode()).hexdigest()
    return GateTable(tuple(gates), tuple(waivers), digest, profile, device)


def _applies(choice: str, name: str) -> bool:
    return fnmatchcase(name, choice) or (choice == "gpu" and "cpu" not in name.lower())


def _rows(data: Mapping[str, object], name: str) -> Iterable[tuple[int, dict[str, object]]]:
    rows = data.get(name, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"gates.toml: {name}: wanted [[{name}]] tables, got {rows!r:.80}")
    return enumerate(rows)


def _choices(where: str, data: object, kind: str) -> Iterable[tuple[str, dict[str, object]]]:
    if not isinstance(data, dict) or not all(isinstance(row, dict) for row in data.values()):
        raise ValueError(f"{where}.{kind}: wanted tables by name, got {data!r:.80}")
    return data.items()


def _overridden(where: str, gate: Gate, extra: Mapping[str, object]) -> Gate:
    allowed = {f.name for f in fields(Gate)} - {"series", "method", "direction", "unit"}
    _known(where, extra, sorted(allowed))
    return _record(where, {**asdict(gate), **extra})


def _known(where: str, data: Mapping[str, object], names: Iterable[str]) -> None:
    valid = list(names)
    for key in data:
        if key not in valid:
            near = get_close_matches(key, valid, n=3)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise ValueError(f"{where}: unknown key {key!r}, wanted {', '.join(valid)}{hint}")


_KINDS: Final = {
    "str": (str,),
    "float": (int, float),
    "float | None": (int, float, type(None)),
    "int": (int,),
    "bool": (bool,),
}


def _record(where: str, data: Mapping[str, Any]) -> Gate:
    types = {f.name: str(f.type) for f in fields(Gate)}
    _known(where, data, types)
    if missing := [name for name in ("series", "method") if name not in data]:
        raise ValueError(f"{where}: missing key {', '.join(missing)}")
    for key, value in data.items():
        wrong_bool = isinstance(value, bool) and types[key] != "bool"
        if wrong_bool or not isinstance(value, _KINDS[types[key]]):
            raise ValueError(f"{where}: {key}: wanted {types[key]}, got {value!r:.80}")
        # NaN compares as false with every effect, so a gate would never close. (TOML has nan, inf
        # and ints above every float.)
        if isinstance(value, int | float) and not abs(value) <= sys.float_info.max:
            raise ValueError(f"{where}: {key}: wanted a finite number, got {value!r:.80}")
    try:
        gate = Gate(**data)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return replace(gate, threshold=float(gate.threshold), margin=float(gate.margin))


def _waiver(where: str, data: Mapping[str, object]) -> Waiver:
    _known(where, data, ("series", "reason", "expires"))
    expires, texts = data.get("expires"), (data.get("series"), data.get("reason"))
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{where}: wanted series and reason as texts, got {texts}")
    # TOML's local date; its date-times are a subclass and would not compare with a date.
    if type(expires) is not date:
        raise ValueError(f"{where}: expires: wanted a date like 2027-01-31, got {expires!r}")
    try:
        return Waiver(str(texts[0]), str(texts[1]), expires)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
