from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msa_harness import records
from msa_harness.records import RunError, RunHeader, RunStore, Sample, finite
from msa_harness.samples import sample_from_dict

HEADER = RunHeader(
    command="gate",
    argv=("--base", "main"),
    environment={"python": "3.11"},
    subjects={"base": {"revision": "a"}, "head": {"revision": "b"}},
    judge={"revision": "a"},
    profile="quick",
    seed=7,
    gates={"sha256": "00"},
)


def sample(item="pair-00", value: float | None = 0.5, **others):
    names = {"suite": "speed", "series": "speed/a", "subject": "head", "unit": "s"}
    return Sample(**{**names, "item": item, "value": value, **others})


NAMES = st.text(min_size=1, max_size=20)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@given(
    st.builds(
        Sample,
        suite=NAMES,
        series=NAMES,
        subject=st.sampled_from(["base", "head"]),
        unit=NAMES,
        item=NAMES,
        value=st.none() | NUMBERS,
        cluster=st.text(),
        detail=st.text(),
        raw=st.lists(NUMBERS).map(tuple),
        ran=st.text(),
        repro=st.text(),
    )
)
def test_a_sample_survives_its_line(one):
    line = one.to_json()
    assert "\n" not in line
    assert sample_from_dict(json.loads(line)) == one


@pytest.mark.parametrize(
    "bad",
    [{"value": float("nan")}, {"raw": (1.0, float("inf"))}, {"subject": "tail"}, {"series": ""}],
)
def test_a_sample_refuses_what_would_poison_a_record(bad):
    with pytest.raises(ValueError, match="wanted"):
        sample(**bad)


def test_numbers_that_are_not_finite_become_wrong_answers():
    assert finite(1.5) == (1.5, "")
    value, detail = finite(float("nan"))
    assert value is None
    assert detail.startswith(records.WRONG)


def test_a_run_survives_closing(tmp_path):
    samples = [sample(f"pair-{i}", raw=(0.1, 0.2)) for i in range(3)] + [sample("none", None)]
    with RunStore.create(tmp_path / "run", HEADER) as store:
        store.append(samples[:2])
        store.append(samples[2:])
        store.append([])
    again = RunStore.open(tmp_path / "run")
    assert again.samples() == samples
    assert again.header == HEADER
    assert ("speed", "speed/a", "head", "pair-1") in again.done_keys()
    assert again.notes == []
    assert "null" in (tmp_path / "run" / "samples.jsonl").read_text()


@pytest.fixture
def run(tmp_path):
    with RunStore.create(tmp_path / "run", HEADER) as store:
        store.append([sample(f"pair-{i}") for i in range(3)])
    return tmp_path / "run"


@given(cut=st.integers(min_value=1, max_value=60))
def test_a_torn_last_line_is_dropped_on_resume(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("torn") / "run"
    with RunStore.create(path, HEADER) as store:
        store.append([sample(f"pair-{i}") for i in range(3)])
    lines = path / "samples.jsonl"
    lines.write_bytes(lines.read_bytes()[:-cut])
    assert len(RunStore.open(path).samples()) == 2
    with RunStore.open(path, resume=True) as store:
        assert len(store.samples()) == 2
        assert "torn last line" in store.notes[0]
        assert f"{lines}:3" in store.notes[0]
        store.append([sample("pair-2")])
    assert [one.item for one in RunStore.open(path).samples()] == ["pair-0", "pair-1", "pair-2"]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("{not json}", "2: Expecting property name"),
        ("[1, 2]", "2: wanted an object with suite"),
        ('{"suite": "speed"}', r"2: .*missing \['series'"),
        (sample("x").to_json().replace('"detail"', '"detial"'), r"2: .*unknown \['detial'\]"),
        (sample("x").to_json().replace("0.5", '"fast"'), "2: value: wanted a number, got 'fast'"),
        (sample("x").to_json().replace("0.5", "NaN"), "2: .*wanted a finite number, got nan"),
        (sample("x").to_json().replace('"head"', "3"), "2: subject: wanted a text, got 3"),
        (sample("pair-0").to_json(), "2: wanted each sample once"),
    ],
)
def test_a_corrupt_line_is_named(run, line, text):
    lines = (run / "samples.jsonl").read_text().splitlines()
    lines[1] = line
    if "once" in text:
        lines[0] = line
    (run / "samples.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(RunError, match=rf"samples\.jsonl:{text}"):
        RunStore.open(run)
    with pytest.raises(RunError):
        RunStore.open(run, resume=True)
    (run / "samples.jsonl").write_text("")
    RunStore.open(run, resume=True).close()  # a refusal gives the lock up


def test_bytes_that_are_no_text_are_named(run):
    (run / "samples.jsonl").write_bytes(b"\xff\xfe\x00\n")
    with pytest.raises(RunError, match=r"samples\.jsonl:1"):
        RunStore.open(run)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "wanted JSON"),
        ("[]", "wanted an object"),
        ('{"schema": "msa-bench/run/0"}', "wanted 'msa-bench/run/1', got 'msa-bench/run/0'"),
        ('{"benchmarks": []}', "got None"),
        (HEADER.to_json().replace('"seed": 7', '"seed": "x"'), "seed: wanted int"),
        (HEADER.to_json().replace('"seed": 7', '"sead": 7'), "missing.*seed.*unknown.*sead"),
    ],
)
def test_a_foreign_or_older_header_is_refused(run, text, reason):
    (run / "run.json").write_text(text)
    with pytest.raises(RunError, match=rf"run\.json(.|\n)*{reason}"):
        RunStore.open(run)


def test_places_without_a_run_are_refused(tmp_path, run):
    with pytest.raises(RunError, match="wanted a run directory"):
        RunStore.open(tmp_path / "nowhere")
    (run / "samples.jsonl").unlink()
    with pytest.raises(RunError, match=r"cannot read .*samples\.jsonl"):
        RunStore.open(run)
    with pytest.raises(RunError, match="resume it instead"):
        RunStore.create(run, HEADER)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(RunError, match="cannot create run directory"):
        RunStore.create(file, HEADER)


def test_a_start_that_was_killed_can_be_repeated(run):
    (run / "run.json").unlink()
    with pytest.raises(RunError, match="resume it instead"):
        RunStore.create(run, HEADER)  # samples of nobody knows what: not overwritten
    (run / "samples.jsonl").write_text("")
    RunStore.create(run, HEADER).close()
    assert RunStore.open(run).samples() == []


def test_an_unwritable_directory_is_a_clear_error(tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(RunError, match="no permission"):
        RunStore.create(tmp_path / "run", HEADER)


def test_resuming_something_else_is_refused(run):
    other = replace(HEADER, seed=8, subjects={"base": {}}, created="yesterday", argv=())
    with pytest.raises(RunError, match="differs in subjects, seed"):
        RunStore.open(run, resume=True, expect=other)
    same = replace(HEADER, created="yesterday", argv=("--resume",))
    RunStore.open(run, resume=True, expect=same).close()


def test_a_second_writer_is_refused_and_named(run):
    with RunStore.open(run, resume=True) as store:
        with pytest.raises(RunError, match=f"second writer \\(process {os.getpid()} is"):
            RunStore.open(run, resume=True)
        assert len(RunStore.open(run).samples()) == 3  # reading is free
        store.append([sample("pair-3")])
    with pytest.raises(RunError, match="to read"):
        RunStore.open(run).append([sample("pair-4")])


def test_a_sample_is_recorded_once(run):
    with RunStore.open(run, resume=True) as store:
        with pytest.raises(RunError, match="recorded already"):
            store.append([sample("new"), sample("pair-0")])
        assert ("speed", "speed/a", "head", "new") not in store.done_keys()


def test_a_full_disk_loses_nothing(run, monkeypatch):
    with RunStore.open(run, resume=True) as store:
        before = (run / "samples.jsonl").read_bytes()
        write = os.write

        def half(file, data):
            if len(data) > 50:
                return write(file, data[:50])
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "write", half)
        with pytest.raises(RunError, match="disk is full"):
            store.append([sample("pair-3")])
        monkeypatch.undo()
        assert (run / "samples.jsonl").read_bytes() == before
        store.append([sample("pair-3")])
    assert len(RunStore.open(run).samples()) == 4


def test_a_killed_writer_leaves_a_run_that_can_be_resumed(tmp_path):
    script = """
import sys
from msa_harness.records import RunHeader, RunStore, Sample
store = RunStore.create(sys.argv[1], RunHeader("gate", (), {}, {}, {}, "quick", 0, {}))
for i in range(10**6):
    store.append([Sample("speed", "speed/a", "head", "s", f"pair-{i}", float(i))])
    if i == 20:
        print("ready", flush=True)
"""
    harness = Path(__file__).parents[2] / "harness"
    writer = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(harness)},
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"ready\n"
    with pytest.raises(RunError, match=f"process {writer.pid}"):
        RunStore.open(tmp_path / "run", resume=True)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    with RunStore.open(tmp_path / "run", resume=True) as store:
        values = [one.value for one in store.samples()]
        assert len(values) > 20
        assert values == [float(i) for i in range(len(values))]
        store.append([sample("after")])
