"""What a compiled kernel must be, by architecture and kernel, whatever base was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from msa_suites.aot.builds import Build

#: Architecture -> its fastest matrix instruction, and bytes of shared memory that a program can
#: have (CUDA C++ Programming Guide, technical specifications per compute capability).
MATRIX = {
    "sm_80": "mma.sync",
    "sm_86": "mma.sync",
    "sm_89": "mma.sync",
    "sm_90a": "wgmma.mma_async",
    "sm_100a": "tcgen05.mma",
    "sm_103a": "tcgen05.mma",
}
SHARED_BYTES = {
    "sm_80": 166_912,
    "sm_86": 101_376,
    "sm_89": 101_376,
    "sm_90a": 232_448,
    "sm_100a": 232_448,
    "sm_103a": 232_448,
}
#: A head dim up to which nothing may spill in any shape.
_SMALL = 64
#: Columns of tensor memory. A kernel that wants more compiles to an empty one.
TENSOR_MEMORY = 512


@dataclass(frozen=True, slots=True)
class Rule:
    """What is asked of one kernel.

    Attributes:
        matrix: ``best``: the architecture's fastest matrix instruction; ``any``: some; ``none``.
        spill_bytes: of stack, at most.
        wide: of tensors that are never all in E4M3: new tokens, gradients.
        bulk: whether it copies tiles by tensor maps.
        odd_spill_bytes: at most, at a D of 128 with one head a group or a number of them that is
            no power of two.
    """

    matrix: str = "none"
    spill_bytes: int = 0
    wide: bool = False
    bulk: bool = False
    odd_spill_bytes: int = 0


#: The kernels of the implementation ``triton``: each is launched in every build. Products of the
#: heads of one query have too few rows for the fastest instruction.
RULES = {
    "score_tile": Rule("best"),
    "select_tile": Rule(spill_bytes=8),  # k no power of two: one register
    "attend_slots": Rule("any"),
    "name_lists": Rule(),
    "attend_list": Rule("best"),
    "grad_queries": Rule("any", wide=True),
    "grad_keys": Rule("best", wide=True),
    "index_rows": Rule("any", wide=True),
    "index_keys": Rule("best", wide=True),
    "append_tokens": Rule(wide=True),
    # triton 3.6 for sm_100a puts one register aside, once and outside of its loop.
    "merge_tile": Rule(spill_bytes=8),
}
#: Those in Gluon: tiles come by bulk copies. The rows and heads of gathered queries are found by
#: divisions, which triton 3.6 cannot hold beside 128 x 128 outputs where heads are odd.
GLUON_RULES = {
    "score_blocks": Rule("best", bulk=True),
    "attend_units": Rule("best", bulk=True, odd_spill_bytes=512),
    "attend_pages": Rule("best", bulk=True),
    "merge_tile": RULES["merge_tile"],
}
#: Implementation -> its kernels.
KERNELS = {"triton": RULES, "sm100": GLUON_RULES, "sm90": GLUON_RULES}


def matrix_unit(instructions: Mapping[str, int], arch: str) -> float:
    """1 with the architecture's fastest matrix instruction, 0.5 with another one, 0 with none."""
    if instructions.get(MATRIX[arch]):
        return 1.0
    return 0.5 if any(instructions.get(name) for name in set(MATRIX.values())) else 0.0


def _sizes(build: Build) -> dict[str, int]:
    """Constants of our kernels that say which shape was launched."""
    sizes = {"DIM": build.dim, "BLOCK": build.block, "GROUPS": build.groups}
    return {**sizes, "TOPK": build.topk, "SHARE": build.heads // build.groups}


def broken(kernel: str, found: Mapping[str, Any], arch: str, build: Build) -> str:
    """What is wrong with a compiled kernel, or nothing."""
    rule = {**RULES, **GLUON_RULES}.get(kernel.partition(".")[0], Rule())
    unit = matrix_unit(found["instructions"], arch)
    wanted = 0.0 if build.dtype == "float32" else {"best": 1.0, "any": 0.5}.get(rule.matrix, 0.0)
    problems = [
        f"{name}: wanted {wanted_size} of the build, got {found['config'][name]}"
        for name, wanted_size in _sizes(build).items()
        if found["config"].get(name, wanted_size) != wanted_size
    ]
    if not found["instructions"].get("st.global"):
        problems.append("wanted a kernel that stores something, got an empty one")
    if found["tensor_memory"] > TENSOR_MEMORY:
        problems.append(
            f"tensor memory: wanted at most {TENSOR_MEMORY} columns, got {found['tensor_memory']}"
        )
    if found["shared_bytes"] > SHARED_BYTES[arch]:
        problems.append(
            f"shared memory: wanted at most {SHARED_BYTES[arch]} bytes on {arch}, "
            f"got {found['shared_bytes']}"
        )
    share = build.heads // build.groups
    odd = build.dim > _SMALL and (share == 1 or share & (share - 1))
    ceiling = max(rule.spill_bytes, rule.odd_spill_bytes if odd else 0)
    if found["spill_bytes"] > ceiling:
        problems.append(
            f"spills: wanted at most {ceiling} bytes of stack, got {found['spill_bytes']}"
        )
    if rule.bulk and not found["instructions"].get("cp.async.bulk"):
        problems.append("instructions: wanted cp.async.bulk, got none")
    if unit < wanted:
        name = MATRIX[arch] if wanted == 1.0 else "a matrix instruction"
        listed = ", ".join(found["instructions"]) or "none"
        problems.append(f"instructions: wanted {name}, got {listed}")
    return "; ".join(problems)
