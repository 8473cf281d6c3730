"""The checks of the method suite by name."""

from __future__ import annotations

from msa_suites.method import (
    checks,
    checks_cache,
    checks_config,
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
}
RETROFIT: dict[str, Check] = {
    "retrofit": checks.check_retrofit,
    "retrofit_keep_all": checks.check_keep_all,
    "retrofit_padding": checks.check_padding,
    "retrofit_chunks": checks.check_chunks,
    "retrofit_settings": checks_settings.check_retrofit_settings,
}
