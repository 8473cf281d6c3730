"""The interface of MiniMax's package on a CPU: its README's calls, and our adapter of it."""

from __future__ import annotations

import pytest
import torch
from adapting import case, install, results

from msa import reference
from msa.packing import cumulative
from msa_kernels import compat
from msa_kernels import compat as fmha_sm100
from msa_kernels.adapters import fmha_sm100 as adapter
from msa_suites.correctness.run import FAILED, PASSED

FUNCTIONS = (
    "fmha_sm100_plan",
    "fmha_sm100",
    "sparse_topk_select",
    "build_k2q_csr",
    "sparse_atten_func",
)
PAGE, TOPK = 128, 16
Q_LENS, K_LENS = [40, 3], [2400, 700]
#: Pages of both requests, in no order, as a cache has them.
KV_INDICES = torch.randperm(25, generator=torch.Generator().manual_seed(4)).int()


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


def unpaged(pages):
    """Packed tokens of both requests."""
    first = pages[KV_INDICES[:19].long()].transpose(1, 2).flatten(0, 1)[: K_LENS[0]]
    second = pages[KV_INDICES[19:].long()].transpose(1, 2).flatten(0, 1)[: K_LENS[1]]
    return torch.cat([first, second])


def test_the_calls_of_the_readme():
    """Plan, maxima, selection, plan, attention, with the package's names and layouts."""
    qo_lens, kv_lens = torch.tensor(Q_LENS), torch.tensor(K_LENS)
    proxy_q, proxy_k_pages = drawn(43, 2, 128), drawn(25, 1, PAGE, 128, seed=1)
    q, k_pages = drawn(43, 8, 128, seed=2), drawn(25, 2, PAGE, 128, seed=3)
    v_pages = drawn(25, 2, PAGE, 128, seed=5)

    proxy_plan = fmha_sm100.fmha_sm100_plan(
        qo_lens, kv_lens, proxy_q.shape[1], num_kv_heads=1, page_size=PAGE, output_maxscore=True
    )
    nothing, max_score = fmha_sm100.fmha_sm100(
        proxy_q,
        proxy_k_pages,
        proxy_k_pages,
        proxy_plan,
        kv_indices=KV_INDICES,
        output_o=False,
        output_maxscore=True,
    )
    kv_block_indexes = fmha_sm100.sparse_topk_select(
        max_score.contiguous(), TOPK, num_valid_pages=19
    )
    sparse_plan = fmha_sm100.fmha_sm100_plan(
        qo_lens,
        kv_lens,
        q.shape[1],
        num_kv_heads=k_pages.shape[1],
        page_size=PAGE,
        kv_block_num=TOPK,
    )
    out, more = fmha_sm100.fmha_sm100(
        q,
        k_pages,
        v_pages,
        sparse_plan,
        kv_indices=KV_INDICES,
        kv_block_indexes=kv_block_indexes,
    )

    lens = {"cu_q": cumulative(Q_LENS), "cu_k": cumulative(K_LENS)}
    scores = reference.block_scores(proxy_q, unpaged(proxy_k_pages), block=128, scale=1.0, **lens)
    assert nothing is more is None
    assert max_score.shape == (2, 128, 43)
    assert torch.equal(max_score[:, 19:], torch.full((2, 109, 43), -torch.inf))
    assert torch.allclose(max_score[:, :19].permute(2, 0, 1), scores, rtol=1e-5)
    assert kv_block_indexes.shape == (43, 2, TOPK)
    # Nothing is forced by default; without a local block of its own the reference is plain top-k.
    best = scores.topk(TOPK, dim=-1)
    wanted = torch.where(best.values.isneginf(), -1, best.indices).sort(-1).values
    assert torch.equal(kv_block_indexes.long().sort(-1).values, wanted)
    right, _ = reference.sparse_attention(
        q, unpaged(k_pages), unpaged(v_pages), kv_block_indexes, block=128, scale=128**-0.5, **lens
    )
    assert out.shape == q.shape
    assert float((out - right).norm() / right.norm()) < 1e-2


@pytest.mark.slow
def test_our_adapter_of_the_package_takes_it_for_the_package(monkeypatch):
    """The same calls that the package would get: what the adapter needs of it is all here."""
    install(monkeypatch, "fmha_sm100", **{name: getattr(compat, name) for name in FUNCTIONS})
    cases = [case("ragged", [6, 20], [2300, 20]), case("drafts", [2, 2], [2431, 2050])]
    found = list(results(adapter, cases))
    assert [r.detail for r in found if r.status == FAILED] == []
    done = {r.check for r in found if r.status == PASSED}
    assert {"scores", "selection", "attention_lse", "decode", "pipeline"} <= done


def test_dense_attention_and_forced_ends():
    q, k = drawn(43, 4, 64), drawn(3100, 2, 64, seed=1)
    plan = compat.fmha_sm100_plan(torch.tensor(Q_LENS), torch.tensor(K_LENS), 4, num_kv_heads=2)
    out, maxima = compat.fmha_sm100(q, k, k, plan, sm_scale=0.1, v_scale=2.0)
    everything = torch.arange(19, dtype=torch.int32).expand(43, 2, -1)
    lens = {"cu_q": cumulative(Q_LENS), "cu_k": cumulative(K_LENS)}
    right, _ = reference.sparse_attention(q, k, k, everything, block=128, scale=0.1, **lens)
    assert maxima is None
    assert float((out - 2 * right).norm() / right.norm()) < 2e-2

    score = torch.randn(2, 128, 5, generator=torch.Generator().manual_seed(6))
    score[:, 10:] = -torch.inf
    ids = compat.sparse_topk_select(
        score, 4, num_valid_pages=10, force_begin_blocks=1, force_end_blocks=2
    )
    assert bool((ids[..., 0] == 0).all())
    assert bool((ids[..., 2:] == torch.tensor([8, 9])).all())
    place = torch.empty(5, 2, 4, dtype=torch.int32)
    assert compat.sparse_topk_select(score, 4, output=place) is place


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"causal": False}, r"^causal"),
        ({"qo_offset": 3}, r"^qo_offset: wanted None"),
        ({"num_kv_heads": 3}, r"^num_kv_heads: wanted a divisor of 4, got 3"),
        ({"kv_segment_lens": torch.tensor([30, 700])}, r"^qo_segment_lens: wanted as many"),
    ],
)
def test_what_it_cannot_plan(change, words):
    given = {
        "qo_segment_lens": torch.tensor(Q_LENS),
        "kv_segment_lens": torch.tensor(K_LENS),
        "num_qo_heads": 4,
    }
    with pytest.raises(ValueError, match=words):
        compat.fmha_sm100_plan(**(given | change))


def test_what_it_cannot_run_or_select():
    q, pages = drawn(43, 2, 64), drawn(25, 1, 64, 64)
    plan = compat.fmha_sm100_plan(
        torch.tensor(Q_LENS), torch.tensor(K_LENS), 2, num_kv_heads=1, page_size=PAGE
    )
    with pytest.raises(ValueError, match=r"^k, v: wanted pages of 128 tokens, got 64"):
        compat.fmha_sm100(q, pages, pages, plan, kv_indices=KV_INDICES)
    with pytest.raises(ValueError, match=r"^page_table: wanted None"):
        compat.fmha_sm100(q, pages, pages, plan, page_table=KV_INDICES)
    score = torch.zeros(2, 128, 5)
    with pytest.raises(ValueError, match=r"^num_valid_pages: wanted 1 to 128, got 129"):
        compat.sparse_topk_select(score, 4, num_valid_pages=129)
    with pytest.raises(ValueError, match=r"^topk: wanted at least 5, got 4"):
        compat.sparse_topk_select(score, 4, force_begin_blocks=5)
