"""Known faults, put into a copy of the kernels one at a time: the conformance suite sees each."""

from __future__ import annotations

import sys

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


def checked(found, fault):
    found.attention.way_of = lambda *_: fault.way
    capabilities = msa_kernels.capabilities(found)
    (result,) = run_checks(local_call(found), capabilities, only=(fault.check,), cases=[fault.case])
    return result


@pytest.mark.parametrize("name", FAULTS)
def test_the_check_catches_the_fault_and_nothing_else(copies, name):
    fault = FAULTS[name]
    right = checked(load_copy(copies, "spoilt_not_at_all"), fault)
    assert right.status == PASSED, right.detail
    wrong = checked(load_copy(copies, "spoilt_" + name.replace("-", "_"), fault), fault)
    assert wrong.status == FAILED
    print(f"{name}: {wrong.detail}")
