"""One benchmark per operation of the quick profile's cases."""

from __future__ import annotations

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from msa_suites.speed.history.prepared import NAMES, prepared

ROUNDS = 5


@pytest.mark.parametrize("series", NAMES)
def test_operation(benchmark: BenchmarkFixture, series: str) -> None:
    """Fixed rounds on one torch thread; the result must be finite to count."""
    operation, call = prepared(series)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        result = benchmark.pedantic(
            operation, args=call.args, kwargs=dict(call.kwargs), rounds=ROUNDS, warmup_rounds=1
        )
    finally:
        torch.set_num_threads(threads)
    first = result[0] if isinstance(result, tuple) else result
    # Scores of invisible blocks are -inf by definition; NaN is never right.
    assert not bool(torch.isnan(first).any())
