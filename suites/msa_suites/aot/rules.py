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
#: Columns of tensor memory. A kernel that wants more compiles to an empty one.
TENSOR_MEMORY = 512


@dataclass(frozen=True, slots=True)
class Rule:
    """What is asked of one kernel.

    Attributes:
        matrix: ``best``: the architecture's fastest matrix instruction; ``any``: some; ``none``.
        spill_bytes: of stack, at most.
        wide: of tensors that are never all in E4M3: new tokens, gradients.
    """

    matrix: str = "none"
    spill_bytes: int = 0
    wide: bool = False


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
    rule = RULES.get(kernel.partition(".")[0], Rule())
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
    if found["spill_bytes"] > rule.spill_bytes:
        problems.append(
            f"spills: wanted at most {rule.spill_bytes} bytes of stack, got {found['spill_bytes']}"
        )
    if unit < wanted:
        name = MATRIX[arch] if wanted == 1.0 else "a matrix instruction"
        listed = ", ".join(found["instructions"]) or "none"
        problems.append(f"instructions: wanted {name}, got {listed}")
    return "; ".join(problems)
