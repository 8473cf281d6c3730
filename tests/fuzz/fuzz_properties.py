"""The table of what is fuzzed: what is checked, on which draws, how often, and what once failed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import fuzz_gates
import fuzz_operations as operations
import fuzz_refusals as refusals
import fuzz_settings
from fuzz_cache import CacheMachine
from fuzz_cache_refusals import HostileCacheMachine
from fuzz_decoding import DECODED, PARTS, Decoded, check_decoding, check_merging
from fuzz_draws import Case, cases
from fuzz_operations import Chunks


@dataclass(frozen=True)
class Property:
    """What is checked, on what, how often; ``pinned`` are cases that once failed."""

    check: Any
    draws: Any
    quick: int
    long: int
    pinned: tuple[Any, ...] = ()


_TWICE = Case(lengths=((2, 0),), block=1, topk=2, chosen="own", share=2, dim=1)

PROPERTIES = {
    "block scores": Property(operations.check_scores, cases(), 20, 1500),
    "selections": Property(operations.check_selecting, cases(), 20, 1500),
    "attention": Property(
        operations.check_attention,
        cases(),
        25,
        2500,
        # A block twice in a selection was taken for all blocks.
        (_TWICE, replace(_TWICE, seed=3, topk=3, implementation="reference")),
    ),
    "pipelines": Property(
        operations.check_pipeline,
        cases(),
        20,
        1500,
        (
            # Rows whose channels are not neighbours in memory were read as if they were.
            Case(lengths=((3, 0),), strided=True, values="normal"),
            # A scale of zero or less made NaN of every hidden token.
            Case(lengths=((3, 0),), scale=-0.5, topk=2),
            Case(lengths=((3, 0),), scale=0.0, topk=2),
        ),
    ),
    "chunks": Property(
        operations.check_chunks,
        operations.PROMPTS,
        8,
        400,
        (Chunks(Case(lengths=((2, 0),), block=1, topk=2, scale=-0.5), cuts=(0,)),),
    ),
    "merged parts": Property(check_merging, PARTS, 15, 700),
    "decoding": Property(
        check_decoding,
        DECODED,
        15,
        1200,
        # A block twice in a selection weighed twice.
        (Decoded(Case(lengths=((0, 0),), block=1, topk=2, chosen="own"), steps=1),),
    ),
    "refusals": Property(refusals.check_refusal, refusals.WRONG, 60, 4000),
    "right calls before they are broken": Property(
        refusals.check_accepted, refusals.WRONG, 10, 400
    ),
    "settings of MSA": Property(fuzz_settings.check_config, fuzz_settings.CONFIGS, 20, 600),
    "settings of the retrofit": Property(
        fuzz_settings.check_retrofit, fuzz_settings.RETROFITS, 20, 600
    ),
    "gates": Property(fuzz_gates.check_gates, fuzz_gates.FRAGMENTS, 15, 1000),
}
MACHINES = {
    "runs of the cache": (CacheMachine, 4, 1000),
    "runs of the cache with wrong calls": (HostileCacheMachine, 6, 1500),
}
