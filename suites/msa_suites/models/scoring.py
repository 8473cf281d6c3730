"""Log-likelihood of continuations, with the work on a shared prompt done once.

Twelve questions to one context share all of it but their last few tokens. The context is read
once into a key-value cache, and each question continues from a copy. Attention is causal, so the
results are those of separate prompts (tests compare them).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from msa_suites.models.attention import Network
from msa_suites.models.reading import Reading

#: A shared prefix shorter than this is not worth a cache.
LEAST_SHARED = 128


@dataclass(frozen=True, slots=True)
class Request:
    """Token ids of a prompt and of the continuation whose likelihood is wanted; both not empty."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]

    @property
    def read(self) -> tuple[int, ...]:
        """What the model reads: everything but the last token, which is only predicted."""
        return (*self.context, *self.continuation[:-1])


@dataclass(frozen=True, slots=True)
class Score:
    """Sum of log-probabilities (nats) and whether every token was the most likely one."""

    log_likelihood: float
    greedy: bool


def shared_length(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the longest common prefix."""
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )


def group_by_prefix(requests: Sequence[Request]) -> list[tuple[int, list[int]]]:
    """Cut the requests into groups that share most of their prompts.

    Returns:
        Per group the length of the shared prefix (0: nothing is shared) and the indices of its
        requests. Every index occurs once. A prefix never covers the last token of a prompt,
        whose logits are needed.
    """
    order = sorted(range(len(requests)), key=lambda i: requests[i].context)
    groups: list[tuple[int, list[int]]] = []
    for index in order:
        context = requests[index].context
        if groups:
            length, members = groups[-1]
            first = requests[members[0]].context
            common = min(shared_length(first, context), len(first) - 1, len(context) - 1)
            common = min(common, length) if length else common
            if common >= LEAST_SHARED and 2 * common >= max(len(first), len(context)):
                groups[-1] = (common, [*members, index])
                continue
        groups.append((0, [index]))
    return groups


@torch.inference_mode()
def score_requests(
    model: Network, requests: Sequence[Request], *, share: bool, chunk: int = 0
) -> Iterator[tuple[int, Score]]:
    """Score every request, in any order.

    Args:
        model: a causal language model of transformers.
        requests: what to score.
        share: read shared prefixes once.
        chunk: tokens read at a time, so that memory does not grow with a prompt; 0 reads it whole.

    Yields:
        Index of a request and its score.
    """
    groups = group_by_prefix(requests) if share else [(0, [i]) for i in range(len(requests))]
    for length, members in groups:
        prefix = Reading(model, chunk=chunk)
        if length:
            prefix.advance(requests[members[0]].context[:length])
        for index in members:
            yield index, _score(prefix.fork(), requests[index], length)


def _score(reading: Reading, request: Request, done: int) -> Score:
    wanted = len(request.continuation)
    likelihood, greedy, at = 0.0, True, 0
    for logits in reading.logits(request.read[done:], keep=wanted, last=True):
        log_p = logits.float().log_softmax(-1)  # [n, V]
        target = torch.tensor(request.continuation[at : at + len(log_p)], device=log_p.device)
        likelihood += float(log_p.gather(-1, target[:, None]).double().sum())
        greedy = greedy and bool((log_p.argmax(-1) == target).all())
        at += len(log_p)
    return Score(log_likelihood=likelihood, greedy=greedy)
