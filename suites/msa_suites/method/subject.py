"""What a worker runs of the subject's own msa: nothing here is imported by the judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def _parts(shape: Mapping[str, Any]) -> tuple[Any, Any]:
    """The subject's layer shape and MSA settings."""
    from msa.config import MSAConfig
    from msa.layer import LayerShape

    layer = LayerShape(
        hidden_size=shape["hidden"],
        q_heads=shape["Hq"],
        kv_heads=shape["Hkv"],
        head_dim=shape["D"],
        rotary_dim=shape["rotary"],
        theta=shape["theta"],
        eps=shape["eps"],
    )
    config = MSAConfig(
        block=shape["block"],
        topk=shape["topk"],
        index_dim=shape["Di"],
        local_blocks=shape["local_blocks"],
        sink_blocks=shape["sink_blocks"],
    )
    return layer, config


def _cumulative(lengths: Sequence[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).int()


def prefill(
    implementation: Any,  # noqa: ANN401 - the subject's
    hidden: Sequence[Tensor],
    weights: Mapping[str, Tensor],
    shape: Mapping[str, Any],
) -> tuple[Tensor, Tensor]:
    """Hidden states ``[T, hidden]`` and selection of all sequences in one packed layer."""
    from msa.layer import attention_layer

    layer, config = _parts(shape)
    cu = _cumulative([len(one) for one in hidden])
    found: tuple[Tensor, Tensor] = attention_layer(
        torch.cat(list(hidden)),
        weights,
        cu=cu,
        shape=layer,
        config=config,
        operations=implementation,
    )
    return found


def cached(
    hidden: Sequence[Tensor],
    weights: Mapping[str, Tensor],
    shape: Mapping[str, Any],
    steps: Sequence[int],
    used: bool,
) -> tuple[list[Tensor], list[Tensor]]:
    """The same rows through the paged cache, ``steps`` tokens at a time, all requests together.

    One of two requests is longer than the other by whole pages.

    Args:
        hidden: of every request ``[T, hidden]``.
        weights: of the layer.
        shape: of the layer, as plain data.
        steps: tokens of each step; the rest is appended before, in two chunks.
        used: the pages were used before by other requests, so that they hold what must not be
            read and are taken in another order; else the first request's pages follow each other.

    Returns:
        per sequence, out ``[T', Hq, D]`` and selection of the last ``sum(steps)`` tokens.
    """
    from msa.cache import PagedCache, decode
    from msa.layer import layer_inputs

    layer, config = _parts(shape)
    inputs = [
        layer_inputs(
            one, weights, cu=_cumulative([len(one)]), shape=layer, index_dim=config.index_dim
        )
        for one in hidden
    ]
    pages = sum(-(-len(one) // config.block) for one in hidden) + 2
    cache = PagedCache(
        requests=len(hidden),
        pages=pages,
        kv_heads=layer.kv_heads,
        dim=layer.head_dim,
        index_dim=config.index_dim,
        block=config.block,
    )
    if used:
        _soil(cache, pages, config.block)
    start = [len(one) - sum(steps) for one in hidden]
    for b, x in enumerate(inputs):
        # A first chunk that ends inside a block, and a second that starts there.
        for part in (slice(0, start[b] // 2 + 3), slice(start[b] // 2 + 3, start[b])):
            cache.append(x.k[part], x.v[part], x.k_idx[part], request=b)
    outs: list[list[Tensor]] = [[] for _ in hidden]
    chosen: list[list[Tensor]] = [[] for _ in hidden]
    done = 0
    for step in steps:
        rows = [slice(s + done, s + done + step) for s in start]
        for b, x in enumerate(inputs):
            cache.append(x.k[rows[b]], x.v[rows[b]], x.k_idx[rows[b]], request=b)
        out, _, selection = decode(
            cache,
            torch.stack([x.q[rows[b]] for b, x in enumerate(inputs)]),
            torch.stack([x.q_idx[rows[b]] for b, x in enumerate(inputs)]),
            topk=config.topk,
            local_blocks=config.local_blocks,
            sink_blocks=config.sink_blocks,
            scale=layer.head_dim**-0.5,
            index_scale=config.index_dim**-0.5,
        )
        for b in range(len(hidden)):
            outs[b].append(out[b])
            chosen[b].append(selection[b])
        done += step
    return [torch.cat(one) for one in outs], [torch.cat(one) for one in chosen]


def _soil(cache: Any, pages: int, block: int) -> None:  # noqa: ANN401 - the subject's
    """Fill every page with large numbers and give it back, in an order that is not the first."""
    kv_heads, _, dim = cache.k_pages.shape[1:]
    heads, _, index_dim = cache.index_pages.shape[1:]
    half = pages // 2 * block
    for request, tokens in ((0, half), (1, pages * block - half)):
        big = 50 + torch.arange(tokens).float()[:, None, None]
        cache.append(
            big.expand(-1, kv_heads, dim),
            big.expand(-1, kv_heads, dim),
            big.expand(-1, heads, index_dim),
            request=request,
        )
    for request in (0, 1):
        cache.release(request)


def padded(
    rows: Sequence[Sequence[int]], padding: str
) -> tuple[Tensor, Tensor, Tensor, list[slice]]:
    """Token ids, mask and positions ``[B, L]`` of rows, and where each row is."""
    wide = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), wide, dtype=torch.long)
    mask = torch.zeros_like(ids)
    place = [
        slice(wide - len(row), wide) if padding == "left" else slice(0, len(row)) for row in rows
    ]
    for b, row in enumerate(rows):
        ids[b, place[b]], mask[b, place[b]] = torch.tensor(list(row)), 1
    return ids, mask, (mask.cumsum(1) - 1).clamp_min(0), place


class Retrofitted:
    """The embedded model with the subject's retrofit, asked for logits in several ways."""

    def __init__(self, implementation: Any, model: str = "") -> None:  # noqa: ANN401
        from msa_suites.models.loading import EMBEDDED, load_model

        self.model: Any = load_model(model or str(EMBEDDED))[0]
        self.implementation = implementation

    @torch.inference_mode()
    def logits(
        self,
        rows: Sequence[Sequence[int]],
        *,
        settings: Mapping[str, Any] | None,
        chunks: Sequence[int] = (),
        padding: str = "left",
        static: bool = False,
    ) -> list[Tensor]:
        """Logits ``[length, vocabulary]`` of every row.

        Args:
            rows: token ids; shorter rows are padded.
            settings: of the retrofit; None leaves the model dense.
            chunks: lengths of the pieces the prompt is read in, in padded slots; empty for whole.
            padding: "left" or "right".
            static: read through a static cache.
        """
        from msa.retrofit import apply_retrofit, remove_retrofit
        from msa.retrofit_settings import RetrofitSettings

        if settings is not None:
            apply_retrofit(self.model, RetrofitSettings(**settings), operations=self.implementation)
        try:
            return self._read(rows, chunks, padding, static)
        finally:
            remove_retrofit(self.model)

    def _read(
        self, rows: Sequence[Sequence[int]], chunks: Sequence[int], padding: str, static: bool
    ) -> list[Tensor]:
        from transformers import DynamicCache, StaticCache

        ids, mask, position, place = padded(rows, padding)
        wide = ids.shape[1]
        cache: Any = None
        if static:
            cache = StaticCache(config=self.model.config, max_cache_len=wide + 5)
        elif chunks:
            cache = DynamicCache(config=self.model.config)
        found, start = [], 0
        for size in chunks or (wide,):
            now = slice(start, start + size)
            answer = self.model(
                input_ids=ids[:, now],
                attention_mask=mask[:, : now.stop],
                position_ids=position[:, now],
                past_key_values=cache,
                use_cache=cache is not None,
            )
            found.append(answer.logits)
            start += size
        whole = torch.cat(found, 1).float()
        return [whole[b, where].clone() for b, where in enumerate(place)]
