"""Known faults, put into a copy of the kernels one at a time: the conformance suite sees each."""

from __future__ import annotations

import sys
import warnings

import pytest
from kernel_copies import load_copy
from kernel_faults import FAULTS

import msa_kernels
from msa_suites.correctness.run import FAILED, PASSED, run_checks
from msa_suites.correctness.subject import local_call


@pytest.fixture
def copies(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("spoilt_")]:
        del sys.modules[name]


def checked(found, fault, check):
    found.attention.way_of = lambda *_: fault.way
    capabilities = msa_kernels.capabilities(found)
    with warnings.catch_warnings():
        # On a GPU an inf or NaN is a number like others, and must be found in the result.
        warnings.simplefilter("ignore")
        (result,) = run_checks(local_call(found), capabilities, only=(check,), cases=[fault.case])
    return result


@pytest.mark.parametrize("name", FAULTS)
def test_the_check_catches_the_fault(copies, name):
    fault = FAULTS[name]
    right = checked(load_copy(copies, "spoilt_not_at_all"), fault, fault.check)
    assert right.status == PASSED, right.detail
    found = load_copy(copies, "spoilt_" + name.replace("-", "_"), fault)
    wrong = checked(found, fault, fault.check)
    assert wrong.status == FAILED
    assert "raised" not in wrong.detail  # what does not run at all is another fault
    if fault.unseen_by:
        assert checked(found, fault, fault.unseen_by).status == PASSED
    print(f"{name}: {wrong.detail}")
