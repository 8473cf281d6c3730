"""The one record of a measurement, as JSON lines say it.

A sample without a value says why in `detail`. The start of that text decides what the judge makes
of it: `WRONG` (the subject answered, and the answer is unusable: not finite, fails its check),
`ERROR` (it could not be measured: crash, timeout), `INVALID` (it was measured under conditions
that void it); anything else is the reason of a skip.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from statistics import median
from typing import Final

SCHEMA: Final = "msa-bench/run/1"
SUBJECTS: Final = ("base", "head")
WRONG: Final = "wrong: "
ERROR: Final = "error: "
INVALID: Final = "invalid: "
NOT_FINITE: Final = WRONG + "not finite"

Key = tuple[str, str, str, str]


class RunError(ValueError):
    """A run directory, or a line in it, is not what it should be."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured value of one item of one series on one subject.

    Attributes:
        suite: "correctness", "quality", "speed" or "work".
        series: Stable name, "speed/prefill/8192/low".
        subject: "base" or "head".
        unit: "s", "nats", "recall", "blocks", "check", ...
        item: What pairs base with head: item hash, "pair-03", check or case id.
        value: None where missing or skipped. Checks: 1.0 passed, 0.0 failed. Speed: the median
            seconds of this process.
        cluster: Document hash, or process pair: items that share one are not independent.
        detail: Why it failed or was skipped (see the module's text for its prefixes).
        raw: Raw samples behind `value` (seconds of each call).
        ran: Implementation that really ran: "msa.fast 0.1.0 sha256:abcd...".
        repro: Command that repeats this sample's series.

    Raises:
        ValueError: A name is empty, the subject is unknown, or a number is not finite.
    """

    suite: str
    series: str
    subject: str
    unit: str
    item: str
    value: float | None
    cluster: str = ""
    detail: str = ""
    raw: tuple[float, ...] = ()
    ran: str = ""
    repro: str = ""

    def __post_init__(self) -> None:
        """Refuse what would poison a record: NaN, infinities, missing names."""
        for name in ("suite", "series", "unit", "item"):
            if not getattr(self, name):
                raise ValueError(f"sample.{name}: wanted a name, got an empty text")
        if self.subject not in SUBJECTS:
            raise ValueError(f"sample.subject: wanted one of {SUBJECTS}, got {self.subject!r}")
        for number in (() if self.value is None else (self.value,)) + self.raw:
            if not math.isfinite(number):
                raise ValueError(
                    f"sample {self.series} {self.item} ({self.subject}): wanted a finite number, "
                    f"got {number}; a value that is not finite is recorded as None with "
                    "detail NOT_FINITE"
                )

    @property
    def key(self) -> Key:
        """What identifies a sample inside a run."""
        return (self.suite, self.series, self.subject, self.item)

    def to_json(self) -> str:
        """The sample as one line of JSON, without the line break."""
        return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False)


_REQUIRED = ("suite", "series", "subject", "unit", "item", "value")
_TEXTS = ("suite", "series", "subject", "unit", "item", "cluster", "detail", "ran", "repro")
_NAMES = tuple(f.name for f in fields(Sample))


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name}: wanted a number, got {value!r}")
    return float(value)


def sample_from_dict(data: object) -> Sample:
    """Build a sample from parsed JSON.

    Raises:
        ValueError: Something is missing, unknown or of the wrong type; the text names it.
    """
    if not isinstance(data, dict):
        raise ValueError(f"wanted an object with {', '.join(_REQUIRED)}, got {data!r:.80}")
    missing = [name for name in _REQUIRED if name not in data]
    unknown = [name for name in data if name not in _NAMES]
    if missing or unknown:
        raise ValueError(f"wanted the fields of a sample, got missing {missing}, unknown {unknown}")
    texts = {name: data.get(name, "") for name in _TEXTS}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise ValueError(f"{name}: wanted a text, got {text!r:.80}")
    raw = data.get("raw", [])
    if not isinstance(raw, list):
        raise ValueError(f"raw: wanted a list of numbers, got {raw!r:.80}")
    value = data["value"]
    return Sample(
        value=None if value is None else _number("value", value),
        raw=tuple(_number("raw", number) for number in raw),
        **texts,
    )


def finite(value: float) -> tuple[float | None, str]:
    """Split a measured number into a sample's (value, detail).

    A number that is not finite becomes a missing value which the judge counts as a wrong answer.
    """
    return (float(value), "") if math.isfinite(value) else (None, f"{NOT_FINITE} ({value})")


def log_ratio(base: Sample, head: Sample) -> float:
    """log(head / base) of one pair of timings: the median over calls, each against its neighbour.

    The two sides are called in turn, so neighbours share the state that the machine was in; the
    ratio of two medians would mix states (on two shared cores its spread over pairs was 1.3 times
    as large in the middle of 36 series). Without as many calls on both sides, the ratio of the
    values.

    Raises:
        ValueError: A pair without values, or with one that is not positive.
    """
    calls = list(zip(base.raw, head.raw, strict=False))
    if len(base.raw) != len(head.raw) or not calls:
        if base.value is None or head.value is None:
            raise ValueError(f"{base.series} {base.item}: wanted values on both sides")
        calls = [(base.value, head.value)]
    if min(min(pair) for pair in calls) <= 0:
        raise ValueError(f"{base.series} {base.item}: wanted positive seconds, got {calls[:3]}")
    return median(math.log(after / before) for before, after in calls)


@dataclass(frozen=True, slots=True)
class RunHeader:
    """What a run is about; written once as `run.json`.

    Attributes:
        command: Name of the command, "gate".
        argv: Its arguments, as given.
        environment: Machine and versions (`environment.Environment.to_dict()`).
        subjects: "base" and "head", each a plain description (`subjects.Subject.to_dict()`).
        judge: Where suites, harness and thresholds came from (revision, path, versions).
        profile: "quick", "standard" or "full".
        seed: Seed of items and resampling.
        gates: The gate table that judges, with its sha256 (`gates.GateTable.to_dict()`).
        created: UTC, ISO 8601.
        schema: Version of the layout of the directory.
    """

    command: str
    argv: tuple[str, ...]
    environment: Mapping[str, object]
    subjects: Mapping[str, object]
    judge: Mapping[str, object]
    profile: str
    seed: int
    gates: Mapping[str, object]
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    schema: str = SCHEMA

    def to_json(self) -> str:
        """The header as indented JSON."""
        return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False, indent=1)

    def differs(self, other: RunHeader) -> list[str]:
        """Names of the fields that make samples of two runs unfit for one file."""
        names = ("schema", "command", "subjects", "judge", "profile", "seed", "gates")
        plain = (json.loads(self.to_json()), json.loads(other.to_json()))
        return [name for name in names if plain[0][name] != plain[1][name]]


def header_from_dict(data: object) -> RunHeader:
    """Build a header from parsed JSON.

    Raises:
        ValueError: Another schema, or a field is missing or of the wrong type.
    """
    if not isinstance(data, dict):
        raise ValueError(f"wanted an object with schema {SCHEMA!r}, got {data!r:.80}")
    if data.get("schema") != SCHEMA:
        raise ValueError(f"schema: wanted {SCHEMA!r}, got {data.get('schema')!r}")
    wanted = {f.name for f in fields(RunHeader)}
    if set(data) != wanted:
        raise ValueError(
            f"wanted the fields {sorted(wanted)}, got missing {sorted(wanted - set(data))}, "
            f"unknown {sorted(set(data) - wanted)}"
        )
    kinds: dict[str, type] = {"argv": list, "seed": int}
    kinds |= dict.fromkeys(("environment", "subjects", "judge", "gates"), dict)
    for name, value in data.items():
        kind = kinds.get(name, str)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{name}: wanted {kind.__name__}, got {value!r:.80}")
    return RunHeader(**{**data, "argv": tuple(data["argv"])})
