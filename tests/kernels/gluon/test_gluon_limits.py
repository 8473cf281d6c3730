"""Where each arm runs, and what it refuses before anything is launched."""

from __future__ import annotations

import pytest
import torch
from gluon_runs import SM100, Batch

import msa_kernels
from msa_kernels.gluon_ops import arms, scoring, sm90, sm100


@pytest.mark.parametrize(
    ("arm", "found", "words"),
    [
        (arms.SM100, None, "wanted a GPU of sm_100 or sm_103, got none; on a CPU, sm100_simulated"),
        (arms.SM100, (9, 0), "got sm_90; the same schedule for it is sm90"),
        (
            arms.SM90,
            (10, 3),
            "wanted a GPU of sm_90, got sm_103; the same schedule for it is sm100",
        ),
        (arms.SM90, (8, 0), "wanted a GPU of sm_90, got sm_80"),
        (arms.SM100, (10, 0), None),
        (arms.SM90, (9, 0), None),
    ],
)
def test_an_arm_says_on_which_gpu_it_runs(monkeypatch, arm, found, words):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: found is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: found)
    why = arm.unavailable()
    assert why is None if words is None else words in why
    assert arms.simulated(arm).unavailable() is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
@pytest.mark.parametrize("name", ["sm100", "sm90"])
def test_an_explicit_choice_never_falls_back(name):
    with pytest.raises(msa_kernels.ImplementationError, match="wanted a GPU of"):
        msa_kernels.load(name)


def test_records_tell_the_arms_apart():
    names = {msa_kernels.identity(one).name for one in (sm100, sm90)}
    assert names == {"msa_kernels.gluon_ops:sm100", "msa_kernels.gluon_ops:sm90"}


BATCH = Batch((5,), (40,))
Q, K = BATCH.draw(5, 2, 32), BATCH.draw(40, 1, 32)
WRONG = {
    "other-eight-bits": (Q, K.to(torch.float8_e4m3fnuz), {}, TypeError, "k_idx: wanted"),
    "two-dtypes": (Q, K.bfloat16(), {}, TypeError, "k_idx: wanted"),
    "float32": (Q.float(), K.float(), {}, TypeError, "q_idx: wanted one of float16"),
    "dim": (Q[..., :24], K[..., :24], {}, ValueError, "an index dim of 32, 64, 128, got 24"),
    "block": (Q, K, {"block": 48}, ValueError, "a size of 16, 32, 64, 128, got 48"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_no_kernel_takes_is_refused(name):
    q, k, changed, error, words = WRONG[name]
    with pytest.raises(error, match=words):
        scoring.block_scores(SM100, q, k, **(BATCH.packing | changed), scale=1.0)


def test_tensors_elsewhere_are_refused():
    with pytest.raises(ValueError, match="q_idx: wanted a tensor on cuda, got one on cpu"):
        scoring.block_scores(arms.SM100, Q, K, **BATCH.packing, scale=1.0)
