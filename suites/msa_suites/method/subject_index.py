"""What a worker runs of the subject's trained index branch inside a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from msa_suites.method.subject import Retrofitted, padded


class Indexed(Retrofitted):
    """The embedded model with the subject's index branches, filled with weights of the judge.

    Args:
        implementation: the subject's.
        weights: of the index branches, by their names in the model.
        shape: of a branch, as plain data.
    """

    def __init__(
        self,
        implementation: Any,  # noqa: ANN401 - the subject's
        weights: Mapping[str, Tensor],
        shape: Mapping[str, Any],
    ) -> None:
        from msa.retrofit_index import IndexShape, attach_index, load_index

        super().__init__(implementation)
        layers = range(self.model.config.num_hidden_layers)
        attach_index(self.model, IndexShape(**shape), layers)
        load_index(self.model, weights)

    @torch.enable_grad()
    def learn(
        self,
        rows: Sequence[Sequence[int]],
        *,
        settings: Mapping[str, Any],
        phase: str,
        text_weights: Sequence[str],
    ) -> dict[str, Any]:
        """One training step of a batch padded on the left, without a step.

        Args:
            rows: token ids.
            settings: of the retrofit.
            phase: of the alignment.
            text_weights: names of weights that the text's loss is differentiated by.

        Returns:
            ``losses`` of every layer; ``index``, the gradients of their sum by the weights of the
            index branches, and ``elsewhere``, its largest gradient by any other weight; ``text``,
            gradients of the loss of the next token.
        """
        from msa.alignment import Alignment
        from msa.retrofit import apply_retrofit
        from msa.retrofit_index import index_state
        from msa.retrofit_settings import RetrofitSettings

        alignment = Alignment(phase)
        named = dict(self.model.requires_grad_(True).named_parameters())
        ids, mask, position, place = padded(rows, "left")
        with apply_retrofit(
            self.model,
            RetrofitSettings(**settings),
            operations=self.implementation,
            alignment=alignment,
        ):
            answer = self.model(
                input_ids=ids, attention_mask=mask, position_ids=position, use_cache=False
            ).logits
            said = torch.cat([answer[b, where][:-1] for b, where in enumerate(place)])
            meant = torch.cat([ids[b, where][1:] for b, where in enumerate(place)])
            text = torch.nn.functional.cross_entropy(said, meant)
            by_index = _gradients(alignment.total(), named)
            by_text = _gradients(text, {name: named[name] for name in text_weights})
        own = set(index_state(self.model))
        other = [float(grad.abs().max()) for name, grad in by_index.items() if name not in own]
        return {
            "losses": [alignment.losses[layer].detach() for layer in sorted(alignment.losses)],
            "index": {name: grad for name, grad in by_index.items() if name in own},
            "elsewhere": max(other, default=0.0),
            "text": by_text,
        }


def _gradients(loss: Tensor, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gradients by name; what the loss does not depend on is left out."""
    found: tuple[Tensor | None, ...] = torch.autograd.grad(
        loss, list(named.values()), retain_graph=True, allow_unused=True
    )
    return {name: grad for name, grad in zip(named, found, strict=True) if grad is not None}
