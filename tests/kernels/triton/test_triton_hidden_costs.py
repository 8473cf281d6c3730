"""What the launchers do besides launching, seen without a GPU: tensors without contents.

torch's fake tensors have shapes only, so whatever looks at a value raises; launches are noted and
not made. It is a process of its own, because this one interprets; one for all, which imports once
and forks for each operation and change.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

#: Bytes of keys and values in the batch, and in the pool.
_PACKED, _POOL = 2 * 100_000 * 4 * 128 * 2, 2 * 2_000 * 4 * 128 * 128 * 2
_WATCHED = """
import json, os, sys
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime.jit import KernelInterface
from msa_kernels import triton_ops
from msa_kernels.triton_ops import decoding, limits, pipeline

limits.DEVICE = "cpu"  # of tensors without contents
launched, largest = [], 0
KernelInterface.__getitem__ = lambda kernel, grid: (
    lambda *args, **kwargs: launched.append(kernel.fn.__name__)
)


class Watch(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        global largest
        result = function(*args, **kwargs or {})
        known = {id(x) for x in args if isinstance(x, torch.Tensor)}
        if not function.is_view and id(result) not in known:
            made = result if isinstance(result, tuple) else [result]
            sizes = [x.nbytes for x in made if isinstance(x, torch.Tensor)]
            largest = max([largest, *sizes])
        return result


def empty(*shape, dtype=torch.bfloat16):
    return torch.empty(shape, dtype=dtype)


def ints(*shape):
    return empty(*shape, dtype=torch.int32)


with FakeTensorMode():
    T, S = 256, 100_000
    q, k, v = empty(T, 64, 128), empty(S, 4, 128), empty(S, 4, 128)
    q_idx, k_idx, selection = empty(T, 4, 128), empty(S, 1, 128), ints(T, 4, 16)
    lengths = {"cu_q": ints(3), "cu_k": ints(3), "block": 128}
    few, few_idx = empty(2, 1, 64, 128), empty(2, 1, 4, 128)
    store, index_pages = empty(2000, 4, 128, 128), empty(2000, 1, 128, 128)
    pages = {"page_table": ints(2, 1000), "k_lens": ints(2)}
    lse = empty(T, 64, dtype=torch.float32)
    scales = {"scale": 0.1, "index_scale": 0.1}
    calls = {
        "block_scores": ((q_idx, k_idx), {**lengths, "scale": 0.1}),
        "paged_block_scores": ((few_idx, index_pages), {**pages, "scale": 0.1}),
        "select_blocks": ((empty(T, 4, 800, dtype=torch.float32),), {**lengths, "topk": 16}),
        "sparse_attention": ((q, k, v, selection), {**lengths, "scale": 0.1}),
        "sparse_decode": ((few, store, store, ints(2, 1, 4, 16)), {**pages, "scale": 0.1}),
        "sparse_attention_backward": ((q, q, k, v, q, lse, selection), {**lengths, "scale": 0.1}),
        "index_kl": ((q_idx, k_idx, q, k, selection), {**lengths, **scales}),
        "attend": ((q, k, v, q_idx, k_idx), {**lengths, **scales, "topk": 16}),
        "append_paged": (
            (empty(2, 1, 4, 128), empty(2, 1, 4, 128), empty(2, 1, 1, 128),
             store, empty(2000, 4, 128, 128), index_pages), pages
        ),
        "attend_paged": (
            (few, few_idx, store, store, index_pages), {**pages, **scales, "topk": 16}
        ),
    }
    for number, (operation, change) in enumerate(json.load(sys.stdin)):
        if not os.fork():
            break
        os.wait()
    else:
        sys.exit()
    exec(change)
    tensors, keywords = calls[operation]
    waits = ""
    with Watch():
        try:
            getattr(triton_ops, operation)(*tensors, **keywords)
        except Exception as error:
            waits = f"{type(error).__name__}: {error}"
found = {"waits": waits, "launched": launched, "largest": largest}
print(json.dumps([number, found]), flush=True)
os._exit(0)
"""
_FORWARD = {
    "paged_block_scores": ["score_tile"],
    "select_blocks": ["select_tile"],
    "append_paged": ["append_tokens"],
    "sparse_decode": ["attend_slots", "merge_tile"],
    "attend_paged": ["score_tile", "select_tile", "attend_slots", "merge_tile"],
    "sparse_attention": ["attend_slots"],
    "attend": ["score_tile", "select_tile", "attend_slots"],
}
_GRADIENTS = {
    "sparse_attention_backward": (["grad_queries", "name_lists", "grad_keys"], _PACKED // 2),
    "index_kl": (["index_rows", "name_lists", "index_keys"], 100_000 * 128 * 4),
}
#: Planted into the launchers: the change, and where it shows.
_PLANTED = {
    "stale-maximum-on-the-host": (
        "right = decoding.score_pages\n"
        "decoding.score_pages = lambda *a, k_lens, **k: right(\n"
        "    *a, k_lens=k_lens[: int(k_lens.max())], **k)", "waits",
    ),
    "pool-copied-to-another-layout": (
        "right = decoding.attend_pages\n"
        "decoding.attend_pages = lambda q, k, *a, **b: right(\n"
        "    q, k.transpose(1, 2).contiguous().transpose(1, 2), *a, **b)", "largest",
    ),
    "planned-twice": (
        "right = decoding.select_of_pages\n"
        "decoding.select_of_pages = lambda *a, **k: (right(*a, **k), right(*a, **k))", "launched",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def watched():
    """What was seen of every operation, as it is and with each change: by both."""
    asked = [(operation, "") for operation in (*_FORWARD, *_GRADIENTS, "block_scores")]
    asked += [("attend_paged", change) for change, _ in _PLANTED.values()]
    environment = {name: text for name, text in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", _WATCHED], input=json.dumps(asked),
        capture_output=True, text=True, env=environment, timeout=300, check=False,
    )  # fmt: skip
    found = dict(map(json.loads, done.stdout.splitlines()))
    assert len(found) == len(asked), done.stderr
    return {one: found[number] for number, one in enumerate(asked)}


@pytest.mark.parametrize("operation", _FORWARD)
def test_a_forward_waits_for_nothing_and_copies_neither_keys_nor_pool(operation, watched):
    found = watched[operation, ""]
    assert (found["waits"], found["launched"]) == ("", _FORWARD[operation])
    assert found["largest"] < _PACKED / 10


@pytest.mark.parametrize("operation", _GRADIENTS)
def test_gradients_wait_for_nothing_and_hold_no_more_than_what_they_return(operation, watched):
    found = watched[operation, ""]
    launched, largest = _GRADIENTS[operation]
    assert (found["waits"], found["launched"], found["largest"]) == ("", launched, largest)


def test_block_scores_wait_for_their_width_and_say_so(watched):
    assert "DataDependent" in watched["block_scores", ""]["waits"]


@pytest.mark.parametrize("name", _PLANTED)
def test_what_a_launcher_hides_is_seen(name, watched):
    change, seen = _PLANTED[name]
    right, wrong = watched["attend_paged", ""], watched["attend_paged", change]
    assert wrong[seen] != right[seen]
    if seen == "largest":
        assert wrong[seen] >= _POOL // 2
