"""The lists of MiniMax's package on a CPU: their layout, and attention over them."""

from __future__ import annotations

import pytest
import torch
from adapting import case, failures, install

from msa import quantized, reference
from msa.packing import cumulative
from msa_kernels import compat
from msa_kernels.adapters import hub_msa

BLOCK, TOPK, HEADS, GROUPS = 128, 4, 4, 2
Q_LENS, K_LENS = [5, 0, 3], [300, 40, 520]
CU_Q, CU_K = cumulative(Q_LENS), cumulative(K_LENS)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


def tensors(dim=64):
    rows, keys = sum(Q_LENS), sum(K_LENS)
    return drawn(rows, HEADS, dim), drawn(keys, GROUPS, dim, seed=1), drawn(keys, GROUPS, dim)


def chosen():
    """Blocks int32 [Hkv, T, topK], the tail -1, in no order."""
    draw = torch.Generator().manual_seed(7)
    ids = torch.full((GROUPS, sum(Q_LENS), TOPK), -1, dtype=torch.int32)
    for head in range(GROUPS):
        for query in range(sum(Q_LENS)):
            blocks = 3 if query < Q_LENS[0] else 5
            kept = torch.randperm(blocks, generator=draw)[: 1 + (query + head) % 3]
            ids[head, query, : len(kept)] = kept.int()
    return ids


def listed(ids=None, **more):
    given = {
        "total_k": sum(K_LENS),
        "max_seqlen_k": max(K_LENS),
        "max_seqlen_q": max(Q_LENS),
        "total_rows": 9,
        "qhead_per_kv": HEADS // GROUPS,
        "return_schedule": True,
    }
    ids = chosen() if ids is None else ids
    return compat.build_k2q_csr(ids, CU_Q, CU_K, BLOCK, **(given | more))


def attend(q, k, v, lists, topk=TOPK, **more):
    row_ptr, queries, schedule = lists
    given = {
        "cu_seqlens_q": CU_Q,
        "cu_seqlens_k": CU_K,
        "max_seqlen_q": max(Q_LENS),
        "max_seqlen_k": max(K_LENS),
        "return_softmax_lse": True,
        "schedule": schedule,
    }
    return compat.sparse_atten_func(q, k, v, row_ptr, queries, topk, **(given | more))


def right(q, k, v, *, causal, k_lens=None, scale=None):
    """Out and LSE of every query and head, one at a time."""
    k_lens = K_LENS if k_lens is None else k_lens
    ids, share = chosen(), HEADS // GROUPS
    out, lse = torch.zeros(q.shape, dtype=torch.float64), torch.full(q.shape[:2], -torch.inf)
    for sequence, count in enumerate(Q_LENS):
        for i in range(count):
            t, first = int(CU_Q[sequence]) + i, int(CU_K[sequence])
            most = k_lens[sequence] - count + i + 1 if causal else k_lens[sequence]
            for h in range(HEADS):
                token = torch.arange(max(most, 0))
                kept = token[torch.isin(token // BLOCK, ids[h // share, t])] + first
                if len(kept):
                    factor = q.shape[2] ** -0.5 if scale is None else scale
                    logits = k[kept, h // share].double() @ q[t, h].double() * factor
                    lse[t, h] = logits.logsumexp(0)
                    out[t, h] = logits.softmax(0) @ v[kept, h // share].double()
    return out, lse


def close(found, wanted):
    (out, lse, *_), (best, best_lse) = found, wanted
    assert float((out.double() - best).norm() / best.norm()) < 1e-2
    torch.testing.assert_close(lse, best_lse.float(), rtol=1e-2, atol=1e-2)


def in_pages(x, seed=0):
    """Pages [P, Hkv, 128, D] in no order, NaN where there is nothing, and their table."""
    table = torch.randperm(12, generator=torch.Generator().manual_seed(seed)).int()
    pages = torch.full((12, GROUPS, BLOCK, x.shape[2]), torch.nan, dtype=x.dtype)
    wide = torch.full((3, 5), -7, dtype=torch.int32)
    used = 0
    for sequence, count in enumerate(K_LENS):
        rows = x[int(CU_K[sequence]) : int(CU_K[sequence]) + count]
        for block, part in enumerate(rows.split(BLOCK)):
            wide[sequence, block] = table[used]
            pages[table[used], :, : len(part)] = part.transpose(0, 1)
            used += 1
    return pages, wide


def test_the_layout_of_the_lists():
    """Block 0 of every sequence, then block 1, and so on; queries of their own sequence."""
    ids = chosen()
    row_ptr, queries, _ = listed(ids)
    assert row_ptr.dtype == queries.dtype == torch.int32
    assert row_ptr.shape == (GROUPS, 10)
    assert queries.shape == (GROUPS, 8 * TOPK)
    rows = [(0, 0), (1, 0), (2, 0), (0, 1), (2, 1), (0, 2), (2, 2), (2, 3), (2, 4)]
    for head in range(GROUPS):
        for row, (sequence, block) in enumerate(rows):
            mine = ids[head, int(CU_Q[sequence]) : int(CU_Q[sequence + 1])]
            wanted = [i for i, kept in enumerate(mine.tolist()) if block in kept]
            assert queries[head, row_ptr[head, row] : row_ptr[head, row + 1]].tolist() == wanted
        assert int(row_ptr[head, -1]) == int((ids[head] >= 0).sum())
        assert bool((queries[head, row_ptr[head, -1] :] == -1).all())


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("paged", [False, True])
def test_attention_over_lists(causal, paged):
    q, k, v = tensors()
    more = {"causal": causal}
    held = (k, v)
    if paged:
        (k_pages, table), (v_pages, _) = in_pages(k), in_pages(v)
        held, more["page_table"] = (k_pages, v_pages), table
    found = attend(q, *held, listed(), **more)
    assert found[0].dtype == q.dtype
    assert found[1].dtype == torch.float32
    close(found, right(q, k, v, causal=causal))
    bare = attend(q, *held, listed(), **more, return_softmax_lse=False)
    assert torch.equal(bare, found[0])


def test_the_readme_attends_by_a_temperature():
    """Not causal, with both log-sum-exps; the second is of logits over the temperature."""
    q, k, v = tensors(dim=128)
    out, lse, other = attend(
        q, k, v, listed(), causal=False, lse_temperature_scale=2.0, return_temperature_lse=True
    )
    close((out, lse), right(q, k, v, causal=False))
    _, wanted = right(q, k, v, causal=False, scale=128**-0.5 / 2)
    torch.testing.assert_close(other, wanted, rtol=1e-2, atol=1e-2)


def test_keys_that_are_used_and_rows_that_see_nothing():
    """Fewer keys than the lists were made for: what lies behind is not seen, and may be all."""
    q, k, v = tensors()
    (k_pages, table), (v_pages, _) = in_pages(k), in_pages(v)
    used = torch.tensor([3, 40, 400], dtype=torch.int32)
    found = attend(q, k_pages, v_pages, listed(), causal=True, page_table=table, seqused_k=used)
    wanted = right(q, k, v, causal=True, k_lens=used.tolist())
    close(found, wanted)
    empty = wanted[1].isneginf()
    assert bool(empty[:2].all())
    assert not bool(empty[4].all())
    assert torch.equal(found[1].isneginf(), empty)
    assert not bool(found[0][empty].any())


def test_bytes_in_the_cache_and_in_all():
    q, k, v = tensors()
    eight = [x.to(quantized.E4M3) for x in (q, k, v)]
    found = attend(q, *eight[1:], listed(), causal=True)
    close(found, right(q, *(x.bfloat16() for x in eight[1:]), causal=True))
    found = attend(*eight, listed(), causal=True)
    assert found[0].dtype == torch.bfloat16
    close(found, right(*(x.bfloat16() for x in eight), causal=True))


def test_there_and_back_is_the_selection():
    """What our operation gives for the selection, the lists give too; a batch may be empty."""
    q, k, v = tensors()
    lens = {"cu_q": CU_Q, "cu_k": CU_K}
    ids = chosen().transpose(0, 1).contiguous()
    wanted = reference.sparse_attention(q, k, v, ids, block=BLOCK, scale=0.2, **lens)
    found = attend(q, k, v, listed(), causal=True, softmax_scale=0.2)
    close(found, [x.double() for x in wanted])

    none = torch.zeros(4, dtype=torch.int32)
    nothing = torch.zeros(GROUPS, 0, TOPK, dtype=torch.int32)
    lists = compat.build_k2q_csr(nothing, none, none, BLOCK, total_k=0)
    assert [x.shape for x in lists] == [(GROUPS, 1), (GROUPS, 0)]
    out = attend(
        q[:0], k[:0], v[:0], (*lists, None), cu_seqlens_q=none, cu_seqlens_k=none, causal=True
    )
    assert [x.shape for x in out] == [(0, HEADS, 64), (0, HEADS)]


def test_our_adapter_of_the_hub_kernel_takes_it_for_the_kernel(monkeypatch):
    names = ("build_k2q_csr", "sparse_atten_func")
    hub = install(monkeypatch, "of_the_hub", **{name: getattr(compat, name) for name in names})
    monkeypatch.setattr(hub_msa, "_kernel", lambda _folder: hub)
    assert failures(hub_msa, [case("ragged", [5, 20], [2300, 20])]) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"total_k": None}, r"^total_k: wanted 860, as the lengths say, got NoneType None"),
        ({"total_k": 0, "total_rows": None}, r"^total_k: wanted 860"),
        ({"total_rows": 7}, r"^total_rows: wanted 9, as the lengths say, got int 7"),
        ({"max_seqlen_q": None}, r"^max_seqlen_q: wanted an int of 5 or more"),
        ({"max_seqlen_k": 519}, r"^max_seqlen_k: wanted an int of 520 or more, got int 519"),
        ({"qhead_per_kv": 0}, r"^qhead_per_kv: wanted an int above 0"),
    ],
)
def test_what_cannot_be_listed(change, words):
    with pytest.raises(ValueError, match=words):
        listed(**change)


def test_other_selections_that_cannot_be_listed():
    with pytest.raises(TypeError, match=r"^q2k_indices: wanted int32 \[Hkv, T, topK\], got int64"):
        listed(chosen().long())
    with pytest.raises(ValueError, match=r"^cu_seqlens_q: wanted a last total of 7 rows, got 8"):
        listed(chosen()[:, :7])
    # Of the first sequence's three blocks, and of the five of the longest.
    for query, blocks, wrong in ((2, 3, 3), (2, 3, 4), (2, 3, 9), (6, 5, 5)):
        ids = chosen()
        ids[1, query, 0] = wrong
        words = rf"^q2k_indices: wanted blocks below {blocks} of query {query}, got {wrong}$"
        with pytest.raises(ValueError, match=words):
            listed(ids)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"blk_kv": 64}, r"^k2q_row_ptr: wanted int32 \[2, 16\] for these keys"),
        ({"lse_temperature_scale": 0.0}, r"^lse_temperature_scale: wanted a finite number above 0"),
        (
            {"return_temperature_lse": True, "return_softmax_lse": False},
            r"^return_softmax_lse: wanted True",
        ),
        ({"seqused_k": torch.tensor([1, 2, 3])}, r"^seqused_k: wanted None where page_table is"),
        ({"cu_seqlens_k": CU_Q}, r"^cu_seqlens_k: wanted a last total of 860 rows, got 8"),
        ({"max_seqlen_k": 100}, r"^max_seqlen_k: wanted an int of 520 or more, got int 100"),
        ({"schedule": object()}, r"^schedule: wanted the one that came with k2q_row_ptr"),
        ({"schedule": listed(qhead_per_kv=4)[2]}, r"^schedule: wanted one for qhead_per_kv 2"),
        ({"page_table": torch.zeros(3, 5)}, r"^k: wanted shape \[P, Hkv, 128, 64\]"),
    ],
)
def test_what_cannot_be_attended(change, words):
    with pytest.raises(ValueError, match=words):
        attend(*tensors(), listed(), **change)


def test_lists_of_another_budget_or_table():
    q, k, v = tensors()
    row_ptr, queries, schedule = listed()
    with pytest.raises(ValueError, match=r"^k2q_q_indices: wanted int32 \[2, at least 32\]"):
        attend(q, k, v, (row_ptr, queries[:, :31], schedule))
    crowded, none = row_ptr.clone(), torch.zeros_like(queries)
    crowded[:, 1:] = torch.tensor([2, 2, 4, 5, 5, 5, 5, 5, 5])
    with pytest.raises(ValueError, match=r"^topK: wanted at least 3 for lists, got 2"):
        attend(q, k, v, (crowded, none, None), topk=2)
    for wrong in (crowded + 1, crowded.flip(1) - 5, crowded * 9):
        with pytest.raises(ValueError, match=r"^k2q_row_ptr: wanted totals of k2q_q_indices"):
            attend(q, k, v, (wrong, none, None))
    for wrong in (-1, 5):
        with pytest.raises(ValueError, match=r"^k2q_q_indices: wanted queries that"):
            attend(q, k, v, (row_ptr, torch.full_like(queries, wrong), None))
    pages, _ = in_pages(k)
    with pytest.raises(ValueError, match=r"^page_table: wanted int32 \[3, W\], got int64 \[3, 5\]"):
        attend(q, pages, pages, listed(), page_table=torch.zeros(3, 5, dtype=torch.int64))
