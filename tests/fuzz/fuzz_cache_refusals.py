"""The state machine of the paged cache, with wrong calls between the right ones."""

from __future__ import annotations

import torch
from fuzz_cache import BUDGETS, SEEDS, WHICH, CacheMachine
from fuzz_judging import assert_refused
from hypothesis import strategies as st
from hypothesis.stateful import rule

from msa.cache import PagedCache, decode

_NO_TENSORS = (None, 1.5, "text", [0.0], torch.tensor(0.0))
_NO_COUNTS = (0, -1, True, 1.0, "2", None)
_NO_FACTORS = (float("nan"), float("inf"), None, "1", True, 10**400)


class HostileCacheMachine(CacheMachine):
    """As the other, and every kind of call that must change nothing."""

    @rule(which=WHICH, beyond=st.integers(1, 9), seed=SEEDS)
    def append_more_than_the_pages_hold(self, which, beyond, seed):
        request = which % self.sizes["requests"]
        tensors = self._tokens(self._room(request) + beyond, seed)
        self._refused(
            lambda: self.cache.append(*tensors, request=request), {"pages"}, "append too much"
        )

    @rule(which=WHICH, at=st.integers(0, 2), count=st.integers(0, 4), seed=SEEDS)
    def append_wrong_tensors(self, which, at, count, seed):
        tensors = self._tokens(min(count, self._room(0)), seed)
        name, x = ("k", "v", "k_idx")[at], tensors[at]
        ways = [
            *_NO_TENSORS,
            x.to(torch.float16 if x.dtype != torch.float16 else torch.float32),
            x.long(),
            x.bool(),
            x[None],
            x.flatten(0, 1),
            torch.cat([x, x[..., :1]], -1),
            torch.cat([x, x, x, x, x[:, :1]], 1),
            x[..., :0],
            x[:, :0],
            torch.cat([x, x.new_zeros((1, *x.shape[1:]))]),
        ]
        tensors[at] = ways[which % len(ways)]
        # Another number of tokens is wrong in either of two.
        names = {"k", "v", "k_idx"} if which % len(ways) == len(ways) - 1 else {name}
        self._refused(
            lambda: self.cache.append(*tensors, request=0), names, f"append, {name} {which}"
        )

    @rule(which=WHICH, call=st.sampled_from(["append", "release", "index_keys"]))
    def name_no_request(self, which, call):
        wrong = (self.sizes["requests"], -1, 2**40, True, 0.0, "0", None)
        request = wrong[which % len(wrong)]
        calls = {
            "append": lambda: self.cache.append(*self._tokens(1, 0), request=request),
            "release": lambda: self.cache.release(request),
            "index_keys": lambda: self.cache.index_keys(request),
        }
        self._refused(calls[call], {"request"}, f"{call} of request {request!r}")

    @rule(more=st.integers(1, 3), budget=BUDGETS, seed=SEEDS)
    def decode_more_than_there_is(self, more, budget, seed):
        given, settings = self._asked(min(self.lengths) + more, budget, seed)
        self._refused(lambda: decode(self.cache, *given, **settings), {"q"}, "too many queries")

    @rule(which=WHICH, budget=BUDGETS, seed=SEEDS)
    def decode_wrong_tensors(self, which, budget, seed):
        steps = max(min(*self.lengths, 3), 1)
        (q, q_idx), settings = self._asked(steps, budget, seed)
        name, x = (("q", q), ("q_idx", q_idx))[which % 2]
        other = torch.float16 if x.dtype != torch.float16 else torch.float32
        wide = torch.cat([x, x[..., :1]], -1)
        ways = [*_NO_TENSORS, x.to(other), x.int(), x[None], x[0], wide, x[..., :0], x[:, :, :0]]
        ways += [x[:, :0], torch.cat([x, x[:1]]), x[:0]]
        if name == "q_idx" or self.case.groups > 1:
            ways.append(torch.cat([x, x[:, :, :1]], 2))
        wrong = ways[which // 2 % len(ways)]
        given = (wrong, q_idx) if name == "q" else (q, wrong)
        self._refused(
            lambda: decode(self.cache, *given, **settings),
            {"q", "q_idx"} if name == "q" else {"q_idx", "q"},
            f"decode, {name} {which}",
        )

    @rule(which=WHICH, name=st.sampled_from(["topk", "local_blocks", "sink_blocks"]), seed=SEEDS)
    def decode_with_no_budget(self, which, name, seed):
        given, settings = self._asked(1, (2, 1, 0), seed)
        wrong = _NO_COUNTS[which % len(_NO_COUNTS)]
        if name == "sink_blocks" and wrong == 0 and not isinstance(wrong, bool):
            wrong = 2
        names = {name, "topk"} if wrong == 2 else {name}
        self._refused(
            lambda: decode(self.cache, *given, **{**settings, name: wrong}),
            names,
            f"decode with {name} {wrong!r}",
        )

    @rule(which=WHICH, name=st.sampled_from(["scale", "index_scale"]), seed=SEEDS)
    def decode_with_no_scale(self, which, name, seed):
        given, settings = self._asked(1, (2, 1, 0), seed)
        wrong = _NO_FACTORS[which % len(_NO_FACTORS)]
        self._refused(
            lambda: decode(self.cache, *given, **{**settings, name: wrong}),
            {name},
            f"decode with {name} {wrong!r:.9}",
        )

    @rule(
        which=WHICH,
        name=st.sampled_from(
            ["requests", "pages", "kv_heads", "dim", "index_dim", "block", "index_heads", "dtype"]
        ),
    )
    def create_another_that_cannot_be(self, which, name):
        wrong = _NO_COUNTS[which % len(_NO_COUNTS)]
        if name == "dtype":
            wrong = (torch.int32, torch.bool, torch.complex64, "float32", None)[which % 5]
        elif name == "index_heads" and which % 7 == 0:
            wrong = self.sizes["kv_heads"] + 1
        assert_refused(
            lambda: PagedCache(**{**self.sizes, name: wrong}), {name}, f"cache of {name} {wrong!r}"
        )
