"""PyTorch's FlexAttention under the conformance suite, for real."""

from __future__ import annotations

import pytest
import torch

import msa_kernels
from msa_suites.cases import case_named
from msa_suites.correctness import Materials, iterate_checks, local_call, plan
from msa_suites.correctness.run import FAILED, PASSED

pytestmark = pytest.mark.whole

CASES = ("lengths-127-128-129", "chunk-inside-block", "batch-with-empty", "group-of-3", "bfloat16")


@pytest.mark.parametrize("name", CASES)
def test_it_conforms(name):
    found = msa_kernels.load("flex_attention")
    table = plan(cases=[case_named(name)])
    results = list(
        iterate_checks(
            local_call(found), msa_kernels.capabilities(found), table=table, materials=Materials()
        )
    )
    assert [r.detail for r in results if r.status == FAILED] == []
    assert {"attention", "attention_lse"} <= {r.check for r in results if r.status == PASSED}


def test_the_record_names_the_torch_that_ran():
    version = msa_kernels.identity(msa_kernels.load("flex_attention")).version
    assert version.endswith(f"with torch {torch.__version__}")
