"""What tests of the suites share."""

from __future__ import annotations

import sys
from functools import wraps
from pathlib import Path

import pytest
import torch

from msa_harness.client import Worker
from msa_harness.forked import share
from msa_suites import session


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random byte-level Qwen2 of two layers with the embedded model's tokenizer."""
    from msa_suites.models.architecture import ModelShape, build_model
    from msa_suites.models.tokenizer import write_tokenizer

    torch.manual_seed(0)
    shape = ModelShape(layers=2, hidden=32, heads=4, kv_heads=2, intermediate=32)
    model = build_model(shape, plain_start=True)
    for parameter in model.parameters():
        # Large enough that attention, and so the choice of blocks, matters to the output.
        torch.nn.init.normal_(parameter, std=0.3)
    directory = tmp_path_factory.mktemp("tiny")
    model.save_pretrained(directory)
    write_tokenizer(directory, max_length=shape.max_positions)
    return directory


@pytest.fixture(autouse=True, scope="session")
def workers_share_their_imports():
    """Hundreds of workers are started here; what a start from nothing does, tests/harness tests."""
    share(["msa_harness.worker", "transformers.models.llama.modeling_llama"])

    @wraps(Worker)
    def start(subject, **how):
        return Worker(subject, **{**how, "forked": subject.python == sys.executable})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "Worker", start)
        yield
