"""The checks of the method suite by name."""

from __future__ import annotations

from dataclasses import dataclass

from msa_suites.method import (
    checks,
    checks_cache,
    checks_config,
    checks_index,
    checks_operations,
    checks_settings,
)
from msa_suites.method.checks import Check

#: Check -> what it asks; those of the retrofit need the model loaded.
LAYER: dict[str, Check] = {
    "layer": checks.check_layer,
    "layer_bfloat16": checks.check_layer_bfloat16,
    "cache": checks.check_cache,
    "cache_variants": checks_cache.check_cache_variants,
    "recall": checks_cache.check_recall,
    "refusals": checks.check_refusals,
    "reference": checks_operations.check_reference,
    "corners": checks_operations.check_corners,
    "scorers": checks_settings.check_scorers,
    "config": checks_config.check_config,
    "cost": checks_settings.check_cost,
    "retrofit_unscaled": checks_settings.check_unscaled,
    "retrofit_windows": checks_settings.check_windows,
    "index": checks_index.check_index,
    "index_chunks": checks_index.check_index_chunks,
    "index_training": checks_index.check_training,
}
RETROFIT: dict[str, Check] = {
    "retrofit": checks.check_retrofit,
    "retrofit_keep_all": checks.check_keep_all,
    "retrofit_padding": checks.check_padding,
    "retrofit_chunks": checks.check_chunks,
    "retrofit_settings": checks_settings.check_retrofit_settings,
}


@dataclass(frozen=True, slots=True)
class Needs:
    """What a check asks of the subject beyond what all checks need.

    Attributes:
        modules: of its msa.
        operations: of its implementation, on the case of the index branch.
    """

    modules: tuple[str, ...]
    operations: tuple[str, ...]


_SELECTING = ("block_scores", "select_blocks", "sparse_attention")
_LEARNING = (*_SELECTING, "sparse_attention_backward", "index_kl")

#: Check -> what an older msa, or an implementation without gradients, has not got.
NEEDS: dict[str, Needs] = {
    "index": Needs(("msa.retrofit_index",), _SELECTING),
    "index_chunks": Needs(("msa.retrofit_index",), _SELECTING),
    "index_training": Needs(("msa.retrofit_index", "msa.alignment"), _LEARNING),
}
