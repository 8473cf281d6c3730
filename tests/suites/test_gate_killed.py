"""kill -9 at ten points of a gate run, then --resume: same verdict, nothing lost or done twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest

GOOD = """
import time
from msa import fast, reference

CAPABILITIES = {"dtypes": ["float32"]}
PAUSE = 0.01
block_scores = reference.block_scores
sparse_attention = reference.sparse_attention


def select_blocks(*args, **kwargs):
    time.sleep(0.02)
    return reference.select_blocks(*args, **kwargs)


def attend(*args, **kwargs):
    time.sleep(PAUSE)
    return fast.attend(*args, **kwargs)
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
HEADS = {"correctness": WRONG, "speed": GOOD.replace("0.01", "0.1")}


def _cases() -> Iterator[dict[str, object]]:
    for number in range(4):
        tokens = 70 + 16 * number
        yield {"name": f"case-{number}", "q_lens": [tokens], "k_lens": [tokens], "Hq": 2, "Hkv": 1,
               "D": 16, "Di": 16, "block": 16, "topk": 3}  # fmt: skip


def _gates() -> str:
    """Few short pairs, and a machine that may be as busy as it likes: head is far slower."""
    text = resources.files("msa_suites").joinpath("gates.toml").read_text()
    shorter = {"pairs = 8": "pairs = 4", "seconds = 0.4": "seconds = 0.1"}
    busy = {"drift = 0.05": "drift = 9.0", "ceiling = 0.": "ceiling = 9."}
    for strict, lenient in {**shorter, **busy}.items():
        assert f"\n{strict}" in text
        text = text.replace(f"\n{strict}", f"\n{lenient}")
    return text


class Runs:
    """Gate runs of one suite in one folder."""

    def __init__(self, folder: Path, suite: str) -> None:
        self.folder, self.suite = folder, suite
        for label, source in (("base", GOOD), ("head", HEADS[suite])):
            (folder / label).mkdir()
            (folder / label / "theirs.py").write_text(source)
        cases = [json.dumps(case) + "\n" for case in _cases()]
        (folder / "cases.jsonl").write_text("".join(cases[:1] if suite == "speed" else cases))
        (folder / "gates.toml").write_text(_gates())
        out, _ = self.start("whole").communicate(timeout=300)
        self.whole, self.keys = self.verdicts(out), sorted(map(_key, self.lines("whole")))

    def start(self, run: str, *more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-P", "-m", "msa_suites", "gate", "--implementation", "theirs"]
        command += ["--base-path", "base", "--head-path", "head", "--suite", self.suite]
        command += ["--cases", "cases.jsonl", "--gates", "gates.toml", "--threads", "1"]
        return subprocess.Popen(
            [*command, "--out", run, "--json", *more],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "MSA_TEST_RUN": run},
        )

    def lines(self, run: str) -> list[str]:
        path = self.folder / run / "samples.jsonl"
        return path.read_text().splitlines() if path.exists() else []

    def verdicts(self, text: str) -> tuple[str, list[tuple[object, ...]]]:
        """Of the run and of its series; the effect too where no clock measured it."""
        document = json.loads(text)
        timed = self.suite == "speed"
        rows = [
            (s["name"], s["verdict"], *(() if timed else (s["n"], s["effect"])))
            for s in document["series"]
            if not timed or s["name"].startswith("speed/attend/")
        ]
        return document["verdict"], sorted(rows, key=str)


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp(f"killed-{request.param}"), request.param)


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
@pytest.mark.parametrize(
    ("runs", "point"),
    [*(("correctness", tenths) for tenths in range(10)), ("speed", 2), ("speed", 5), ("speed", 8)],
    indirect=["runs"],
)
def test_killed_and_resumed(runs: Runs, point: int) -> None:
    assert runs.whole[0] == "REGRESSION"
    run = f"killed-{point}"
    wanted = point * len(runs.keys) // 10
    process = runs.start(run)
    deadline = time.monotonic() + 120
    while process.poll() is None and len(runs.lines(run)) < wanted:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    if not wanted:
        time.sleep(1.5)  # before anything is written: imports, start of the workers
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = runs.lines(run)
    # Nobody is left behind: a worker that was still importing ends when it looks for its parent.
    patience = time.monotonic() + 30
    while _workers_of(run) and time.monotonic() < patience:
        time.sleep(0.1)
    assert _workers_of(run) == []
    resumed = ["--resume"] if (runs.folder / run / "run.json").exists() else []
    out, _ = runs.start(run, *resumed).communicate(timeout=300)
    after = runs.lines(run)
    assert after[: len(before)] == before
    keys = sorted(map(_key, after))
    assert len(set(keys)) == len(keys)
    # How many pairs confirm a slowdown is the noise's to say.
    assert runs.suite == "speed" or keys == runs.keys
    assert runs.verdicts(out) == runs.whole
    done = f"{len(before)} of {len(after)} samples"
    print(f"{runs.suite}: killed after {done}: {runs.whole[0]} as without")
