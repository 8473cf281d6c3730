"""What the machine was like in each side's turns, on recorded answers of NVML too."""

from __future__ import annotations

import os
import sys
from datetime import date
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace

import pytest

from msa_harness import turns
from msa_harness.gates import parse_gates
from msa_harness.gpu import THROTTLES, Gpu, Nvml, find_gpu
from msa_harness.judge import judge
from msa_harness.samples import Sample
from msa_harness.turns import Condition, Turns, core_clock
from msa_harness.verdicts import Verdict

SHIPPED = Path(__file__).parents[2] / "suites" / "msa_suites" / "gates.toml"


class RefusedError(Exception):
    """What NVML raises."""


class RecordedNvml:
    """Answers in the shape of a data-centre board's; ``changed`` replaces some of them."""

    NVMLError = RefusedError

    def __init__(self, **changed):
        self.answers = {
            "nvmlInit": None,
            "nvmlSystemGetDriverVersion": "580.95.05",
            "nvmlDeviceGetHandleByIndex": "handle 0",
            "nvmlDeviceGetHandleByUUID": "handle by uuid",
            "nvmlDeviceGetName": b"NVIDIA H100 80GB HBM3",
            "nvmlDeviceGetUUID": "GPU-5e0c",
            "nvmlDeviceGetPowerManagementLimit": 700_000,
            "nvmlDeviceGetMaxClockInfo": 1980,
            "nvmlDeviceGetClockInfo": 1755,
            "nvmlDeviceGetCurrentClocksThrottleReasons": 0,
            "nvmlDeviceGetTemperature": 54,
            "nvmlDeviceGetPowerUsage": 412_300,
            "nvmlDeviceGetTotalEccErrors": 0,
            "nvmlDeviceGetComputeRunningProcesses": [],
            **changed,
        }
        self.calls = []

    def __getattr__(self, name):
        def call(*arguments):
            self.calls.append((name, arguments))
            answer = self.answers[name]
            if isinstance(answer, cycle):
                answer = next(answer)
            if answer is RefusedError:
                raise RefusedError(name)
            return answer

        return call


def process(pid):
    return SimpleNamespace(pid=pid, usedGpuMemory=1 << 30)


WORKERS = [SimpleNamespace(pid=11, device="cuda"), SimpleNamespace(pid=12, device="cuda")]


def watched(nvml, *, clock=lambda: 2.5e9):
    block = Turns(WORKERS, clock=clock, gpu=find_gpu(nvml, ""))
    for number in range(4):
        with block.turn("base" if number % 2 == 0 else "head"):
            pass
    return {c.series.rpartition("/")[2]: c for c in block.conditions()}


def verdicts(conditions, device="GPU"):
    """What the shipped gates make of the conditions beside a clear slowdown."""
    rows = [
        Sample("speed", f"speed/machine/{name}", side, c.unit, "pair-00", c.value, detail=c.detail)
        for name, c in conditions.items()
        for side in ("base", "head")
    ]
    for series, slower in (("speed/prefill/1", 1.5), ("speed/control/dense", 1.0)):
        for item in [f"{kind}-{n:02d}" for kind in ("pair", "confirm") for n in range(8)]:
            seconds = 1.0 + 0.001 * int(item[-1])
            rows += [
                Sample("speed", series, "base", "s", item, seconds),
                Sample("speed", series, "head", "s", item, seconds * slower),
            ]
    outcome = judge(rows, parse_gates(SHIPPED.read_text(), device=device), date(2026, 1, 1))
    return outcome, {one.name: one for one in outcome.series}


def test_a_quiet_gpu_lets_the_clock_speak():
    nvml = RecordedNvml(nvmlDeviceGetComputeRunningProcesses=[process(11), process(12)])
    found = watched(nvml)
    assert found["gpu_clock_difference"].value == 0
    assert found["gpu_clock_difference"].detail == "base 1.755 GHz, head 1.755 GHz"
    assert (found["gpu_temperature"].value, found["gpu_power"].value) == (54, 412.3)
    outcome, named = verdicts(found)
    assert outcome.verdict is Verdict.REGRESSION
    assert named["speed/prefill/1"].verdict is Verdict.REGRESSION
    assert named["speed/machine/gpu_power"].verdict is Verdict.NO_SIGNAL


@pytest.mark.parametrize(
    ("answers", "series", "words"),
    [
        ({"nvmlDeviceGetCurrentClocksThrottleReasons": cycle([0, 0x40])}, "gpu_throttled",
         "got 0.5; hardware thermal slowdown"),
        ({"nvmlDeviceGetCurrentClocksThrottleReasons": 0x08 | 0x80}, "gpu_throttled",
         "hardware slowdown, power brake"),
        ({"nvmlDeviceGetClockInfo": cycle([1980, 1500])}, "gpu_clock_difference",
         "got -0.242; base 1.98 GHz, head 1.5 GHz"),
        ({"nvmlDeviceGetTotalEccErrors": cycle([3, 4])}, "gpu_ecc_errors",
         "got 1; 4 since the driver started"),
        ({"nvmlDeviceGetComputeRunningProcesses": [process(11), process(12), process(99)]},
         "gpu_foreign_processes", "got 1; the most at one time"),
        # A container sees the host's numbers: three of which two are ours.
        ({"nvmlDeviceGetComputeRunningProcesses": [process(n) for n in (901, 902, 903)]},
         "gpu_foreign_processes", "got 1; the most at one time"),
    ],
)  # fmt: skip
def test_a_disturbed_gpu_voids_what_was_timed_on_it(answers, series, words):
    outcome, named = verdicts(watched(RecordedNvml(**answers)))
    assert outcome.verdict is Verdict.INVALID
    assert outcome.exit_code == 4
    broken = named[f"speed/machine/{series}"]
    assert broken.verdict is Verdict.INVALID
    assert words in broken.note
    timed = named["speed/prefill/1"]
    assert timed.verdict is Verdict.INVALID
    assert f"speed/machine/{series}: wanted at most" in timed.note
    assert timed.more is None


def test_a_board_at_its_power_limit_is_recorded_and_not_voided():
    found = watched(RecordedNvml(nvmlDeviceGetCurrentClocksThrottleReasons=0x04))
    assert (found["gpu_power_capped"].value, found["gpu_throttled"].value) == (1, 0)
    assert verdicts(found)[0].verdict is Verdict.REGRESSION


def test_what_a_board_does_not_tell_is_missing_and_not_zero():
    names = ["ClockInfo", "Temperature", "PowerUsage", "TotalEccErrors", "PowerManagementLimit"]
    names += ["ComputeRunningProcesses", "CurrentClocksThrottleReasons"]
    nvml = RecordedNvml(**{f"nvmlDeviceGet{name}": RefusedError for name in names})
    found = watched(nvml)
    assert [n for n, c in found.items() if n.startswith("gpu_") and c.value is not None] == []
    assert verdicts(found)[0].verdict is Verdict.REGRESSION
    gpu = find_gpu(nvml, "")
    assert gpu is not None
    assert set(gpu.describe()) == {"name", "uuid", "driver", "max_sm_clock"}


def test_the_gpu_is_described_for_the_record():
    gpu = find_gpu(RecordedNvml(), "")
    assert gpu is not None
    assert gpu.describe() == {
        "name": "NVIDIA H100 80GB HBM3",
        "uuid": "GPU-5e0c",
        "driver": "580.95.05",
        "power_limit": "700 W",
        "max_sm_clock": "1980 MHz",
    }


@pytest.mark.parametrize(
    ("visible", "call"),
    [
        ("", ("nvmlDeviceGetHandleByIndex", (0,))),
        ("3,1", ("nvmlDeviceGetHandleByIndex", (3,))),
        ("GPU-5e0c", ("nvmlDeviceGetHandleByUUID", ("GPU-5e0c",))),
    ],
)
def test_the_gpu_that_cuda_sees_is_watched(visible, call):
    nvml = RecordedNvml()
    assert isinstance(find_gpu(nvml, visible), Gpu)
    assert call in nvml.calls


def test_without_nvml_there_is_no_gpu(monkeypatch):
    assert find_gpu(RecordedNvml(nvmlInit=RefusedError), "") is None
    monkeypatch.setitem(sys.modules, "pynvml", None)  # not installed
    assert find_gpu() is None


def test_a_gpu_that_nobody_watches_is_said_to_be_unwatched(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    block = Turns(WORKERS, clock=lambda: None)
    with block.turn("head"):
        pass
    (one,) = block.conditions()
    assert (one.series, one.value) == ("speed/machine/gpu_throttled", None)
    assert "not watched" in one.detail


def test_names_and_bits_are_those_of_nvml():
    import pynvml

    names = [name for name in vars(Nvml) if name.startswith("nvml")]
    assert len(names) == 14
    assert [name for name in names if not callable(getattr(pynvml, name, None))] == []
    reasons = ("HwSlowdown", "SwThermalSlowdown", "HwThermalSlowdown", "HwPowerBrakeSlowdown")
    assert [getattr(pynvml, f"nvmlClocksThrottleReason{name}") for name in reasons] == [*THROTTLES]
    assert issubclass(pynvml.NVMLError, Exception)


CPU = [SimpleNamespace(pid=os.getpid(), device="cpu")]


def test_cores_that_run_slower_for_head_void_what_was_timed():
    clocks = cycle([2.5e9, 2.3e9])
    block = Turns(CPU, clock=lambda: next(clocks))
    for side in ("base", "head") * 3:
        with block.turn(side):
            pass
    found = {c.series.rpartition("/")[2]: c for c in block.conditions()}
    assert found["clock_difference"].value == pytest.approx(-0.08)
    outcome, named = verdicts(found)
    assert outcome.verdict is Verdict.INVALID
    assert "base 2.5 GHz, head 2.3 GHz" in named["speed/machine/clock_difference"].note


def test_load_in_the_turns_of_one_side_voids_where_the_machine_is_ours():
    rows = {"load_difference": Condition("", 0.3, "share", "base 1.0%, head 31.0% of the cores")}
    outcome, named = verdicts(rows)
    assert outcome.verdict is Verdict.INVALID
    assert "got 0.3; base 1.0%, head 31.0%" in named["speed/machine/load_difference"].note
    assert verdicts(rows, device="shared-cpu")[0].verdict is Verdict.REGRESSION
    short = watched(RecordedNvml())["load_difference"]
    assert short.value is None
    assert "the kernel counts too coarsely" in short.detail


def test_foreign_work_in_the_turns_of_one_side_is_seen(monkeypatch):
    cores = len(os.sched_getaffinity(0))
    shares = cycle([0.1, 0.4])
    load = SimpleNamespace(lap=lambda: (next(shares) * 0.6 * cores, 0.6 * cores))
    monkeypatch.setattr(turns, "ForeignLoad", lambda _pids: load)
    block = Turns(CPU, clock=lambda: None)
    for side in ("base", "head") * 2:
        with block.turn(side):
            pass
    clock, foreign = block.conditions()
    assert (clock.value, clock.detail) == (None, "the machine does not say")
    assert foreign.value == pytest.approx(0.3)
    assert foreign.detail == "base 10.0% of the cores, head 40.0% of the cores"


def test_a_side_alone_has_nothing_to_differ_from():
    block = Turns(CPU)
    with block.turn("head"):
        pass
    assert block.conditions() == []
    clock = core_clock()
    assert clock is None or 1e8 < clock < 1e10
