"""Wrong calls: a right one with one argument broken, and the names that the refusal may open with.

A size that two arguments share is wrong in either, so either may be named.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

INTEGERS = ("selection", "page_table", "k_lens")
TOTALS = ("cu_q", "cu_k")
COUNTS = ("block", "topk", "local_blocks")
FACTORS = ("scale", "index_scale")
#: What each axis counts. Sizes of one name must agree; Hq is a multiple of Hkv.
AXES = {
    "q": "Tq Hq D",
    "k": "Tk Hkv D",
    "v": "Tk Hkv D",
    "q_idx": "Tq Hkv Di",
    "k_idx": "Tk Hi Di",
    "scores": "Tq Hkv NB",
    "selection": "Tq Hkv topk",
    "outs": "n Tq Hq D",
    "lses": "n Tq Hq",
}
PAGED_AXES = {
    "q": "B Q Hq D",
    "k_pages": "P Hkv block D",
    "v_pages": "P Hkv block D",
    "selection": "B Q Hkv topk",
    "page_table": "B W",
    "k_lens": "B",
}
#: Sizes that may be zero: a batch without a query, or without a key.
_MAY_BE_ZERO = ("Tq", "Tk", "NB")


class Broken(NamedTuple):
    """A wrong call.

    ``names`` are those of its arguments that the refusal may open with.
    """

    what: str
    call: dict[str, object]
    names: frozenset[str]


@dataclass(frozen=True)
class Given:
    """A right call and what its axes count."""

    call: dict[str, object]
    axes: dict[str, list[str]]

    def sharing(self, axis: str) -> frozenset[str]:
        found = {name for name, mine in self.axes.items() if axis in mine}
        if axis == "Tq":
            found |= {"cu_q"}
        if axis == "Tk":
            found |= {"cu_k"}
        if axis in ("Hq", "Hkv"):
            found |= {name for name, mine in self.axes.items() if {"Hq", "Hkv"} & set(mine)}
        return frozenset(found & set(self.call))

    def broken(self, what: str, names: frozenset[str] | str, **changed: object) -> Broken:
        some = frozenset([names]) if isinstance(names, str) else names
        return Broken(what, {**self.call, **changed}, some)


def given(call: dict[str, object], paged: bool = False) -> Given:
    table = PAGED_AXES if paged else AXES
    axes = {name: table[name].split() for name in call if name in table}
    if "k_idx" in axes:
        heads = call["k_idx"].shape[1]
        axes["k_idx"][1] = "Hkv" if heads > 1 else "one"
    return Given(call, axes)


def breakages(right: Given) -> Iterator[Broken]:
    """Every way to break the call that :mod:`fuzz_breaking` knows, each wrong beyond doubt."""
    for name, value in right.call.items():
        if isinstance(value, Tensor) and name not in TOTALS:
            yield from _tensor(right, name, value)
    for axis in sorted({axis for mine in right.axes.values() for axis in mine}):
        if axis not in (*_MAY_BE_ZERO, "one", "W"):
            yield _without(right, axis)
    for name in TOTALS:
        if name in right.call:
            yield from _totals(right, name, right.call[name])
    for name in (*COUNTS, "sink_blocks"):
        if name in right.call:
            yield from _count(right, name)
    for name in FACTORS:
        if name in right.call:
            for wrong in (float("nan"), float("inf"), -float("inf"), None, "1", True, 10**400, 1j):
                yield right.broken(f"{name} {wrong!r:.9}", name, **{name: wrong})
    if "page_table" in right.call:
        yield from _pages(right)


def _tensor(right: Given, name: str, x: Tensor) -> Iterator[Broken]:
    for wrong in (None, 3.0, "text", [0.0], (), object):
        yield right.broken(f"{name} is {wrong!r:.9}", name, **{name: wrong})
    dtypes = [torch.bool, torch.complex64, torch.uint8, torch.int64]
    dtypes += [torch.float32] if name in INTEGERS else [torch.int32]
    for dtype in dtypes:
        yield right.broken(f"{name} of {dtype}", name, **{name: x.real.to(dtype)})
    if name not in INTEGERS:
        like = {"q", "k", "v", "k_pages", "v_pages"}
        partners = next(
            (s for s in (like, {"q_idx", "k_idx"}, {"outs", "lses"}) if name in s), set()
        )
        other = torch.float16 if x.dtype != torch.float16 else torch.bfloat16
        yield right.broken(
            f"{name} of {other}",
            frozenset({name} | partners & set(right.call)),
            **{name: x.to(other)},
        )
    names = frozenset({name}).union(*(right.sharing(axis) for axis in right.axes[name]))
    yield right.broken(f"{name} with an axis more", names, **{name: x[None]})
    yield right.broken(f"{name} without an axis", names, **{name: x.sum().to(x.dtype)})
    if x.ndim > 1:
        yield right.broken(f"{name} flat", names, **{name: x.flatten(0, 1)})
    for at, axis in enumerate(right.axes[name]):
        for size in sorted({x.shape[at] - 1, x.shape[at] + 1} & set(range(1, 99))):
            if _matters(right, name, axis, size):
                yield right.broken(
                    f"{name} with {axis} {size}",
                    right.sharing(axis),
                    **{name: resized(x, at, size)},
                )


def _matters(right: Given, name: str, axis: str, size: int) -> bool:
    """Whether one argument alone with another size is wrong."""
    if name == "k_idx" and axis == "Hkv" and size == 1:  # one index key head for all groups
        return False
    if axis == "Hq" and "lses" not in right.call:  # only its share of the groups is bound
        return (
            size
            % next(
                x.shape[right.axes[n].index("Hkv")]
                for n, x in right.call.items()
                if "Hkv" in right.axes.get(n, ()) and n != "q"
            )
            != 0
        )
    if axis in ("Tq", "Tk"):
        return True
    if axis == "one":  # one index key head for all groups, or one for each
        return size != right.call["q_idx"].shape[1]
    if axis == "NB":
        return size < right.call["scores"].shape[2]
    return len([n for n in right.sharing(axis) if axis in right.axes[n]]) > 1


def resized(x: Tensor, at: int, size: int) -> Tensor:
    """Cut, or filled with zeros, to ``size`` along an axis."""
    wide = x.new_zeros([size if i == at else n for i, n in enumerate(x.shape)])
    least = min(size, x.shape[at])
    wide.narrow(at, 0, least).copy_(x.narrow(at, 0, least))
    return wide


def _without(right: Given, axis: str) -> Broken:
    """A size of zero in every argument that has it."""
    changed = {
        name: resized(right.call[name], mine.index(axis), 0)
        for name, mine in right.axes.items()
        if axis in mine
    }
    return right.broken(f"{axis} 0 everywhere", right.sharing(axis), **changed)


def _totals(right: Given, name: str, cu: Tensor) -> Iterator[Broken]:
    for wrong in (None, 7, "text", cu.tolist(), cu.long(), cu.float(), cu[None], cu[:1], cu[0]):
        yield right.broken(f"{name} is {wrong!r:.20}", name, **{name: wrong})
    both = frozenset(TOTALS)
    rows = right.sharing("Tq" if name == "cu_q" else "Tk") | both
    yield right.broken(f"{name} starts at 1", name, **{name: cu + 1 - (cu > 0).int()})
    yield right.broken(f"{name} falls", both, **{name: torch.cat([cu, cu[:1] - 1])})
    yield right.broken(f"{name} with a sequence more", both, **{name: torch.cat([cu, cu[-1:]])})
    bound = len(rows - both) > 0
    if bound:
        yield right.broken(f"{name} ends too late", rows, **{name: _ended(cu, 1)})
    if bound and cu[-1] > cu[-2]:
        yield right.broken(f"{name} ends too soon", rows, **{name: _ended(cu, -1)})
    queries = right.call["cu_q"].diff()
    if name == "cu_k" and len(cu) > 2 and int(queries[0]) > 0:
        short = cu.clone()
        short[1] = int(queries[0]) - 1
        if bool((short.diff() >= 0).all()):
            yield right.broken("fewer keys than queries", both | {"scores"}, cu_k=short)


def _ended(cu: Tensor, by: int) -> Tensor:
    moved = cu.clone()
    moved[-1] += by
    return moved


def _count(right: Given, name: str) -> Iterator[Broken]:
    least = 0 if name == "sink_blocks" else 1
    for wrong in (least - 1, -(10**9), True, 2.0, "4", None, 10**3 if name in COUNTS[2:] else 1.5):
        budget = name in ("local_blocks", "sink_blocks")
        names = frozenset({name, "topk"} if budget and wrong == 10**3 else {name})
        yield right.broken(f"{name} {wrong!r}", names, **{name: wrong})
    if name == "sink_blocks":
        yield right.broken("sinks above k", frozenset({name, "topk"}), sink_blocks=10**6)


def _pages(right: Given) -> Iterator[Broken]:
    table, lens, pages = (right.call[n] for n in ("page_table", "k_lens", "k_pages"))
    last, block = len(lens) - 1, pages.shape[2]
    both = frozenset({"page_table", "k_lens"})
    for wrong in (-1, len(pages), 2**31 - 1):
        bad = table.clone()
        bad[last, -(-int(lens[last]) // block) - 1] = wrong
        yield right.broken(f"page {wrong}", "page_table", page_table=bad)
    longest = -(-int(lens.max()) // block)
    yield right.broken("table too narrow", both, page_table=table[:, : longest - 1].clone())
    for wrong in (0, -1, right.call["q"].shape[1] - 1, table.shape[1] * block + 1, 2**31 - 1):
        bad = lens.clone()
        bad[last] = wrong
        yield right.broken(f"length {wrong}", both, k_lens=bad)
