"""Three formulations of the method agree: the reference, the second oracle, brute force."""

import pytest
import torch

from msa import reference
from msa_suites.cases import case_named, cases_for
from msa_suites.correctness import bruteforce, second_oracle
from msa_suites.correctness.variants import VARIANTS
from msa_suites.inputs import make_inputs

CHEAP = [case.name for case in cases_for("correctness") if max(case.k_lens) <= 700]


@pytest.mark.parametrize("name", CHEAP)
@pytest.mark.parametrize("variant", ["plain", "ties", "negative"])
def test_reference_and_second_oracle_agree(name, variant):
    case = case_named(name)
    x = VARIANTS[variant](case, make_inputs(case)).double()
    lengths = {"cu_q": x.cu_q, "cu_k": x.cu_k}
    found = []
    for oracle in (reference, second_oracle):
        scores = oracle.block_scores(
            x.q_idx, x.k_idx, block=case.block, scale=case.index_scale, **lengths
        )
        selection = oracle.select_blocks(scores, **lengths, **case.settings)
        out, lse = oracle.sparse_attention(
            x.q, x.k, x.v, selection, block=case.block, scale=case.scale, **lengths
        )
        found.append((scores, selection, out, lse))
    first, second = found
    torch.testing.assert_close(first[0], second[0], rtol=1e-6, atol=1e-6)
    if variant != "ties":  # ties of sums may round apart
        assert torch.equal(first[1], second[1])
        torch.testing.assert_close(first[2], second[2], rtol=0, atol=1e-12)
        torch.testing.assert_close(first[3], second[3], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("nan", [False, True])
def test_selections_of_given_scores_agree(nan):
    case = case_named("sink-2-local-2")
    x = make_inputs(case)
    lengths = {"cu_q": x.cu_q, "cu_k": x.cu_k}
    scores = reference.block_scores(
        x.q_idx, x.k_idx, block=case.block, scale=case.index_scale, **lengths
    )
    scores = torch.where(scores.isneginf(), scores, (scores * 2).round())
    if nan:
        scores[:, :, 1::3] = torch.nan
    a, b = (o.select_blocks(scores, **lengths, **case.settings) for o in (reference, second_oracle))
    assert torch.equal(a, b)


@pytest.mark.parametrize("name", CHEAP)
def test_gradients_are_those_of_autograd_through_the_second_oracle(name):
    case = case_named(name)
    x = make_inputs(case).double()
    lengths = {"cu_q": x.cu_q, "cu_k": x.cu_k, "block": case.block}
    scores = reference.block_scores(x.q_idx, x.k_idx, scale=case.index_scale, **lengths)
    selection = reference.select_blocks(scores, cu_q=x.cu_q, cu_k=x.cu_k, **case.settings)
    selection[::4] = -1  # rows that see nothing
    leaves = [part.clone().requires_grad_() for part in (x.q, x.k, x.v)]
    out, lse = second_oracle.sparse_attention(*leaves, selection, scale=case.scale, **lengths)
    dout = torch.randn(out.shape, dtype=torch.float64)
    want = torch.autograd.grad(out, leaves, dout)
    got = reference.sparse_attention_backward(
        dout, x.q, x.k, x.v, out.detach(), lse, selection, scale=case.scale, **lengths
    )
    for mine, right in zip(got, want, strict=True):
        torch.testing.assert_close(mine, right, rtol=0, atol=1e-11)


def test_empty_rows_agree():
    case = case_named("group-of-3")
    x = make_inputs(case).double()
    lengths = {"cu_q": x.cu_q, "cu_k": x.cu_k}
    selection = torch.full((len(x.q), case.Hkv, 2), -1, dtype=torch.int32)
    selection[::2, :, 0] = 0
    for oracle in (reference, second_oracle):
        out, lse = oracle.sparse_attention(
            x.q, x.k, x.v, selection, block=case.block, scale=case.scale, **lengths
        )
        assert not out[1::2].any()
        assert lse[1::2].isneginf().all()
        assert lse[::2].isfinite().all()


@pytest.mark.parametrize("q_len", [37, 9])
@pytest.mark.parametrize(
    ("block", "topk", "local", "sinks"), [(4, 3, 1, 0), (8, 2, 1, 0), (4, 1, 1, 0), (4, 4, 2, 1)]
)
def test_brute_force_agrees(q_len, block, topk, local, sinks):
    k_len, heads, groups, dim = 37, 4, 2, 8
    generator = torch.Generator().manual_seed(block * 10 + topk)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    q, q_idx = draw(q_len, heads, dim), draw(q_len, groups, dim)
    k, v, k_idx = draw(k_len, groups, dim), draw(k_len, groups, dim), draw(k_len, 1, dim)
    settings = {"block": block, "topk": topk, "local_blocks": local, "sink_blocks": sinks}
    scales = {"scale": 0.3, "index_scale": 0.4}
    outputs, selections = bruteforce.attend_sequence(
        *(x.tolist() for x in (q, k, v, q_idx, k_idx)), **settings, **scales
    )
    lengths = {
        "cu_q": torch.tensor([0, q_len], dtype=torch.int32),
        "cu_k": torch.tensor([0, k_len], dtype=torch.int32),
    }
    for oracle in (reference, second_oracle):
        scores = oracle.block_scores(q_idx, k_idx, block=block, scale=0.4, **lengths)
        chosen = oracle.select_blocks(scores, **settings, **lengths)
        assert [
            [[b for b in ids if b >= 0] for ids in row] for row in chosen.tolist()
        ] == selections
        out, _ = oracle.sparse_attention(q, k, v, chosen, block=block, scale=0.3, **lengths)
        torch.testing.assert_close(
            out, torch.tensor(outputs, dtype=torch.float64), rtol=0, atol=1e-12
        )


def test_dense_is_everything_selected():
    case = case_named("chunk-inside-block")
    x = make_inputs(case).double()
    lengths = {"cu_q": x.cu_q, "cu_k": x.cu_k}
    ids = torch.arange(-(-max(case.k_lens) // case.block), dtype=torch.int32)
    out, _ = reference.sparse_attention(
        x.q, x.k, x.v, ids.expand(len(x.q), case.Hkv, -1),
        block=case.block, scale=case.scale, **lengths,
    )  # fmt: skip
    dense = second_oracle.dense_attention(x.q, x.k, x.v, scale=case.scale, **lengths)
    torch.testing.assert_close(out, dense, rtol=0, atol=1e-12)
