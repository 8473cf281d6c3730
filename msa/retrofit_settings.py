"""Settings of a retrofitted model, and how they live in its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from msa.checks import is_whole, require_budget, require_positive
from msa.scorers import SCORERS, check_scorer

#: Scorers that ask a trained index branch: name -> the scorer its queries and keys go to.
TRAINED: Mapping[str, str] = {"index": "max", "index_mean": "mean"}
_KNOWN = (*SCORERS, *TRAINED)


@dataclass(frozen=True, slots=True)
class RetrofitSettings:
    """Settings of a retrofitted model; each is ``model.config.msa_<name>``.

    Attributes:
        block: tokens per key block.
        topk: blocks kept per query and group; forced blocks take their slots from it.
        local_blocks: newest blocks that are always kept.
        sink_blocks: first blocks that are always kept.
        scorer: name in :data:`msa.scorers.SCORERS`, which asks the mean of a group's query heads,
            or in :data:`TRAINED`, which asks the model's index branch.
        seed: of the scorer ``random``.
        dense_layers: indices of layers that stay dense.

    Raises:
        ValueError: a size below one, k below the forced blocks, an unknown scorer, or what is no
            integer.
    """

    block: int = 128
    topk: int = 16
    local_blocks: int = 1
    sink_blocks: int = 1
    scorer: str = "max"
    seed: int = 0
    dense_layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        require_positive("block", self.block)
        require_budget(self.topk, self.local_blocks, self.sink_blocks)
        check_scorer(self.scorer, _KNOWN)
        if not is_whole(self.seed):
            raise ValueError(f"seed: wanted an int, got {self.seed!r}")
        layers: object = self.dense_layers
        if not isinstance(layers, tuple) or not all(is_whole(layer) for layer in layers):
            raise ValueError(f"dense_layers: wanted a tuple of ints, got {layers!r}")

    @classmethod
    def from_config(cls, config: Any) -> RetrofitSettings:  # noqa: ANN401 - transformers is untyped
        """Read ``config.msa_*``."""
        found = {f.name: getattr(config, f"msa_{f.name}") for f in fields(cls)}
        if isinstance(found["dense_layers"], list):  # what a JSON file makes of a tuple
            found["dense_layers"] = tuple(found["dense_layers"])
        return cls(**found)

    def write(self, config: Any) -> None:  # noqa: ANN401 - transformers is untyped
        """Set ``config.msa_*``, in types that a JSON file can hold."""
        for f in fields(self):
            value = getattr(self, f.name)
            setattr(config, f"msa_{f.name}", list(value) if isinstance(value, tuple) else value)
