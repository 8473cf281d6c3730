"""What could go wrong in an ablation unseen: a switch that does nothing, or too much."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from msa import fast, reference
from msa.alignment import Alignment, index_loss, visible_blocks
from msa.retrofit import RetrofitSettings, apply_retrofit
from msa.retrofit_index import IndexShape, attach_index, index_branches
from msa_suites.models.architecture import ModelShape, build_model
from msa_suites.models.text import Corpus
from msa_suites.models.train import Trainer, TrainingError
from msa_suites.reproduction import ablations, ablations_runs, ablations_switches, relatives
from msa_suites.reproduction.ablations_compare import summary, value_of, verdict
from msa_suites.reproduction.ablations_plan import (
    BASE,
    COMPARISONS,
    EXPERIMENTS,
    FROZEN,
    OWN,
    Sizes,
    plan_of,
    readings,
)
from msa_suites.reproduction.ablations_reading import count_answers, held_out, read
from msa_suites.reproduction.ablations_runs import FOLDER, Start, dense_copy, run
from msa_suites.reproduction.ablations_switches import PlainTopk, ValueHead, ValueHeads, loose_loss
from msa_suites.reproduction.setup import CannotRun, Setup

SHAPE = ModelShape(layers=2, hidden=32, heads=4, kv_heads=2, intermediate=64)
TEXT = np.frombuffer(b"some plain text to read; " * 4000, dtype=np.uint8)
CORPUS = Corpus(TEXT, TEXT, "0" * 64)
SIZES = Sizes(
    curriculum=((160, 1, 2),), warmup=1, rise=1, seeds=1, length=256, sequences=2, recorded=1
)
NAMED = {one.name: one for one in EXPERIMENTS}
SETTINGS = RetrofitSettings(block=4, topk=3, sink_blocks=0, scorer="index")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def network():
    torch.manual_seed(5)
    made = build_model(SHAPE, plain_start=False).eval()
    for parameter in made.parameters():
        # Outputs start at zero; attention must matter to what follows.
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return made.requires_grad_(False)


def indexed():
    made = network().requires_grad_(True)
    attach_index(made, IndexShape(index_dim=8, rotary_dim=4, theta=1e4), range(2))
    return made


def tokens(length=40):
    return torch.randint(1, 256, (1, length), generator=torch.Generator().manual_seed(3))


def start(model=None):
    return Start(model=model or network(), about={"seed": 0}, sha256="a" * 64, corpus=CORPUS)


def plan(name, sizes=SIZES):
    return plan_of(NAMED[name], sizes, seed=0, start="a" * 64, theta=1e4)


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


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_model_stays_bit_for_bit(frozen):
    chosen = plan("dim_16" if frozen else BASE)
    assert [chosen.phase_at(step) for step in (0, 1)] == [
        "warmup", "warmup" if frozen else "sparse"
    ]  # fmt: skip
    model = network()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    trainer = Trainer(chosen, corpus=CORPUS, device="cpu", start=model)
    first = {name: x.clone() for name, x in model.state_dict().items() if name not in before}
    seen = list(trainer.run())
    assert all(one.grad_norm > 0 for one in seen)
    same = [torch.equal(x, model.state_dict()[name]) for name, x in before.items()]
    assert all(same) if frozen else not any(same)
    assert not any(torch.equal(x, model.state_dict()[name]) for name, x in first.items())


@pytest.mark.parametrize("name", ["no_detach", "no_local", "value_head"])
def test_a_run_is_what_its_experiment_says(name, tmp_path, monkeypatch):
    made = []

    class Watched(Trainer):
        def __init__(self, *args, **given):
            super().__init__(*args, **given)
            made.append((self, given["operations"]))

    monkeypatch.setattr(ablations_runs, "Trainer", Watched)
    found = run(Setup(out=tmp_path), start(), NAMED[name], SIZES, seed=0)
    ((trainer, operations),) = made
    alignment = trainer.index.alignment
    assert (alignment.measure is loose_loss) is (not alignment.detach) is (name == "no_detach")
    assert isinstance(operations, PlainTopk) is (name == "no_local")
    assert isinstance(operations, ValueHeads) is (name == "value_head")
    assert any("index_value" in n for n, _ in trainer.model.named_parameters()) is (
        name == "value_head"
    )
    assert len(found["steps"]["grad_norm"]) == 2
    assert set(found["measured"]) == set(readings(NAMED[name]))


def test_only_an_equal_plan_is_taken_over(tmp_path, monkeypatch):
    setup, given = Setup(out=tmp_path), start()
    first = run(setup, given, NAMED[FROZEN], SIZES, seed=0)
    file = tmp_path / FOLDER / f"{FROZEN}-0.json"
    kept = file.read_bytes()

    def again(*_):
        return {"steps": {}, "diverged": 1, "measured": {}}

    monkeypatch.setattr(ablations_runs, "_train_and_read", again)
    assert run(setup, given, NAMED[FROZEN], SIZES, seed=0) == json.loads(json.dumps(first))
    assert file.read_bytes() == kept
    others = [
        (given, NAMED[FROZEN], replace(SIZES, warmup=2)),
        (given, replace(NAMED[FROZEN], index={"index_dim": 8}), SIZES),
        (replace(given, about={"seed": 1}), NAMED[FROZEN], SIZES),
        (replace(given, sha256="b" * 64), NAMED[FROZEN], SIZES),
        (replace(given, corpus=replace(CORPUS, sha256="1" * 64)), NAMED[FROZEN], SIZES),
    ]
    for changed in others:
        file.write_bytes(kept)
        assert run(setup, *changed, seed=0)["diverged"] == 1
    for broken in (b"{", b"[]", b'{"schema": "other/1"}'):
        file.write_bytes(broken)
        assert run(setup, given, NAMED[FROZEN], SIZES, seed=0)["diverged"] == 1


def test_a_run_that_diverges_is_kept_as_such(tmp_path, monkeypatch):
    def breaks(_):
        yield from ()
        raise TrainingError("no number")

    monkeypatch.setattr(Trainer, "run", breaks)
    found = run(Setup(out=tmp_path), start(), NAMED[BASE], SIZES, seed=0)
    assert (found["diverged"], found["measured"]) == (0, {})


def test_a_copy_has_no_index_branch_and_the_model_keeps_its_own():
    model = indexed()
    model.config.index_branch = {"shape": {}}
    made = dense_copy(model)
    assert index_branches(made) == {}
    assert not hasattr(made.config, "index_branch")
    assert len(index_branches(model)) == 2
    assert model.config.index_branch == {"shape": {}}
    assert dense_copy(network()).config is not model.config


def test_answers_are_right_as_a_whole():
    kind = np.array([1, 2, 2, 1, 0, 2, 1, 2, 2], np.uint8)
    hit = np.array([0, 1, 1, 0, 0, 1, 0, 1, 0], bool)
    assert count_answers(hit, kind) == (2, 3)
    assert count_answers(~hit, kind) == (0, 3)


def test_reading_is_the_same_for_all_and_keeps_count():
    texts = held_out(CORPUS, length=256, count=2, seed=0)
    again = held_out(CORPUS, length=256, count=2, seed=0)
    assert all(np.array_equal(a.tokens, b.tokens) for a, b in zip(texts, again, strict=True))
    model = indexed().requires_grad_(False)
    every = replace(SETTINGS, topk=64)
    given = {"operations": "msa.fast", "recorded": 1}
    dense, kept = read(model, texts, None, **given), read(model, texts, every, **given)
    assert kept["text_nll"] == pytest.approx(dense["text_nll"], rel=1e-5)
    assert kept["mass"] == pytest.approx(1.0, abs=1e-5)
    assert kept["blocks"] is None  # nothing to choose
    best = read(model, texts, replace(SETTINGS, scorer="oracle"), **given)
    assert read(model, texts, SETTINGS, **given)["mass"] < best["mass"] < 1
    assert dense["answers"]["n"] > 0


def one(name, seed, nll, norms=(1.0, 1.0, 1.0), **more):
    measured = {OWN: {"text_nll": nll, "answers": {"value": 0.5, "n": 10}, "mass": 0.5}}
    return {"name": name, "seed": seed, "diverged": None, "measured": measured,
            "steps": {"grad_norm": list(norms)}} | more  # fmt: skip


def test_a_difference_is_one_only_where_all_seeds_agree():
    assert verdict([0.1, 0.2, 0.1]) == "differs"
    assert verdict([-0.1, -0.2, -0.1]) == "differs"
    assert verdict([0.1, -0.1, 0.2]) == "no difference"
    assert verdict([0.1, 0.0, 0.2]) == "no difference"
    assert verdict([0.1, 0.1]) == "too few seeds"
    assert verdict([0.1, None, 0.1]) == "diverged"


def test_differences_are_paired_by_seed():
    base = [one(BASE, seed, 1.0 + seed) for seed in range(3)]
    runs = {experiment.name: base for experiment in EXPERIMENTS}
    runs["no_warmup"] = [one("no_warmup", seed, 1.1 + seed) for seed in range(3)]
    spiking = [one("no_detach", seed, 1.0 + seed, norms=(1.0, 11.0, None)) for seed in range(2)]
    runs["no_detach"] = [*spiking, one("no_detach", 2, 0.0, diverged=1, measured={})]
    found = summary(runs)
    rows = {row["name"]: row for row in found["comparisons"]}
    # The ranges of the values overlap; the pairs do not.
    late = rows["no_warmup"]["differences"]["text_nll"]
    assert late["values"] == pytest.approx([0.1] * 3)
    assert late["verdict"] == "differs"
    assert rows["no_warmup"]["differences"]["answers"]["verdict"] == "no difference"
    assert rows["no_detach"]["differences"]["text_nll"]["verdict"] == "diverged"
    assert rows["no_detach"]["answers"]["n"] == 10
    seeds = next(one for one in found["gradients"] if one["name"] == "no_detach")["seeds"]
    assert (seeds[0]["largest"], seeds[0]["not_finite"]) == (11.0, 1)
    assert seeds[0]["spikes"] == pytest.approx(1 / 3)
    assert value_of(base[0], "k_2", "text_nll") is None
    json.dumps(found, allow_nan=False)


def test_every_comparison_has_two_readings_of_runs_that_there_are():
    for compared in COMPARISONS:
        own = {*readings(NAMED[compared.run]), *(("dense",) if compared.run == BASE else ())}
        assert compared.reading in own
        assert compared.base in readings(NAMED[compared.against])
    assert len({experiment.name for experiment in EXPERIMENTS}) == len(EXPERIMENTS)
    # Where one thing is switched, the rest of the plan is the base's.
    base = plan(BASE)
    for name in ("no_local", "value_head"):
        assert plan(name) == base
    assert replace(plan("no_warmup").index, warmup=base.index.warmup) == base.index


def test_a_model_of_other_tokens_cannot_run(tmp_path, monkeypatch):
    other = network()
    other.config.vocab_size = 1000
    monkeypatch.setattr(ablations, "load", lambda _: (other, None))
    with pytest.raises(CannotRun, match="Qwen2 with 256 tokens; got qwen2 with 1000"):
        ablations.measure(Setup(out=tmp_path))


def test_relatives_get_equal_budgets(tiny_model_dir, tmp_path):
    said = []
    setup = Setup(out=tmp_path, model=str(tiny_model_dir), quick=True, say=said.append)
    found = relatives.measure(setup)
    assert {row["tokens"] for row in found["rows"]} == {128}
    assert [rule["name"] for rule in found["rules"]] == ["msa", "moba"]
    assert found["dense"]["change"] == 0
    assert len(said) == 3
