"""Products of bfloat16 matrices through float32 are torch's own, but for the order of a sum."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from msa_suites.models.rounding import RoundedProducts


def _matrices(rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(rows * columns)
    a = torch.randn(rows, columns, generator=draw).bfloat16()
    b = torch.randn(columns, rows, generator=draw).bfloat16()
    c = torch.randn(rows, rows, generator=draw).bfloat16()
    return a, b, c


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 5), (64, 128), (384, 128)])
def test_products_round_where_torch_rounds(rows: int, columns: int) -> None:
    a, b, c = _matrices(rows, columns)
    exact = a.double() @ b.double()
    update = -4.775 * c.double() + 2.0315 * exact
    with RoundedProducts():
        product, sum_ = a @ b, torch.addmm(c, a, b, beta=-4.775, alpha=2.0315)
    assert product.dtype == sum_.dtype == torch.bfloat16
    # Half a unit in the last place (2^-8 of the value at most), and what float32 adds on the way.
    room = 1e-5 * (a.double().abs() @ b.double().abs() + c.double().abs())
    assert ((product.double() - exact).abs() <= 2.0**-8 * exact.abs() + room).all()
    assert ((sum_.double() - update).abs() <= 2.0**-8 * update.abs() + 5 * room).all()
    # Two orders of a sum in float32 round apart only where it lies between two numbers.
    assert (product != a @ b).float().mean() < 0.01
    assert (sum_ != torch.addmm(c, a, b, beta=-4.775, alpha=2.0315)).float().mean() < 0.01


def test_muon_takes_the_same_step() -> None:
    steps = []
    for mode in (False, True):
        weight = torch.nn.Parameter(torch.zeros(96, 64))
        optimizer = torch.optim.Muon([weight], lr=1.0, weight_decay=0.0)
        weight.grad = torch.randn(96, 64, generator=torch.Generator().manual_seed(1))
        if mode:
            with RoundedProducts():
                optimizer.step()
        else:
            optimizer.step()
        steps.append(weight.detach().clone())
    plain, rounded = steps
    assert plain.abs().max() > 0.1
    # Four steps of bfloat16 at the largest element.
    torch.testing.assert_close(rounded, plain, rtol=0.0, atol=2.0**-8)


class Products(TorchDispatchMode):
    """The dtypes that matrices are multiplied in."""

    def __init__(self):
        super().__init__()
        self.dtypes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.name().split("::")[1].split(".")[0] in ("mm", "bmm", "addmm", "baddbmm", "matmul"):
            self.dtypes += [x.dtype for x in args if isinstance(x, torch.Tensor)]
        return func(*args, **(kwargs or {}))


def test_muon_multiplies_in_float32_alone():
    """A product that it reaches in another way would be slow, and nothing else would show it."""
    weight = torch.nn.Parameter(torch.zeros(96, 64))
    optimizer = torch.optim.Muon([weight], lr=1.0, weight_decay=0.0)
    weight.grad = torch.ones(96, 64)
    with Products() as plain:
        optimizer.step()
    with Products() as rounded, RoundedProducts():
        optimizer.step()
    assert torch.bfloat16 in plain.dtypes
    assert len(rounded.dtypes) == len(plain.dtypes)
    assert set(rounded.dtypes) == {torch.float32}


def test_calls_of_another_form_are_left_alone():
    wide, half = torch.randn(4, 4), torch.randn(4, 4).bfloat16()
    with RoundedProducts():
        assert torch.matmul(input=wide, other=wide).dtype == torch.float32
        assert torch.addmm(input=wide, mat1=wide, mat2=wide).dtype == torch.float32
        assert torch.matmul(half, other=half).dtype == torch.bfloat16
        into = torch.empty_like(half)
        assert torch.matmul(half, half, out=into) is into


def test_everything_else_is_left_alone() -> None:
    a = torch.randn(8, 8)
    half = a.half()
    with RoundedProducts():
        assert torch.equal(a @ a, a.matmul(a))
        assert (half @ half).dtype == torch.float16
        assert torch.equal(a.bfloat16() + a.bfloat16(), (a.bfloat16() + a.bfloat16()))
        with pytest.raises(RuntimeError):
            a.bfloat16() @ a  # two dtypes are refused as ever
        with pytest.raises(RuntimeError):
            a[:, :3].bfloat16() @ a.bfloat16()
