"""Workers for real: what a call answers, and how a process starts, fails and ends."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import msa_harness.forked
from msa_harness.attestation import attest, ran
from msa_harness.client import (
    CallFailedError,
    Worker,
    WorkerCrashedError,
    WorkerError,
    WorkerMemoryError,
    WorkerTimeoutError,
)
from msa_harness.forked import share, sharing
from msa_harness.protocol import decode, ref
from msa_harness.subjects import Subject


@pytest.fixture(scope="module", params=[False, True], ids=["spawned", "forked"])
def forked(request):
    return request.param


def test_call_returns_what_the_subject_returns_despite_prints(shared):
    x = torch.arange(4.0)
    assert torch.equal(shared.call("toy", "double", [x], {"plus": 1.0}), x * 2 + 1)
    out = shared.call("toy", "pair", [x])
    assert isinstance(out, tuple)
    assert torch.equal(out[0], x)
    assert out[1] is None
    assert shared.call("toy", "spread", [x])["total"] == 6.0
    assert shared.call("toy", "spread", [x])["parts"][1] == (1, "two", True)


def test_strided_and_shared_inputs_keep_their_layout(shared):
    x = torch.arange(12.0).view(3, 4)[:, :2]
    assert not x.is_contiguous()
    assert torch.equal(shared.call("toy", "double", [x]), x * 2)
    with pytest.raises(CallFailedError, match="storage 0") as caught:
        shared.call("toy", "mutate_gap", [x])
    assert caught.value.kind == "mutated"


def test_load_builds_objects_and_refs_pass_them_on(shared):
    assert "run" in shared.load("model", "toy:Model", [3.0], {"offset": 1.0})
    x = torch.ones(2)
    assert torch.equal(shared.call("model", "run", [x]), x * 4)
    shared.call("toy", "double", [x], keep="doubled")
    assert torch.equal(shared.call("toy", "double", [ref("doubled")]), x * 4)
    shared.drop("doubled")
    with pytest.raises(CallFailedError, match="doubled"):
        shared.call("toy", "double", [ref("doubled")])


@pytest.mark.parametrize(
    ("operation", "kind", "text"),
    [
        ("fail", "raised", "RuntimeError: no luck today"),
        ("politely_leave", "raised", "SystemExit: 3"),
        ("missing", "raised", "no attribute 'missing'"),
        ("mutate", "mutated", "wanted it unchanged"),
        ("reshape", "mutated", "wanted it unchanged"),
        ("odd", "output", "output: wanted a tensor.*SimpleNamespace"),
        ("lazy", "output", "wanted exactly a torch.Tensor, got Lazy"),
    ],
)
def test_failures_of_the_subject_are_answers(shared, operation, kind, text):
    with pytest.raises(CallFailedError, match=text) as caught:
        shared.call("toy", operation, [torch.ones(3)])
    assert caught.value.kind == kind
    assert torch.equal(shared.call("toy", "double", [torch.ones(1)]), torch.tensor([2.0]))


def test_nan_inputs_are_not_taken_for_mutated(shared):
    x = torch.tensor([float("nan"), 1.0])
    assert shared.call("toy", "double", [x])[0].isnan()


def test_a_flood_on_stderr_does_not_block(shared):
    assert shared.call("toy", "noisy", [torch.ones(3)]) == 3.0


def test_unknown_handles_list_what_there_is(shared):
    with pytest.raises(CallFailedError, match="'toy'"):
        shared.call("toi", "double", [torch.ones(1)])


def test_requests_must_be_plain(shared):
    with pytest.raises(TypeError, match=r"message\.args\[0\]"):
        shared.call("toy", "double", [object()])


def test_pickled_messages_cannot_name_code():
    evil = pickle.dumps({"ok": os.system})
    with pytest.raises(ValueError, match="wanted plain values, got posix"):
        decode(evil)


def test_subject_that_cannot_be_imported(shared):
    with pytest.raises(CallFailedError, match="something_that_is_not_there"):
        shared.load("x", "broken")
    with pytest.raises(CallFailedError, match="no attribute"):
        shared.load("x", "json:nothing")


def test_judge_comes_first_on_the_import_path(shared):
    shared.load("both", "both")
    assert shared.call("both", "where") == "judge"


def test_info_attests_where_the_code_came_from(shared, subject, tmp_path):
    info = shared.info(["toy"])
    assert info["torch"] == torch.__version__
    assert info["threads"] == 1
    modules = info["modules"]
    assert attest(modules, subject.roots) == []
    assert ran("toy", modules["toy"]).startswith("toy 1.2.3 sha256:")
    assert "wanted it from" in attest(modules, [tmp_path])[0]
    changed = {"toy": {**modules["toy"], "sha256": "0" * 64}}
    assert "changed while it ran" in attest(changed, subject.roots)[0]


# The process.


def test_start_is_timed_apart(subject):
    began = time.perf_counter()
    with Worker(subject, timeout=60) as worker:
        took = time.perf_counter() - began
        started = worker.start_seconds
        worker.load("toy", "toy")
        assert worker.start_seconds == started
    # Nearly all of it is Python and torch, which load in the worker.
    assert took / 2 < started <= took


def test_python_that_is_not_there():
    with pytest.raises(WorkerError, match="/no/such/python"):
        Worker(Subject("base", "/no/such/python"))


def test_hang_is_killed_with_its_children(fresh, tmp_path):
    note = tmp_path / "child"
    began = time.perf_counter()
    with pytest.raises(WorkerTimeoutError, match="head: call took longer than 2 s"):
        fresh.call("toy", "hang_with_child", [str(note)], timeout=2.0)
    assert time.perf_counter() - began < 20
    child = int(note.read_text())
    assert _ends(child, within=5)
    with pytest.raises(WorkerError, match="closed"):
        fresh.call("toy", "double", [torch.ones(1)])


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except OSError:
        return False


def _ends(pid, *, within):
    deadline = time.perf_counter() + within
    while _alive(pid) and time.perf_counter() < deadline:
        time.sleep(0.05)
    return not _alive(pid)


def test_a_crash_names_signal_and_last_words(fresh):
    with pytest.raises(WorkerCrashedError, match=r"SIGSEGV(.|\n)*last words"):
        fresh.call("toy", "crash", [torch.ones(1)])


def test_a_leak_ends_the_worker_and_not_the_judge(subject):
    with Worker(subject, timeout=60, memory=1 << 30) as worker:
        worker.load("toy", "toy")
        assert worker.call("toy", "oom_score", [0]) == 1000  # the kernel takes it first
        with pytest.raises(WorkerMemoryError, match=r"call: wanted at most 1 GiB .*was killed"):
            worker.call("toy", "leak", [torch.ones(1)])
        assert not _alive(worker.pid)
    with pytest.raises(ValueError, match="memory: wanted bytes above 0, got 0"):
        Worker(subject, memory=0)


def test_a_kill_from_outside_says_that_memory_may_have_run_out(fresh):
    with pytest.raises(WorkerCrashedError, match=r"SIGKILL .*where memory runs out"):
        fresh.call("toy", "killed", [torch.ones(1)])


def test_the_subject_may_have_processes_of_its_own(fresh):
    assert fresh.call("toy", "family", [torch.ones(1)]) == 3.0


def test_exit_names_the_status(fresh):
    with pytest.raises(WorkerCrashedError, match="exit status 7"):
        fresh.call("toy", "leave", [torch.ones(1)])


def test_forked_workers_know_nothing_of_each_other_nor_of_the_judge(subject, monkeypatch):
    monkeypatch.setenv("SEEN_BY_WORKERS", "this")
    workers = [Worker(subject, timeout=60, threads=n, forked=True) for n in (1, 2)]
    parents = set()
    try:
        for threads, worker in enumerate(workers, start=1):
            worker.load("toy", "toy")
            assert worker.info()["threads"] == threads
            assert worker.call("toy", "counted", [torch.ones(1)]) == 1.0
            worker.load("environment", "os:environ")
            assert worker.call("environment", "get", ["SEEN_BY_WORKERS"]) == "this"
            assert worker.call("environment", "get", ["OMP_NUM_THREADS"]) == str(threads)
            worker.load("os", "os")
            parents.add(worker.call("os", "getppid"))
        assert len(parents) == 1  # one process, which has imported torch
        assert os.getpid() not in parents
    finally:
        for worker in workers:
            worker.close()
    with pytest.raises(ValueError, match="forked: wanted the judge's Python, got other"):
        Worker(replace(subject, python="other"), forked=True)


def test_a_start_that_nobody_answers_ends_at_its_timeout(subject, monkeypatch):
    monkeypatch.setattr(msa_harness.forked, "_origins", [])
    with pytest.raises(WorkerError, match=r"share\(\) was not called"):
        Worker(subject, timeout=60, forked=True)
    share(["msa_harness.worker"])
    origin = msa_harness.forked._origins[0].process
    origin.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(WorkerError, match=r"wanted to start .*, got no answer"):
        Worker(subject, timeout=0.5, forked=True)
    assert time.monotonic() - began < 30
    origin.kill()
    origin.wait()
    with pytest.raises(WorkerError, match=r"wanted to start .*, got"):
        Worker(subject, timeout=60, forked=True)
    share(["msa_harness.worker"])  # another one takes its place
    with Worker(subject, timeout=60, forked=True) as worker:
        assert worker.info()["pid"] == worker.pid
    msa_harness.forked._origins[0].close()


def test_imports_are_shared_for_as_long_as_they_are_wanted(subject, monkeypatch):
    origins = []
    monkeypatch.setattr(msa_harness.forked, "_origins", origins)
    # What is not installed is not shared, and nobody's loss.
    with sharing(["no_such_module", "msa_harness.worker"]):
        (origin,) = origins
        with Worker(subject, timeout=60, forked=True) as worker:
            worker.load("os", "os")
            assert worker.call("os", "getppid") == origin.process.pid
        with sharing(["msa_harness.worker"]):
            assert origins == [origin]
        assert origin.process.poll() is None  # it was there before
    assert not origins
    assert origin.process.poll() is not None


@pytest.mark.parametrize(
    "how",
    [
        pytest.param("", marks=pytest.mark.slow, id="spawned"),
        pytest.param(", forked=True", id="forked"),
    ],
)
def test_worker_dies_with_its_judge(subject, how, tmp_path):
    script = tmp_path / "judge.py"
    script.write_text(
        "import os, sys, signal, threading\n"
        "from pathlib import Path\n"
        "from msa_harness.client import Worker\n"
        "from msa_harness.forked import share\n"
        "from msa_harness.subjects import Subject\n"
        "share(['msa_harness.worker'])\n"
        f"subject = Subject('head', sys.executable, (Path({str(subject.roots[0])!r}),))\n"
        f"worker = Worker(subject{how})\n"
        "print(worker.info()['pid'], flush=True)\n"
        "threading.Timer(2, os.kill, (os.getpid(), signal.SIGKILL)).start()\n"
        "worker.load('time', 'time')\n"
        "worker.call('time', 'sleep', [600])\n"  # it does not look at its pipe
    )
    harness = Path(__file__).parents[2] / "harness"
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(harness)},
    )
    pid = int(done.stdout)
    assert _ends(pid, within=10)


def test_idle_worker_burns_no_time(shared):
    pid = shared.info()["pid"]

    def ticks():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = ticks()
    time.sleep(0.5)
    assert ticks() - before <= 2
