"""What an ablation switches off or adds: a switch that does nothing, or too much, is unseen."""

from __future__ import annotations

import pytest
import torch
from ablated import (
    SETTINGS,
    indexed,
    network,
    tokens,
)

from msa import fast, reference
from msa.alignment import Alignment, index_loss, visible_blocks
from msa.retrofit import apply_retrofit
from msa.retrofit_index import IndexShape, attach_index, index_branches
from msa_suites.reproduction import ablations_switches
from msa_suites.reproduction.ablations_switches import PlainTopk, ValueHead, ValueHeads, loose_loss

pytestmark = pytest.mark.usefixtures("one_thread")


class TestLooseLoss:
    """The loss without a constant in it."""

    LENGTHS = (21, 9)

    def drawn(self):
        generator = torch.Generator().manual_seed(0)
        shapes = [(30, 2, 6), (30, 1, 6), (30, 4, 8), (30, 2, 8)]
        made = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
        cu = torch.tensor([0, 21, 30], dtype=torch.int32)
        return made, {"cu_q": cu, "cu_k": cu, "block": 4}

    @pytest.mark.parametrize("support", ["selected", "visible"])
    def test_value_and_gradients(self, support, monkeypatch):
        monkeypatch.setattr(ablations_switches, "_ROWS", 5)  # pieces, the last one short
        made, where = self.drawn()
        scores = reference.block_scores(made[0].detach(), made[1].detach(), **where, scale=1.0)
        chosen = reference.select_blocks(scores, **where, topk=3)
        if support == "visible":
            chosen = visible_blocks(**where, groups=2)
        given = {"operations": fast, **where, "scale": 0.3, "index_scale": 0.7}
        got, strict = loose_loss(*made, chosen, **given), index_loss(*made, chosen, **given)
        torch.testing.assert_close(got, strict, atol=1e-6, rtol=1e-5)
        found = torch.autograd.grad(got, made)
        for one, other in zip(found, torch.autograd.grad(strict, made[:2]), strict=False):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
        # The teacher's own: by small steps, since the strict loss has none.
        for x, grad in zip(made[2:], found[2:], strict=True):
            direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
            with torch.no_grad():
                kept, step = x.clone(), 1e-2
                ends = []
                for sign in (1, -1):
                    x.copy_(kept + sign * step * direction)
                    ends.append(float(index_loss(*made, chosen, **given)))
                x.copy_(kept)
            slope = (ends[0] - ends[1]) / (2 * step)
            assert float((grad * direction).sum()) == pytest.approx(slope, rel=0.02, abs=1e-4)

    @pytest.mark.parametrize("phase", ["warmup", "sparse"])
    def test_it_moves_the_model_through_input_and_teacher(self, phase):
        model, found = indexed(), {}
        for measure in (index_loss, loose_loss):
            model.zero_grad(set_to_none=True)
            alignment = Alignment(phase=phase, detach=False, measure=measure)
            with apply_retrofit(model, SETTINGS, operations=fast, alignment=alignment):
                model(tokens(), use_cache=False)
                alignment.total().backward()
            found[measure] = {name: p.grad for name, p in model.named_parameters()}
        # The last layer's queries are read by the teacher of that layer alone.
        last = "model.layers.1.self_attn.q_proj.weight"
        assert found[index_loss][last] is None
        assert found[loose_loss][last].any()
        for one in found.values():
            assert one["model.embed_tokens.weight"].any()


class TestPlainTopk:
    def where(self, length):
        cu = torch.tensor([0, length], dtype=torch.int32)
        return {"cu_q": cu, "cu_k": cu, "block": 4}

    def scores(self, length):
        drawn = torch.randn(length, 2, -(-length // 4), generator=torch.Generator().manual_seed(1))
        hidden = torch.arange(drawn.shape[2]) > (torch.arange(length) // 4)[:, None]
        return drawn.masked_fill(hidden[:, None], -torch.inf)

    def test_the_local_block_is_one_like_others(self):
        scores, where = self.scores(30), self.where(30)
        scores[25, 0, 6] = -50.0  # its own block
        found = PlainTopk(fast).select_blocks(scores, **where, topk=3, local_blocks=1)
        assert 6 not in found[25, 0].tolist()
        best = sorted(scores[25, 0, :7].topk(3).indices.tolist())
        assert found[25, 0].tolist() == best
        assert found[2, 1].tolist() == [0, -1, -1]
        assert found.dtype == torch.int32

    def test_it_forces_nothing_else_and_sees_nothing_ahead(self):
        where = self.where(30)
        scores = self.scores(30)
        found = PlainTopk(fast).select_blocks(scores, **where, topk=3, sink_blocks=1)
        assert (found <= (torch.arange(30) // 4)[:, None, None]).all()
        # Where all fits there is no choice; and k may be more than there is.
        every = PlainTopk(fast).select_blocks(scores, **where, topk=10)
        own = reference.select_blocks(scores, **where, topk=10)
        assert torch.equal(every, own)

    def test_a_model_attends_to_what_it_selects(self):
        model = indexed().requires_grad_(False)
        logits = {}
        for name, inner in (("fast", fast), ("reference", reference)):
            with apply_retrofit(model, SETTINGS, operations=PlainTopk(inner)):
                logits[name] = model(tokens(), use_cache=False).logits
        torch.testing.assert_close(logits["fast"], logits["reference"], atol=1e-4, rtol=1e-3)
        with apply_retrofit(model, SETTINGS, operations=fast):
            forced = model(tokens(), use_cache=False).logits
        assert not torch.allclose(logits["fast"], forced, atol=1e-3)


class TestValueHeads:
    def heads(self):
        model = network().requires_grad_(True)
        heads = ValueHeads(model, fast, dim=4, block=4, seed=0)
        attach_index(model, IndexShape(index_dim=8, rotary_dim=4, theta=1e4), range(2))
        return model, heads

    @pytest.mark.parametrize("phase", ["warmup", "sparse"])
    def test_it_starts_as_no_change_and_learns_from_text(self, phase):
        model, heads = self.heads()
        ids, alignment = tokens(), Alignment(phase=phase)
        with apply_retrofit(model, SETTINGS, operations=heads, alignment=alignment):
            without = model(ids, use_cache=False).logits
            heads.listen()
            logits = model(ids, use_cache=False).logits
            assert torch.equal(logits, without)
            logits.square().mean().backward()
            value = model.model.layers[0].self_attn.index_value
            assert value.out_proj.weight.grad.any()
            assert not value.v_proj.weight.grad.any()  # behind a matrix of zeros
            torch.nn.init.normal_(value.out_proj.weight, std=0.1)
            model.zero_grad(set_to_none=True)
            model(ids, use_cache=False).logits.square().mean().backward()
        assert value.v_proj.weight.grad.any()
        # By its softmax the index branch learns from text too.
        assert index_branches(model)[0].q_proj.weight.grad.any()

    def test_it_reads_what_is_selected_and_nothing_else(self):
        torch.manual_seed(0)
        head = ValueHead(6, 2, 3)
        torch.nn.init.normal_(head.out_proj.weight)
        hidden, q, k = torch.randn(1, 12, 6), torch.randn(12, 2, 5), torch.randn(12, 1, 5)
        chosen = torch.tensor([0, -1], dtype=torch.int32).expand(12, 2, 2)
        before = head(hidden, q, k, chosen, 4)
        weight = (torch.einsum("gd,sd->gs", q[9], k[:4, 0]) * 5**-0.5).softmax(-1)
        want = head.out_proj((weight @ head.v_proj(hidden[0, :4])).flatten())
        torch.testing.assert_close(before[0, 9], want)
        hidden[0, 5:] = 7.0
        torch.testing.assert_close(head(hidden, q, k, chosen, 4), before)
        assert not torch.allclose(head(hidden, q, k, None, 4), before)

    def test_without_an_index_branch_there_is_nothing_to_read(self):
        model, heads = self.heads()
        heads.listen()
        with pytest.raises(RuntimeError, match="wanted the index branch to have run"):
            model(tokens(), use_cache=False)
