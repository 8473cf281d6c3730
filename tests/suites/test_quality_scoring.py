from __future__ import annotations

import pytest
import torch

from msa_suites.models.attention import MsaSettings, use_dense, use_msa
from msa_suites.models.loading import load_model
from msa_suites.models.scoring import (
    LEAST_SHARED,
    Request,
    group_by_prefix,
    score_requests,
    shared_length,
)
from msa_suites.quality.items import load_items

LENGTH = 500


@pytest.fixture(scope="module")
def model(tiny_model_dir):
    return load_model(str(tiny_model_dir))[0]


@pytest.fixture
def dense(model):
    use_dense(model)
    yield model
    use_dense(model)


def requests_of(task, count):
    """Requests on the ends of the contexts, to be quick."""
    return [
        Request(
            tuple((item.context[-LENGTH:] + item.question).encode()), tuple(item.answer.encode())
        )
        for item in load_items(task)[:count]
    ]


def scores(model, requests, *, share):
    found = dict(score_requests(model, requests, share=share))
    return [found[i] for i in range(len(requests))]


def test_one_score_is_the_sum_of_log_probabilities(dense):
    request = Request(tuple(b"some words of text"), tuple(b" and more"))
    logits = (
        dense(torch.tensor([[*request.context, *request.continuation]])).logits[0].log_softmax(-1)
    )
    start = len(request.context) - 1
    wanted = sum(float(logits[start + i, t]) for i, t in enumerate(request.continuation))
    [(index, score)] = score_requests(dense, [request], share=True)
    assert index == 0
    assert score.log_likelihood == pytest.approx(wanted, abs=1e-4)
    best = int(logits[start].argmax())
    [(_, sure)] = score_requests(dense, [Request(request.context, (best,))], share=True)
    assert sure.greedy
    assert not score.greedy


@pytest.mark.parametrize("task", ["msa_facts", "msa_niah_multiquery", "msa_niah_multivalue"])
@pytest.mark.parametrize("attention", ["dense", "msa", "random"])
def test_shared_prefix_gives_the_scores_of_separate_prompts(dense, task, attention):
    if attention != "dense":
        scorer = "max" if attention == "msa" else attention
        use_msa(dense, MsaSettings(scorer=scorer))
    requests = requests_of(task, 4)
    shared = scores(dense, requests, share=True)
    separate = scores(dense, requests, share=False)
    assert [s.greedy for s in shared] == [s.greedy for s in separate]
    for one, other in zip(shared, separate, strict=True):
        assert one.log_likelihood == pytest.approx(other.log_likelihood, abs=1e-3)


def test_sparse_attention_changes_the_scores(dense):
    requests = requests_of("msa_facts", 2)
    before = scores(dense, requests, share=True)
    use_msa(dense, MsaSettings(topk=2))
    after = scores(dense, requests, share=True)
    assert abs(before[0].log_likelihood - after[0].log_likelihood) > 1e-3
    use_dense(dense)
    assert scores(dense, requests, share=True) == before


def test_questions_to_one_context_are_one_group():
    requests = requests_of("msa_facts", 24)
    groups = group_by_prefix(requests)
    assert sorted(i for _, members in groups for i in members) == list(range(24))
    assert sorted(len(members) for _, members in groups) == [12, 12]
    for length, members in groups:
        assert length >= LENGTH
        prefixes = {requests[i].context[:length] for i in members}
        assert len(prefixes) == 1
        assert all(length < len(requests[i].context) for i in members)


def test_unlike_and_short_prompts_are_read_separately():
    short = [Request(tuple(b"abc" * 20 + bytes([i])), (1,)) for i in range(3)]
    unlike = [Request((i,) * 400, (1,)) for i in range(3)]
    assert all(length == 0 for length, _ in group_by_prefix([*short, *unlike]))


def test_equal_prompts_keep_their_last_token():
    prompt = tuple(range(2)) * LEAST_SHARED
    [(length, members)] = group_by_prefix([Request(prompt, (1,)), Request(prompt, (2,))])
    assert length == len(prompt) - 1
    assert sorted(members) == [0, 1]


def test_shared_length():
    assert shared_length((1, 2, 3), (1, 2, 4)) == 2
    assert shared_length((1, 2), (1, 2, 4)) == 2
    assert shared_length((), (1,)) == 0
