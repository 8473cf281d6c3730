"""The cases that are timed and those whose work is counted: one shape of heads, many lengths.

One more is unlike them in all that a kernel has special paths for: head dim, dtype, lengths of a
batch. Where such a path is lost, the answers stay right and only its time and work change.
"""

from __future__ import annotations

from msa_suites.case import OVERLAPS, Case

#: Queries of a timed prefill chunk: short calls alternate faster than a shared machine changes.
_CHUNK = 512


def _speed(
    kind: str, length: int, overlap: str, profile: str, dtype: str = "float32", *tags: str
) -> Case:
    suffix = "" if dtype == "float32" else f"-{dtype}"
    return Case(
        name=f"{kind}-{length}-{overlap}{suffix}",
        q_lens=({"decode": 1, "chunk": _CHUNK}.get(kind, length),),
        k_lens=(length,),
        Hq=8,
        Hkv=2,
        D=64,
        Di=64,
        dtype=dtype,
        overlap=overlap,
        seed=length,
        tags=("speed", kind, profile, *tags),
    )


#: Cheap shapes for every gate, long ones for the larger profiles.
TIMED_CASES = (
    _speed("chunk", 4096, "low", "quick"),
    _speed("chunk", 4096, "high", "quick"),
    _speed("chunk", 8192, "low", "quick"),
    Case(
        name="ragged-dim-128-bfloat16",
        q_lens=(92, 60),
        k_lens=(3700, 2300),
        Hq=8,
        Hkv=2,
        D=128,
        Di=128,
        dtype="bfloat16",
        seed=3700,
        tags=("speed", "ragged", "quick", "work"),
    ),
    # "work": what the exact series count, whatever the profile; counting knows no noise.
    _speed("prefill", 4096, "low", "quick", "float32", "work"),
    _speed("prefill", 4096, "high", "standard", "float32", "work"),
    _speed("prefill", 8192, "low", "standard", "float32", "work"),
    _speed("prefill", 8192, "high", "standard"),
    *(
        _speed("prefill", length, overlap, profile, dtype)
        for length, profile, dtype in (
            (8192, "standard", "bfloat16"),
            (16384, "standard", "float32"),
            (32768, "full", "float32"),
            (32768, "full", "bfloat16"),
        )
        for overlap in OVERLAPS
    ),
    # One query has no neighbour to agree with.
    _speed("decode", 4096, "low", "standard"),
    _speed("decode", 8192, "low", "quick"),
    _speed("decode", 32768, "low", "standard"),
    _speed("decode", 131072, "low", "full"),
)
