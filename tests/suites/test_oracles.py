"""Three formulations of the method agree: the reference, the second oracle, brute force."""

from dataclasses import replace

import pytest
import torch

from msa import fast, reference
from msa_suites.cases import case_named, cases_for
from msa_suites.correctness import bruteforce, second_oracle
from msa_suites.correctness.material import Material
from msa_suites.correctness.passrule import compare
from msa_suites.correctness.variants import VARIANTS, own_keys
from msa_suites.inputs import make_inputs, stored

CHEAP = [case.name for case in cases_for("correctness") if max(case.k_lens) <= 700]


@pytest.mark.parametrize("name", CHEAP)
@pytest.mark.parametrize("variant", ["plain", "ties", "negative"])
def test_reference_and_second_oracle_agree(name, variant):
    case = case_named(name)
    changed = VARIANTS[variant](case, make_inputs(case).wide(torch.float32))
    x = stored(case, changed).double()
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


@pytest.mark.parametrize("apart", [False, True], ids=["shared", "own-keys"])
@pytest.mark.parametrize("name", CHEAP)
def test_the_index_loss_is_that_of_dense_probabilities_and_autograd(name, apart):
    case = case_named(name)
    x = make_inputs(case).double()
    lengths = {"cu_q": x.cu_q, "cu_k": x.cu_k}
    scores = reference.block_scores(
        x.q_idx, x.k_idx, block=case.block, scale=case.index_scale, **lengths
    )
    selection = reference.select_blocks(scores, **lengths, **case.settings)
    selection[::4] = -1  # rows that see nothing
    keys = own_keys(x).k_idx if apart else x.k_idx
    leaves = [part.clone().requires_grad_() for part in (x.q_idx, keys)]
    # Written from the formula: whole rows of probabilities, KL by torch's own function.
    rows = []
    for b, (q_len, k_len) in enumerate(zip(case.q_lens, case.k_lens, strict=True)):
        for i in range(q_len):
            row, first = int(x.cu_q[b]) + i, int(x.cu_k[b])
            for g in range(case.Hkv):
                seen = [
                    first + token
                    for token in range(k_len - q_len + i + 1)
                    if token // case.block in selection[row, g].tolist()
                ]
                if not seen:
                    continue
                heads = x.q[row].unflatten(0, (case.Hkv, -1))[g]
                teacher = (heads @ x.k[seen, g].T * case.scale).softmax(-1).mean(0)
                told = leaves[1][seen, g if apart else 0] @ leaves[0][row, g] * case.index_scale
                rows.append(
                    torch.nn.functional.kl_div(told.log_softmax(-1), teacher, reduction="sum")
                )
    nothing = 0 * sum(leaf.sum() for leaf in leaves)
    want = sum(rows, nothing) / (len(x.q) * case.Hkv)
    got = reference.index_kl(
        x.q_idx, keys, x.q, x.k, selection,
        block=case.block, scale=case.scale, index_scale=case.index_scale, **lengths,
    )  # fmt: skip
    torch.testing.assert_close(got[0], want.detach(), rtol=0, atol=1e-12)
    for mine, right in zip(got[1:], torch.autograd.grad(want, leaves), strict=True):
        torch.testing.assert_close(mine, right, rtol=0, atol=1e-12)


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


def test_a_few_rows_are_judged_like_many():
    """A product of one row is more exact than a kernel's tile, and no yardstick for one."""
    shape = replace(case_named("decode"), q_lens=(1, 1), k_lens=(3000, 5000), dtype="float32")
    for seed in range(5):
        m = Material.of(replace(shape, seed=seed)).variant("large")
        out, _ = fast.sparse_attention(
            m.inputs.q, m.inputs.k, m.inputs.v, m.selection,
            block=shape.block, scale=shape.scale, **m.lengths,
        )  # fmt: skip
        assert compare(out, m.truth[0], eager=m.eager[0], dtype=torch.float32) is None
        # Three more bits lost are still seen.
        lost = m.truth[0] + 8 * (out.double() - m.truth[0])
        assert compare(lost, m.truth[0], eager=m.eager[0], dtype=torch.float32) is not None
