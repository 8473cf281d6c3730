# ruff: noqa: ARG005  # stand-ins take what they are given
"""Conformance passes what is right and catches what is wrong, whatever face it shows."""

import collections

import faulty
import pytest
import right
import torch
from faulty_attending import (
    Dense,
    FutureOfLocalBlock,
    HeadsByModulo,
    NextVisible,
    PageForBlock,
    ScaleMissing,
)
from faulty_buffers import AllZero, SwappedOutput, WritesQueries
from faulty_method import Method, bare
from faulty_selecting import LocalNotForced, MeanPool, NanFirst, SharedByMaximum

import msa_kernels
from msa_suites.cases import case_named, cases_for
from msa_suites.correctness import (
    Materials,
    conforms,
    iterate_checks,
    local_call,
    plan,
    run_checks,
)
from msa_suites.correctness.run import FAILED, SKIPPED

FACES = ("operations", "attend", "attend without selection")
REQUIRED = (MeanPool, SharedByMaximum, LocalNotForced, FutureOfLocalBlock, AllZero)
#: Faults that few cases show; the others are tried on the cheap ones that show most.
SHOWN_BY = {
    "SinkIgnored": ("sink-1",),
    "FirstBlocksOnly": ("many-blocks",),
    "FirstTokensOnly": ("lengths-2047-2048-2049",),
    "OneBlockIsEverything": ("topk-1", "topk-2"),
    "LargeGroupPartlyStored": ("group-of-8",),
    "OutputInFloat32": ("float16",),
    "Crashing": ("dim-128-block-128",),
    "TailUnmasked": ("decode",),
    "EmptyEntryIsLastPage": ("decode",),
    "PagesUnshuffled": ("decode",),
    "PagesTokenFirst": ("decode",),
    "DecodeWantsAscendingIds": ("decode",),
    "ScaleOfTheCacheAssumed": ("decode",),
}
MOST = ("lengths-127-128-129", "chunk-inside-block", "bfloat16")


pytestmark = [pytest.mark.whole, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def materials():
    return Materials(keep=True)


def _faces(fault):
    if fault not in faulty.BOTH:
        return FACES[:1]
    return FACES if fault in REQUIRED else FACES[::2]


def shown_as(method, face):
    if face == "operations":
        return method
    return bare(method, with_selection=face == "attend")


def check(implementation, materials, names=None, only=()):
    found = msa_kernels.load(implementation)
    cases = None if names is None else [case_named(name) for name in names]
    yield from iterate_checks(
        local_call(found),
        msa_kernels.capabilities(found),
        table=plan(cases=cases, only=only),
        materials=materials,
    )


@pytest.mark.parametrize(
    ("fault", "face"),
    [
        pytest.param(fault, face, id=f"{fault.__name__}-{face}")
        for fault in (*faulty.BOTH, *faulty.OPERATIONS)
        for face in _faces(fault)
    ],
)
def test_a_fault_is_caught(fault, face, materials):
    names = SHOWN_BY.get(fault.__name__, MOST)
    failed = (r for r in check(shown_as(fault(), face), materials, names) if r.status == FAILED)
    first = next(failed, None)
    assert first is not None, f"{fault.__name__} passed conformance as {face}"
    assert first.detail.startswith(f"{first.check}:")


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("fault", REQUIRED)
def test_the_whole_run_fails_on_the_named_faults(fault, face, materials):
    results = list(check(shown_as(fault(), face), materials, MOST[:1]))
    assert not conforms(results)
    assert sum(r.status == FAILED for r in results) > 1


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (MeanPool, "the mean of a block's scores"),
        (SharedByMaximum, "one selection for all groups"),
        (LocalNotForced, "the local block is not forced"),
        (FutureOfLocalBlock, "future tokens of the local block"),
        (AllZero, "all zero"),
        (SwappedOutput, "the layout is swapped"),
        (HeadsByModulo, "h % Hkv"),
        (ScaleMissing, "the scale of the logits is missing"),
        (Dense, "everything is attended"),
        (PageForBlock, "another block size"),
        (NextVisible, "off by one"),
    ],
)
def test_a_detail_names_the_likely_cause(fault, cause, materials):
    subject = bare(fault(), with_selection=False)
    (result,) = check(subject, materials, ["lengths-127-128-129"], only=["pipeline"])
    assert result.status == FAILED
    assert cause in result.detail
    assert "first at row" in result.detail
    assert "rows wrong" in result.detail


@pytest.mark.parametrize("face", [FACES[0], pytest.param(FACES[2], marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "method",
    [*right.RIGHT[:3], *(pytest.param(x, marks=pytest.mark.slow) for x in right.RIGHT[3:])],
)
def test_a_right_implementation_passes(method, face, materials):
    names = ["length-1", "lengths-127-128-129", "bfloat16", "float16", "decode", "batch-with-empty"]
    results = list(check(shown_as(method(), face), materials, names))
    assert [r for r in results if r.status == FAILED] == []
    assert conforms(results)


@pytest.mark.slow  # the gate runs the same on every change
def test_torch_conforms_on_every_quick_case(materials):
    results = list(check("torch", materials))
    assert [r for r in results if r.status == FAILED] == []
    assert {r.case for r in results} == {case.name for case in cases_for("correctness")}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torch", "reference"])
def test_ours_conform_on_the_standard_profile(name):
    found = msa_kernels.load(name)
    capabilities = msa_kernels.capabilities(found)
    assert conforms(run_checks(local_call(found), capabilities, profile="standard"))


def test_reference_conforms(materials):
    results = list(
        check("reference", materials, ["lengths-127-128-129", "decode", "sink-2-local-2"])
    )
    assert [r for r in results if r.status == FAILED] == []


def test_outside_of_the_capabilities_is_skipped_with_the_reason(materials):
    class Narrow(Method):
        CAPABILITIES = {  # noqa: RUF012
            "dtypes": [torch.float32],
            "block_sizes": [16, 32],
            "paged": False,
            "nan_scores": False,
            "sink_blocks": False,
        }

    results = list(check(Narrow(), materials, ["lengths-127-128-129", "bfloat16", "sink-1"]))
    assert conforms(results)
    reasons = collections.Counter(r.detail for r in results if r.status == SKIPPED)
    assert any("dtype bfloat16: its capabilities are float32" in reason for reason in reasons)
    assert any("NaN scores" in reason for reason in reasons)
    assert any("sink_blocks 1" in reason for reason in reasons)


def test_inside_of_the_capabilities_must_pass(materials):
    class Wrong(NanFirst):
        CAPABILITIES = {"nan_scores": True}  # noqa: RUF012

    assert any(r.status == FAILED for r in check(Wrong(), materials, MOST[:1]))


def test_missing_operations_are_skipped(materials):
    results = list(check(bare(Method(), with_selection=True), materials, MOST[:1]))
    skipped = {r.check: r.detail for r in results if r.status == SKIPPED}
    assert skipped["scores"] == "it has no block_scores"
    assert skipped["combine"] == "it has no combine"


@pytest.mark.parametrize(
    ("attend", "detail"),
    [
        (lambda q, k, v, q_idx, k_idx: (q, None), "does not take the documented arguments"),
        (lambda *tensors, **keywords: tensors[0], "wrong structure: wanted (out, selection)"),
        (lambda *tensors, **keywords: (tensors[0][:1], None), "wrong out: wanted float32"),
        (lambda *tensors, **keywords: (None, None), "got NoneType"),
        (
            lambda *tensors, **keywords: (tensors[0], torch.zeros(1, dtype=torch.int32)),
            "wrong selection: wanted int32 [384, 2, 4], got int32 [1]",
        ),
        (lambda *tensors, **keywords: 1 / 0, "raised ZeroDivisionError: division by zero"),
    ],
)
def test_what_is_no_result_is_a_clear_failure(attend, detail, materials):
    (result,) = check(attend, materials, ["lengths-127-128-129"], only=["pipeline"])
    assert result.status == FAILED
    assert detail in result.detail


def test_a_subject_that_writes_to_its_inputs_leaves_the_judge_intact(materials):
    before = materials.of(case_named("lengths-127-128-129"), exact=True).inputs.q.clone()
    results = list(check(WritesQueries(), materials, ["lengths-127-128-129"]))
    assert "tensor argument 0 was written to" in next(
        r.detail for r in results if r.check == "inputs_unchanged"
    )
    assert torch.equal(before, materials.of(case_named("lengths-127-128-129"), exact=True).inputs.q)
