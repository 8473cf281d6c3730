"""Runs as the reports find them: header, samples, verdict, sweep and cost table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import browser
import pytest
from recorded import (
    ROOFLINE,
    calibration,
    fault,
    mutant,
    paired_samples,
    position_samples,
    speed_samples,
    swept,
)

from msa_harness.records import RunHeader, RunStore
from msa_harness.verdicts import Outcome, SeriesVerdict, Verdict, worst
from msa_reports.report import write_report

HOSTILE = (
    "x|y\n::error file=a::boom ##[error]z @someone #12 GH-3 <script>window.hit=1</script>"
    '<img src=x onerror="window.hit=1"> **b** [l](https://example.invalid) `c` ``` ~~~ | --- '
    "\x1b[31mred \u202egnp \ud800 {{ 7*7 }} {% raw %} </style></script> www.example.invalid & &lt;"
)

MakeSeries = Callable[..., SeriesVerdict]
MakeRun = Callable[..., Path]


def make_series(**changes: Any) -> SeriesVerdict:
    given: dict[str, Any] = {
        "name": "speed/prefill/8192/low",
        "suite": "speed",
        "unit": "s",
        "direction": "lower",
        "verdict": Verdict.PASS,
        "base": 0.44,
        "head": 0.444,
        "effect": 0.009,
        "low": -0.012,
        "high": 0.03,
        "threshold": 0.02,
        "margin": 0.15,
        "confidence": 0.99,
        "n": 8,
        "mde": 0.044,
        "method": "speed",
        "repro": "nox -s gate -- --suite speed",
    }
    return SeriesVerdict(**{**given, **changes})


@pytest.fixture(name="make_series", scope="session")
def make_series_fixture() -> MakeSeries:
    return make_series


@pytest.fixture
def hostile() -> str:
    return HOSTILE


@pytest.fixture
def mixed() -> list[SeriesVerdict]:
    """Return one series or more of every verdict, in no useful order."""
    recall: dict[str, Any] = {
        "suite": "quality",
        "unit": "recall",
        "direction": "higher",
        "base": 0.97,
        "head": 0.97,
        "effect": 0.0,
        "threshold": 0.0,
        "margin": 0.1,
        "n": 96,
        "method": "binary",
    }
    return [
        make_series(),
        make_series(name="speed/prefill/16384/low", effect=0.001),
        make_series(name="speed/decode/8192", verdict=Verdict.INCONCLUSIVE, note="too wide"),
        make_series(
            name="speed/prefill/8192/high",
            verdict=Verdict.REGRESSION,
            head=0.575,
            effect=0.31,
            low=0.28,
            high=0.34,
            note="slower in every pair",
        ),
        make_series(
            **{**recall, "head": 0.77, "effect": 0.2, "low": 0.12, "high": 0.28},
            name="quality/msa_facts/recall",
            verdict=Verdict.REGRESSION,
            note="19 items lost",
            repro="nox -s quality -- --task msa_facts",
        ),
        make_series(**recall, name="quality/msa_niah_single/recall", verdict=Verdict.NO_SIGNAL),
        make_series(**recall, name="quality/msa_niah_multikey/recall", verdict=Verdict.NEW),
        make_series(**recall, name="quality/msa_gone/recall", verdict=Verdict.REMOVED),
        make_series(name="work/attended/8192", suite="work", unit="pairs", method="exact",
                    verdict=Verdict.IMPROVED, base=16252928.0, head=12252928.0, effect=-0.246,
                    low=None, high=None, mde=None),
        make_series(name="speed/dense/8192", verdict=Verdict.WAIVED, note="until 2027-01-31"),
        make_series(name="speed/startup", verdict=Verdict.ERROR, effect=None, base=None,
                    head=None, low=None, high=None, note="worker crashed: signal 11"),
        make_series(name="speed/dense/4096", verdict=Verdict.INVALID, note="control moved 9%"),
    ]  # fmt: skip


@pytest.fixture
def evidence() -> dict[str, str]:
    """Return the files of what is known of the gate itself, by name."""
    return {
        "faults.json": json.dumps(
            {"faults": [fault("a-fault"), fault("idle-fault", applied=False, caught=False)]}
        ),
        "calibration.json": json.dumps(calibration()),
        "mutants.jsonl": "".join(json.dumps(mutant(name)) + "\n" for name in "abcde"),
    }


def runs_in(folder: Path) -> MakeRun:
    """Return a maker of run directories from series; samples are made up to fit."""

    def make(
        series: Sequence[SeriesVerdict],
        *,
        name: str = "run",
        judged: bool = True,
        speed: bool = True,
        sweep: bool = True,
        limits: bool = True,
        positions: bool = True,
        pairs: int = 8,
        text: str = "",
        beside: Mapping[str, str] | None = None,
    ) -> Path:
        directory = folder / name
        header = RunHeader(
            command="gate",
            argv=("gate", "--base", f"main{text}"),
            environment={"cpu": f"some cpu{text}", "versions": {"torch": "2.13.0"}, "threads": 2},
            subjects={
                "base": {"revision": f"c88a3a3f{text}", "dirty": False},
                "head": {"revision": "6a9f17f0", "dirty": True},
            },
            judge={"revision": "c88a3a3f", "dirty": False},
            profile="quick",
            seed=17,
            gates={"sha256": "ab" * 32},
        )
        samples = [sample for s in series for sample in paired_samples(s, pairs)]
        samples += speed_samples() if speed else []
        samples += position_samples() if positions else []
        with RunStore.create(directory, header) as store:
            store.append({sample.key: sample for sample in samples}.values())
        if judged:
            outcome = Outcome(worst(s.verdict for s in series), tuple(series), (f"note{text}",))
            path = directory / "verdict.json"
            path.write_text(json.dumps(outcome.to_json()), encoding="utf-8")
        if sweep:
            document = swept(text)
            (directory / "sweep.json").write_text(json.dumps(document), encoding="utf-8")
        if limits:
            costs = [{"length": n, "ratio": r} for n, r in ((2048, 0.5), (4096, 1), (16384, 2.7))]
            document = {"rows": costs, "roofline": ROOFLINE}
            (directory / "cost.json").write_text(json.dumps(document), encoding="utf-8")
        for file, content in (beside or {}).items():
            (directory / file).write_text(content, encoding="utf-8")
        return directory

    return make


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Return :func:`runs_in` a folder of the test."""
    return runs_in(tmp_path)


@pytest.fixture(scope="session")
def run_maker() -> Callable[[Path], MakeRun]:
    """Return :func:`runs_in`, for what lives longer than a test."""
    return runs_in


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Return a real Chromium."""
    pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    driver = browser.start(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()


@pytest.fixture
def opened(driver: Any, make_run: MakeRun, mixed: list[SeriesVerdict]) -> Callable[..., Any]:
    """Return a function that opens the page of a run and hands the driver back."""

    def open_(
        series: Sequence[SeriesVerdict] = mixed,
        *,
        width: int = 1280,
        dark: bool = False,
        **kwargs: Any,
    ) -> Any:
        browser.show(driver, write_report(make_run(series, **kwargs)).html, width=width, dark=dark)
        return driver

    return open_
