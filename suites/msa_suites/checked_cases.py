"""The cases of the correctness suite.

Lengths are hostile on purpose: one off every border of a block and of the budget ``topk * block``,
chunks that start inside a block, batches of unlike sequences, as many tokens as heads. Small
blocks and budgets keep most contexts above the budget while they stay cheap.
"""

from __future__ import annotations

from collections.abc import Sequence

from msa_suites.case import DTYPES, E4M3, NVFP4, Case


def _check(
    name: str,
    q_lens: Sequence[int],
    heads: tuple[int, int],
    dims: tuple[int, int],
    block: int,
    topk: int,
    *,
    k_lens: Sequence[int] | None = None,
    profile: str = "quick",
    dtype: str = "float32",
    kv_dtype: str = "",
    index_dtype: str = "",
    local: int = 1,
    sinks: int = 0,
    tags: tuple[str, ...] = (),
) -> Case:
    return Case(
        name=name,
        q_lens=tuple(q_lens),
        k_lens=tuple(k_lens or q_lens),
        Hq=heads[0],
        Hkv=heads[1],
        D=dims[0],
        Di=dims[1],
        block=block,
        topk=topk,
        local_blocks=local,
        sink_blocks=sinks,
        dtype=dtype,
        kv_dtype=kv_dtype,
        index_dtype=index_dtype,
        seed=sum(name.encode()),
        tags=("correctness", profile, *tags),
    )


_QUICK = (
    _check("length-1", [1], (2, 1), (32, 32), 16, 1),
    _check(
        "lengths-127-128-129",
        [127, 128, 129],
        (4, 2),
        (64, 32),
        16,
        4,
        tags=("invariants", "hygiene"),
    ),
    # The budget is 2048: the first two are dense, the last has one row that is not.
    _check(
        "lengths-2047-2048-2049",
        [130, 130, 2049],
        (2, 1),
        (32, 32),
        128,
        16,
        k_lens=[2047, 2048, 2049],
    ),
    # Long enough to be spread over threads, and run with several: races, modes that threads lose.
    _check("length-4097", [4097], (1, 1), (32, 32), 128, 16, tags=("threads", "hygiene")),
    _check("threads", [257, 40], (4, 2), (32, 32), 32, 4, tags=("threads", "hygiene")),
    # [T, H, k] read as [H, T, k] cannot be seen in any shape, only in the values.
    _check("tokens-equal-heads", [8], (8, 8), (32, 32), 16, 3, k_lens=[200]),
    _check(
        "chunk-inside-block",
        [70, 5, 64],
        (4, 2),
        (64, 64),
        16,
        4,
        k_lens=[333, 133, 64],
        tags=("invariants",),
    ),
    _check("batch-with-empty", [33, 0, 130, 1], (2, 2), (32, 32), 16, 3, k_lens=[33, 40, 130, 77]),
    _check("group-of-1", [150], (4, 4), (64, 64), 16, 4),
    _check("group-of-3", [150], (6, 2), (64, 64), 16, 4, tags=("invariants",)),
    _check("group-of-8", [140], (16, 2), (64, 64), 16, 4),
    _check("group-of-16", [140], (16, 1), (64, 64), 16, 4),
    _check("dim-128-block-128", [700], (4, 1), (128, 128), 128, 4),
    _check("block-64-topk-8", [600], (2, 1), (64, 64), 64, 8),
    _check("block-32", [300], (4, 2), (64, 128), 32, 4),
    # No power of two, in anything: a shift is no division.
    _check("block-48-dim-96", [300], (6, 2), (96, 48), 48, 4),
    _check("topk-1", [200], (2, 2), (64, 64), 16, 1),
    _check("topk-2", [200], (2, 2), (64, 64), 16, 2),
    _check("topk-16", [400], (2, 2), (32, 32), 16, 16),
    _check("topk-48", [40], (2, 1), (32, 32), 16, 48, k_lens=[1000]),
    _check("sink-1", [300], (4, 2), (64, 64), 16, 3, sinks=1, tags=("invariants",)),
    _check("sink-2-local-2", [300, 41], (4, 2), (64, 64), 16, 6, sinks=2, local=2),
    # More rows than a tile of scores has columns for one block: its blocks come one by one.
    _check("sixteen-groups", [70], (16, 16), (32, 32), 128, 2, k_lens=[388]),
    _check("short-beside-long", [5, 300], (2, 1), (32, 32), 128, 2),
    # Whole tiles of neighbours that share blocks, two runs of them: the way without a gather.
    _check("runs-of-64", [256], (4, 2), (32, 32), 16, 5, k_lens=[416], sinks=2),
    _check("float16", [321], (8, 2), (64, 64), 32, 4, dtype="float16"),
    _check(
        "bfloat16", [321], (4, 2), (64, 64), 32, 4, dtype="bfloat16", tags=("invariants", "hygiene")
    ),
    # What a kernel for the paper's shape takes: head dim and block of 128, and nothing else.
    _check(
        *("bfloat16-dim-128", [70], (16, 1), (128, 128), 128, 4),
        k_lens=[700],
        dtype="bfloat16",
        tags=("invariants",),
    ),
    # 2048 tokens in every row: an accumulator in low precision cannot hide.
    _check("bfloat16-long", [16], (4, 2), (64, 64), 128, 16, k_lens=[4100], dtype="bfloat16"),
    _check(
        "decode",
        [1] * 4,
        (8, 2),
        (64, 64),
        16,
        4,
        k_lens=[1000, 17, 513, 128],
        tags=("decode", "hygiene"),
    ),
    _check(
        "decode-several", [4] * 3, (4, 2), (64, 64), 16, 4, k_lens=[500, 67, 130], tags=("decode",)
    ),
    _check(
        "decode-group-of-16",
        [1] * 3,
        (16, 1),
        (128, 128),
        64,
        4,
        k_lens=[700, 65, 321],
        dtype="bfloat16",
        tags=("decode",),
    ),
    # More rows than are taken together, whatever the budget is.
    _check(
        "decode-batch",
        [1] * 40,
        (4, 2),
        (128, 32),
        128,
        16,
        k_lens=[2200, *(10 + 3 * request for request in range(39))],
        tags=("decode",),
    ),
    # E4M3 with a factor for each head: everything, a cache beside wide queries, index keys alone.
    _check(
        "fp8",
        [210],
        (6, 2),
        (64, 64),
        16,
        4,
        k_lens=[300],
        dtype=E4M3,
        tags=("invariants", "hygiene"),
    ),
    _check("fp8-index", [130], (4, 2), (64, 32), 16, 4, dtype="bfloat16", index_dtype=E4M3),
    _check(
        "fp8-cache",
        [1] * 4,
        (16, 2),
        (64, 64),
        16,
        4,
        k_lens=[900, 17, 513, 128],
        dtype="float16",
        kv_dtype=E4M3,
        index_dtype=E4M3,
        tags=("decode", "hygiene"),
    ),
    _check(
        "fp8-decode",
        [2] * 3,
        (6, 3),
        (32, 32),
        32,
        3,
        k_lens=[500, 67, 130],
        dtype=E4M3,
        tags=("decode",),
    ),
    # NVFP4 with a scale for 16 channels: prefill in chunks, a cache, index keys alone.
    _check(
        "fp4",
        [90, 33],
        (6, 2),
        (64, 64),
        16,
        4,
        k_lens=[300, 33],
        dtype="bfloat16",
        kv_dtype=NVFP4,
        index_dtype=NVFP4,
        tags=("invariants", "hygiene"),
    ),
    _check("fp4-index", [130], (4, 2), (64, 128), 32, 3, dtype="float16", index_dtype=NVFP4),
    _check(
        "fp4-decode",
        [2] * 3,
        (8, 2),
        (128, 64),
        32,
        3,
        k_lens=[500, 67, 130],
        dtype="bfloat16",
        kv_dtype=NVFP4,
        index_dtype=NVFP4,
        tags=("decode", "hygiene"),
    ),
    # More than 8192 blocks: candidate buffers of a fixed size overflow.
    _check("many-blocks", [3], (2, 1), (32, 16), 16, 16, k_lens=[140_001]),
)

_MORE = (
    *(
        _check(
            f"{dtype}-dim-{dim}-block-{block}-topk-{topk}",
            [block * topk + 2 * block + 1, 129],
            (heads, groups),
            (dim, dim),
            block,
            topk,
            dtype=dtype,
            profile="standard",
        )
        for dtype in DTYPES
        for dim, block, topk, heads, groups in (
            (64, 128, 4, 8, 2),
            (128, 64, 8, 4, 1),
            (32, 16, 16, 4, 2),
        )
    ),
    _check("length-8193", [8193], (2, 1), (64, 64), 128, 16, profile="standard"),
    _check("length-4097-bfloat16", [4097], (4, 2), (128, 128), 128, 16, dtype="bfloat16",
           profile="standard"),
    _check("chunk-of-4097", [1025], (4, 1), (64, 64), 128, 16, k_lens=[4097], profile="standard"),
    _check("group-of-16-dim-128", [2049], (16, 1), (128, 128), 128, 8, dtype="bfloat16",
           profile="standard"),
    _check("million-keys", [2], (1, 1), (32, 16), 128, 16, k_lens=[1_048_577], profile="full"),
    _check("length-16385", [16385], (2, 1), (64, 64), 128, 16, profile="full"),
)  # fmt: skip

CHECKED_CASES: tuple[Case, ...] = (*_QUICK, *_MORE)
