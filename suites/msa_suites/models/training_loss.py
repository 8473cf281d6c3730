"""The loss of a training step: text, and the answers to what was asked in it."""

from __future__ import annotations

from torch import Tensor, zeros
from torch.nn import functional as F

from msa_suites.models.training_data import ANSWER, TEXT


def weighted_loss(
    logits: Tensor, tokens: Tensor, kind: Tensor, answer_weight: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean text cross-entropy plus ``answer_weight`` times the mean answer cross-entropy.

    Args:
        logits: ``[B, T, V]``.
        tokens: int64 ``[B, T]``.
        kind: uint8 ``[B, T]``, what each token counts as.
        answer_weight: weight of the answers beside the text.

    Returns:
        total, text and answer loss in nats, and the share of answer bytes predicted right.
    """
    flat = logits[:, :-1].reshape(-1, logits.shape[-1]).float()
    target = tokens[:, 1:].reshape(-1)
    target_kind = kind[:, 1:].reshape(-1)
    nll = F.cross_entropy(flat, target, reduction="none")
    is_text, is_answer = target_kind == TEXT, target_kind == ANSWER
    text = nll[is_text].mean()
    if not bool(is_answer.any()):
        nothing = zeros((), device=logits.device)
        return text, text, nothing, nothing
    answer = nll[is_answer].mean()
    right = (flat[is_answer].argmax(-1) == target[is_answer]).float().mean()
    return text + answer_weight * answer, text, answer, right
