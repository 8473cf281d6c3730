"""Random weights of a layer, for tests of it."""

from __future__ import annotations

import torch


def random_weights(shape, index_dim, seed):
    """Norm weights are not zero: with zero weights a wrong ``1 + w`` could not be seen."""
    draw = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(size, generator=draw) * (0.3 if len(size) == 1 else size[-1] ** -0.5)
        for name, size in shape.weight_shapes(index_dim).items()
    }
