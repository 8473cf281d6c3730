"""kill -9 at ten points of a gate run, then --resume: same verdict, nothing lost or done twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

GOOD = """
import time
from msa import reference

CAPABILITIES = {"dtypes": ["float32"]}
block_scores = reference.block_scores
sparse_attention = reference.sparse_attention


def select_blocks(*args, **kwargs):
    time.sleep(0.02)
    return reference.select_blocks(*args, **kwargs)
"""

# Loses the second best block: wrong on every case, in few checks.
WRONG = (
    GOOD
    + """

def select_blocks(scores, **kwargs):
    chosen = reference.select_blocks(scores, **kwargs)
    chosen[..., 1] = chosen[..., 0]
    return chosen
"""
)


def _cases():
    for number in range(4):
        tokens = 70 + 16 * number
        yield {"name": f"case-{number}", "q_lens": [tokens], "k_lens": [tokens], "Hq": 2, "Hkv": 1,
               "D": 16, "Di": 16, "block": 16, "topk": 3}  # fmt: skip


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    for label, source in (("base", GOOD), ("head", WRONG)):
        (folder / label).mkdir()
        (folder / label / "theirs.py").write_text(source)
    (folder / "cases.jsonl").write_text("".join(json.dumps(case) + "\n" for case in _cases()))
    return folder


def _start(where, run, *more):
    command = [sys.executable, "-P", "-m", "msa_suites", "gate", "--implementation", "theirs"]
    command += ["--base-path", "base", "--head-path", "head", "--suite", "correctness"]
    command += ["--cases", "cases.jsonl", "--threads", "1", "--out", run, "--json", *more]
    return subprocess.Popen(
        command,
        cwd=where,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "MSA_TEST_RUN": run},
    )


def _lines(where: Path, run: str) -> list[str]:
    path = where / run / "samples.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def _verdicts(text: str) -> tuple[str, list[tuple[str, str, int, float | None]]]:
    document = json.loads(text)
    rows = [(s["name"], s["verdict"], s["n"], s["effect"]) for s in document["series"]]
    return document["verdict"], sorted(rows)


@pytest.fixture(scope="module")
def undisturbed(where):
    process = _start(where, "whole")
    out, _ = process.communicate(timeout=200)
    return _verdicts(out), sorted(map(_key, _lines(where, "whole")))


def _key(line: str) -> tuple[str, ...]:
    sample = json.loads(line)
    return tuple(sample[name] for name in ("suite", "series", "subject", "item"))


def _workers_of(run: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if f"MSA_TEST_RUN={run}\0".encode() in environment:
                found.append(int(entry.name))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("point", range(10))
def test_killed_and_resumed(where, undisturbed, point):
    whole, keys = undisturbed
    assert whole[0] == "REGRESSION"
    run = f"killed-{point}"
    wanted = point * len(keys) // 10
    process = _start(where, run)
    deadline = time.monotonic() + 120
    while process.poll() is None and len(_lines(where, run)) < wanted:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    if not wanted:
        time.sleep(1.5)  # before anything is written: imports, start of the workers
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = _lines(where, run)
    # Nobody is left behind: a worker that was still importing ends when it looks for its parent.
    patience = time.monotonic() + 30
    while _workers_of(run) and time.monotonic() < patience:
        time.sleep(0.1)
    assert _workers_of(run) == []
    resumed = ["--resume"] if (where / run / "run.json").exists() else []
    out, _ = _start(where, run, *resumed).communicate(timeout=200)
    after = _lines(where, run)
    assert after[: len(before)] == before
    assert sorted(map(_key, after)) == keys
    assert _verdicts(out) == whole
    print(f"killed after {len(before)} of {len(after)} samples: {whole[0]} as without")
