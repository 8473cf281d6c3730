"""Views whose rows lie so far apart that offsets pass 2^31 elements."""

from __future__ import annotations

import torch
from kernel_batches import Shape

_FAR = 2**31
SHAPE = Shape((3, 2), (40, 20), groups=2, share=2, dim=32, index_dim=16, topk=2)


def far_apart(x, folder):
    """The same values, rows so far apart that the last begins 2^31 elements behind the first."""
    stride = _FAR // (len(x) - 1) + x[0].numel()
    size = (len(x) - 1) * stride + x[0].numel()
    path = folder / f"far-{len(list(folder.iterdir()))}"
    store = torch.from_file(str(path), shared=True, size=size, dtype=x.dtype)
    path.unlink()  # mapped all the same, and gone with the mapping
    inner = torch.empty(x.shape[1:]).stride()
    view = store.as_strided(x.shape, (stride, *inner))
    view.copy_(x)
    return view
