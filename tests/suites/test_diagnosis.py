"""What a failed check says of the cause: on wrong implementations that were not written for it."""

from __future__ import annotations

import faulty_attending as attending
import faulty_backward as backward
import faulty_buffers as buffers
import faulty_quantized as quantized
import faulty_selecting as selecting
import pytest

import msa_kernels
from msa_suites.cases import case_named
from msa_suites.correctness import Materials, iterate_checks, local_call, plan
from msa_suites.correctness.run import FAILED

#: Wrong implementation -> the case that shows it, and words of the cause that must be named.
CAUSES = {
    attending.PageForBlock: ("lengths-127-128-129", "a page size?"),
    attending.BlockOffByOne: ("lengths-127-128-129", "block ids are one too"),
    attending.OneBlockIsEverything: ("topk-1", "everything is attended"),
    attending.Dense: ("lengths-127-128-129", "everything is attended"),
    attending.FutureOfLocalBlock: ("lengths-127-128-129", "future tokens of the local block"),
    attending.SelfHidden: ("lengths-127-128-129", "positions are one too low"),
    attending.NextVisible: ("lengths-127-128-129", "positions are one too high"),
    attending.TopLeft: ("chunk-inside-block", "top-left"),
    attending.AdditiveMask: ("bfloat16", "additive mask"),
    attending.HeadsByModulo: ("group-of-3", "h % Hkv"),
    attending.SwappedSelection: ("tokens-equal-heads", "the layout is swapped"),
    attending.BatchOffsetTwice: ("lengths-127-128-129", "added twice"),
    attending.ScaleMissing: ("lengths-127-128-129", "the scale of the logits is missing"),
    attending.ScaleIgnored: ("lengths-127-128-129", "the scale that is given is ignored"),
    attending.NoShiftInSoftmax: ("lengths-127-128-129", "the maximum is not taken off"),
    attending.RunningMaximumFromZero: ("lengths-127-128-129", "the maximum is not taken off"),
    attending.LowPrecisionSums: ("lengths-127-128-129", "lower precision"),
    attending.LowPrecisionInputs: ("lengths-127-128-129", "lower precision"),
    attending.SlightlyTooLarge: ("lengths-127-128-129", "times what is right"),
    attending.EmptyEntryIsFirstBlock: ("lengths-127-128-129", "read as the first block"),
    attending.EmptyRowIsNan: ("lengths-127-128-129", "rows without any block"),
    attending.NanTimesZero: ("lengths-127-128-129", "garbage times zero"),
    attending.LseBase2: ("lengths-127-128-129", "base 2"),
    attending.MergeNan: ("lengths-127-128-129", "an empty part"),
    attending.MergeUnweighted: ("lengths-127-128-129", "not weighted"),
    backward.SharedBlockLastWriterWins: ("chunk-inside-block", "share a block"),
    backward.LostWhereSlotsAreLeftOver: ("chunk-inside-block", "empty slots add nothing"),
    backward.EmptyRowsAreNan: ("chunk-inside-block", "rows without any block"),
    backward.GradientsAreZero: ("chunk-inside-block", "never written: zero"),
    buffers.LargeGroupPartlyStored: ("group-of-16", "heads 8 to 15 never written"),
    buffers.SwappedOutput: ("lengths-127-128-129", "the layout is swapped"),
    buffers.StridesIgnored: ("lengths-127-128-129", "strides"),
    buffers.AllZero: ("lengths-127-128-129", "all zero"),
    buffers.Stale: ("lengths-127-128-129", "an earlier call"),
    buffers.OneBuffer: ("lengths-127-128-129", "an earlier call"),
    buffers.Noisy: ("lengths-127-128-129", "a race"),
    buffers.TailUnmasked: ("decode", "tail of the last page"),
    buffers.EmptyEntryIsLastPage: ("decode-several", "looked up in the page table"),
    buffers.PagesUnshuffled: ("decode", "order of their numbers"),
    buffers.DecodeWantsAscendingIds: ("decode", "in ascending order"),
    buffers.ScaleOfTheCacheAssumed: ("decode", "the scale that is given is ignored"),
    buffers.PagesTokenFirst: ("decode", "tokens first (NHD)"),
    quantized.OneFactorForAll: ("fp8", "the first head"),
    quantized.AnotherFormat: ("fp8", "read as E4M3 FNUZ"),
    quantized.TwoBitsOfMantissa: ("fp8", "read as E5M2"),
    quantized.HighHalfFirst: ("fp4", "the high one is taken for the first"),
    quantized.PagesTokensFirst: ("fp4-decode", "pages are read tokens first"),
    quantized.NextScale: ("fp4", "the scale of the next 16 channels"),
    quantized.ScalesDropped: ("fp4", "the scales of NVFP4 (descale) are dropped"),
    quantized.ScalesInAnotherFormat: ("fp4", "scales are read as E4M3 FNUZ"),
    selecting.MeanPool: ("lengths-127-128-129", "the mean of a block's scores"),
    selecting.SharedByMaximum: ("group-of-3", "one selection for all groups"),
    selecting.SharedFromFirst: ("group-of-3", "one selection for all groups"),
    selecting.LocalNotForced: ("lengths-127-128-129", "the local block is not forced"),
    selecting.SinkIgnored: ("sink-1", "a forced block is missing"),
    selecting.FirstBlocksOnly: ("many-blocks", "never chosen"),
    selecting.Absolute: ("lengths-127-128-129", "the magnitude of a product"),
    selecting.LowPrecisionScores: ("lengths-127-128-129", "lower precision"),
    selecting.HalfTheIndexDim: ("lengths-127-128-129", "first half of the index dimension"),
    selecting.OneTooFew: ("lengths-127-128-129", "the wrong number of blocks"),
    selecting.FutureScored: ("lengths-127-128-129", "future tokens of the query's own block"),
    selecting.IndexScaleMissing: ("lengths-127-128-129", "the scale is missing"),
    selecting.HiddenIsLarge: ("lengths-127-128-129", "a large negative number"),
    selecting.HiddenIsUnwritten: ("lengths-127-128-129", "nobody may see hold numbers"),
    selecting.NanFirst: ("lengths-127-128-129", "a NaN score"),
    selecting.NanAsId: ("lengths-127-128-129", "a NaN score"),
}


pytestmark = [pytest.mark.whole, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def materials():
    return Materials(keep=True)


@pytest.mark.parametrize("fault", CAUSES, ids=lambda fault: fault.__name__)
def test_the_first_failure_names_the_cause(fault, materials):
    case, words = CAUSES[fault]
    found = msa_kernels.load(fault())
    capabilities = msa_kernels.capabilities(found)
    table = plan(cases=[case_named(case)])
    results = iterate_checks(local_call(found), capabilities, table=table, materials=materials)
    first = next((r for r in results if r.status == FAILED), None)
    assert first is not None
    assert words in first.detail


@pytest.mark.parametrize("broken", ["likely_cause", "symptoms.look"])
def test_a_search_that_breaks_down_hides_no_failure(broken, materials, monkeypatch):
    def fall(*_):
        raise RuntimeError("odd numbers")

    monkeypatch.setattr(f"msa_suites.correctness.trial.{broken}", fall)
    found = msa_kernels.load(attending.Dense())
    (result,) = iterate_checks(
        local_call(found),
        msa_kernels.capabilities(found),
        table=plan(cases=[case_named("lengths-127-128-129")], only=["attention"]),
        materials=materials,
    )
    assert result.status == FAILED
    assert "rows wrong; no search for a cause: it ended in RuntimeError: odd" in result.detail
