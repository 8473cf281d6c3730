"""Reading a long sequence in chunks, so that memory grows with its cache and with nothing else.

A prompt of 128K tokens that is read whole needs activations for all of them at once; in chunks it
needs those of one chunk. Attention is causal, so the logits are the same but for rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from msa_suites.models.attention import Network

#: Tokens of a chunk where nobody says otherwise.
CHUNK = 4096


class Reading:
    """A causal language model somewhere in a sequence.

    Args:
        model: a causal language model of transformers.
        chunk: tokens read at a time; 0 reads what is fed at once.
    """

    def __init__(self, model: Network, *, chunk: int = CHUNK) -> None:
        self.model = model
        self.chunk = chunk
        self._cache: object | None = None

    def fork(self) -> Reading:
        """A reading that goes on from here without moving this one."""
        other = Reading(self.model, chunk=self.chunk)
        other._cache = copy.deepcopy(self._cache)
        return other

    @torch.inference_mode()
    def logits(self, tokens: Sequence[int], *, keep: int, last: bool = False) -> Iterator[Tensor]:
        """Read ``tokens``, which must not be empty; nothing is read unless this is iterated.

        Args:
            tokens: ids, the next ones of the sequence.
            keep: positions at the end of ``tokens`` whose logits are wanted, at least one.
            last: nothing will be read after these, so no cache need be kept for it.

        Yields:
            Logits ``[n, V]`` of the wanted positions in order, ``keep`` of them in all.
        """
        step = self.chunk or len(tokens)
        starts = range(0, len(tokens), step)
        cached = self._cache is not None or len(starts) > 1 or not last
        for start in starts:
            piece = tokens[start : start + step]
            wanted = min(len(piece), keep - (len(tokens) - start - len(piece)))
            output = self.model(
                torch.tensor([piece], dtype=torch.long, device=self.model.device),  # [1, n]
                past_key_values=self._cache,
                use_cache=cached,
                # 0 would mean the logits of every position.
                logits_to_keep=max(wanted, 1),
            )
            self._cache = output.past_key_values if cached else None
            if wanted > 0:
                yield output.logits[0]

    def advance(self, tokens: Sequence[int]) -> Tensor:
        """Read ``tokens``, which must not be empty: the logits ``[V]`` of what comes next."""
        *_, after = self.logits(tokens, keep=1)
        return after[-1]
