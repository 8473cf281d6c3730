"""The checks of a trained index branch in a model: right code passes, and wrong code is seen."""

from __future__ import annotations

from dataclasses import replace
from pkgutil import resolve_name
from types import SimpleNamespace

import pytest
import torch
from method_worker import Local

from msa_harness.client import CallFailedError
from msa_harness.records import Sample
from msa_suites.method import causes_index, suite
from msa_suites.method.oracle_index import SHAPE, TEXT_WEIGHTS
from msa_suites.method.table import LAYER, NEEDS
from msa_suites.self_test import self_test

NAMES = tuple(NEEDS)


@pytest.mark.parametrize("name", NAMES)
def test_right_code_passes(name):
    assert LAYER[name](Local()) == ""


@pytest.mark.parametrize(
    ("name", "where", "make", "text"),
    [
        (
            "index",
            "msa.index_branch.IndexBranch.forward",
            lambda right: lambda self, hidden, positions: right(self, hidden.roll(1, 0), positions),
            "a padded batch: row 0",
        ),
        (
            "index_chunks",
            "msa.retrofit_index._CacheWithIndexKeys.update",
            lambda right: lambda self, key, value, *rest: right(self, key, value * 1.5, *rest),
            "chunks of a dynamic cache: row 0",
        ),
        (
            "index_training",
            "msa.retrofit_attention.attend_sparse",
            lambda right: lambda *given, **rest: right(*given, **rest) * 1.01,
            "sparse: loss of layer 1: wanted",
        ),
        (
            "index_training",
            "msa.fast.index_kl",
            lambda right: (
                lambda *given, **rest: tuple(
                    x * f for x, f in zip(right(*given, **rest), (1.0, 1.01, 1.0), strict=True)
                )
            ),
            "warmup: gradient of the loss by model.layers.2.self_attn.indexer.q_norm.weight",
        ),
        (
            "index_training",
            "msa.retrofit_attention.visible_blocks",
            lambda right: lambda **where: right(**where)[..., :3],
            "warmup: loss of layer 0",
        ),
    ],
)
def test_wrong_code_is_seen(monkeypatch, name, where, make, text):
    owner, _, attribute = where.rpartition(".")
    monkeypatch.setattr(resolve_name(owner), attribute, make(resolve_name(where)))
    problem = LAYER[name](Local())
    assert problem.startswith(text)
    assert "cause" not in problem  # none of these is one that the suite knows


def test_a_wrong_factor_of_all_gradients_is_not_taken_for_the_scale():
    want = {name: torch.ones(2, 2) for name in TEXT_WEIGHTS}
    assert causes_index.of_text({name: 5 * x for name, x in want.items()}, want) == ""
    scaled = {name: x * SHAPE.D**0.5 if "v_proj" not in name else x for name, x in want.items()}
    assert "scale of the logits is missing" in causes_index.of_text(scaled, want)


class Older(Local):
    """A subject whose msa has not got a module."""

    def __init__(self, missing):
        super().__init__()
        self.missing = missing

    def load(self, handle, target, args=None):
        if target == self.missing:
            reply = {"type": "ModuleNotFoundError", "message": f"No module named {target!r}"}
            raise CallFailedError("worker", {"kind": "raised", "traceback": "", **reply})
        super().load(handle, target, args)


def able(*missing):
    """A session whose sides have all operations but some."""
    say = {operation: f"it has no {operation}" for operation in missing}
    return SimpleNamespace(why_not=lambda _label, operation, _case: say.get(operation))


@pytest.mark.parametrize(
    ("name", "missing", "why"),
    [
        ("layer", "msa.retrofit_index", ""),
        ("index", "", ""),
        ("index", "msa.alignment", ""),
        ("index", "msa.retrofit_index", "its msa has no msa.retrofit_index"),
        ("index_training", "msa.alignment", "its msa has no msa.alignment"),
    ],
)
def test_an_older_msa_is_not_asked(name, missing, why):
    assert suite._lacks(able(), Older(missing), "head", name) == why


def test_an_implementation_without_gradients_is_not_asked_to_train():
    forward = able("sparse_attention_backward")
    assert suite._lacks(forward, Local(), "head", "index_chunks") == ""
    why = suite._lacks(forward, Local(), "head", "index_training")
    assert why == "it has no sparse_attention_backward"


def test_what_head_has_lost_is_asked_of_base(monkeypatch):
    """A check that is skipped on head counts as lost where base passes it."""

    def side(_session, label, names):
        for name in names:
            given = {"suite": "method", "subject": label, "unit": "check", "item": name}
            value = {"cost": 1.0, "index": None if label == "head" else 1.0}[name]
            yield Sample(series=f"method/{name}", value=value, detail="older", **given)

    monkeypatch.setattr(suite, "_measure_side", side)
    session, _ = self_test(timeout=60, threads=1)
    picked = replace(session, only=frozenset({"cost", "index"}))
    found = [(one.series, one.subject) for batch in suite.measure(picked) for one in batch]
    assert found == [
        ("method/cost", "head"),
        ("method/index", "head"),
        ("method/index", "base"),
    ]
