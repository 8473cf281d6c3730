"""lm-eval's model class for MSA: a Hugging Face model whose attention can be flipped.

Registered as ``msa``. One weight load serves dense and sparse attention: :meth:`MsaLM.attend`.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM

from msa_suites.models.attention import MsaSettings, use_dense, use_msa
from msa_suites.models.loading import EMBEDDED, load_model
from msa_suites.models.scoring import Request, Score, score_requests
from msa_suites.quality.errors import QualityInvalid

ATTENTIONS = ("msa", "dense")
_SETTINGS = frozenset(field.name for field in fields(MsaSettings))

#: What lm-eval hands to :meth:`MsaLM._loglikelihood_tokens`.
Encoded = tuple[tuple[str, str], list[int], list[int]]


@register_model("msa")
class MsaLM(HFLM):  # type: ignore[misc]  # lm-eval ships no types
    """A causal language model with dense or sparse attention.

    Args:
        pretrained: model directory or hub id; empty means the embedded model.
        attention: ``msa`` or ``dense``.
        device: a torch device.
        dtype: dtype of the weights.
        share_prefix: read the prompt that several questions share only once.
        batch_size: accepted for lm-eval's sake; prompts are read one at a time, because padding
            would move the blocks of a sequence.
        arguments: fields of :class:`MsaSettings`, and whatever else HFLM takes.
    """

    def __init__(
        self,
        pretrained: str = "",
        *,
        attention: str = "msa",
        device: str | None = "cpu",
        dtype: str = "float32",
        share_prefix: bool = True,
        batch_size: int | str | None = 1,
        **arguments: Any,  # noqa: ANN401 - lm-eval passes whatever its command line was given
    ) -> None:
        given = {name: arguments.pop(name) for name in _SETTINGS & arguments.keys()}
        self.settings = MsaSettings.from_mapping(given)
        self.share_prefix = share_prefix
        model, tokenizer = load_model(
            pretrained or str(EMBEDDED), device=device or "cpu", dtype=dtype
        )
        del batch_size
        super().__init__(
            pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=1, **arguments
        )
        self.attention = ""
        self.attend(attention)

    def attend(self, attention: str, settings: MsaSettings | None = None) -> None:
        """Switch to ``dense`` attention or to ``msa``, with other settings if any are given.

        Raises:
            ValueError: no such attention.
        """
        if attention not in ATTENTIONS:
            raise ValueError(f"attention: wanted one of {', '.join(ATTENTIONS)}, got {attention!r}")
        self.settings = settings or self.settings
        if attention == "msa":
            use_msa(self.model, self.settings)
        else:
            use_dense(self.model)
        self.attention = attention

    def check_request(self, request: Request) -> None:
        """Refuse a prompt that would be cut, or that is too short for any block to be dropped.

        Raises:
            QualityInvalid: with the lengths.
        """
        length = len(request.read)
        if length > self.max_length:
            raise QualityInvalid(
                f"prompt: wanted at most {self.max_length} tokens (the model's maximum), "
                f"got {length}: it would be cut"
            )
        if self.attention == "msa" and length <= self.settings.budget:
            raise QualityInvalid(
                f"context: wanted more than topk * block = {self.settings.budget} tokens, "
                f"got {length}: MSA equals dense attention there"
            )

    def _loglikelihood_tokens(
        self,
        requests: list[Encoded],
        disable_tqdm: bool = False,  # noqa: ARG002 - lm-eval's signature
        override_bs: int | None = None,  # noqa: ARG002
    ) -> list[tuple[float, bool]]:
        wanted = [Request(tuple(context), tuple(rest)) for _, context, rest in requests]
        for request in wanted:
            self.check_request(request)
        found: dict[int, Score] = {}
        for index, score in score_requests(self.model, wanted, share=self.share_prefix):
            found[index] = score
            result = (score.log_likelihood, score.greedy)
            self.cache_hook.add_partial("loglikelihood", requests[index][0], result)
        return [(found[i].log_likelihood, found[i].greedy) for i in range(len(requests))]
