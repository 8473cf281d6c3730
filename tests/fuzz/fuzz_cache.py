"""A state machine over the paged cache, beside a model that keeps lists of tokens.

Pages that nobody owns are filled with NaN after every step: a page that was freed, and a slot that
was never written, hold anything.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from fuzz_draws import DTYPES, Case, draw, tiles
from fuzz_judging import assert_refused, judge_attention, judge_selection, numbers
from fuzz_model import attend_row, score_blocks
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from msa.cache import PagedCache, decode

SIZES = {
    "requests": st.integers(1, 3),
    "pages": st.integers(1, 9),
    "kv_heads": st.integers(1, 3),
    "dim": st.integers(1, 4),
    "index_dim": st.integers(1, 4),
    "block": st.integers(1, 5),
}
SEEDS = st.integers(0, 2**32 - 1)
WHICH = st.integers(0, 99)
#: Settings of a step: (k, local, sinks).
BUDGETS = st.sampled_from([(1, 1, 0), (2, 1, 0), (2, 1, 1), (3, 2, 0), (4, 1, 1), (6, 2, 2)])


class CacheMachine(RuleBasedStateMachine):
    """Requests of any length come, grow, ask and go; wrong calls change nothing."""

    finished: ClassVar[int] = 0
    steps: ClassVar[int] = 0

    @initialize(
        sizes=st.fixed_dictionaries(SIZES),
        share=st.integers(1, 3),
        own_index_keys=st.booleans(),
        dtype=st.sampled_from(["float32", *DTYPES]),
        values=st.sampled_from(["normal", "whole", "sharp"]),
        small_tiles=st.booleans(),
    )
    def create(self, sizes, share, own_index_keys, dtype, values, small_tiles):
        self.sizes = sizes
        self.case = Case(
            groups=sizes["kv_heads"],
            share=share,
            dim=sizes["dim"],
            index_dim=sizes["index_dim"],
            block=sizes["block"],
            dtype=dtype,
            values=values,
            scale=0.5,
            index_scale=0.5,
            small_tiles=small_tiles,
        )
        self.index_heads = sizes["kv_heads"] if own_index_keys else 1
        self.cache = PagedCache(**sizes, index_heads=self.index_heads, dtype=DTYPES[dtype])
        # Of every request its keys, values and index keys: [tokens][heads, channels], float64.
        self.held = [([], [], []) for _ in range(sizes["requests"])]
        self._soil()

    def teardown(self):
        type(self).finished += 1

    @property
    def lengths(self):
        return [len(keys) for keys, _, _ in self.held]

    @property
    def free(self):
        return self.sizes["pages"] - sum(-(-n // self.case.block) for n in self.lengths)

    def _stores(self):
        return self.cache.k_pages, self.cache.v_pages, self.cache.index_pages

    def _soil(self):
        used = torch.zeros(self.sizes["pages"], self.case.block, dtype=torch.bool)
        for b, length in enumerate(self.lengths):
            for t in range(length):
                used[int(self.cache.page_table[b, t // self.case.block]), t % self.case.block] = (
                    True
                )
        for store in self._stores():
            store.transpose(1, 2)[~used] = torch.nan

    def _tokens(self, count, seed):
        g = torch.Generator().manual_seed(seed)
        groups, dim = self.case.groups, self.case.dim
        return [
            draw(self.case, shape, g)
            for shape in (
                (count, groups, dim),
                (count, groups, dim),
                (count, self.index_heads, self.case.index_dim),
            )
        ]

    def _room(self, request):
        """Tokens that still fit into a request."""
        filled = -self.lengths[request] % self.case.block
        return filled + self.free * self.case.block

    def _append(self, request, count, seed):
        tensors = self._tokens(count, seed)
        self.cache.append(*tensors, request=request)
        for kept, x in zip(self.held[request], tensors, strict=True):
            kept.extend(numbers(x))
        self._soil()

    @rule(which=WHICH, count=st.one_of(st.just(1), st.integers(0, 12)), seed=SEEDS)
    def append(self, which, count, seed):
        """A prompt, a chunk that may start and end inside a block, or one token."""
        request = which % self.sizes["requests"]
        self._append(request, min(count, self._room(request)), seed)

    @rule(seed=SEEDS, counts=st.lists(st.integers(0, 3), min_size=3, max_size=3))
    def append_to_all(self, seed, counts):
        """Requests in turn, so that their pages interleave."""
        for request in range(self.sizes["requests"]):
            self._append(request, min(counts[request], self._room(request)), seed + request)

    @rule(which=WHICH, seed=SEEDS)
    def grow_to_the_last_slot(self, which, seed):
        """The last free page is filled to its end."""
        request = which % self.sizes["requests"]
        self._append(request, self._room(request), seed)

    @rule(which=WHICH)
    def release(self, which):
        """The pages of a request are free for others."""
        request = which % self.sizes["requests"]
        self.cache.release(request)
        self.held[request] = ([], [], [])
        self._soil()

    @precondition(lambda self: min(self.lengths) > 0)
    @rule(steps=st.sampled_from([1, 1, 2, 3, 5]), budget=BUDGETS, seed=SEEDS)
    def decode(self, steps, budget, seed):
        """The newest queries of every request, against the model of each alone."""
        steps = min(steps, *self.lengths)
        given, settings = self._asked(steps, budget, seed)
        before = self._snapshot()
        with tiles(self.case.small_tiles):
            out, lse, selection = decode(self.cache, *given, **settings)
        self._assert_as(before)
        assert out.shape == given[0].shape and selection.dtype == torch.int32
        asked, asked_idx, found, sums = (numbers(x) for x in (*given, out, lse))
        for b, held in enumerate(self.held):
            keys, values, index_keys = (np.stack(x) for x in held)
            for i in range(steps):
                position = len(keys) - steps + i
                for g in range(self.case.groups):
                    kept = selection[b, i, g].tolist()
                    own = index_keys[:, g if self.index_heads > 1 else 0]
                    self._judge_kept(kept, asked_idx[b, i, g], own, position, budget)
                    mine = slice(g * self.case.share, (g + 1) * self.case.share)
                    rows = (asked[b, i, mine], keys[:, g], values[:, g])
                    where = (set(kept), position, self.case.block)
                    want = attend_row(*rows, *where, self.case.scale)
                    judge_attention(found[b, i, mine], sums[b, i, mine], want, given[0].dtype)

    def _judge_kept(self, kept, query, keys, position, budget):
        topk, local, sinks = budget
        scored = score_blocks(query, keys, position, self.case.block, self.case.index_scale)
        judge_selection(
            kept,
            scored,
            position,
            block=self.case.block,
            topk=topk,
            local=local,
            sinks=sinks,
            dim=self.case.index_dim,
            exact=self.case.exact,
        )

    def _asked(self, steps, budget, seed):
        g = torch.Generator().manual_seed(seed)
        rows = (self.sizes["requests"], steps)
        tensors = (
            draw(self.case, (*rows, self.case.heads, self.case.dim), g),
            draw(self.case, (*rows, self.case.groups, self.case.index_dim), g),
        )
        topk, local, sinks = budget
        return tensors, {
            "topk": topk,
            "local_blocks": local,
            "sink_blocks": sinks,
            "scale": self.case.scale,
            "index_scale": self.case.index_scale,
        }

    def _snapshot(self):
        stored = [*self._stores(), self.cache.page_table, self.cache.k_lens]
        return [x.clone() for x in stored], self.cache.lengths

    def _assert_as(self, before):
        tensors, lengths = self._snapshot()
        assert lengths == before[1]
        for now, was in zip(tensors, before[0], strict=True):
            assert bool(((now == was) | (now.isnan() & was.isnan())).all()), "the state changed"

    def _refused(self, call, names, what):
        before = self._snapshot()
        assert_refused(call, names, what)
        self._assert_as(before)

    @invariant()
    def pages_belong_to_one_request(self):
        if not hasattr(self, "cache"):
            return
        type(self).steps += 1
        assert list(self.cache.lengths) == self.lengths == self.cache.k_lens.tolist()
        owned = []
        for b, length in enumerate(self.lengths):
            used = -(-length // self.case.block)
            row = self.cache.page_table[b].tolist()
            assert row[used:] == [-1] * (self.sizes["pages"] - used)
            owned += row[:used]
        assert len(set(owned)) == len(owned)
        assert set(owned) <= set(range(self.sizes["pages"]))

    @rule(which=WHICH)
    def index_keys_are_those_stored(self, which):
        request = which % self.sizes["requests"]
        found = numbers(self.cache.index_keys(request))
        kept = self.held[request][2]
        assert found.shape[1] == -(-len(kept) // self.case.block) * self.case.block
        if kept:
            assert (found[:, : len(kept)] == np.stack(kept, 1)).all()
