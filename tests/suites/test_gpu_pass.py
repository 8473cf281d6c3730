"""The pass on a GPU, tried out on a CPU: what it runs, times, refuses and writes."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from test_gate_end_to_end import bench

from msa import fast, reference
from msa_reports.history.recordings import read
from msa_suites.case import E4M3, NVFP4
from msa_suites.gpu import running
from msa_suites.gpu.page import markdown
from msa_suites.gpu.running import REPEATS, repeated_bits, replayed, speed_rows
from msa_suites.gpu.shapes import LENGTHS, Timed, table
from msa_suites.gpu.timing import MOST, Clock
from msa_suites.gpu.work import work_of

pytestmark = pytest.mark.whole

SMALL = {"heads": 4, "groups": 2, "dim": 32, "block": 16, "topk": 4, "dtype": "float32"}
KINDS = ("prefill", "decode", "scores", "topk")


def rows(implementation, *kinds, until=float("inf"), memory=1 << 40):
    timed = [Timed(what, 256, batch=2 if what == "decode" else 1, **SMALL) for what in kinds]
    clock = Clock("cpu")
    quiet = {"until": until, "say": lambda _text: None}
    return list(speed_rows(timed, implementation, clock, memory=memory, **quiet))


def changed(**operations):
    names = ("attend", "block_scores", "select_blocks", "sparse_decode")
    return SimpleNamespace(**{name: getattr(fast, name) for name in names} | operations)


def test_every_kind_of_work_is_timed_against_what_torch_has():
    found = {row["what"]: row for row in rows(fast, *KINDS)}
    assert not any(row["problem"] for row in found.values()), found
    assert all(3 <= len(row["seconds"]) <= MOST for row in found.values())
    assert found["prefill"]["other"] == "flash"
    assert found["topk"]["other"] == "torch.topk"
    assert "other" not in found["scores"]
    prefill = found["prefill"]
    assert prefill["ratio"] > 0
    assert prefill["flops_per_second"] > 0


NARROW = {
    "eight": {"index_dtype": E4M3},
    "four": {"index_dtype": NVFP4, "kv_dtype": NVFP4},
    "eight-all": {"index_dtype": E4M3, "kv_dtype": E4M3},
}


@pytest.mark.parametrize("kept", NARROW.values(), ids=NARROW)
def test_what_is_kept_in_fewer_bits_is_timed_too_where_it_is_offered(kept):
    small = [Timed(what, 256, **SMALL, **kept) for what in ("prefill", "decode", "scores")]
    quiet = {"memory": 1 << 40, "until": float("inf"), "say": lambda _text: None}
    found = list(speed_rows(small, fast, Clock("cpu"), **quiet))
    assert [row["problem"] for row in found] == [""] * 3
    whole = paged(CAPABILITIES=reference.CAPABILITIES)
    (row,) = speed_rows(small[1:2], whole, Clock("cpu"), **quiet)
    assert row["problem"] == ""
    bare = changed()
    (row,) = speed_rows(small[:1], bare, Clock("cpu"), **quiet)
    wanted = f"not measured: its capabilities do not name {kept['index_dtype']}"
    assert row["problem"] == wanted


def test_sizes_that_nobody_packs_are_not_timed():
    declared = fast.CAPABILITIES | {"packed_dims": [64]}
    timed = [Timed("scores", 256, **SMALL, **NARROW["four"])]
    subject = changed(CAPABILITIES=declared)
    (row,) = speed_rows(timed, subject, Clock("cpu"), memory=1 << 40, until=float("inf"),
                        say=lambda _text: None)  # fmt: skip
    assert row["problem"].startswith("not measured: ")
    assert "32" in row["problem"]


@pytest.mark.parametrize("what", ["prefill", "decode"])
@pytest.mark.parametrize("name", ["k_descale", "v_descale", "k_idx_descale"])
def test_scales_of_the_next_channels_are_not_timed(what, name):
    def rolled(operation):
        def call(*tensors, **settings):
            if name in settings:
                codes = settings[name].view(torch.uint8).roll(1, -1)
                settings = settings | {name: codes.view(settings[name].dtype)}
            return operation(*tensors, **settings)

        return call

    names = ("attend", "block_scores", "sparse_decode")
    subject = changed(CAPABILITIES=fast.CAPABILITIES,
                      **{one: rolled(getattr(fast, one)) for one in names})  # fmt: skip
    timed = [Timed(what, 256, **SMALL, **NARROW["four"])]
    (row,) = speed_rows(timed, subject, Clock("cpu"), memory=1 << 40, until=float("inf"),
                        say=lambda _text: None)  # fmt: skip
    assert row["problem"], name
    assert "seconds" not in row


def test_bytes_of_four_bits_are_counted_with_their_scales():
    plain, four = (
        work_of(Timed("scores", 256, **SMALL, **kept), fast, "cpu").moved_bytes
        for kept in ({}, {"index_dtype": NVFP4})
    )
    assert plain - four == 256 * 32 * (4 - 0.5625)


def test_factors_that_are_dropped_are_not_timed():
    def dropped(*tensors, **settings):
        return fast.block_scores(*tensors, **settings | {"q_idx_descale": None})

    timed = [Timed("scores", 256, **SMALL, index_dtype=E4M3)]
    subject = changed(block_scores=dropped, CAPABILITIES=fast.CAPABILITIES)
    (row,) = speed_rows(timed, subject, Clock("cpu"), memory=1 << 40, until=float("inf"),
                        say=lambda _text: None)  # fmt: skip
    assert row["problem"].startswith("scores of the last row: relative error")


def test_after_a_lost_device_nothing_is_measured():
    class Lost(Clock):
        def alive(self):
            return False

    def illegal(*_, **__):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    timed = [Timed(what, 256, **SMALL) for what in ("topk", "scores")]
    found = list(speed_rows(timed, changed(select_blocks=illegal), Lost("cpu"), memory=1 << 40,
                            until=float("inf"), say=lambda _text: None))  # fmt: skip
    assert (
        found[0]["problem"] == "RuntimeError: CUDA error: an illegal memory access was encountered"
    )
    assert found[1]["problem"] == f"not measured: the device was lost in {found[0]['name']}"


def test_a_long_dense_prefill_is_timed_once_for_every_overlap(monkeypatch):
    monkeypatch.setattr(running, "LONG", 256)
    counted = []

    class Counts(Clock):
        def times(self, call, **how):
            counted.append(call)
            return super().times(call, **how)

    timed = [Timed("prefill", 256, **SMALL), Timed("prefill", 256, overlap="high", **SMALL)]
    found = list(speed_rows(timed, fast, Counts("cpu"), memory=1 << 40, until=float("inf"),
                            say=lambda _text: None))  # fmt: skip
    assert found[0]["other_seconds"] == found[1]["other_seconds"]
    assert len(counted) == 3  # MSA twice, dense once


def test_a_wrong_output_is_not_timed_and_an_error_is_a_row():
    def shifted(*tensors, **settings):
        out, selection = fast.attend(*tensors, **settings)
        return out.roll(1, 0), selection

    class CompilerError(Exception):
        """As a compiler's own: no RuntimeError."""

    def broken(*_, **__):
        raise CompilerError("out of resources\nand more")

    (row,) = rows(changed(attend=shifted), "prefill")
    assert row["problem"].startswith("output of row 255, group 0: relative error")
    assert "seconds" not in row
    (row,) = rows(changed(select_blocks=broken), "topk")
    assert row["problem"] == "CompilerError: out of resources"


def test_rows_beyond_the_time_are_said_and_not_lost():
    first, second = rows(fast, "scores", "topk", until=time.monotonic() - 1)
    assert first["problem"] == second["problem"] == "not measured: the time was up"


def test_results_that_move_between_calls_are_found():
    def noisy(*tensors, **settings):
        out, selection = fast.attend(*tensors, **settings)
        return out + 1e-7 * torch.rand(1), selection

    timed = [Timed("prefill", 64, **SMALL)]
    (row,) = repeated_bits(timed, fast, "cpu")
    assert not row["problem"]
    (row,) = repeated_bits(timed, changed(attend=noisy), "cpu")
    assert (row["calls"], row["problem"]) == (REPEATS, "results move between identical calls")


def paged(**operations):
    """An implementation with whole decode steps: the specification."""
    names = ("attend", "block_scores", "select_blocks", "sparse_decode", "attend_paged")
    return SimpleNamespace(**{name: getattr(reference, name) for name in names} | operations)


def test_a_whole_decode_step_is_timed_where_there_is_one():
    (row,) = rows(paged(sparse_decode=None), "decode")
    assert not row["problem"]


@pytest.mark.parametrize(
    ("operation", "what", "words"),
    [
        ("attend", "prefill", "output of row 255, group 0: relative error"),
        ("attend_paged", "decode", "request 0: relative error"),
        ("block_scores", "scores", "scores of the last row: relative error"),
        ("select_blocks", "topk", "last row: selection of group 0"),
    ],
)
def test_no_wrong_result_is_timed(operation, what, words):
    def spoilt(*tensors, **settings):
        result = getattr(reference, operation)(*tensors, **settings)
        if isinstance(result, tuple):
            return result[0] * 1.1, result[1]
        return result * 1.1 if result.is_floating_point() else result.clamp_max(2)

    (row,) = rows(paged(**{operation: spoilt}), what)
    assert row["problem"].startswith(words)
    assert "seconds" not in row


def test_a_captured_step_that_keeps_old_lengths_is_found():
    class Captures(Clock):
        """Captures as CUDA does; ``follows`` is what a kernel that reads the lengths gives."""

        def __init__(self, follows):
            super().__init__("cpu")
            self.follows = follows

        def captured(self, call):
            first = call()
            return (call if self.follows else lambda: first), ""

    timed = Timed("decode", 256, batch=2, **SMALL)
    assert replayed(timed, paged(), Captures(True))["problem"] == ""
    stale = replayed(timed, paged(), Captures(False))["problem"]
    assert stale == "a captured step differs from a plain one at 129 tokens"
    assert "wanted work over a cache" in replayed(timed, changed(), Captures(True))["problem"]


def test_the_table_begins_with_the_plain_line_and_a_million_tokens_fit_one_gpu():
    everything = table()
    assert {row.length for row in everything} == set(LENGTHS)
    assert len({row.name for row in everything}) == len(everything)
    plain = [row for row in everything if row.overlap == "low" and row.heads == 64]
    assert everything[: len(plain)] == plain
    held = int(0.9 * (75 << 30))  # what an H100 of 80 GB has left
    longest = [row for row in plain if row.length == 1 << 20]
    assert {row.what for row in longest if row.bytes_held <= held} == set(KINDS)
    assert not any(row.bytes_held <= held for row in longest if row.batch == 128)


def test_a_row_beyond_the_memory_is_said_and_not_lost():
    (row,) = rows(fast, "prefill", memory=1000)
    assert row["problem"] == "not measured: it would hold 0 GiB of 0"


def test_the_command_keeps_what_it_measured(tmp_path):
    options = ["--device", "cpu", "--implementation", "torch", "--lengths", "256"]
    options += ["--seconds", "8", "--part", "races", "--part", "speed"]
    done = bench(tmp_path, "gpu", *options, "--out", "here")
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "here" / "gpu.json").read_text())
    assert [row["problem"] for row in document["races"]] == [""] * 4
    assert all(row.get("seconds") or row["problem"] for row in document["rows"])
    assert any(row.get("seconds") for row in document["rows"])
    assert len(document["rows"]) == len(table([256]))
    page = (tmp_path / "here" / "gpu.md").read_text()
    assert page == markdown(document)
    assert "Same bits in 20 calls: 4 of 4." in page
    assert str(tmp_path) not in page
    # Its times belong to the history of the commit that they were measured on.
    document["commit"] = "a" * 40
    (tmp_path / "here" / "gpu.json").write_text(json.dumps(document))
    recording = read(tmp_path / "here")
    timed = [row for row in document["rows"] if row.get("seconds")]
    assert [point.track.series for point in recording.commits["a" * 40]] == [
        f"gpu/{row['name']}" for row in timed
    ]
    assert recording.commits["a" * 40][0].samples == tuple(timed[0]["seconds"])


def test_work_on_other_blocks_than_the_best_is_not_timed():
    def newest_only(q, *tensors, **settings):
        result = reference.attend(q, *tensors, **settings | {"topk": 1})
        out, chosen = result
        return out, torch.cat([chosen, chosen.new_full((*chosen.shape[:2], 3), -1)], -1)

    (row,) = rows(changed(attend=newest_only), "prefill")
    assert row["problem"].startswith("selection of group 0")


def test_a_graph_is_compared_with_calls_only_as_calls():
    class Captures(Clock):
        """Captures what is ours, and nothing of torch's."""

        def captured(self, call):
            return call, "" if getattr(call, "func", None) is fast.select_blocks else "no"

    timed = [Timed("topk", 256, **SMALL)]
    (row,) = speed_rows(timed, fast, Captures("cpu"), memory=1 << 40, until=float("inf"),
                        say=lambda _text: None)  # fmt: skip
    assert row["not_captured"] == ""
    assert row["ratio"] == pytest.approx(
        statistics.median(row["other_seconds"]) / statistics.median(row["seconds_as_calls"])
    )


def test_lengths_are_whole_blocks(tmp_path):
    done = bench(tmp_path, "gpu", "--device", "cpu", "--lengths", "1000")
    assert done.returncode == 2
    assert "--lengths: wanted multiples of 128, got 1000" in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path):
    done = bench(tmp_path, "gpu", "--implementation", "torch")
    assert done.returncode == 2
    assert "--device: wanted a CUDA device, got none" in done.stderr


def test_it_needs_nothing_that_a_gpu_machine_lacks(tmp_path):
    absent = ("lm_eval", "asv", "pydantic", "plotly", "nox", "accelerate", "evaluate")
    options = ["--device", "cpu", "--implementation", "torch", "--lengths", "128", "--seconds", "1"]
    script = (
        f"import sys; sys.modules.update(dict.fromkeys({absent}, None))\n"
        "from msa_suites.cli import main\n"
        f"sys.exit(main(['gpu', *{options}, '--part', 'races', '--out', 'there']))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
