"""New tokens in a paged cache: each in its slot, nothing else touched, bytes rounded once."""

from __future__ import annotations

import pytest
import torch

from msa import reference_paged
from msa.quantized import E4M3, decode
from msa_kernels.triton_ops import append_paged
from msa_suites.eight_bits import meant
from msa_suites.hostile import with_gaps

#: new tokens of a request, lengths with them, groups, index heads, D, Di, block.
SHAPES = {
    "one-token": (1, (40, 1, 16, 17), 2, 1, 64, 32, 16),
    "across-a-border": (5, (17, 37, 5), 3, 3, 48, 80, 16),
    "a-chunk-inside-a-block": (20, (50, 33), 1, 1, 16, 16, 48),
    "block-128": (3, (300, 130), 4, 1, 128, 128, 128),
}
DTYPES = [(torch.float32, torch.float32), (torch.float16, torch.float16), (torch.float32, E4M3)]


def drawn(name, dtype=torch.float32, stored=torch.float32):
    """Arguments; pages are full of a mark that no token has, and their order is shuffled."""
    queries, lengths, groups, index_heads, dim, index_dim, block = SHAPES[name]
    g = torch.Generator().manual_seed(3)
    new = [
        (torch.randn(len(lengths), queries, heads, size, generator=g) * 3).to(dtype)
        for heads, size in ((groups, dim), (groups, dim), (index_heads, index_dim))
    ]
    counts = [-(-n // block) for n in lengths]
    order = (torch.randperm(sum(counts), generator=g) + 1).tolist()
    table = torch.full((len(lengths), max(counts) + 2), 2**30, dtype=torch.int32)
    for b, count in enumerate(counts):
        table[b, :count] = torch.tensor([order.pop() for _ in range(count)])
    pools = [
        torch.full((sum(counts) + 2, heads, block, size), -77.0).to(stored)
        for heads, size in ((groups, dim), (groups, dim), (index_heads, index_dim))
    ]
    pages = {"page_table": table, "k_lens": torch.tensor(lengths, dtype=torch.int32)}
    factors = {}
    if stored == E4M3:
        for name, heads in (("k", groups), ("v", groups), ("k_idx", index_heads)):
            factors[f"{name}_descale"] = torch.rand(heads, generator=g) * 0.02 + 0.001
    return new, pools, pages, factors


def bits(x):
    return x.contiguous().view(torch.uint8)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(("dtype", "stored"), DTYPES)
def test_every_token_stands_in_its_slot_and_nothing_else_has_changed(name, dtype, stored):
    new, pools, pages, factors = drawn(name, dtype, stored)
    wanted = [pool.clone() for pool in pools]
    append_paged(*new, *pools, **pages, **factors)
    queries, block = new[0].shape[1], wanted[0].shape[2]
    for b, length in enumerate(pages["k_lens"].tolist()):
        for i in range(queries):
            at, slot = divmod(length - queries + i, block)
            page = int(pages["page_table"][b, at])
            for x, pool, factor in zip(new, wanted, factors.values() or [None] * 3, strict=True):
                value = x[b, i] if factor is None else (x[b, i] / factor[:, None]).clamp(-448, 448)
                pool[page, :, slot] = value.to(pool.dtype)
    for got, want in zip(pools, wanted, strict=True):
        assert torch.equal(bits(got), bits(want))


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(("dtype", "stored"), DTYPES)
def test_the_specification_does_the_same(name, dtype, stored):
    new, pools, pages, factors = drawn(name, dtype, stored)
    others = [pool.clone() for pool in pools]
    append_paged(*new, *pools, **pages, **factors)
    reference_paged.append_paged(*new, *others, **pages, **factors)
    for a, b in zip(pools, others, strict=True):
        assert torch.equal(bits(a), bits(b))


def test_views_with_gaps_are_written_through():
    new, pools, pages, factors = drawn("across-a-border", torch.float32, E4M3)
    views = [with_gaps(x) for x in (*new, *pools)]
    append_paged(*new, *pools, **pages, **factors)
    append_paged(*views, **pages | {"page_table": with_gaps(pages["page_table"])}, **factors)
    for a, b in zip(pools, views[3:], strict=True):
        assert torch.equal(bits(a), bits(b))


def test_what_is_out_of_range_is_held_and_nan_stays():
    new, pools, pages, factors = drawn("one-token", torch.float32, E4M3)
    new[0][0, 0, 0, :4] = torch.tensor([torch.inf, -torch.inf, torch.nan, 1e6])
    append_paged(*new, *pools, **pages, **factors)
    page, slot = int(pages["page_table"][0, 39 // 16]), 39 % 16
    assert pools[0][page, 0, slot, :2].float().tolist() == [448.0, -448.0]
    assert bool(pools[0][page, 0, slot, 2].float().isnan())
    assert float(pools[0][page, 0, slot, 3]) == 448.0


def test_every_border_between_two_bytes_is_rounded_as_torch_does():
    """Halves to even, and the numbers beside them; subnormal ones too."""
    values = torch.arange(127, dtype=torch.uint8).view(E4M3).float()
    halves = (values[:-1] + values[1:]) / 2
    around = [torch.nextafter(halves, torch.full_like(halves, to)) for to in (0.0, 1e9)]
    x = torch.cat([values, halves, *around])
    x = torch.cat([x, -x, torch.tensor([0.0, -0.0, 1e-30, -1e-30])])
    x = torch.nn.functional.pad(x, (0, -len(x) % 64)).view(1, -1, 1, 64)
    count = x.shape[1]
    pools = [torch.zeros(1, 1, 128, 64).to(E4M3) for _ in range(3)]
    pages = {"page_table": torch.zeros(1, 1, dtype=torch.int32),
             "k_lens": torch.tensor([count], dtype=torch.int32)}  # fmt: skip
    append_paged(x, x, x, *pools, **pages)
    for pool in pools:
        assert torch.equal(bits(pool[0, 0, :count]), bits(x[0, :, 0].to(E4M3)))


def test_bytes_mean_what_was_written():
    """Half of a step of E4M3 off, at most."""
    new, pools, pages, factors = drawn("block-128", torch.float32, E4M3)
    append_paged(*new, *pools, **pages, **factors)
    for b, length in enumerate(pages["k_lens"].tolist()):
        page = int(pages["page_table"][b, (length - 1) // 128])
        codes = pools[0][page, None, :, (length - 1) % 128]
        factor = factors["k_descale"]
        got = meant(codes, factor)[0]
        assert torch.equal(got, decode("k", codes, factor, axis=1)[0])
        x = new[0][b, -1].double()
        beyond = x.abs() > 448 * factor.double()[:, None]
        allowed = torch.maximum(x.abs() / 16, factor.double()[:, None] * 2.0**-10) * 1.0001
        assert bool(((got - x).abs() <= allowed)[~beyond].all())


REFUSED = [
    ({"k": torch.zeros(4, 1, 3, 64)}, "v: wanted shape .4, 1, 3, 64."),
    ({"v": torch.zeros(4, 1, 2, 32)}, "v: wanted shape .4, 1, 2, 64."),
    ({"k_idx": torch.zeros(4, 2, 1, 32)}, "k_idx: wanted shape .4, 1, 1 or Hkv, Di."),
    ({"k_lens": torch.tensor([40, 0, 16, 17], dtype=torch.int32)}, "k_lens: wanted 1 to"),
    ({"k_descale": torch.ones(2)}, "k_descale: wanted none for elements in float32"),
    ({"index_pages": torch.zeros(9, 1, 16, 32).to(torch.float8_e5m2)},
     "index_pages: wanted float32 or float8_e4m3fn"),
]  # fmt: skip


@pytest.mark.parametrize("call", [append_paged, reference_paged.append_paged])
@pytest.mark.parametrize(("change", "words"), REFUSED)
def test_wrong_arguments_are_named_and_nothing_is_written(call, change, words):
    new, pools, pages, _ = drawn("one-token")
    names = ("k", "v", "k_idx", "k_pages", "v_pages", "index_pages")
    given = dict(zip(names, (*new, *pools), strict=True)) | pages
    with pytest.raises((TypeError, ValueError), match=words):
        call(**given | change)
    assert all(bool((pool == -77).all()) for pool in pools)
