"""Tensors whose last element lies more than 2^31 elements behind the first: offsets are int64.

They are views into files with holes, of which a machine needs to hold what is written only.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
import torch
from kernel_far import SHAPE, far_apart

from msa_kernels import triton_ops
from msa_kernels.triton_ops import attention

#: A copy with 32-bit offsets of the queries may well read where nothing is mapped.
_SPOILT = """
import sys
from pathlib import Path
import torch
from kernel_copies import load_copy
from kernel_faults import KernelFault
from kernel_far import SHAPE, far_apart
folder = Path(sys.argv[1])
sys.path.insert(0, str(folder))
right = "q + row.to(tl.int64) * stride_qt + heads"
fault = KernelFault("attention/query_outer/kernel.py", right, "q + row * stride_qt + heads", "")
found = load_copy(folder, "spoilt_offsets", fault if sys.argv[2] == "spoilt" else None)
found.attention.way_of = lambda *_: "query_outer"
q, k, v = SHAPE.main()
settings = {**SHAPE.packing, "scale": 0.2}
near, _ = found.sparse_attention(q, k, v, SHAPE.selection(), **settings)
far, _ = found.sparse_attention(far_apart(q, folder), k, v, SHAPE.selection(), **settings)
sys.exit(0 if torch.equal(near, far) else 7)
"""


def each_far(tensors, folder):
    """The tensors, with one of them far apart, one after the other."""
    for i, x in enumerate(tensors):
        yield [*tensors[:i], far_apart(x, folder), *tensors[i + 1 :]]


def assert_same(run, tensors, folder):
    wanted = run(*tensors)
    for moved in each_far(tensors, folder):
        got = run(*moved)
        pairs = zip(got, wanted, strict=True) if isinstance(got, tuple) else [(got, wanted)]
        for mine, right in pairs:
            assert torch.equal(mine, right)


@pytest.mark.parametrize("way", ["key_outer", "query_outer"])
def test_attention(monkeypatch, tmp_path, way):
    monkeypatch.setattr(attention, "way_of", lambda *_: way)

    def run(*tensors):
        return triton_ops.sparse_attention(*tensors, **SHAPE.packing, scale=0.2)

    assert_same(run, [*SHAPE.main(), SHAPE.selection()], tmp_path)


def test_scores_and_selection(tmp_path):
    def score(*tensors):
        return triton_ops.block_scores(*tensors, **SHAPE.packing, scale=0.2)

    def select(scores):
        return triton_ops.select_blocks(scores, **SHAPE.packing, topk=2)

    assert_same(score, [*SHAPE.index()], tmp_path)
    assert_same(select, [score(*SHAPE.index())], tmp_path)


def test_gradients(tmp_path):
    q, k, v = SHAPE.main()
    settings = {**SHAPE.packing, "scale": 0.2}
    out, lse = triton_ops.sparse_attention(q, k, v, SHAPE.selection(), **settings)

    def attend(dout, q, k, v, selection):
        given = (dout, q, k, v, out, lse, selection)
        return triton_ops.sparse_attention_backward(*given, **settings)

    def align(*tensors):
        return triton_ops.index_kl(*tensors, **settings, index_scale=0.3)

    assert_same(attend, [torch.ones_like(q), q, k, v, SHAPE.selection()], tmp_path)
    assert_same(align, [*SHAPE.index(), q, k, SHAPE.selection()], tmp_path)


def test_pages(tmp_path):
    g = torch.Generator().manual_seed(0)
    q, q_idx = torch.randn(2, 3, 4, 32, generator=g), torch.randn(2, 3, 2, 16, generator=g)
    k_pages, v_pages = torch.randn(2, 5, 2, 16, 32, generator=g)
    index_pages = torch.randn(5, 1, 16, 16, generator=g)
    pages = {
        "page_table": torch.tensor([[4, 1, 3], [2, 4, 0]], dtype=torch.int32),
        "k_lens": torch.tensor([40, 33], dtype=torch.int32),
    }

    def run(*tensors):
        return triton_ops.attend_paged(*tensors, **pages, topk=2, scale=0.2, index_scale=0.3)

    assert_same(run, [q, q_idx, k_pages, v_pages, index_pages], tmp_path)


def test_new_tokens(tmp_path):
    g = torch.Generator().manual_seed(0)
    k, v = torch.randn(2, 2, 3, 2, 32, generator=g)
    k_idx = torch.randn(2, 3, 1, 16, generator=g)
    pools = [torch.zeros(5, heads, 16, dim) for heads, dim in ((2, 32), (2, 32), (1, 16))]
    pages = {
        "page_table": torch.tensor([[4, 1, 3], [2, 4, 0]], dtype=torch.int32),
        "k_lens": torch.tensor([40, 33], dtype=torch.int32),
    }

    def run(*tensors):
        triton_ops.append_paged(*tensors, **pages)
        return tuple(pool.contiguous() for pool in tensors[3:])

    assert_same(run, [k, v, k_idx, *pools], tmp_path)


@pytest.mark.parametrize("code", ["right", "spoilt"])
def test_an_offset_of_32_bits_is_caught(tmp_path, code):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", _SPOILT, str(tmp_path), code],
        check=False, capture_output=True, text=True, timeout=300, env=environment,
    )  # fmt: skip
    if code == "right":
        assert done.returncode == 0, done.stderr
    else:  # another result, or what the interpreter says of a number that does not fit, or no page
        overflow = done.returncode == 1 and "overflow" in done.stderr
        assert overflow or done.returncode in (7, -signal.SIGSEGV), done.stderr
