"""Known faults, put into the code for the length of a test: the fuzzing finds each of them."""

from __future__ import annotations

import contextlib
import sys

import pytest
from fuzz_hunting import hunt, hunt_machine, profile
from fuzz_properties import MACHINES, PROPERTIES

from msa.cache import PagedCache
from msa_suites.faults.code import Code
from msa_suites.faults.table import faults

_PIPELINES, _ATTENTION, _CACHE = "pipelines", "attention", "runs of the cache"
FOUND_BY = {
    "mean-pooling": _PIPELINES,
    "one-selection-for-all-groups": _PIPELINES,
    "future-tokens-scored": "block scores",
    "local-block-not-forced": "selections",
    "ties-go-to-the-higher-block": "selections",
    "budget-one-too-small": "selections",
    "next-token-visible": _ATTENTION,
    "empty-entry-is-the-first-block": _ATTENTION,
    "strides-of-the-keys-ignored": _ATTENTION,
    "strides-of-the-selection-ignored": _ATTENTION,
    "large-groups-partly-stored": _ATTENTION,
    "heads-assigned-by-modulo": _ATTENTION,
    "last-rows-skipped": _ATTENTION,
    "triangle-at-the-top-left": "chunks",
    "empty-parts-merge-to-nan": "merged parts",
    "tail-of-the-last-page-read": "decoding",
    "every-request-reads-the-first-table": "decoding",
    "every-query-stands-on-the-last-key": "decoding",
    "index-keys-not-stored": _CACHE,
    "newest-index-keys-missing": _CACHE,
    "chunk-wipes-the-block-it-starts-in": _CACHE,
    "released-pages-stay-in-use": _CACHE,
}


@contextlib.contextmanager
def injected(name):
    """The code with a fault in it; afterwards every name is bound as before."""
    known = faults()[name]
    modules = [m for n, m in sys.modules.items() if n.partition(".")[0] in ("msa", "msa_suites")]
    before = [(owner, dict(vars(owner))) for owner in (*modules, PagedCache)]
    known.inject(Code())
    try:
        yield
    finally:
        for owner, names in before:
            for key, value in names.items():
                if vars(owner).get(key) is not value:
                    setattr(owner, key, value)


def look_for(name, found_by, cases=400):
    """The property that sees a fault, without looking for the smallest case."""
    with injected(name):
        if found_by in MACHINES:
            hunt_machine(MACHINES[found_by][0], profile("fuzz-quick", cases, shrink=False))
        else:
            one = PROPERTIES[found_by]
            hunt(one.check, one.draws, profile("fuzz-quick", cases, shrink=False))


@pytest.mark.parametrize("name", FOUND_BY)
def test_a_known_fault_is_found(name):
    with pytest.raises(AssertionError):
        look_for(name, FOUND_BY[name])


def test_a_fault_is_gone_after_its_test():
    before = PagedCache.append
    with injected("index-keys-not-stored"):
        assert PagedCache.append is not before
    assert PagedCache.append is before
