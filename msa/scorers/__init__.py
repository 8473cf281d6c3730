"""Block scorers: what decides which blocks a query may see.

Every scorer is one pure function in its own file, all with one signature (:data:`Scorer`):

    score(q, k, *, cu_q, cu_k, block, scale, seed=0) -> float32 [Tq, Hkv, NB]

``q`` is ``[Tq, Hkv, Di]``, one query per group (an index query, or the mean of the group's query
heads), except for the scorers of :data:`ALL_HEADS`, which want every query head ``[Tq, Hq, D]``.
``k`` is ``[Tk, 1 or Hkv, Di]``. Packing as in :mod:`msa.packing`. A block without a visible token
scores -inf, and a query sees of its own block only what is not after it.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Protocol

from torch import Tensor

from msa.scorers.dsa_standin import score_dsa_standin
from msa.scorers.infllm_v2 import score_infllm_v2
from msa.scorers.max import score_max
from msa.scorers.mean import score_mean
from msa.scorers.nsa_standin import score_nsa_standin
from msa.scorers.oracle import score_oracle
from msa.scorers.quest import score_quest
from msa.scorers.random import score_random
from msa.scorers.recent import score_recent


class Scorer(Protocol):
    """The signature of a scorer; shapes in the package's docstring."""

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        *,
        cu_q: Tensor,
        cu_k: Tensor,
        block: int,
        scale: float,
        seed: int = 0,
    ) -> Tensor:
        """Scores float32 ``[Tq, Hkv, NB]``."""
        ...


SCORERS: Mapping[str, Scorer] = {
    "max": score_max,
    "mean": score_mean,
    "quest": score_quest,
    "random": score_random,
    "recent": score_recent,
    "oracle": score_oracle,
    "infllm_v2": score_infllm_v2,
    "nsa_standin": score_nsa_standin,
    "dsa_standin": score_dsa_standin,
}

#: Scorers that look at every query head instead of one query per group.
ALL_HEADS = frozenset({"oracle", "infllm_v2", "nsa_standin", "dsa_standin"})


def find_scorer(name: object) -> Scorer:
    """The scorer called ``name``.

    Raises:
        ValueError: there is none; the message lists near matches and valid names.
    """
    check_scorer(name, SCORERS)
    return SCORERS[str(name)]


def check_scorer(name: object, known: Collection[str]) -> None:
    """Raise ValueError, with near matches and valid names, unless ``name`` is one of ``known``."""
    if isinstance(name, str) and name in known:
        return
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise ValueError(f"scorer: wanted one of {', '.join(known)}, got {name!r}{hint}")
