"""The whole pipeline, what it refuses, and the conformance suite on it."""

from __future__ import annotations

import json
import subprocess
import sys

import fuzz_refusals
import pytest
import torch
from fuzz_breaking import breakages, given
from fuzz_draws import Case as Drawn
from kernel_batches import Shape, assert_attends

import msa_kernels
from msa import fast, reference
from msa_kernels import triton_ops
from msa_kernels.triton_ops import attention, decoding, pipeline, scoring, selecting
from msa_suites.cases import Case
from msa_suites.correctness import conforms, local_call, run_checks

SHAPE = Shape((5, 0, 1, 3), (70, 3, 35, 3), groups=2, share=2, topk=3)


def arguments(shape, *, own_keys=False):
    """Whole numbers in the index branch: scores carry no rounding, so selections are exact."""
    g = shape.generator()
    heads = shape.groups if own_keys else 1
    q_idx = torch.randint(-2, 3, (shape.rows, shape.groups, shape.index_dim), generator=g)
    k_idx = torch.randint(-2, 3, (shape.keys, heads, shape.index_dim), generator=g)
    kwargs = {**shape.packing, "topk": shape.topk, "scale": shape.scale, "index_scale": 0.5}
    return (*shape.main(), q_idx.to(shape.dtype), k_idx.to(shape.dtype)), kwargs


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    ("local", "sinks", "own_keys"), [(1, 0, False), (1, 1, True), (2, 1, False)]
)
def test_attend_is_the_reference(dtype, local, sinks, own_keys):
    shape = Shape(SHAPE.q_lens, SHAPE.k_lens, dtype=dtype)
    tensors, kwargs = arguments(shape, own_keys=own_keys)
    forced = {"local_blocks": local, "sink_blocks": sinks}
    out, selection = triton_ops.attend(*tensors, **kwargs, **forced)
    _, want = reference.attend(*tensors, **kwargs, **forced)
    assert torch.equal(selection, want)
    _, lse = triton_ops.sparse_attention(
        *tensors[:3], selection, **shape.packing, scale=shape.scale
    )
    assert_attends((out, lse), *tensors[:3], selection, shape.packing, shape.scale)


def test_scores_are_held_for_some_rows_at_a_time(monkeypatch):
    tensors, kwargs = arguments(SHAPE)
    whole = triton_ops.attend(*tensors, **kwargs)
    columns = -(-SHAPE.keys // SHAPE.block)
    monkeypatch.setattr(pipeline, "_HELD", 4 * SHAPE.groups * columns)
    parts = triton_ops.attend(*tensors, **kwargs)
    assert all(torch.equal(a, b) for a, b in zip(parts, whole, strict=True))


#: What waits for a GPU: values, sizes that follow from values, and copies.
READING = (
    *("tolist", "item", "__bool__", "__int__", "__float__", "__index__", "__array__"),
    *("cpu", "numpy", "nonzero", "masked_select", "unique"),
)


def test_nothing_is_read_on_the_host(monkeypatch):
    """As on a GPU, where reading a value would wait for it: sizes follow from shapes alone."""
    (q, k, v, q_idx, k_idx), kwargs = arguments(SHAPE)
    want = triton_ops.attend(q, k, v, q_idx, k_idx, **kwargs)
    pages = torch.randn(2, 6, 2, 16, 64)
    table = torch.tensor([[0, 3, 1], [5, 2, 4]], dtype=torch.int32)
    decoded = (q[:4].unflatten(0, (2, 2)), *pages, want[1][:4].unflatten(0, (2, 2)))
    lengths = {"page_table": table, "k_lens": torch.tensor([40, 33], dtype=torch.int32)}

    def read(*_):
        raise AssertionError("a tensor was read on the host")

    for module in (attention, decoding, pipeline, scoring, selecting):
        monkeypatch.setattr(module, "INTERPRETED", False)
    for way in attention.WAYS:
        with monkeypatch.context() as patch:
            patch.setattr(attention, "way_of", lambda *_, way=way: way)
            for name in READING:
                patch.setattr(torch.Tensor, name, read)
            out, selection = triton_ops.attend(q, k, v, q_idx, k_idx, **kwargs)
            triton_ops.sparse_decode(*decoded, **lengths, scale=1.0)
            # The one that has to: its result is as wide as the longest sequence.
            with pytest.raises(AssertionError, match="read on the host"):
                triton_ops.block_scores(q_idx, k_idx, **SHAPE.packing, scale=1.0)
        assert torch.equal(selection, want[1])
        assert float((out - want[0]).abs().max()) < 1e-5


def _refusal(implementation, operation, call):
    positional = fuzz_refusals.OPERATIONS[operation]
    rest = {name: value for name, value in call.items() if name not in positional}
    try:
        getattr(implementation, operation)(*(call[name] for name in positional), **rest)
    except Exception as error:  # noqa: BLE001 - the type is what is compared
        # Of NVFP4 the one offers to take it, and the other does not.
        return type(error), str(error).replace(" or float4_e2m1fn_x2", "")
    return None


@pytest.mark.parametrize("operation", fuzz_refusals.OPERATIONS)
def test_wrong_calls_are_refused_in_the_words_of_the_fast_path(operation):
    case = Drawn(
        lengths=((3, 20), (2, 0)), groups=2, share=2, dim=16, index_dim=16, block=16, topk=3
    )
    right = fuzz_refusals.right_call(operation, case)
    assert _refusal(triton_ops, operation, right) is None
    ways = list(breakages(given(right, paged=operation == "sparse_decode")))
    assert len(ways) > 20
    for broken in ways:
        want = _refusal(fast, operation, broken.call)
        assert want is not None
        assert _refusal(triton_ops, operation, broken.call) == want, broken.what


SIZES = [
    ("sparse_attention", {"dim": 8}, "q: wanted a head dim from 16 to 128 in steps of 16, got 8"),
    ("sparse_attention", {"block": 8}, "block: wanted a size from 16 to 128, got 8"),
    ("sparse_attention", {"topk": 65}, "topk: wanted a number of slots from 1 to 64, got 65"),
    ("sparse_attention", {"share": 17}, "q: wanted a number of heads a group from 1 to 16, got 17"),
    ("block_scores", {"index_dim": 20}, "q_idx: wanted an index dim from 16 to 128 .*, got 20"),
    ("select_blocks", {"block": 129}, "block: wanted a size from 16 to 128, got 129"),
    ("sparse_decode", {"dim": 144}, "q: wanted a head dim .*, got 144"),
    ("attend", {"dim": 144}, "q: wanted a head dim .*, got 144"),
    ("attend", {"share": 17}, "q: wanted a number of heads a group .*, got 17"),
    ("attend", {"index_dim": 144}, "q_idx: wanted an index dim .*, got 144"),
    (
        "attend",
        {"dtype": "bfloat16"},
        "q: wanted one of float32, float16, float8_e4m3fn, got bfloat16",
    ),
    (
        "block_scores",
        {"dtype": "float64"},
        "q_idx: wanted one of float32, float16, float8_e4m3fn, got float64",
    ),
]


@pytest.mark.parametrize(("operation", "changed", "message"), SIZES)
def test_what_is_beyond_the_capabilities_is_refused(operation, changed, message):
    sizes = {"dim": 16, "index_dim": 16, "block": 16, "topk": 3, **changed}
    call = fuzz_refusals.right_call(operation, Drawn(lengths=((3, 20),), groups=2, **sizes))
    positional = fuzz_refusals.OPERATIONS[operation]
    rest = {name: value for name, value in call.items() if name not in positional}
    with pytest.raises((TypeError, ValueError), match=f"^{message}$"):
        getattr(triton_ops, operation)(*(call[name] for name in positional), **rest)


def test_a_tensor_elsewhere_is_refused():
    q, k = SHAPE.index()
    with pytest.raises(
        ValueError, match=r"^q_idx: wanted a tensor on cpu .* is set\), got .* meta"
    ):
        triton_ops.block_scores(q.to("meta"), k.to("meta"), **SHAPE.packing, scale=1.0)


CASES = {
    "key_outer": Case("small", (4, 0, 2), (90, 3, 19), Hq=4, Hkv=2, D=64, Di=32, block=32, topk=2),
    "query_outer": Case(
        "small-decode", (2, 2), (83, 40), Hq=3, Hkv=1, D=32, Di=48, block=16, topk=3,
        sink_blocks=1, dtype="float16",
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", CASES)
def test_every_check_of_the_conformance_suite_passes(monkeypatch, way):
    monkeypatch.setattr(attention, "way_of", lambda *_: way)
    found = msa_kernels.load("triton")
    call, offered = local_call(found), msa_kernels.capabilities(found)
    results = run_checks(call, offered, cases=[CASES[way]])
    assert conforms(results), [r for r in results if r.status == "failed"]
    assert sum(r.status == "passed" for r in results) > 28


def test_the_command_runs_it_in_a_worker(tmp_path):
    cases = tmp_path / "cases.jsonl"
    cases.write_text(json.dumps(CASES["query_outer"].as_dict()) + "\n")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "msa_suites", "conformance", "--implementation", "triton",
         "--cases", str(cases), "--check", "decode", "--json"],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["passed"], document["failed"]) == (1, 0)
    assert document["ran"].startswith("msa_kernels.triton_ops ")
