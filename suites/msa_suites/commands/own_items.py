"""Options of a quality suite that measures a model of one's own."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping

#: What a model's weights are converted to; `auto` leaves them as they are.
DTYPES = ("float32", "float64", "float16", "bfloat16", "auto")
#: Scorers beside those of the table: the index branch that a model has of its own.
OWN_SCORERS = ("index", "index_mean")
#: Settings that are numbers, and the least of each.
_LEAST = {"topk": 1, "block": 1, "sink_blocks": 0, "local_blocks": 1, "seed": 0}


def add_items(parser: argparse.ArgumentParser) -> None:
    """What the quality suite measures a model of one's own with."""
    parser.add_argument(
        "--items",
        metavar="DIR",
        default=None,
        help="items of `msa-bench items` for the quality suite, instead of the embedded model's",
    )
    parser.add_argument(
        "--msa",
        metavar="NAME=VALUE,...",
        default=None,
        help="settings of MSA in the quality suite (default: topk=4,block=32,sink_blocks=1; with "
        "--items topk=16,block=128,sink_blocks=0)",
    )
    parser.add_argument(
        "--dtype", choices=DTYPES, default="float32", help="dtype of the model's weights"
    )


def msa_text(settings: Mapping[str, object]) -> str | None:
    """Settings as ``--msa`` takes them; None for none."""
    return ",".join(f"{name}={value}" for name, value in settings.items()) or None


def msa_settings(text: str | None) -> dict[str, object]:
    """The settings that ``--msa`` names.

    Raises:
        ValueError: it is not written so, or names what is no setting.
    """
    from msa.scorers import SCORERS
    from msa_suites.models.attention import MsaSettings

    found: dict[str, object] = {}
    for part in filter(None, (text or "").split(",")):
        name, sign, value = part.partition("=")
        if not sign or name in found or name == "implementation":
            raise ValueError(f"--msa: wanted name=value, each name once, got {part!r} in {text!r}")
        if name in _LEAST and not (value.isdecimal() and int(value) >= _LEAST[name]):
            raise ValueError(f"--msa: wanted {name} as an int from {_LEAST[name]}, got {value!r}")
        if name == "scorer" and value not in (*SCORERS, *OWN_SCORERS):
            raise ValueError(f"--msa: wanted a scorer of {', '.join(SCORERS)}, got {value!r}")
        if name == "dense_layers" and not re.fullmatch(r"\d+(\+\d+)*", value):
            raise ValueError(f"--msa: wanted dense_layers as 0+2, got {value!r}")
        found[name] = int(value) if name in _LEAST else value
    try:
        MsaSettings.from_mapping(found)
    except ValueError as error:
        raise ValueError(f"--msa: {error}") from None
    return found
