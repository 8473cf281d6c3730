"""The settings of MSA, and how they are read from a MiniMax-M3 configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from msa.checks import require_budget, require_positive


@dataclass(frozen=True, slots=True)
class MSAConfig:
    """Settings of one MSA layer (METHOD: the paper's section 3, MiniMax-M3's text_config).

    Attributes:
        block: tokens per key block, Bk.
        topk: blocks kept per query and group, k; forced blocks take their slots from it.
        local_blocks: newest blocks that are always kept, the query's own among them.
        sink_blocks: first blocks that are always kept (0 in the paper, 1 in the retrofit).
        index_dim: width of the index branch, Di.
        sparse_layers: per layer, whether it is sparse; empty means all of them.

    Raises:
        ValueError: a size below one, k below the forced blocks, or layers that are no bools.
    """

    block: int = 128
    topk: int = 16
    local_blocks: int = 1
    sink_blocks: int = 0
    index_dim: int = 128
    sparse_layers: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        require_positive("block", self.block)
        require_positive("index_dim", self.index_dim)
        require_budget(self.topk, self.local_blocks, self.sink_blocks)
        layers: object = self.sparse_layers
        if not isinstance(layers, tuple) or not all(isinstance(layer, bool) for layer in layers):
            raise ValueError(f"sparse_layers: wanted a tuple of bools, got {layers!r}")

    @classmethod
    def from_m3(cls, settings: Mapping[str, Any]) -> MSAConfig:
        """Read the ``sparse_attention_config`` of a MiniMax-M3 text configuration.

        Raises:
            KeyError: a needed entry is missing; the message names it.
            ValueError: MSA is switched off, the pooling is not a maximum, or an entry is not a
                number that can be; the message names the entry.
        """
        needed = (
            "sparse_index_dim",
            "sparse_topk_blocks",
            "sparse_block_size",
            "sparse_init_block",
            "sparse_local_block",
        )
        missing = [name for name in needed if name not in settings]
        if missing:
            raise KeyError(
                f"sparse_attention_config: wanted {', '.join(needed)}, "
                f"got none of {', '.join(missing)}"
            )
        if not settings.get("use_sparse_attention", True):
            raise ValueError("use_sparse_attention: wanted true, got false")
        pooling = settings.get("sparse_score_type", "max")
        if pooling != "max":
            raise ValueError(f"sparse_score_type: wanted 'max', got {pooling!r}")
        for name in needed:
            if name != "sparse_init_block":
                require_positive(name, settings[name])
        layers = settings.get("sparse_attention_freq", ())
        if not isinstance(layers, list | tuple) or any(layer not in (0, 1) for layer in layers):
            raise ValueError(f"sparse_attention_freq: wanted a list of 0 and 1, got {layers!r}")
        try:
            return cls(
                block=settings["sparse_block_size"],
                topk=settings["sparse_topk_blocks"],
                local_blocks=settings["sparse_local_block"],
                sink_blocks=settings["sparse_init_block"],
                index_dim=settings["sparse_index_dim"],
                sparse_layers=tuple(bool(layer) for layer in layers),
            )
        except ValueError as error:  # the forced blocks, or how many fit beside them
            text = str(error).replace("sink_blocks:", "sparse_init_block:")
            raise ValueError(text.replace("topk:", "sparse_topk_blocks:")) from error

    @property
    def budget_tokens(self) -> int:
        """k * Bk: at or below this context MSA is dense attention."""
        return self.topk * self.block
