"""Mutants that are known to be the same program, with the reason: a table that is checked.

A claim is a table of ``equivalent.toml``: a module, the text of a line, the change as the listing
says it, and why no caller can tell. It holds for every such mutant of such a line, or for the one
numbered ``which`` among them, from 0. Lines may move; a claim about a line that is gone is an
error, and so is one about a mutant that the gate kills.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources

from msa_suites.faults.mutation import MODULES, Mutant, mutants_of

_FIELDS = frozenset({"module", "source", "what", "why"})


@dataclass(frozen=True, slots=True)
class Claim:
    """Why a change of a line changes nothing.

    Attributes:
        module: dotted name.
        source: the line, without the spaces around it.
        what: the change, as in :attr:`Mutant.what`.
        why: no caller can tell.
        which: of several such changes of such lines, from 0; None for all of them.
    """

    module: str
    source: str
    what: str
    why: str
    which: int | None = None


@cache
def claims() -> tuple[Claim, ...]:
    """The table.

    Raises:
        ValueError: a claim lacks a field, has a foreign one, or gives no reason.
    """
    text = resources.files(__package__).joinpath("equivalent.toml").read_text(encoding="utf-8")
    return parse_claims(text)


def parse_claims(text: str) -> tuple[Claim, ...]:
    """The claims of a table's text; raises as :func:`claims`."""
    found = []
    for row in tomllib.loads(text).get("mutant", []):
        if not set(row) >= _FIELDS or set(row) - _FIELDS - {"which"}:
            wanted = ", ".join(sorted(_FIELDS))
            raise ValueError(f"mutant: wanted {wanted} and perhaps which, got {sorted(row)}")
        if not str(row["why"]).strip():
            raise ValueError(f"why: wanted a reason for {row['source']!r}, got an empty text")
        found.append(Claim(**row))
    return tuple(found)


def claimed(claim: Claim) -> list[Mutant]:
    """The mutants that a claim is about; none where its line or its change is gone."""
    if claim.module not in MODULES:
        return []
    alike = [
        one
        for one in mutants_of(claim.module)
        if (one.source, one.what) == (claim.source, claim.what)
    ]
    return alike if claim.which is None else alike[claim.which : claim.which + 1]


@cache
def _reasons() -> dict[str, str]:
    return {one.name: claim.why for claim in claims() for one in claimed(claim)}


def why_equivalent(mutant: str) -> str:
    """Why a mutant, by name, is the same program; empty where nobody claims that."""
    return _reasons().get(mutant, "")
