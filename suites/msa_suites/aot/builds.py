"""The pinned list of what is compiled: shapes of launches, and architectures."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from msa_suites.case import E4M3, NVFP4

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
        cache_dtype: of pages, and of the index queries over them unless it is NVFP4; "" for
            ``dtype``.
    """

    dtype: str
    heads: int
    groups: int
    dim: int
    block: int
    topk: int
    cache_dtype: str = ""

    @property
    def name(self) -> str:
        """Stable: recorded series carry it."""
        share = self.heads // self.groups
        cache = f"-cache-{self.cache_dtype}" if self.cache_dtype else ""
        return f"{self.dtype}-D{self.dim}-Bk{self.block}-R{share}-k{self.topk}{cache}"

    def as_dict(self) -> dict[str, object]:
        """Keywords of an implementation's ``launches``; ``cache_dtype`` where there is one."""
        return {name: value for name, value in asdict(self).items() if value != ""}


#: The paper's shape, its cache in E4M3: on two architectures and two versions of Triton 60
#: compilations.
QUICK = (Build("bfloat16", 64, 4, dim=128, block=128, topk=16, cache_dtype=E4M3),)
#: Smaller in everything, and the other dtype of 16 bits.
STANDARD = (*QUICK, Build("float16", heads=32, groups=4, dim=64, block=64, topk=8))
#: E4M3 nowhere and everywhere, what is no power of two, each number of heads a group, the largest
#: budget, products in float32 (which take a minute each to compile at the paper's size, and so are
#: small).
FULL = (
    *STANDARD,
    Build("bfloat16", 64, 4, 128, 128, 16),
    Build("float16", 64, 4, 128, 128, 16, cache_dtype=E4M3),
    *(
        Build(E4M3, heads, 4, dim, block, 16)
        for heads, dim, block in ((64, 128, 128), (64, 64, 64), (8, 128, 16))
    ),
    *(Build(dtype, 64, 4, dim, 128, 16) for dtype in ("bfloat16", "float16") for dim in (64, 80)),
    *(Build("bfloat16", 64, 4, 128, block, 16) for block in (16, 32, 48, 64)),
    *(Build("bfloat16", 4 * share, 4, 128, 128, 16) for share in (1, 2, 3, 4, 8)),
    *(Build("bfloat16", 64, 4, 128, 128, topk) for topk in (1, 5, 64)),
    *(Build("float32", 16, 4, 32, block, 16) for block in (16, 64)),
)
BUILDS = {"quick": QUICK, "standard": STANDARD, "full": tuple(dict.fromkeys(FULL))}

#: Implementations of ours that are compiled where none is named.
OURS = ("triton", "sm100", "sm90")
#: Those that are written for some architectures only.
WRITTEN_FOR = {"sm100": ("sm_100a", "sm_103a"), "sm90": ("sm_90a",)}
_GLUON_QUICK = (
    *QUICK,
    Build("bfloat16", 64, 4, dim=64, block=128, topk=16),
    Build("bfloat16", 64, 4, dim=128, block=128, topk=16, cache_dtype=NVFP4),
)
_GLUON_STANDARD = (
    *_GLUON_QUICK,
    Build("bfloat16", 64, 4, 128, 128, 16),
    Build(E4M3, 64, 4, 128, 128, 16),
    Build("float16", heads=32, groups=4, dim=64, block=64, topk=8),
)
_GLUON_FULL = (
    *_GLUON_STANDARD,
    Build(E4M3, 64, 4, 64, 128, 16),
    Build("float16", 64, 4, 64, 128, 16, cache_dtype=E4M3),
    *(Build("float16", 64, 4, 64, block, 16, cache_dtype=NVFP4) for block in (16, 128)),
    *(Build("bfloat16", 64, 4, 128, block, 16) for block in (16, 32, 64)),
    *(Build("bfloat16", 4 * share, 4, 128, 128, 16) for share in (1, 3, 8)),
    Build("bfloat16", 64, 4, 32, 128, 64),
)
#: The same of the kernels in Gluon, which take fewer shapes.
GLUON_BUILDS = {"quick": _GLUON_QUICK, "standard": _GLUON_STANDARD, "full": _GLUON_FULL}


def builds_of(implementation: str) -> dict[str, tuple[Build, ...]]:
    """Profile -> shapes that an implementation is compiled for."""
    return GLUON_BUILDS if implementation in WRITTEN_FOR else BUILDS


def architectures_of(implementation: str, asked: tuple[str, ...]) -> tuple[str, ...]:
    """Those of ``asked`` that an implementation is written for."""
    known = WRITTEN_FOR.get(implementation, tuple(ARCHITECTURES))
    return tuple(arch for arch in dict.fromkeys(asked) if arch in known)
