"""The one table of cases: correctness, speed and reports all draw from it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from msa_suites.case import DTYPES, OVERLAPS, PROFILES, Case
from msa_suites.case_files import CaseError, load_cases
from msa_suites.checked_cases import CHECKED_CASES
from msa_suites.timed_cases import TIMED_CASES

__all__ = [
    "CASES",
    "DTYPES",
    "OVERLAPS",
    "PROFILES",
    "Case",
    "CaseError",
    "case_named",
    "cases_for",
    "load_cases",
]


#: Every case of the suites, in the order in which they run.
CASES: tuple[Case, ...] = (*CHECKED_CASES, *TIMED_CASES)


def cases_for(
    tag: str, *, profile: str = "quick", cases: Iterable[Case] = CASES
) -> tuple[Case, ...]:
    """The cases with ``tag`` of a profile and of the smaller ones, in order.

    Raises:
        ValueError: no such profile.
    """
    if profile not in PROFILES:
        near = difflib.get_close_matches(profile, PROFILES, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"profile: wanted one of {', '.join(PROFILES)}, got {profile!r}{hint}")
    allowed = set(PROFILES[: PROFILES.index(profile) + 1])
    return tuple(case for case in cases if tag in case.tags and allowed & set(case.tags))


def case_named(name: str) -> Case:
    """The case of that name.

    Raises:
        ValueError: no such case; near matches are listed.
    """
    for case in CASES:
        if case.name == name:
            return case
    names = [case.name for case in CASES]
    near = difflib.get_close_matches(name, names, n=3) or names
    raise ValueError(f"case: wanted one of {', '.join(near)}, got {name!r}")
