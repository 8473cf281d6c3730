# ruff: noqa: ARG002  # a fault often is an argument that nobody reads
"""Faults in what bytes mean, and right ways to compute with them."""

from typing import ClassVar

import torch

from msa import fast, reference
from msa.quantized import E4M3, NARROW, NVFP4, decode, output_dtype

AXES = {"q": {4: 2, 3: 1}, "k": {3: 1, 4: 1}, "v": {3: 1, 4: 1}, "q_idx": {4: 2, 3: 1},
        "k_idx": {3: 1, 4: 1}}  # fmt: skip
ORDER = {
    "block_scores": ("q_idx", "k_idx"),
    "paged_block_scores": ("q_idx", "k_idx"),
    "sparse_attention": ("q", "k", "v"),
    "sparse_decode": ("q", "k", "v"),
    "attend": ("q", "k", "v", "q_idx", "k_idx"),
    "attend_paged": ("q", "q_idx", "k", "v", "k_idx"),
}


class Quantized:
    """Every operation on E4M3 and NVFP4: decodes, computes in float32. Faults change a step."""

    CAPABILITIES: ClassVar = {"dtypes": [*fast.CAPABILITIES["dtypes"]]}

    def factor(self, name, descale):
        return descale

    def meaning(self, name, codes, descale):
        axis = AXES[name][codes.ndim]
        return decode(name, codes, descale, axis=axis, dtype=torch.float32)

    def finish(self, operation, result, first):
        if operation.endswith("block_scores"):
            return result
        return result[0].to(output_dtype(first)), result[1]

    def _run(self, operation, tensors, keywords):
        names = ORDER[operation]
        wide = []
        for name, x in zip(names, tensors, strict=False):
            factor = self.factor(name, keywords.pop(f"{name}_descale", None))
            wide.append(self.meaning(name, x, factor).float() if x.dtype in NARROW else x.float())
        result = getattr(reference, operation)(*wide, *tensors[len(names) :], **keywords)
        return self.finish(operation, result, tensors[0])

    def block_scores(self, *tensors, **keywords):
        return self._run("block_scores", tensors, keywords)

    def paged_block_scores(self, *tensors, **keywords):
        return self._run("paged_block_scores", tensors, keywords)

    def sparse_attention(self, *tensors, **keywords):
        return self._run("sparse_attention", tensors, keywords)

    def sparse_decode(self, *tensors, **keywords):
        return self._run("sparse_decode", tensors, keywords)

    def attend(self, *tensors, **keywords):
        return self._run("attend", tensors, keywords)

    def attend_paged(self, *tensors, **keywords):
        return self._run("attend_paged", tensors, keywords)


class InHalf(Quantized):
    """Keys and values rounded to float16, as a kernel without products in E4M3 has them."""

    def meaning(self, name, codes, descale):
        values = super().meaning(name, codes, descale)
        return values if "idx" in name else values.half()


def dropped(name):
    class Dropped(Quantized):
        def factor(self, this, descale):
            return None if this == name else descale

    return Dropped


class OneFactorForAll(Quantized):
    """That of the first head, as if it were one for the tensor."""

    def factor(self, name, descale):
        return descale if descale is None else descale[:1].expand_as(descale).contiguous()


class InverseFactors(Quantized):
    def factor(self, name, descale):
        return descale if descale is None else 1 / descale


class AnotherFormat(Quantized):
    """The bytes of OCP's E4M3 read as FNUZ: half of the value, and another zero and NaN."""

    def meaning(self, name, codes, descale):
        other = codes.view(torch.uint8).view(torch.float8_e4m3fnuz).float()
        return other * super().meaning(name, torch.ones(codes.shape).to(E4M3), descale)


class TwoBitsOfMantissa(Quantized):
    """Read as E5M2."""

    def meaning(self, name, codes, descale):
        other = codes.view(torch.uint8).view(torch.float8_e5m2).float()
        return other * super().meaning(name, torch.ones(codes.shape).to(E4M3), descale)


class OutputInE4M3(Quantized):
    def finish(self, operation, result, first):
        if operation.endswith("block_scores"):
            return result
        return result[0].to(first.dtype), result[1]


class Packed(Quantized):
    """NVFP4 with a mistake in its elements or its scales."""

    def elements(self, codes):
        return codes

    def scaled(self, scales):
        return scales

    def meaning(self, name, codes, descale):
        if codes.dtype == NVFP4:
            codes = self.elements(codes.view(torch.uint8)).view(NVFP4)
            descale = self.scaled(descale.view(torch.uint8)).view(E4M3)
        return super().meaning(name, codes, descale)


class HighHalfFirst(Packed):
    def elements(self, codes):
        return codes << 4 | codes >> 4


class SignsLost(Packed):
    def elements(self, codes):
        return codes & 0x77


class HalvesAreZero(Packed):
    """The one subnormal element, 0.5, is flushed."""

    def elements(self, codes):
        low, high = (torch.where(half % 8 == 1, 0, half) for half in (codes & 15, codes >> 4))
        return low | high << 4


class NextScale(Packed):
    def scaled(self, scales):
        return scales.roll(-1, -1)


class ScalesOfTheNextToken(Packed):
    def scaled(self, scales):
        return scales.roll(-1, -2 if scales.ndim == 4 else 0)


class ScalesDropped(Packed):
    def scaled(self, scales):
        return torch.full_like(scales, 0x38)  # 1 in E4M3


class ScalesInAnotherFormat(Packed):
    def scaled(self, scales):
        other = scales.view(torch.float8_e4m3fnuz).float().to(E4M3)
        return other.view(torch.uint8)


class ScalesArePowersOfTwo(Packed):
    """Read as MXFP4 has them, but for the bias: the bits of the mantissa are lost."""

    def scaled(self, scales):
        return scales & 0x78


class PagesTokensFirst(Quantized):
    """Pages and their scales as [P, block, heads, ..]."""

    def meaning(self, name, codes, descale):
        if codes.dtype == NVFP4 and codes.ndim == 4:
            codes = self.turned(codes.view(torch.uint8)).view(NVFP4)
            descale = self.turned(descale)
        return super().meaning(name, codes, descale)

    def turned(self, x):
        pages, heads, block, size = x.shape
        return x.reshape(pages, block, heads, size).transpose(1, 2).contiguous()


class StridesOfScalesIgnored(Quantized):
    def meaning(self, name, codes, descale):
        if codes.dtype == NVFP4:
            descale = descale.as_strided(descale.shape, torch.empty(descale.shape).stride())
        return super().meaning(name, codes, descale)


PACKED_FAULTS = {
    "high half first": HighHalfFirst,
    "signs lost": SignsLost,
    "subnormal elements flushed": HalvesAreZero,
    "the next scale": NextScale,
    "scales of the next token": ScalesOfTheNextToken,
    "scales dropped": ScalesDropped,
    "scales read as E4M3 FNUZ": ScalesInAnotherFormat,
    "scales are powers of two": ScalesArePowersOfTwo,
}
FAULTS = {
    **{f"{name}_descale dropped": dropped(name) for name in AXES},
    "one factor for all heads": OneFactorForAll,
    "inverse factors": InverseFactors,
    "read as E4M3 FNUZ": AnotherFormat,
    "read as E5M2": TwoBitsOfMantissa,
    "output in E4M3": OutputInE4M3,
}
RIGHT = [Quantized, InHalf]
