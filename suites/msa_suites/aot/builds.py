"""The pinned list of what is compiled: shapes of launches, and architectures."""

from __future__ import annotations

from dataclasses import asdict, dataclass

#: Name -> compute capability, as Triton wants it. The suffix is its own doing from sm_90 on.
ARCHITECTURES = {
    "sm_80": 80,
    "sm_86": 86,
    "sm_89": 89,
    "sm_90a": 90,
    "sm_100a": 100,
    "sm_103a": 103,
}
DEFAULT_ARCHITECTURES = ("sm_90a", "sm_100a")


@dataclass(frozen=True, slots=True)
class Build:
    """One shape that every launch is compiled for (letters as in the paper).

    Attributes:
        dtype: of queries, keys and values.
        heads: Hq.
        groups: Hkv.
        dim: D and Di.
        block: Bk.
        topk: k.
    """

    dtype: str
    heads: int
    groups: int
    dim: int
    block: int
    topk: int

    @property
    def name(self) -> str:
        """Stable: recorded series carry it."""
        share = self.heads // self.groups
        return f"{self.dtype}-D{self.dim}-Bk{self.block}-R{share}-k{self.topk}"

    def as_dict(self) -> dict[str, object]:
        """Keywords of an implementation's ``launches``."""
        return asdict(self)


#: The paper's shape: for two architectures and two versions of Triton, fewer than 60 compilations.
QUICK = (Build("bfloat16", heads=64, groups=4, dim=128, block=128, topk=16),)
#: Smaller in everything, and the other dtype of 16 bits.
STANDARD = (*QUICK, Build("float16", heads=32, groups=4, dim=64, block=64, topk=8))
#: What is no power of two, each number of heads a group, the largest budget, products in float32
#: (which take a minute each to compile at the paper's size, and so are small).
FULL = (
    *STANDARD,
    *(Build(dtype, 64, 4, dim, 128, 16) for dtype in ("bfloat16", "float16") for dim in (64, 80)),
    *(Build("bfloat16", 64, 4, 128, block, 16) for block in (16, 32, 48, 64)),
    *(Build("bfloat16", 4 * share, 4, 128, 128, 16) for share in (1, 2, 3, 4, 8)),
    *(Build("bfloat16", 64, 4, 128, 128, topk) for topk in (1, 5, 64)),
    *(Build("float32", 16, 4, 32, block, 16) for block in (16, 64)),
)
BUILDS = {"quick": QUICK, "standard": STANDARD, "full": tuple(dict.fromkeys(FULL))}
