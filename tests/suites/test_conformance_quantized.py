"""Conformance in E4M3 and NVFP4: passes what is right, catches every wrong meaning of a byte."""

import json
from dataclasses import replace
from typing import ClassVar

import faulty_quantized
import pytest
import torch
from test_gate_end_to_end import bench

import msa_kernels
from msa_kernels.contract import OPERATIONS as OPERATIONS_OF_THE_CONTRACT
from msa_kernels.contract import Capabilities
from msa_suites.capable import why_not
from msa_suites.cases import CASES, Case, case_named
from msa_suites.correctness import Materials, iterate_checks, local_call, plan
from msa_suites.correctness.margins import score_tolerance
from msa_suites.correctness.run import FAILED, PASSED, SKIPPED
from msa_suites.correctness.subject import same
from msa_suites.eight_bits import meant
from msa_suites.inputs import make_inputs, stored

pytestmark = pytest.mark.whole

NAMES = [case.name for case in CASES if torch.float8_e4m3fn in case.dtypes.values()]
PACKED = [case.name for case in CASES if torch.float4_e2m1fn_x2 in case.dtypes.values()]
#: The operation without which a wrong factor of a tensor does not show.
OPERATIONS = {
    "q": ("attention", "attention_lse", "decode", "decode_lse", "attend_paged", "pipeline"),
    "k": ("attention", "attention_lse", "decode", "decode_lse", "attend_paged", "pipeline"),
    "v": ("attention", "decode", "attend_paged", "pipeline"),
    "q_idx": ("scores", "paged_scores"),
    "k_idx": ("scores", "paged_scores"),
}


@pytest.fixture(scope="module")
def materials():
    return Materials(keep=True)


def one_by_one(implementation, materials, names=NAMES, only=()):
    found = msa_kernels.load(implementation)
    table = plan(cases=[case_named(name) for name in names], only=only)
    return iterate_checks(
        local_call(found), msa_kernels.capabilities(found), table=table, materials=materials
    )


def check(implementation, materials, names=NAMES, only=()):
    return list(one_by_one(implementation, materials, names, only))


@pytest.mark.parametrize("subject", [*faulty_quantized.RIGHT, "reference", "torch"])
def test_a_right_implementation_passes(subject, materials):
    both = [*NAMES, *PACKED]
    results = check(subject if isinstance(subject, str) else subject(), materials, both)
    assert [r for r in results if r.status == FAILED] == []
    assert {r.case for r in results if r.status == PASSED} == set(both)


#: Of dropped factors the test below demands more.
OTHERS = [
    name
    for name in faulty_quantized.FAULTS
    if name not in {f"{tensor}_descale dropped" for tensor in OPERATIONS}
]


@pytest.mark.parametrize("name", OTHERS)
def test_a_fault_is_caught(name, materials):
    results = one_by_one(faulty_quantized.FAULTS[name](), materials)
    assert any(r.status == FAILED for r in results)


@pytest.mark.parametrize("case", ["fp4", "fp4-decode"])
@pytest.mark.parametrize("name", faulty_quantized.PACKED_FAULTS)
def test_a_fault_of_packed_elements_or_scales_is_caught_in_every_operation(name, case, materials):
    asked = ["scores", "attention", "decode", "paged_scores"]
    results = check(faulty_quantized.PACKED_FAULTS[name](), materials, [case], asked)
    ran = [r for r in results if r.status != SKIPPED]
    assert len(ran) >= 2
    assert {r.status for r in ran} == {FAILED}


@pytest.mark.parametrize("case", ["fp4", "fp4-decode"])
def test_scales_need_not_lie_side_by_side(case, materials):
    results = check(faulty_quantized.StridesOfScalesIgnored(), materials, [case])
    assert {r.check for r in results if r.status == FAILED} == {"gaps"}


@pytest.mark.parametrize("exact", [True, False])
def test_scores_of_packed_keys_are_held_to_the_dtype_of_their_queries(exact):
    case = case_named("fp4")
    wide = replace(case, index_dtype="bfloat16")
    inputs = make_inputs(case).double()
    found, wanted = (score_tolerance(one, inputs, exact=exact) for one in (case, wide))
    assert torch.equal(found, wanted)


@pytest.mark.parametrize(
    ("change", "operation", "reason"),
    [
        ({"D": 32}, "sparse_attention", "packed dim 32: its capabilities are 64, 128"),
        ({"D": 32}, "block_scores", None),
        ({"Di": 32}, "block_scores", "packed dim 32: its capabilities are 64, 128"),
        ({"Di": 32}, "attend", "packed dim 32: its capabilities are 64, 128"),
        ({"Di": 32}, "sparse_decode", None),
        ({"D": 32, "kv_dtype": ""}, "sparse_attention", None),
        ({}, "attend", None),
    ],
)
def test_sizes_of_packed_tensors_are_a_capability_of_their_own(change, operation, reason):
    capabilities = Capabilities(
        operations=frozenset(OPERATIONS_OF_THE_CONTRACT),
        dtypes=frozenset({"bfloat16", "float4_e2m1fn_x2"}),
        packed_dims=frozenset({64, 128}),
    )
    case = replace(case_named("fp4"), **change)
    assert why_not(capabilities, operation, case, device="cpu") == reason


def test_packed_caches_have_scales_that_differ_by_token_head_and_group():
    inputs = make_inputs(case_named("fp4"))
    assert sorted(inputs.descales) == ["k", "k_idx", "v"]
    scales = inputs.descales["k"].float()
    for axis in range(3):
        assert bool((scales != scales.roll(1, axis)).float().mean() > 0.5)


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_dropped_factor_fails_every_check_of_a_result_that_it_changes(name, materials):
    fault = faulty_quantized.FAULTS[f"{name}_descale dropped"]
    results = check(fault(), materials, ["fp8"] if "idx" in name else ["fp8", "fp8-decode"])
    failed = {r.check for r in results if r.status == FAILED}
    ran = {r.check for r in results if r.status != SKIPPED}
    assert failed >= set(OPERATIONS[name]) & ran


def test_what_declares_no_dtypes_is_not_given_bytes(materials):
    """Factors are arguments that it need not have."""

    class Silent(faulty_quantized.Quantized):
        CAPABILITIES: ClassVar = {}

    results = check(Silent(), materials)
    asked = [r for r in results if r.check in ("scores", "attention", "decode", "pipeline")]
    # One case has bytes in its index branch alone.
    ran = {(r.case, r.check) for r in asked if r.status != SKIPPED}
    assert ran == {("fp8-index", "attention")}
    reasons = {r.detail for r in asked if r.status == SKIPPED}
    assert "dtype float8_e4m3fn: its capabilities do not name it" in reasons


@pytest.mark.parametrize("name", ["fp8", "fp4"])
def test_inputs_keep_their_bytes_when_they_are_stored_again(name):
    case = case_named(name)
    inputs = make_inputs(case)
    again = stored(case, inputs.wide(torch.float32))
    for a, b in zip(inputs.tensors, again.tensors, strict=True):
        assert same(a, b)
    for held in inputs.descales:
        assert same(inputs.descales[held], again.descales[held])


def test_heads_have_factors_of_their_own():
    descales = make_inputs(case_named("fp8")).descales
    assert sorted(descales) == ["k", "k_idx", "q", "q_idx", "v"]
    for name in ("q", "k", "v", "q_idx"):
        nearest = descales[name][:-1] / descales[name][1:]
        assert bool(((nearest < 0.7) | (nearest > 1.4)).all()), name


def test_bytes_mean_what_torch_says_they_do():
    codes = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).view(4, 2, 32)
    factors = torch.tensor([3.0, 0.5])
    wanted = codes.double() * factors.double()[:, None]
    torch.testing.assert_close(meant(codes, factors), wanted, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("suite", ["speed", "work"])
def test_suites_of_wide_tensors_refuse_own_cases_of_bytes(tmp_path, suite):
    cases = tmp_path / "cases.jsonl"
    cases.write_text(json.dumps(case_named("fp8-cache").as_dict()) + "\n")
    done = bench(tmp_path, "check", "--suite", suite, "--cases", str(cases), "--out", "here")
    assert done.returncode == 2
    said = " ".join(done.stderr.split())
    assert f"--cases: wanted no float8_e4m3fn and no float4_e2m1fn_x2 for the suite {suite}" in said
    assert "'fp8-cache'; --suite correctness takes it" in said
    assert not (tmp_path / "here" / "samples.jsonl").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dtype": "float16", "kv_dtype": "bfloat16"}, "kv_dtype: wanted one of float16, float8"),
        ({"kv_dtype": "fp8"}, "kv_dtype: wanted one of float32, float8.*, float4_.*, got 'fp8'"),
        ({"index_dtype": "e5m2"}, "index_dtype: wanted one of float32, float16, bfloat16, float8"),
        ({"dtype": "float8_e4m3fn", "kv_dtype": "float16"}, "kv_dtype: wanted one of float8"),
        ({"dtype": "float4_e2m1fn_x2"}, "dtype: wanted one of float32, .*, got 'float4_e2m1fn_x2'"),
        (
            {"dtype": "float8_e4m3fn", "kv_dtype": "float4_e2m1fn_x2"},
            "kv_dtype: wanted one of float8_e4m3fn.*, got 'float4",
        ),
        (
            {"kv_dtype": "float4_e2m1fn_x2"},
            "D: wanted a multiple of 16 for float4_e2m1fn_x2, got 8",
        ),
        ({"index_dtype": "float4_e2m1fn_x2"}, "Di: wanted a multiple of 16 for float4"),
    ],
)
def test_dtypes_that_cannot_stand_together_are_named(change, words):
    with pytest.raises(ValueError, match=words):
        Case(name="x", q_lens=(3,), k_lens=(3,), Hq=2, Hkv=1, D=8, Di=8, **change)
