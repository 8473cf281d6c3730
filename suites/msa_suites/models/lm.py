"""lm-eval's model class for MSA: a Hugging Face model whose attention can be flipped.

Registered as ``msa``. One weight load serves dense and sparse attention: :meth:`MsaLM.attend`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM

from msa_suites.models.attention import MsaSettings, settings_for, use_dense, use_msa
from msa_suites.models.generation import Wanted, generate, to_text
from msa_suites.models.loading import EMBEDDED, load_model
from msa_suites.models.options import check_batch_size, check_chunk, sort_options
from msa_suites.models.reading import CHUNK
from msa_suites.models.scoring import Request, Score, score_requests
from msa_suites.quality.errors import QualityInvalid

ATTENTIONS = ("msa", "dense")

#: What lm-eval hands to :meth:`MsaLM._loglikelihood_tokens`.
Encoded = tuple[tuple[str, str], list[int], list[int]]


@register_model("msa")
class MsaLM(HFLM):  # type: ignore[misc]  # lm-eval ships no types
    """A causal language model with dense or sparse attention.

    Args:
        pretrained: model directory or hub id; empty means the embedded model.
        attention: ``msa`` or ``dense``. A model with MSA of its own (MiniMax-M3) has it by ``msa``,
            and keeps every block by ``dense``; any other is retrofitted.
        device: a torch device, unless there is a ``device_map``.
        dtype: dtype of the weights; ``auto`` is that of the checkpoint.
        share_prefix: read the prompt that several questions share only once.
        chunk: tokens of a prompt read at a time, which bounds the memory; 0 reads it whole.
        batch_size: accepted for lm-eval's sake; prompts are read one at a time, because padding
            would move the blocks of a sequence.
        arguments: fields of :class:`MsaSettings`, and options of HFLM:
            :mod:`msa_suites.models.options` says which.

    Raises:
        ValueError: an option that is unknown or not honoured, by name.
        FileNotFoundError: there is no such model.
    """

    def __init__(
        self,
        pretrained: str = "",
        *,
        attention: str = "msa",
        device: str | None = "cpu",
        dtype: str | torch.dtype = "float32",
        share_prefix: bool = True,
        chunk: int = CHUNK,
        batch_size: int | str | None = 1,
        **arguments: Any,  # noqa: ANN401 - lm-eval passes whatever its command line was given
    ) -> None:
        check_batch_size(batch_size)
        self.chunk = check_chunk(chunk)
        self.share_prefix = share_prefix
        options = sort_options(arguments)
        model, tokenizer = load_model(
            pretrained or str(EMBEDDED), device=device or "cpu", dtype=dtype, **options.loading
        )
        super().__init__(
            pretrained=model,
            tokenizer=tokenizer,
            backend="causal",
            batch_size=1,
            # For lm-eval's record of the run.
            revision=options.loading.get("revision", "main"),
            **options.hflm,
        )
        self.settings = settings_for(model, options.settings)
        self.attention = ""
        self.attend(attention)

    def attend(self, attention: str, settings: MsaSettings | None = None) -> None:
        """Switch to ``dense`` attention or to ``msa``, with other settings if any are given.

        Raises:
            ValueError: no such attention, or settings that the model cannot have.
        """
        if attention not in ATTENTIONS:
            raise ValueError(f"attention: wanted one of {', '.join(ATTENTIONS)}, got {attention!r}")
        if settings is not None:
            self.settings = settings_for(self.model, settings.as_dict())
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
        self._check_length(len(request.read), self.max_length, "the model's maximum")

    def _check_length(self, length: int, most: int, what: str) -> None:
        if length > most:
            raise QualityInvalid(
                f"prompt: wanted at most {most} tokens ({what}), got {length}: it would be cut"
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
        scored = score_requests(self.model, wanted, share=self.share_prefix, chunk=self.chunk)
        for index, score in scored:
            found[index] = score
            result = (score.log_likelihood, score.greedy)
            self.cache_hook.add_partial("loglikelihood", requests[index][0], result)
        return [(found[i].log_likelihood, found[i].greedy) for i in range(len(requests))]

    def generate_until(
        self,
        requests: list[Instance],
        disable_tqdm: bool = False,  # noqa: ARG002 - lm-eval's signature
    ) -> list[str]:
        """Continue every context greedily, to a stop string, an end, or a number of tokens.

        Args:
            requests: with arguments ``(context, generation_kwargs)``; all are checked first.
            disable_tqdm: of no meaning here.

        Returns:
            Texts in the order of the requests, without their stops.

        Raises:
            QualityInvalid: a prompt and its text would not fit, or no block would be dropped.
            ValueError: sampling, an unknown setting of generation, or an empty prompt.
        """
        asked = [self._to_generate(*request.args) for request in requests]
        texts = []
        for request, (prompt, wanted) in zip(requests, asked, strict=True):
            written = generate(self.model, self.tokenizer, prompt, wanted, chunk=self.chunk)
            text = to_text(self.tokenizer, written, wanted.stops, think_end=self.think_end_token)
            self.cache_hook.add_partial("generate_until", request.args, text)
            texts.append(text)
        return texts

    def _to_generate(self, context: str, given: Mapping[str, Any]) -> tuple[list[int], Wanted]:
        """Ids of a checked prompt, by lm-eval's rule for special tokens, and where to end."""
        eos = None
        if self.eot_token_id is not None:
            eos = self.tok_decode(self.eot_token_id, skip_special_tokens=False)
        wanted = Wanted.from_task(given, most=self.max_gen_toks, eos=eos)
        prompt: list[int] = self.tok_batch_encode([context])[0][0].long().tolist()
        if not prompt:
            raise ValueError(f"context: wanted at least one token, got none in {context!r}")
        room = f"the model's maximum {self.max_length} less {wanted.most} to be generated"
        self._check_length(len(prompt), self.max_length - wanted.most, room)
        return prompt, wanted
