"""The retrofit's checks see what a comparison of the retrofit with itself cannot."""

import pytest
import torch

from msa import fast
from msa_suites.method import checks, oracle_model
from msa_suites.method.subject import Retrofitted

ROW = list(b"the quick brown fox jumps over the lazy dog. " * 3)


class InProcess:
    """Answers as a worker does, with settings that the retrofit does not honour."""

    def __init__(self, **wrong):
        self.retrofitted, self.wrong = Retrofitted(fast), wrong

    def call(self, _handle, operation, args, kwargs, **_how):
        settings = {**kwargs["settings"], **self.wrong}
        return getattr(self.retrofitted, operation)(*args, **{**kwargs, "settings": settings})


def test_right_settings_pass():
    assert checks.check_retrofit(InProcess()) == ""


@pytest.mark.parametrize(
    "wrong", [{"topk": 3}, {"sink_blocks": 0}, {"block": 16}, {"scorer": "mean"}], ids=str
)
def test_settings_that_are_not_honoured_are_seen(wrong):
    worker = InProcess(**wrong)
    assert "positions differ" in checks.check_retrofit(worker)
    assert checks.check_padding(worker) == ""


def test_the_oracle_with_all_blocks_is_the_models_own_attention():
    dense = Retrofitted(fast).logits([ROW], settings=None)[0].double()
    (kept,) = oracle_model.logits([ROW], block=16, topk=64, sink_blocks=0)
    (dropped,) = oracle_model.logits([ROW], block=16, topk=2, sink_blocks=0)
    torch.testing.assert_close(kept, dense, rtol=0, atol=1e-3)
    assert (dropped[:32] - kept[:32]).abs().max() < 1e-9
    assert (dropped[32:] - kept[32:]).abs().max() > 0.1
