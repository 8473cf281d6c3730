"""Workers for real: each test runs a process with a small subject written for it."""

from __future__ import annotations

import os
import pickle
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from msa_harness.attestation import attest, ran
from msa_harness.client import (
    CallFailedError,
    Worker,
    WorkerCrashedError,
    WorkerError,
    WorkerTimeoutError,
)
from msa_harness.protocol import decode, ref
from msa_harness.stored import StoredSets
from msa_harness.subjects import Subject

TOY = """
import collections, os, signal, subprocess, sys, time, types
import torch

__version__ = "1.2.3"
print("loading prints to stdout")

def double(x, *, plus=0.0):
    print("calling prints to stdout")
    os.write(1, b"and so does the descriptor")
    return x * 2 + plus

def slow(x):
    time.sleep(0.02)
    return x.sum()

def pair(x):
    return x, None

def spread(x):
    return {"total": float(x.sum()), "parts": [x, (1, "two", True)]}

def hang(x):
    time.sleep(60)

def hang_with_child(path):
    child = subprocess.Popen(["sleep", "60"])
    with open(path, "w") as file:
        file.write(str(child.pid))
    time.sleep(60)

def crash(x):
    print("last words", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)

def leave(x):
    os._exit(7)

def politely_leave(x):
    sys.exit(3)

def fail(x):
    raise RuntimeError("no luck today")

def mutate(x):
    x[0] = 5.0
    return x.sum()

def mutate_gap(x):
    x.as_strided((1,), (1,), 3).fill_(5.0)
    return x.sum()

def reshape(x):
    x.resize_(1)
    return x.sum()

def odd(x):
    return types.SimpleNamespace(out=x)

class Lazy(torch.Tensor):
    pass

def lazy(x):
    return x.as_subclass(Lazy)

def noisy(x):
    sys.stderr.write("x" * 3_000_000)
    return x.sum()

class Model:
    def __init__(self, factor, *, offset=0.0):
        self.factor, self.offset = factor, offset
    def run(self, x):
        return x * self.factor + self.offset

def big(x):
    a = torch.empty(1000, 1000)
    b = torch.empty(500, 1000)
    del a
    c = torch.empty(500, 1000)
    return b.sum() + c.sum()

memory = {}
def cached(x):
    if x.data_ptr() not in memory:
        memory[x.data_ptr()] = x.sum()
    return memory[x.data_ptr()]

def fake_clock(x):
    return x.sum() + rigged

rigged = 0.0
def rig():
    time.perf_counter_ns = lambda: 0
    return 0
"""


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    root = tmp_path_factory.mktemp("subject")
    (root / "toy.py").write_text(textwrap.dedent(TOY))
    (root / "broken.py").write_text("import something_that_is_not_there")
    (root / "both.py").write_text("def where(): return 'subject'")
    (root / "msa_harness").mkdir()
    (root / "msa_harness" / "__init__.py").write_text("raise SystemExit('not the harness')")
    return Subject("head", sys.executable, (root,))


@pytest.fixture(scope="module")
def shared(subject, tmp_path_factory):
    judge = tmp_path_factory.mktemp("judge")
    (judge / "both.py").write_text("def where(): return 'judge'")
    with Worker(subject, judge_paths=[judge], timeout=60) as worker:
        worker.load("toy", "toy")
        yield worker


@pytest.fixture
def fresh(subject):
    with Worker(subject, timeout=60) as worker:
        worker.load("toy", "toy")
        yield worker


def test_call_returns_what_the_subject_returns_despite_prints(shared):
    x = torch.arange(4.0)
    assert torch.equal(shared.call("toy", "double", [x], {"plus": 1.0}), x * 2 + 1)
    out = shared.call("toy", "pair", [x])
    assert isinstance(out, tuple)
    assert torch.equal(out[0], x)
    assert out[1] is None
    assert shared.call("toy", "spread", [x])["total"] == 6.0
    assert shared.call("toy", "spread", [x])["parts"][1] == (1, "two", True)


def test_start_is_timed_apart(shared):
    assert 0.0 < shared.start_seconds < 60


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


def test_hang_is_killed_with_its_children(fresh, tmp_path):
    note = tmp_path / "child"
    began = time.perf_counter()
    with pytest.raises(WorkerTimeoutError, match="head: call took longer than 2 s"):
        fresh.call("toy", "hang_with_child", [str(note)], timeout=2.0)
    assert time.perf_counter() - began < 20
    child = int(note.read_text())
    deadline = time.perf_counter() + 5
    while _alive(child) and time.perf_counter() < deadline:
        time.sleep(0.05)
    assert not _alive(child)
    with pytest.raises(WorkerError, match="closed"):
        fresh.call("toy", "double", [torch.ones(1)])


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_replaced_clock_is_not_used_and_a_crash_names_signal_and_last_words(fresh):
    fresh.call("toy", "rig")
    put(fresh, "in", SETS)
    assert fresh.time("toy", "slow", "in").seconds[0] >= 0.02
    with pytest.raises(WorkerCrashedError, match=r"SIGSEGV(.|\n)*last words"):
        fresh.call("toy", "crash", [torch.ones(1)])


def test_exit_names_the_status(fresh):
    with pytest.raises(WorkerCrashedError, match="exit status 7"):
        fresh.call("toy", "leave", [torch.ones(1)])


def test_python_that_is_not_there():
    with pytest.raises(WorkerError, match="/no/such/python"):
        Worker(Subject("base", "/no/such/python"))


def test_subject_that_cannot_be_imported(shared):
    with pytest.raises(CallFailedError, match="something_that_is_not_there"):
        shared.load("x", "broken")
    with pytest.raises(CallFailedError, match="no attribute"):
        shared.load("x", "json:nothing")


def test_judge_comes_first_on_the_import_path(shared):
    shared.load("both", "both")
    assert shared.call("both", "where") == "judge"


def put(worker, handle, sets, **how):
    with StoredSets(sets) as stored:
        worker.put(handle, stored, **how)


SETS = [{"args": [torch.full((50,), float(i))]} for i in range(3)]


def test_time_measures_each_call_and_returns_the_last_output(shared):
    put(shared, "in", SETS)
    timing = shared.time("toy", "slow", "in", warmup=1, repeats=3, verify=True)
    assert len(timing.seconds) == 3
    assert all(0.02 <= seconds < 0.5 for seconds in timing.seconds)
    assert timing.index == 3 % len(SETS)
    assert timing.output == 50.0 * timing.index


def test_time_rotates_sets_over_requests(shared):
    put(shared, "in", SETS)
    seen = [shared.time("toy", "slow", "in", verify=True).index for _ in range(4)]
    assert seen == [0, 1, 2, 0]


def test_varied_inputs_are_rebuilt_by_the_judge(shared):
    put(shared, "in", SETS, vary=["0"], seed=3)
    outputs, scales = [], []
    for _ in range(6):
        timing = shared.time("toy", "slow", "in", verify=True)
        expected = (SETS[timing.index]["args"][0] * timing.scale).sum()
        torch.testing.assert_close(timing.output, expected)
        outputs.append(float(timing.output))
        scales.append(timing.scale)
    assert len(set(scales)) == 6


def test_answers_cached_by_address_are_stale_and_seen(shared):
    put(shared, "in", SETS, vary=["0"])
    stale = 0
    for _ in range(6):
        timing = shared.time("toy", "cached", "in", verify=True)
        stale += not torch.isclose(
            timing.output, (SETS[timing.index]["args"][0] * timing.scale).sum()
        )
    assert stale >= 3


def test_mutation_is_seen_while_timing(shared):
    put(shared, "in", SETS)
    with pytest.raises(CallFailedError, match="unchanged") as caught:
        shared.time("toy", "mutate", "in", verify=True)
    assert caught.value.kind == "mutated"


@pytest.mark.parametrize(
    ("sets", "vary", "text"),
    [
        ([], [], "at least one set"),
        ([{"args": [torch.ones(2)]}, {"args": [torch.ones(3)]}], [], "one shape"),
        (SETS, ["q"], "floating tensor"),
        ([{"args": [torch.ones(2, dtype=torch.int32)]}], ["0"], "floating tensor"),
    ],
)
def test_bad_inputs_are_refused(shared, sets, vary, text):
    with pytest.raises(CallFailedError, match=text):
        put(shared, "bad", sets, vary=vary)


def test_only_asked_rows_come_back_in_the_shape_of_the_whole(shared):
    sets = [{"args": [torch.arange(40.0).view(10, 4)]}]
    put(shared, "in", sets)
    timing = shared.time("toy", "spread", "in", verify=True, rows=[0, 7])
    assert timing.output["total"] == 780.0
    part, rest = timing.output["parts"]
    assert part.shape == (10, 4)
    assert torch.equal(part[[0, 7]], sets[0]["args"][0][[0, 7]])
    assert rest == (1, "two", True)


def test_an_output_without_the_asked_rows_comes_back_whole(shared):
    put(shared, "in", SETS)
    output = shared.time("toy", "spread", "in", verify=True, rows=[50]).output
    assert torch.equal(output["parts"][0], SETS[0]["args"][0])


def test_pickled_messages_cannot_name_code():
    evil = pickle.dumps({"ok": os.system})
    with pytest.raises(ValueError, match="wanted plain values, got posix"):
        decode(evil)


def test_no_process_can_change_stored_inputs_for_the_next(shared):
    with StoredSets(SETS) as stored:
        for mode in ("r+b", "wb", "ab"):
            with pytest.raises(PermissionError), Path(stored.path).open(mode) as file:
                file.write(b"other")
        shared.load("writer", "toy:mutate")
        shared.put("in", stored)
        with pytest.raises(CallFailedError, match="unchanged"):
            shared.time("writer", "", "in", verify=True)
        shared.put("in", stored)
        assert shared.time("toy", "pair", "in", verify=True).output[0][0] == 0


def test_stored_inputs_are_plain_values():
    with pytest.raises(TypeError, match=r"inputs\[0\]\.args\[0\]: wanted a tensor"):
        StoredSets([{"args": [object()]}])


def test_stored_inputs_are_gone_once_closed(shared):
    stored = StoredSets(SETS)
    stored.close()
    stored.close()
    with pytest.raises(ValueError, match="closed"):
        shared.put("in", stored)


def test_peak_memory_counts_what_is_alive_at_once(shared):
    put(shared, "one", [{"args": [torch.ones(1)]}])
    sizes = [shared.memory("toy", "big", "one") for _ in range(2)]
    assert sizes[0] == sizes[1]
    # a and b together: 4 MB and 2 MB; then b and c
    assert 6_000_000 <= sizes[0] < 6_001_000


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


def test_unknown_handles_list_what_there_is(shared):
    with pytest.raises(CallFailedError, match="'toy'"):
        shared.call("toi", "double", [torch.ones(1)])


def test_requests_must_be_plain(shared):
    with pytest.raises(TypeError, match=r"message\.args\[0\]"):
        shared.call("toy", "double", [object()])


def test_worker_dies_with_its_judge(subject, tmp_path):
    script = tmp_path / "judge.py"
    script.write_text(
        "import os, sys, signal\n"
        "from pathlib import Path\n"
        "from msa_harness.client import Worker\n"
        "from msa_harness.subjects import Subject\n"
        f"worker = Worker(Subject('head', sys.executable, (Path({str(subject.roots[0])!r}),)))\n"
        "print(worker.info()['pid'], flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    import subprocess

    harness = Path(__file__).parents[2] / "harness"
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(harness)},
    )
    pid = int(done.stdout)
    deadline = time.perf_counter() + 10
    while _alive(pid) and time.perf_counter() < deadline:
        time.sleep(0.05)
    assert not _alive(pid)


def test_idle_worker_burns_no_time(shared):
    pid = shared.info()["pid"]

    def ticks():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = ticks()
    time.sleep(0.5)
    assert ticks() - before <= 2
