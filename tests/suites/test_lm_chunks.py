"""Likelihoods of prompts that are read in chunks, and the families that may be read so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_models import FAMILIES, save_family

from msa_suites.models.attention import MsaSettings, use_dense, use_msa
from msa_suites.models.lm import MsaLM
from msa_suites.models.loading import load_model
from msa_suites.models.reading import Reading
from msa_suites.models.scoring import Request, score_requests

TOKENS = torch.randint(1, 256, (300,), generator=torch.Generator().manual_seed(3)).tolist()
SPARSE = MsaSettings(topk=3, block=16)
REQUESTS = [
    Request(tuple(TOKENS[:200]), tuple(TOKENS[200:202])),
    Request(tuple(TOKENS[:200]), tuple(TOKENS[210:212])),
    # A continuation of several chunks.
    Request(tuple(TOKENS[100:160]), tuple(TOKENS[160:260])),
]


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def network(request, tmp_path_factory):
    return load_model(str(save_family(request.param, tmp_path_factory.mktemp(request.param))))[0]


def scores(network, *, share, chunk):
    found = dict(score_requests(network, REQUESTS, share=share, chunk=chunk))
    return [found[index] for index in range(len(REQUESTS))]


@pytest.mark.parametrize("attention", ["dense", "msa"])
def test_chunks_give_the_scores_of_the_whole(network, attention):
    if attention == "msa":
        use_msa(network, SPARSE)
    else:
        use_dense(network)
    whole = scores(network, share=False, chunk=0)
    for chunk, share in ((64, False), (23, True)):
        found = scores(network, share=share, chunk=chunk)
        assert [s.greedy for s in found] == [s.greedy for s in whole]
        assert [s.log_likelihood for s in found] == pytest.approx(
            [s.log_likelihood for s in whole], abs=2e-3
        )


@torch.inference_mode()
def test_within_the_budget_the_retrofit_is_dense(network):
    ids = torch.tensor([TOKENS[:96]])
    use_dense(network)
    dense = network(ids).logits
    use_msa(network, MsaSettings(topk=6, block=16))
    torch.testing.assert_close(network(ids).logits, dense, rtol=1e-4, atol=1e-4)
    use_msa(network, MsaSettings(topk=3, block=16))
    sparse = network(ids).logits
    assert (sparse - dense)[:, 48:].abs().max() > 1e-2
    torch.testing.assert_close(sparse[:, :48], dense[:, :48], rtol=1e-4, atol=1e-4)
    use_dense(network)


def test_greedy_looks_at_every_chunk(tiny_model_dir):
    network, _ = load_model(str(tiny_model_dir))
    prompt = TOKENS[:50]
    best = []
    for _ in range(9):
        best.append(int(Reading(network, chunk=0).advance(prompt + best).argmax()))
    right = Request(tuple(prompt), tuple(best))
    wrong = Request(tuple(prompt), ((best[0] + 1) % 256, *best[1:]))
    for chunk in (0, 4):
        found = dict(score_requests(network, [right, wrong], share=False, chunk=chunk))
        assert [found[0].greedy, found[1].greedy] == [True, False]


def test_a_fork_does_not_move_what_it_left(tiny_model_dir):
    network, _ = load_model(str(tiny_model_dir))
    reading = Reading(network, chunk=16)
    reading.advance(TOKENS[:40])
    other = reading.fork()
    other.advance(TOKENS[100:140])
    wanted = Reading(network, chunk=0).advance(TOKENS[:50])
    torch.testing.assert_close(reading.advance(TOKENS[40:50]), wanted, rtol=1e-4, atol=1e-4)


def test_the_models_setting_reaches_the_network(tiny_model_dir, monkeypatch):
    model = MsaLM(str(tiny_model_dir), attention="dense", chunk=64)
    lengths = []
    forward = model.model.forward
    monkeypatch.setattr(
        model.model,
        "forward",
        lambda ids, **how: lengths.append(ids.shape[1]) or forward(ids, **how),
    )
    model._loglikelihood_tokens([(("", ""), TOKENS[:200], TOKENS[200:203])])
    assert lengths == [64, 64, 64, 10]


PEAK = """
import resource, sys, torch
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import tempfile
from tiny_models import save_family
from msa_suites.models.attention import MsaSettings, use_msa
from msa_suites.models.loading import load_model
from msa_suites.models.scoring import Request, score_requests
attention, chunk, length = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
# One narrow layer with a wide middle: what a long prompt costs is its activations.
where = save_family("llama", Path(tempfile.mkdtemp()), num_hidden_layers=1, hidden_size=16,
    num_attention_heads=1, num_key_value_heads=1, intermediate_size=2048,
    max_position_embeddings=131072)
model = load_model(str(where))[0]
if attention == "msa":
    use_msa(model, MsaSettings(topk=4, block=128))
tokens = torch.randint(1, 256, (length,)).tolist()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
list(score_requests(model, [Request(tuple(tokens), (1, 2))], share=False, chunk=chunk))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def peak_mib(attention, chunk, length):
    """What scoring one prompt adds to the peak of a fresh process."""
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", PEAK, here, attention, str(chunk), str(length)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-400:]
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["dense", "msa"])
def test_memory_does_not_grow_with_the_prompt(attention):
    whole = peak_mib(attention, 0, 16384)
    assert whole > 300
    assert peak_mib(attention, 512, 16384) < whole / 3
