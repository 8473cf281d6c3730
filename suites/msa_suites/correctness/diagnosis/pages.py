"""Mistakes in reading a paged cache, each played through with the specification."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from msa import reference
from msa_suites.correctness.diagnosis.evidence import Evidence
from msa_suites.correctness.subject import Arguments

#: Where the pages stand among the tensors of an operation.
_STORES = {"sparse_decode": (1, 2), "paged_block_scores": (1,), "attend_paged": (2, 3, 4)}
_CLOSE = 0.03
#: Tokens of all requests that are played through at all.
_MOST = 200_000

Change = Callable[[list[Tensor], tuple[int, ...], dict[str, Any]], None]


def _tokens_first(tensors: list[Tensor], stores: tuple[int, ...], keywords: dict[str, Any]) -> None:
    def read(x: Tensor) -> Tensor:
        pages, heads, block, dim = x.shape
        return x.reshape(pages, block, heads, dim).transpose(1, 2).contiguous()

    for i in stores:
        tensors[i] = read(tensors[i])
    for name in _scales(keywords):
        keywords[name] = read(keywords[name])


def _first_table(_: list[Tensor], __: tuple[int, ...], keywords: dict[str, Any]) -> None:
    keywords["page_table"] = keywords["page_table"][:1].expand_as(keywords["page_table"])


def _in_order(_: list[Tensor], __: tuple[int, ...], keywords: dict[str, Any]) -> None:
    keywords["page_table"] = keywords["page_table"].sort(1).values


def _whole_pages(tensors: list[Tensor], stores: tuple[int, ...], keywords: dict[str, Any]) -> None:
    block = tensors[stores[0]].shape[2]
    keywords["k_lens"] = (keywords["k_lens"] + block - 1) // block * block


def _next_page(_: list[Tensor], __: tuple[int, ...], keywords: dict[str, Any]) -> None:
    keywords["page_table"] = keywords["page_table"].roll(-1, 1)


def _one_factor(_: list[Tensor], __: tuple[int, ...], keywords: dict[str, Any]) -> None:
    scales = _scales(keywords)
    for name, value in keywords.items():
        if name in scales:
            keywords[name] = value[:, :1].expand_as(value).contiguous()
        elif name.endswith("_descale"):
            keywords[name] = value[:1].expand_as(value).contiguous()


def _scales(keywords: dict[str, Any]) -> list[str]:
    """Names of the scales of NVFP4 among the factors, which lie as the pages do."""
    return [name for name, x in keywords.items() if name.endswith("_descale") and x.ndim > 1]


def _last_position(tensors: list[Tensor], _: tuple[int, ...], keywords: dict[str, Any]) -> None:
    """Every query of a request becomes a request of its own, whose newest it is."""
    each = tensors[0].shape[1]
    for i, x in enumerate(tensors):
        if x.shape[:2] == tensors[0].shape[:2] and i:
            tensors[i] = x.flatten(0, 1)[:, None]
    tensors[0] = tensors[0].flatten(0, 1)[:, None]
    for name in ("page_table", "k_lens"):
        keywords[name] = keywords[name].repeat_interleave(each, 0)


MISTAKES: tuple[tuple[str, Change], ...] = (
    ("pages are read tokens first (NHD) instead of heads first (HND)", _tokens_first),
    ("every request reads the page table of the first", _first_table),
    ("pages are read in the order of their numbers, not of the page table", _in_order),
    ("the tail of the last page, behind the newest token, is read", _whole_pages),
    ("the page table is read one entry late", _next_page),
    ("the factor of the first head serves all heads", _one_factor),
    ("every query of a request is taken for its newest, on the last key", _last_position),
)


def cause(evidence: Evidence) -> str:
    """The mistake that gives the same numbers, NaN where it has NaN; or ""."""
    assert evidence.paged is not None
    operation, arguments = evidence.paged
    got = evidence.scores if operation == "paged_block_scores" else evidence.out
    if got is None or operation == "attend_paged":
        return ""
    lengths = arguments[1]["k_lens"]
    if not isinstance(lengths, Tensor) or int(lengths.sum()) > _MOST:
        return ""
    right = _played(operation, arguments, None)
    if right is None or _same(right, got):
        return ""
    for words, change in MISTAKES:
        wrong = _played(operation, arguments, change)
        if wrong is not None and not _same(wrong, right) and _same(wrong, got):
            return words
    return ""


def _played(operation: str, arguments: Arguments, change: Change | None) -> Tensor | None:
    """What the specification gives with changed arguments, rows first; None where it refuses."""
    tensors, keywords = list(arguments[0]), dict(arguments[1])
    try:
        if change is not None:
            change(tensors, _STORES[operation], keywords)
        result = getattr(reference, operation)(*tensors, **keywords)
    except (ValueError, TypeError, IndexError, RuntimeError):
        return None  # arguments that make no sense: nobody's mistake
    found: Tensor = result if isinstance(result, Tensor) else result[0]
    return found.flatten(0, 1)


def _same(a: Tensor, b: Tensor) -> bool:
    """Equal to a few per cent, with NaN and infinities in the same places."""
    width = min(a.shape[-1], b.shape[-1])
    a, b = a[..., :width].double(), b[..., :width].double()
    if a.shape != b.shape:
        return False
    finite = a.isfinite()
    if not torch.equal(finite, b.isfinite()):
        return False
    return bool((a[finite] - b[finite]).norm() <= _CLOSE * a[finite].norm())
