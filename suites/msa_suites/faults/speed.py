"""Right results, at a price: time, operations, memory."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from msa_suites.faults.code import Code
from msa_suites.faults.table import Given, fault, wrapping

_ATTEND = "msa.fast.pipeline.attend"
_ATTENTION = "msa.fast.attention.sparse_attention"

_leaked: dict[Given, Tensor] = {}


def _two_fifths_slower(call: Callable[[], Given], when: Callable[[Given], bool]) -> Given:
    """The result of a call, late where ``when`` says so of it."""
    start = time.perf_counter()
    result = call()
    if when(result):
        time.sleep(0.4 * (time.perf_counter() - start))
    return result


@fault(
    "speed",
    "work:prefill-4096-low",
    "speed:speed/chunk/4096/low",
    seen="sglang#35731",
    cause="dense",
)
@wrapping(_ATTENTION)
def silently_dense(
    right: Given, q: Tensor, k: Tensor, v: Tensor, selection: Tensor, **rest: Given
) -> Given:
    """All products are computed, and thrown away where the selection does not want them."""
    heads = q.shape[1] // k.shape[1]
    for g in range(k.shape[1]):
        for part in q[:, g * heads : (g + 1) * heads].split(512):
            part.flatten(0, 1).float() @ k[:, g].float().T
    return right(q, k, v, selection, **rest)


@fault(
    "speed",
    "work:decode-8192-low",
    "speed:speed/decode/8192",
    seen="aiconfigurator#1509",
    cause="a copy",
)
@wrapping("msa.fast.decoding.sparse_decode")
def pool_copied_in_every_call(
    right: Given, q: Tensor, k_pages: Tensor, v_pages: Tensor, *rest: Given, **more: Given
) -> Given:
    """The whole cache is copied to another layout and back in every decode."""
    k_pages, v_pages = (
        x.transpose(1, 2).contiguous().transpose(1, 2).contiguous() for x in (k_pages, v_pages)
    )
    return right(q, k_pages, v_pages, *rest, **more)


@fault("speed", "speed:speed/decode/8192", seen="TensorRT-LLM#17721")
@wrapping("msa.fast.decoding.sparse_decode")
def planned_on_the_host_in_every_call(
    right: Given, *tensors: Tensor, page_table: Tensor, **rest: Given
) -> Given:
    """A plan of the pages is made in Python for every call."""
    plan = {(b, i): int(page) for b, row in enumerate(page_table) for i, page in enumerate(row)}
    return right(*tensors, page_table=page_table, **rest) if plan else None


@fault("speed", "work:prefill-4096-low", cause="done twice")
@wrapping("msa.fast.scoring.score_rows")
def scores_computed_twice(right: Given, *args: Given) -> Given:
    """The index branch works twice for one answer."""
    right(*args)
    return right(*args)


@fault("speed", "speed:speed/chunk/8192/low", seen="flashinfer#3655")
@wrapping(_ATTEND)
def slower_beyond_a_length(
    right: Given, q: Tensor, k: Tensor, *tensors: Tensor, **rest: Given
) -> Given:
    """Two fifths slower from 8192 tokens on, as fast as before below."""
    return _two_fifths_slower(lambda: right(q, k, *tensors, **rest), lambda _result: len(k) >= 8192)


@fault("speed", "speed:speed/chunk/4096/low", seen="flashinfer#3655")
@wrapping(_ATTEND)
def slower_at_low_overlap(right: Given, q: Tensor, *tensors: Tensor, **rest: Given) -> Given:
    """Two fifths slower where neighbouring queries choose differently."""

    def apart(result: Given) -> bool:
        late = result[1][len(result[1]) * 3 // 4 :]
        return len(late) > 1 and float((late[1:] == late[:-1]).float().mean()) < 0.5

    return _two_fifths_slower(lambda: right(q, *tensors, **rest), apart)


@fault("speed", "speed:speed/ragged-bfloat16/3700/low")
@wrapping(_ATTEND)
def slow_path_for_one_head_dim(right: Given, q: Tensor, *tensors: Tensor, **rest: Given) -> Given:
    """Two fifths slower with heads of 128 channels, which have lost their kernel."""
    return _two_fifths_slower(
        lambda: right(q, *tensors, **rest), lambda _result: q.shape[-1] == 128
    )


@fault("speed", "work:ragged-dim-128-bfloat16")
@wrapping(_ATTENTION)
def every_key_for_bfloat16(
    right: Given, q: Tensor, k: Tensor, v: Tensor, *rest: Given, **more: Given
) -> Given:
    """In bfloat16 all products of a batch are computed, across its sequences too."""
    if q.dtype == torch.bfloat16:
        q[:, 0].float() @ k[:, 0].float().T
    return right(q, k, v, *rest, **more)


@fault("speed", "work:retrofit", cause="done twice")
@wrapping("msa.retrofit.attention")
def retrofit_computes_dense_too(
    right: Given, module: Given, query: Tensor, key: Tensor, *rest: Given, **more: Given
) -> Given:
    """Every layer computes the products of all pairs and throws them away."""
    query[:, : key.shape[1]] @ key.transpose(-1, -2)
    return right(module, query, key, *rest, **more)


@fault("speed", "work:retrofit", seen="TensorRT-LLM#17721", cause="made again in every layer")
@wrapping("msa.retrofit_attention.Active.packing")
def padding_planned_in_every_layer(right: Given, active: Given, *tensors: Given) -> Given:
    """The plan of a padded batch, which all layers share, is made again by each of them."""
    active.planned = None
    return right(active, *tensors)


@fault("memory", "work:prefill-4096-low", cause="scores and masks of all tokens")
@wrapping(_ATTEND)
def scores_of_all_tokens_held(
    right: Given, q: Tensor, k: Tensor, *tensors: Tensor, **rest: Given
) -> Given:
    """A token by token matrix is held through the call: memory grows with the square."""
    held = torch.empty(len(q), len(k))
    result = right(q, k, *tensors, **rest)
    del held
    return result


@fault("memory", "work:prefill-4096-low", cause="keys for every head")
@wrapping(_ATTENTION)
def keys_repeated_for_every_head(
    right: Given, q: Tensor, k: Tensor, v: Tensor, *rest: Given, **more: Given
) -> Given:
    """Keys and values are expanded to the query heads."""
    heads = q.shape[1] // k.shape[1]
    wide = [x.repeat_interleave(heads, 1) for x in (k, v)]
    result = right(q, k, v, *rest, **more)
    del wide
    return result


@fault("memory", "work:prefill-4096-low", cause="kept after the call")
@wrapping(_ATTEND)
def every_result_kept(right: Given, *tensors: Tensor, **rest: Given) -> Given:
    """A leak: each call adds to what is never let go."""
    result = right(*tensors, **rest)
    _leaked[len(_leaked)] = result[0].clone()
    return result


@fault("memory", "work:retrofit", cause="masks of all tokens")
@wrapping("msa.retrofit.mask")
def mask_of_every_pair(right: Given, *given: Given, **named: Given) -> Given:
    """A mask of every pair of tokens is made where padding would do."""
    pairs = torch.ones(2, 1, 4096, 4096, dtype=torch.bool)
    result = right(*given, **named)
    del pairs
    return result


@fault("memory", "work:cache")
@wrapping("msa.cache.PagedCache.append")
def pool_copied_in_every_append(right: Given, cache: Given, *args: Tensor, **rest: Given) -> None:
    """Every token that comes copies the keys of all others."""
    right(cache, *args, **rest)
    cache.k_pages = cache.k_pages.clone()


@fault("memory", "work:cache")
@wrapping("msa.cache.PagedCache.append")
def pool_copied_for_a_new_page(right: Given, cache: Given, *args: Tensor, **rest: Given) -> None:
    """A token that needs a new page moves the whole pool; all others are free."""
    before = int((cache.page_table >= 0).sum())
    right(cache, *args, **rest)
    if int((cache.page_table >= 0).sum()) > before:
        cache.v_pages = cache.v_pages.clone()


@fault("speed", "work:cache")
def whole_cache_scored_twice(code: Code) -> None:
    """Decoding scores the request's blocks twice for one answer."""
    import msa.cache  # noqa: F401 - what is to be changed must be there

    def make(right: Given) -> Given:
        def twice(*args: Given) -> Given:
            right(*args)
            return right(*args)

        return twice

    code.wrap("msa.fast.scoring.score_rows", make, within="msa.cache")
