"""Pairs of workers for real, on a toy whose two versions differ in a known way."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from datetime import date

import pytest
import torch

from msa_harness.client import Worker, WorkerError
from msa_harness.gates import parse_gates
from msa_harness.judge import judge
from msa_harness.pair_samples import FOREIGN, STARTUP
from msa_harness.pairs import Block, PairRunner, TimedSeries, first_blocks, more_blocks
from msa_harness.records import ERROR, WRONG
from msa_harness.subjects import Subject
from msa_harness.timed import Spent, clock_problems

GATES = """
[[gate]]
series = "speed/startup"
method = "report"
[[gate]]
series = "speed/machine/*"
method = "report"
[[gate]]
series = "speed/control/*"
method = "report"
[[gate]]
series = "speed/*"
method = "speed"
threshold = 0.02
margin = 0.5
pairs = 2
max_pairs = 4
control = "speed/control/*"
drift = 0.5
"""

TOY = """
import os, time
def work(x):
    time.sleep({seconds})
    return x.sum() * {factor}
def control(x):
    time.sleep(0.004)
    return x.sum()
def raises(x):
    {raises}
    return x.sum()
def dies(x):
    {dies}
    return x.sum()
"""

BAD = {
    "dies": ERROR + "worker of head: time ended the process with exit status 9",
    "raises": WRONG + "ValueError: no",
    "work": WRONG + "wrong sum",
}


def inputs():
    return [{"args": [torch.full((8,), float(i))]} for i in (1, 2)]


def right(timing):
    expected = 8.0 * (timing.index + 1) * timing.scale
    return "" if abs(float(timing.output) - expected) < 1e-3 else "wrong sum"


SERIES = [
    TimedSeries("speed/work", "toy", "work", inputs, vary=("0",), check=right),
    TimedSeries("speed/control/x", "control", "", inputs, target="toy:control", control=True),
]


@pytest.fixture(scope="module")
def make_start(tmp_path_factory):
    def make(**head):
        started = []
        subjects = {}
        plain = {"seconds": 0.004, "factor": 1, "raises": "pass", "dies": "pass"}
        for side, values in (("base", plain), ("head", plain | head)):
            root = tmp_path_factory.mktemp(side)
            (root / "toy.py").write_text(TOY.format(**values))
            subjects[side] = Subject(side, sys.executable, (root,))

        def start(side):
            started.append(side)
            worker = Worker(subjects[side], timeout=60, forked=True)
            worker.load("toy", "toy")
            return worker

        return start, started

    return make


def by_series(batches):
    return {batch[0].series: batch for batch in batches}


def test_two_blocks_alternate_and_a_resumed_run_goes_on_where_it_stopped(make_start):
    start, started = make_start(seconds=0.008)
    runner = PairRunner(start, SERIES, alternations=5, repro=lambda name: f"again {name}")
    blocks = first_blocks(["speed/work"], parse_gates(GATES))
    assert [block.item for block in blocks] == ["pair-00", "pair-01"]
    batches = list(runner.run(blocks[:1]))
    names = [batch[0].series for batch in batches]
    assert names == [STARTUP, "speed/control/x", "speed/work", FOREIGN]
    assert 0.0 <= batches[-1][0].value <= 1.0
    assert sorted(started) == ["base", "head"]
    work = by_series(batches)["speed/work"]
    assert [sample.subject for sample in work] == ["base", "head"]
    assert all(len(sample.raw) == 5 and sample.item == "pair-00" for sample in work)
    assert work[0].repro == "again speed/work"
    assert work[1].value > 1.3 * work[0].value

    samples = [sample for batch in batches for sample in batch]
    done = {sample.key for sample in samples}
    again = PairRunner(start, SERIES, alternations=5)
    samples += [sample for batch in again.run(blocks, done) for sample in batch]
    assert sorted(started) == ["base", "base", "head", "head"]  # one pair more, none again
    assert set(Counter(sample.key for sample in samples).values()) == {1}
    outcome = judge(samples, parse_gates(GATES), date(2026, 1, 1))
    assert {s.name: s.n for s in outcome.series}["speed/work"] == 2


def test_failures_of_head_are_told_and_the_rest_goes_on(make_start):
    start, _ = make_start(factor=2, raises="raise ValueError('no')", dies="os._exit(9)")
    bad = [TimedSeries(f"speed/{o}", "toy", o, inputs, check=right) for o in BAD]
    runner = PairRunner(start, [*bad, *SERIES[1:]], alternations=2)
    names = frozenset(one.name for one in runner.series)  # the control's too, as a suite asks
    blocks = [Block(f"pair-0{i}", names) for i in (0, 1)]
    batches = by_series(runner.run(blocks[:1]))
    for operation, reason in BAD.items():
        base, head = batches[f"speed/{operation}"]
        assert (base.value, head.value) == (None, None)
        assert base.detail == "not timed: head failed"
        assert head.detail.startswith(reason)
    assert batches["speed/control/x"][1].value is not None
    assert list(runner.run(blocks[1:])) == []  # they would fail again


def test_blocks_answer_the_judge():
    gates = parse_gates(GATES)
    done = {
        ("speed", name, side, f"pair-{i:02d}")
        for name in ("speed/a", "speed/b")
        for side in ("base", "head")
        for i in range(2)
    }
    blocks = more_blocks({"speed/a": "more", "speed/b": "confirm"}, done, gates)
    assert [(b.item, sorted(b.names)) for b in blocks] == [
        ("pair-02", ["speed/a"]),
        ("pair-03", ["speed/a"]),
        ("confirm-00", ["speed/b"]),
        ("confirm-01", ["speed/b"]),
    ]
    done |= {("speed", "speed/a", "base", f"pair-{i:02d}") for i in range(4)}
    done |= {("speed", "speed/b", "base", f"confirm-{i:02d}") for i in range(3)}
    confirming = more_blocks({"speed/b": "confirm"}, done, gates)
    assert [b.item for b in confirming] == ["confirm-03"]  # up to the next look
    assert more_blocks({"speed/a": "more"}, done, gates) == []


@pytest.mark.parametrize(
    ("series", "alternations", "text"),
    [
        (SERIES[:1], 3, "control series"),
        (SERIES + SERIES[:1], 3, "speed/work twice"),
        (SERIES, 0, "alternations"),
    ],
)
def test_runners_that_could_not_be_judged_are_refused(series, alternations, text):
    with pytest.raises(ValueError, match=text):
        PairRunner(Worker, series, alternations=alternations)


def test_a_worker_that_does_not_start_is_an_error():
    def start(side):
        return Worker(Subject(side, "/no/such/python"))

    runner = PairRunner(start, SERIES)
    with pytest.raises(WorkerError, match="/no/such/python"):
        list(runner.run([Block("pair-00", frozenset({"speed/work"}))]))


def test_a_side_that_does_not_start_takes_the_other_down(make_start):
    start, _ = make_start()
    running = []

    def half(side):
        if side == "head":
            raise WorkerError("no such code")
        running.append(start(side))
        return running[-1]

    runner = PairRunner(half, SERIES, alternations=1)
    with pytest.raises(WorkerError, match="no such code"):
        list(runner.run([Block("pair-00", frozenset(["speed/work"]))]))
    with pytest.raises(WorkerError):
        running[0].info([])


def test_a_group_is_timed_in_turn_and_outlives_a_crash_of_one_of_its_series(make_start):
    start, started = make_start(dies="os._exit(9)")
    group = [replace(one, group="together") for one in SERIES if not one.control]
    dying = TimedSeries("speed/dies", "toy", "dies", inputs, check=right, group="together")
    runner = PairRunner(start, [SERIES[1], *group, dying], alternations=3)
    names = frozenset(one.name for one in [dying, *group])
    batches = by_series(runner.run([Block("pair-00", names)]))
    assert all(sample.value is None for sample in batches["speed/dies"])
    assert all(len(sample.raw) == 3 for sample in batches["speed/work"])
    assert sorted(started) == ["base", "head", "head"]


def test_a_clock_that_gives_back_what_calls_took_is_found():
    honest = Spent([0.1] * 8, beyond=[0.01, 0.02, 0.01, 0.5], calls=[0.2] * 4)
    busy = Spent([0.1] * 8, beyond=[0.03, 0.9, 0.02, 0.03], calls=[0.2] * 4)
    assert clock_problems({"base": honest, "head": busy}) == {}
    lying = Spent([0.05] * 8, beyond=[0.11, 0.12, 0.11, 0.6], calls=[0.1] * 4)
    (side,) = clock_problems({"base": honest, "head": lying})
    assert side == "head"
    assert clock_problems({"head": lying}) == {}  # nothing to compare with
    assert clock_problems({"base": Spent(), "head": Spent()}) == {}


def test_a_side_is_called_a_liar_in_the_second_block_that_shows_it(make_start, monkeypatch):
    shown = iter([{}, {"head": "late"}, {}, {}, {}, {"base": "late"}, {}, {"head": "late"}])
    monkeypatch.setattr("msa_harness.pairs.clock_problems", lambda _spent: next(shown))
    start, _ = make_start()
    runner = PairRunner(start, SERIES, alternations=4)
    blocks = [Block(f"pair-{number:02}", frozenset(["speed/work"])) for number in range(5)]
    found = [batch for batch in runner.run(blocks) if batch[0].series == "speed/work"]
    # The control is asked before it in every block; head is late in the first and the last.
    details = [{one.subject: one.detail for one in batch} for batch in found]
    assert [row["head"] for row in details] == ["", "", "", ERROR + "late"]
    assert not any(row["base"] for row in details[:3])


def test_the_turn_that_is_checked_is_drawn(make_start):
    start, _ = make_start()
    runner = PairRunner(start, SERIES, alternations=9)
    blocks = [Block(f"pair-{i:02d}", frozenset()) for i in range(80)]
    drawn = Counter(runner._checked_turn(SERIES[0], block) for block in blocks)
    assert set(drawn) == {None, 0, 1, 2, 3}
    assert drawn[None] >= 20  # the last turn, whichever that will be, as often as the others


def test_slow_series_have_fewer_turns_and_a_call_of_each_is_checked(make_start):
    start, _ = make_start()
    seen = []

    def counted(timing):
        seen.append(timing.index)
        return right(timing)

    work, control = (replace(one, group="all") for one in SERIES)
    runner = PairRunner(
        start, [replace(work, check=counted), control], alternations=9, seconds=0.01
    )
    batches = by_series(runner.run([Block("pair-00", frozenset(["speed/work"]))]))
    for name in ("speed/work", "speed/control/x"):
        assert {len(sample.raw) for sample in batches[name]} == {4}
    assert len(seen) == 4  # the first and another one, on both sides
    patient = PairRunner(start, [work, control], alternations=5, seconds=60.0)
    batches = by_series(patient.run([Block("pair-00", frozenset(["speed/work"]))]))
    assert {len(sample.raw) for sample in batches["speed/work"]} == {5}
    with pytest.raises(ValueError, match="seconds: wanted more than 0"):
        PairRunner(start, SERIES, seconds=0.0)
