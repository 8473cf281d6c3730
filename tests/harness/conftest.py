"""A small subject written for the tests of workers, and workers that run it."""

from __future__ import annotations

import sys
import textwrap

import pytest

from msa_harness.client import Worker
from msa_harness.forked import share
from msa_harness.subjects import Subject

TOY = """
import multiprocessing, os, signal, subprocess, sys, time, types
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

def leak(x):
    kept = []
    while True:
        kept.append(b"x" * 4_000_000)
        time.sleep(0.002)

def oom_score(x):
    with open("/proc/self/oom_score_adj") as file:
        return int(file.read())

def killed(x):
    os.kill(os.getpid(), signal.SIGKILL)

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

hoarded = []
def hoard(x):
    hoarded.append(torch.empty(100, 1000))
    return x.sum()

memory = {}
def cached(x):
    if x.data_ptr() not in memory:
        memory[x.data_ptr()] = x.sum()
    return memory[x.data_ptr()]

calls = torch.zeros(1)

def counted(x):
    return calls.add_(1)

def family(x):
    child = multiprocessing.get_context("fork").Process(target=sys.exit, args=(3,))
    child.start()
    child.join()
    return float(child.exitcode)

def rig():
    time.perf_counter_ns = lambda: 0
    return 0
"""


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    """The toy, beside modules that fail to load or stand where the harness does."""
    root = tmp_path_factory.mktemp("subject")
    (root / "toy.py").write_text(textwrap.dedent(TOY))
    (root / "broken.py").write_text("import something_that_is_not_there")
    (root / "both.py").write_text("def where(): return 'subject'")
    (root / "msa_harness").mkdir()
    (root / "msa_harness" / "__init__.py").write_text("raise SystemExit('not the harness')")
    return Subject("head", sys.executable, (root,))


@pytest.fixture(scope="session", autouse=True)
def shared_start():
    """What forked workers are forked from, whichever test is the first to want one."""
    share(["msa_harness.worker"])


@pytest.fixture(scope="module")
def forked():
    """Whether workers share their start; a file that tests both gives it parameters."""
    return False


@pytest.fixture(scope="module")
def shared(subject, forked, tmp_path_factory):
    """One worker for all tests of a file, with a module of the judge beside the toy."""
    judge = tmp_path_factory.mktemp("judge")
    (judge / "both.py").write_text("def where(): return 'judge'")
    with Worker(subject, judge_paths=[judge], timeout=60, forked=forked) as worker:
        worker.load("toy", "toy")
        yield worker


@pytest.fixture
def fresh(subject, forked):
    """A worker that the test may break."""
    with Worker(subject, timeout=60, forked=forked) as worker:
        worker.load("toy", "toy")
        yield worker
