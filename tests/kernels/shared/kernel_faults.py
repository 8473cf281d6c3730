"""Faults of the Triton kernels and their launchers, each as a change of their source.

The rows are those defects of public implementations that a kernel can have; ``seen`` names the
issue or pull request. A fault must be caught by the named check of the conformance suite.
"""

from __future__ import annotations

from dataclasses import dataclass

from msa_suites.case import Case

RAGGED = Case(
    "small-ragged", (4, 0, 2), (90, 3, 19), Hq=4, Hkv=2, D=32, Di=32, block=16, topk=3
)  # fmt: skip
CHUNK = Case("small-chunk", (24,), (70,), Hq=2, Hkv=2, D=32, Di=16, block=16, topk=2)
PAGES = Case(
    "small-decode", (2, 2), (83, 40), Hq=6, Hkv=2, D=32, Di=48, block=16, topk=3, sink_blocks=1
)
WIDE_GROUP = Case("small-group", (5,), (60,), Hq=16, Hkv=1, D=32, Di=16, block=16, topk=2)
SQUARE = Case("small-square", (4,), (90,), Hq=4, Hkv=4, D=32, Di=16, block=16, topk=3)
EIGHT_BITS = Case(
    "small-fp8", (3,), (60,), Hq=4, Hkv=2, D=32, Di=32, block=16, topk=2, dtype="float8_e4m3fn"
)
EIGHT_BIT_PAGES = Case(
    "small-fp8-decode", (1, 1), (50, 20), Hq=4, Hkv=2, D=32, Di=32, block=16, topk=2,
    dtype="float16", kv_dtype="float8_e4m3fn", index_dtype="float8_e4m3fn",
)  # fmt: skip
MANY = Case("small-many", (2,), (17_700,), Hq=2, Hkv=1, D=16, Di=16, block=16, topk=4)


@dataclass(frozen=True)
class KernelFault:
    """One change.

    Attributes:
        file: of ``msa_kernels/triton_ops``.
        right: text that stands in it exactly once.
        wrong: what is put in its place.
        check: of the conformance suite, which must fail.
        case: on which.
        way: of attention, where it matters.
        also: a second text and what is put in its place.
        unseen_by: a check on the same case that passes all the same.
        seen: where it happened.
    """

    file: str
    right: str
    wrong: str
    check: str
    case: Case = RAGGED
    way: str = "query_outer"
    also: tuple[str, str] | None = None
    unseen_by: str = ""
    seen: str = ""


_SCORING, _SELECTING = "scoring/kernel.py", "selecting/kernel.py"
_SLOTS, _LISTS = "attention/query_outer/kernel.py", "attention/key_outer/kernel.py"
_BACKWARD, _LOSS = "backward/kernel.py", "index_loss/kernel.py"

FAULTS: dict[str, KernelFault] = {
    "no-causal-mask-before-the-maximum": KernelFault(
        _SCORING,
        "hidden = (token[None, :] > position[:, None]) | (inside >= BLOCK)[None, :]",
        "hidden = (token[None, :] > tl.max(position, 0)) | (inside >= BLOCK)[None, :]",
        "scores",
        case=CHUNK,
        seen="tt-metal#48700",
    ),
    "blocks-anchored-to-slots-of-the-batch": KernelFault(
        _SLOTS,
        "start = (first_key + block * BLOCK).to(tl.int64)",
        "start = (first_key // BLOCK * BLOCK + block * BLOCK).to(tl.int64)",
        "attention",
        seen="llama.cpp#26338",
    ),
    "higher-block-wins-a-tie": KernelFault(
        _SELECTING,
        "key = (order.to(tl.int64) << 32) | (block ^ IDS).to(tl.int64)",
        "key = (order.to(tl.int64) << 32) | block.to(tl.int64)",
        "selection_ties",
        also=("block = (best & IDS).to(tl.int32) ^ IDS", "block = (best & IDS).to(tl.int32)"),
        unseen_by="selection",
        seen="flashinfer#2584",
    ),
    "candidates-beyond-the-first-tile-lost": KernelFault(
        _SELECTING,
        "for start in range(0, tl.max(newest, 0) + 1, TILE):",
        "for start in range(0, tl.minimum(tl.max(newest, 0) + 1, TILE), TILE):",
        "selection",
        case=MANY,
        seen="sglang#36807",
    ),
    "nan-ranks-first": KernelFault(
        _SELECTING,
        'score = tl.where(score != score, float("-inf"), score)',
        'score = tl.where(score != score, float("inf"), score)',
        "selection_nan",
        seen="vllm#49896",
    ),
    "row-without-a-block-is-nan": KernelFault(
        "combining/kernel.py",
        'top = tl.where(top == float("-inf"), 0.0, top)',
        "top += 0.0",
        "combine",
        seen="vllm#49054",
    ),
    "empty-first-slot-poisons-the-softmax": KernelFault(
        _SLOTS,
        'base = tl.where(larger == float("-inf"), 0.0, larger)',
        "base = larger",
        "attention_empty_rows",
        seen="vllm#48364",
    ),
    "empty-slot-looked-up": KernelFault(
        "kernel.py",
        "taken = (block >= 0) & (block <= newest) & (before == 0)",
        "taken = (block <= newest) & (before == 0)\n    block = tl.maximum(block, 0)",
        "attention_empty_rows",
        seen="vllm#54597",
    ),
    "tail-of-the-last-page-unmasked": KernelFault(
        _SLOTS,
        "readable = (token < seen)[:, None] & (dim < DIM)[None, :]",
        "readable = (token < tl.where(taken, BLOCK, 0))[:, None] & (dim < DIM)[None, :]",
        "decode",
        case=PAGES,
        seen="vllm-ascend#13391",
    ),
    "additive-mask-leaks": KernelFault(
        _SLOTS,
        'logits = tl.where((token < seen)[None, :], logits, float("-inf"))',
        "logits += tl.where((token < seen)[None, :], 0.0, -9.0)",
        "attention",
        seen="a low-precision mask of -inf",
    ),
    "ids-read-heads-first": KernelFault(
        _SLOTS,
        "entries = selection + row.to(tl.int64) * stride_st + group.to(tl.int64) * stride_sg",
        "entries = selection + row.to(tl.int64) * stride_sg + group.to(tl.int64) * stride_st",
        "attention",
        case=SQUARE,
        seen="vllm#48603",
    ),
    "strides-of-the-ids-ignored": KernelFault(
        "attention/query_outer/__init__.py",
        "            *selection.stride(),\n",
        "            groups * topk, topk, 1,\n",
        "gaps",
        seen="TensorRT-LLM#17285",
    ),
    "pages-read-tokens-first": KernelFault(
        "attention/query_outer/__init__.py",
        "page, group, token, dim = k_pages.stride()\n",
        "page, _, _, dim = k_pages.stride()\n"
        "    group, token = k_pages.shape[3], k_pages.shape[1] * k_pages.shape[3]\n",
        "decode",
        case=PAGES,
        seen="vllm#46204",
    ),
    "heads-beyond-the-eighth-not-stored": KernelFault(
        _LISTS,
        "acc = acc / total[:, None]",
        "acc = tl.where((member % SHARE < 8)[:, None], acc / total[:, None], 0.0)",
        "attention",
        case=WIDE_GROUP,
        way="key_outer",
        seen="b12x#24",
    ),
    "start-of-the-sequence-before": KernelFault(
        _SCORING,
        "keys += tl.load(key_totals + sequence).to(tl.int64) * stride_kt",
        "keys += tl.load(key_totals + tl.minimum(sequence, 1) * (sequence - 1)).to(tl.int64) "
        "* stride_kt",
        "scores",
        seen="surogate#110",
    ),
    "tiles-of-a-ragged-batch-miscounted": KernelFault(
        "scoring/launching.py",
        "rows // tokens + sequences",
        "triton.cdiv(rows, tokens)",
        "scores",
        case=Case(
            "small-tiles", (33, 1, 40), (90, 60, 70), Hq=2, Hkv=1, D=16, Di=16, block=16, topk=2
        ),
        seen="fla NSA#23",
    ),
    "newest-index-key-not-in-the-cache-yet": KernelFault(
        _SCORING,
        "shift = tl.load(key_totals + sequence) - stop\n",
        "shift = tl.load(key_totals + sequence) - stop - 1\n",
        "paged_scores",
        case=PAGES,
        seen="ATOM#1368",
    ),
    "score-buffer-of-an-old-maximum": KernelFault(
        "decoding/__init__.py",
        "scores = q.new_empty((*q_idx.shape[:3], page_table.shape[1]), dtype=torch.float32)",
        "scores = q.new_zeros((*q_idx.shape[:3], 2), dtype=torch.float32)",
        "attend_paged",
        case=PAGES,
        seen="sglang#31133",
    ),
    "chunk-wipes-the-maximum-of-its-first-block": KernelFault(
        _SCORING,
        "hidden = (token[None, :] > position[:, None]) | (inside >= BLOCK)[None, :]",
        "hidden = (token[None, :] > position[:, None]) | (inside >= BLOCK)[None, :]\n"
        "        hidden |= (token < tl.min(position, 0))[None, :]",
        "scores",
        case=CHUNK,
        seen="sglang-jax#1376",
    ),
    "queries-counted-from-the-first-key": KernelFault(
        "kernel.py",
        "keys = tl.load(cu_k + sequence + 1) - tl.load(cu_k + sequence)\n"
        "    return keys - tl.load(cu_q + sequence + 1)",
        "return tl.load(cu_q + sequence) * -1",
        "attention",
        case=CHUNK,
        seen="fla#417",
    ),
    "gradients-of-one-tile-of-queries": KernelFault(
        _BACKWARD,
        "for first in range(tl.load(starts + this), stop, QUERIES):",
        "begin = tl.load(starts + this)\n"
        "        for first in range(begin, tl.minimum(begin + QUERIES, stop), QUERIES):",
        "backward_shared",
        case=Case("small-shared", (70,), (90,), Hq=4, Hkv=1, D=16, Di=16, block=16, topk=2),
        seen="cudnn-frontend#385",
    ),
    "gradient-of-an-empty-row-is-nan": KernelFault(
        _BACKWARD,
        "acc = tl.zeros([HEADS, DIMS], tl.float32)\n    for at",
        "lost = tl.load(lse + far * (GROUPS * SHARE) + heads, mask=head < SHARE, other=0.0)\n"
        "    acc = tl.zeros([HEADS, DIMS], tl.float32) + (lost * 0.0)[:, None]\n    for at",
        "backward_empty_rows",
        seen="cudnn-frontend#676",
    ),
    "gradients-lost-where-slots-are-left-over": KernelFault(
        _LISTS,
        "taken = (chosen >= 0) & (chosen <= newest[:, None]) & (twice == 0)",
        "taken = (chosen >= 0) & (chosen <= newest[:, None]) & (twice == 0)\n"
        "    taken &= (tl.min(tl.where((slot < TOPK)[None, :], chosen, 0), 1) >= 0)[:, None]",
        "backward_shared",
        seen="cudnn-frontend#298",
    ),
    "teacher-of-the-first-head": KernelFault(
        _LOSS,
        "weight = tl.where((head < SHARE)[:, None], tl.exp(logits - size[:, None]), 0.0)",
        "weight = tl.where((head < 1)[:, None], tl.exp(logits - size[:, None]) * SHARE, 0.0)",
        "index_kl",
    ),
    "index-key-learns-from-one-group": KernelFault(
        _LOSS, "for part in range(PARTS):", "for part in range(1):", "index_kl"
    ),
    "factor-of-the-first-group-for-all": KernelFault(
        _SCORING,
        "tl.load(q_descale + group, mask=live, other=0.0)[:, None]",
        "tl.load(q_descale + group * 0, mask=live, other=0.0)[:, None]",
        "scores",
        case=EIGHT_BITS,
        seen="vllm#45562",
    ),
    "factor-of-the-keys-dropped": KernelFault(
        _LISTS,
        "factor *= tl.load(k_descale + group)",
        "factor *= 1.0",
        "attention",
        case=EIGHT_BITS,
        way="key_outer",
        seen="vllm#45562",
    ),
    "factor-of-the-values-dropped": KernelFault(
        _SLOTS,
        "result *= tl.load(v_descale + group)",
        "result *= 1.0",
        "decode",
        case=EIGHT_BIT_PAGES,
        seen="vllm#45562",
    ),
    "factor-of-a-query-head-by-its-place-in-the-group": KernelFault(
        _SLOTS,
        "tl.load(q_descale + heads, mask=head < SHARE, other=0.0)",
        "tl.load(q_descale + head, mask=head < SHARE, other=0.0)",
        "attention",
        case=EIGHT_BITS,
    ),
}
