"""Gradients of the index branch's loss and of sparse attention, against plain autograd."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from msa import fast, reference
from msa.alignment import Alignment, attend_sparse, index_loss, visible_blocks
from msa.retrofit import RetrofitSettings, apply_retrofit
from msa.retrofit_index import IndexShape, attach_index, index_state

from .retrofitted import KEEP_ALL, left_padded, logits, positions, tiny, tokens

pytestmark = pytest.mark.usefixtures("one_thread")

LENGTHS, BLOCK = (21, 9), 4


def draw(dtype=torch.float32, index_heads=1):
    """Packed tensors of two sequences: q_idx, k_idx, q, k, v, and where they are."""
    generator = torch.Generator().manual_seed(0)
    total = sum(LENGTHS)
    shapes = [(total, 2, 6), (total, index_heads, 6), (total, 4, 8), (total, 2, 8), (total, 2, 8)]
    made = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    cu = torch.tensor([0, *torch.tensor(LENGTHS).cumsum(0)], dtype=torch.int32)
    return made, {"cu_q": cu, "cu_k": cu, "block": BLOCK}


def choose(made, where):
    scores = reference.block_scores(made[0], made[1], **where, scale=1.0)
    return reference.select_blocks(scores, **where, topk=3)


def seen_tokens(selection, where):
    """Bool ``[T, Hkv, T]``: which tokens a query of a group attends; nothing shared with msa."""
    seen = torch.zeros(*selection.shape[:2], len(selection), dtype=torch.bool)
    bounds = where["cu_q"].tolist()
    for start, stop in pairwise(bounds):
        for t in range(start, stop):
            for g in range(selection.shape[1]):
                for block in selection[t, g].tolist():
                    first = start + block * BLOCK
                    if block >= 0:
                        seen[t, g, first : max(first, min(first + BLOCK, t + 1))] = True
    return seen


def kl_by_autograd(q_idx, k_idx, q, k, seen, scale, index_scale):
    """The dense formula of the loss; the teacher is whatever its inputs let through."""
    heads = q.shape[1] // k.shape[1]
    logits_ = torch.einsum("thd,shd->hts", q, k.repeat_interleave(heads, 1)) * scale
    visible = seen.transpose(0, 1)
    hidden = ~visible.repeat_interleave(heads, 0)
    teacher = logits_.masked_fill(hidden, -torch.inf).softmax(-1)
    teacher = teacher.view(-1, heads, *teacher.shape[1:]).mean(1)  # [G, T, T]
    keys = k_idx.expand(-1, q_idx.shape[1], -1)
    told = torch.einsum("tgd,sgd->gts", q_idx, keys) * index_scale
    told = told.masked_fill(~visible, -torch.inf).log_softmax(-1).masked_fill(~visible, 0.0)
    each = torch.special.xlogy(teacher, teacher) - teacher * told
    return each.sum() / (q_idx.shape[0] * q_idx.shape[1])


@pytest.mark.parametrize("operations", [reference, fast], ids=["reference", "fast"])
@pytest.mark.parametrize("index_heads", [1, 2])
@pytest.mark.parametrize("support", ["selected", "visible"])
def test_loss_and_gradient_are_those_of_autograd(operations, index_heads, support):
    made, where = draw(index_heads=index_heads)
    q_idx, k_idx, q, k, _ = made
    selection = choose(made, where)
    if support == "visible":
        selection = visible_blocks(**where, groups=2)
    q_idx.requires_grad_()
    k_idx.requires_grad_()
    got = index_loss(
        q_idx, k_idx, q, k, selection, operations=operations, **where, scale=0.3, index_scale=0.7
    )
    got_grads = torch.autograd.grad(3.0 * got, (q_idx, k_idx))
    want = kl_by_autograd(q_idx, k_idx, q, k, seen_tokens(selection, where), 0.3, 0.7)
    want_grads = torch.autograd.grad(3.0 * want, (q_idx, k_idx))
    torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-5)
    for one, other in zip(got_grads, want_grads, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_the_teacher_gets_no_gradient():
    made, where = draw()
    q_idx, k_idx, q, k, _ = made
    for x in (q_idx, k_idx, q, k):
        x.requires_grad_()
    loss = index_loss(
        q_idx, k_idx, q, k, choose(made, where), operations=reference, **where,
        scale=0.3, index_scale=0.7,
    )  # fmt: skip
    assert torch.autograd.grad(loss, (q, k), allow_unused=True) == (None, None)


@pytest.mark.parametrize("operations", [reference, fast], ids=["reference", "fast"])
def test_attention_has_the_gradient_of_masked_attention(operations):
    made, where = draw()
    q, k, v = (x.requires_grad_() for x in made[2:])
    selection = choose([x.detach() for x in made], where)
    out = attend_sparse(q, k, v, selection, operations=operations, **where, scale=0.3)
    hidden = ~seen_tokens(selection, where).transpose(0, 1).repeat_interleave(2, 0)
    weight = torch.einsum("thd,shd->hts", q, k.repeat_interleave(2, 1)) * 0.3
    weight = weight.masked_fill(hidden, -torch.inf).softmax(-1)
    want = torch.einsum("hts,shd->thd", weight, v.repeat_interleave(2, 1))
    torch.testing.assert_close(out, want, atol=1e-6, rtol=1e-5)
    up = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    for one, other in zip(
        torch.autograd.grad(out, (q, k, v), up),
        torch.autograd.grad(want, (q, k, v), up),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_visible_blocks_are_those_below_the_query():
    _, where = draw()
    kept = visible_blocks(**where, groups=2)
    assert kept.shape == (30, 2, 6)
    assert kept[20, 1].tolist() == [0, 1, 2, 3, 4, 5]
    assert kept[21, 0].tolist() == [0, -1, -1, -1, -1, -1]
    assert kept[29, 0].tolist() == [0, 1, 2, -1, -1, -1]


def indexed():
    model = tiny()
    attach_index(model, IndexShape(index_dim=8, rotary_dim=4, theta=1e4), (0, 1, 2))
    return model


SETTINGS = RetrofitSettings(block=4, topk=3, scorer="index")


def gradients(model, ids, alignment, settings=SETTINGS, text_weight=0.0, **given):
    """Gradients by name of the index branches' loss plus ``text_weight`` times a text's."""
    model.zero_grad(set_to_none=True)
    with apply_retrofit(model, settings, operations=reference, alignment=alignment):
        out = model(ids, use_cache=False, **given).logits
        text = torch.nn.functional.cross_entropy(out[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        (alignment.total() + text_weight * text).backward()
    return {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("phase", ["warmup", "sparse"])
def test_the_loss_moves_the_index_branch_alone(phase):
    """Not a small gradient elsewhere: none."""
    model = indexed()
    found = gradients(model, tokens(1, 40), Alignment(phase=phase))
    own = set(index_state(model))
    assert len(own) == 12
    for name, grad in found.items():
        if name in own:
            assert grad is not None and float(grad.abs().sum()) > 0, name
        else:
            # torch hands zeros on where attention's own output took part with a factor of zero.
            assert grad is None or not grad.any(), name


@pytest.mark.parametrize("phase", ["warmup", "sparse"])
def test_without_detaching_it_moves_the_model_too(phase):
    found = gradients(indexed(), tokens(1, 40), Alignment(phase=phase, detach=False))
    assert found["model.embed_tokens.weight"].any()


def test_in_warmup_the_text_is_read_densely():
    model, ids = indexed(), tokens(1, 40)
    dense = logits(model, ids)
    with apply_retrofit(model, SETTINGS, operations=reference, alignment=Alignment("warmup")):
        got = model(ids, use_cache=False).logits
        assert got.requires_grad
        torch.testing.assert_close(got, dense, atol=1e-6, rtol=1e-6)
        # Without gradients nothing is learned, and the model is what it will be: sparse.
        assert not torch.allclose(logits(model, ids), dense, atol=1e-3)


@pytest.mark.parametrize("padded", [False, True])
def test_keeping_all_has_the_gradients_of_dense_attention(padded):
    model = tiny()
    ids, mask = left_padded([29, 17 if padded else 29])
    given = {"attention_mask": mask, "position_ids": positions(mask), "use_cache": False}

    def grads():
        model.zero_grad(set_to_none=True)
        out = model(ids, **given).logits
        (out[mask.bool()].float().square().sum() / 100).backward()
        return {name: p.grad.clone() for name, p in model.named_parameters()}

    want = grads()
    with apply_retrofit(model, KEEP_ALL, operations=fast):
        got = grads()
    for name, grad in want.items():
        torch.testing.assert_close(got[name], grad, atol=1e-5, rtol=1e-4)


def test_coefficients_layer_by_layer():
    model, ids = indexed(), tokens(1, 40)
    alignment = Alignment(coefficient={0: 1.0, 1: 0.0, 2: 2.0})
    found = gradients(model, ids, alignment)
    assert set(alignment.losses) == {0, 1, 2}
    expected = alignment.losses[0] + 2 * alignment.losses[2]
    torch.testing.assert_close(alignment.total(), expected)
    assert not found["model.layers.1.self_attn.indexer.q_proj.weight"].any()
    once = gradients(model, ids, Alignment())
    name = "model.layers.2.self_attn.indexer.k_proj.weight"
    torch.testing.assert_close(found[name], 2 * once[name])


class TestErrors:
    def test_settings(self):
        with pytest.raises(ValueError, match="phase: wanted one of warmup, sparse, got 'dense'"):
            Alignment(phase="dense")
        with pytest.raises(ValueError, match="coefficient: wanted a number of at least 0"):
            Alignment(coefficient=-1.0)
        with pytest.raises(ValueError, match="coefficient: wanted a number of at least 0, got nan"):
            Alignment(coefficient={0: float("nan")})

    def test_no_forward_pass(self):
        with pytest.raises(ValueError, match="losses: wanted a forward pass with gradients"):
            Alignment().total()

    def test_an_implementation_without_gradients(self):
        class Forward:
            block_scores = staticmethod(reference.block_scores)
            select_blocks = staticmethod(reference.select_blocks)
            sparse_attention = staticmethod(reference.sparse_attention)

        model, ids = tiny(), tokens(1, 20)
        with apply_retrofit(model, RetrofitSettings(block=4, topk=3), operations=Forward()):
            logits(model, ids)  # reading is no training
            with pytest.raises(TypeError, match=r"wanted sparse_attention_backward.*Forward"):
                model(ids, use_cache=False)
