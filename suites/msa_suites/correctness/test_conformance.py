"""The table of checks as pytest tests, one per check and case.

pytest --pyargs msa_suites.correctness --implementation torch
"""

from __future__ import annotations

import pytest

import msa_kernels
from msa_suites.cases import Case, load_cases
from msa_suites.correctness.run import FAILED, SKIPPED, Materials, iterate_checks, plan
from msa_suites.correctness.subject import Call, local_call

_SUBJECT = pytest.StashKey[tuple[Call, msa_kernels.Capabilities]]()
_MATERIALS = pytest.StashKey[Materials]()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per row of the plan, case by case, so that oracle results are computed once."""
    file = metafunc.config.getoption("--msa-cases")
    table = plan(
        profile=metafunc.config.getoption("--msa-profile"),
        cases=load_cases(file) if file else None,
    )
    rows = [(case, name) for case, names in table for name in names]
    metafunc.parametrize(
        ("case", "check"), rows, ids=[f"{check}-{case.name}" for case, check in rows]
    )


@pytest.fixture
def subject(pytestconfig: pytest.Config) -> tuple[Call, msa_kernels.Capabilities]:
    """The implementation under test, loaded once."""
    if _SUBJECT not in pytestconfig.stash:
        try:
            found = msa_kernels.load(pytestconfig.getoption("--implementation"))
            known = local_call(found), msa_kernels.capabilities(found)
        except msa_kernels.ImplementationError as error:
            pytest.exit(f"--implementation: {error}", returncode=pytest.ExitCode.USAGE_ERROR)
        pytestconfig.stash[_SUBJECT] = known
        pytestconfig.stash[_MATERIALS] = Materials()
    return pytestconfig.stash[_SUBJECT]


def test_conformance(
    case: Case,
    check: str,
    subject: tuple[Call, msa_kernels.Capabilities],
    pytestconfig: pytest.Config,
) -> None:
    """The check passes on the case, or says why it does not apply."""
    call, capabilities = subject
    materials = pytestconfig.stash[_MATERIALS]
    (result,) = iterate_checks(call, capabilities, table=[(case, (check,))], materials=materials)
    if result.status == SKIPPED:
        pytest.skip(result.detail)
    if result.status == FAILED:
        pytest.fail(result.detail, pytrace=False)
