"""``msa-bench check``: one working tree against fixed requirements."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msa_suites.commands import options, own_items

if TYPE_CHECKING:
    from msa_suites.advice import Advice

#: Options that are settings of ``--msa``, and their names there.
_SETTINGS = {
    "topk": "topk",
    "block": "block",
    "sink": "sink_blocks",
    "local": "local_blocks",
    "scorer": "scorer",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_implementation(parser)
    options.add_run_options(parser)
    own = parser.add_argument_group(
        "your configuration",
        "Settings of MSA in the quality suite, as --msa has them, and what to think of them: the "
        "advice is printed and changes no verdict.",
    )
    own.add_argument("--topk", type=options.positive, help="blocks kept, the forced ones included")
    own.add_argument("--block", type=options.positive, help="tokens per block")
    own.add_argument("--sink", type=_natural, help="first blocks that are always kept")
    own.add_argument("--local", type=options.positive, help="newest blocks that are always kept")
    own.add_argument("--scorer", metavar="NAME", help="block scorer")
    own.add_argument(
        "--context",
        type=options.positive,
        metavar="TOKENS",
        help="length that is to be served; for the advice, nothing of that length is measured",
    )


def run(args: argparse.Namespace) -> int:
    from msa_suites.plan import plan_alone
    from msa_suites.running import run_plan

    _settle_settings(args)
    advice = _advice(args)
    options.settle_out(args, "check", mark="run.json")
    console = options.stderr_console()
    for one in advice:
        text = f"advice, {one.rule}: {one.level}: {one.text}"
        console.print(text, markup=False, highlight=False)
    extra = {"advice": [asdict(one) for one in advice]}
    return run_plan("check", args, plan_alone(args), args.argv, extra=extra).exit_code


def _natural(text: str) -> int:
    """An argparse type: an int of 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"wanted an int of 0 or more, got {text!r}")
    return int(text)


def _settle_settings(args: argparse.Namespace) -> None:
    """Put the single options into ``--msa``, which the suites and the command to repeat read.

    Raises:
        ValueError: an unknown scorer, or two values for one setting.
    """
    from msa.scorers import SCORERS

    found = own_items.msa_settings(args.msa)
    if args.scorer is not None:
        options.pick("--scorer", [args.scorer], [*SCORERS, *own_items.OWN_SCORERS])
    for flag, name in _SETTINGS.items():
        value = getattr(args, flag)
        if value is None:
            continue
        if found.setdefault(name, value) != value:
            raise ValueError(
                f"--{flag}: wanted {name} in one place, got {value} beside "
                f"--msa {name}={found[name]}"
            )
    args.msa = own_items.msa_text(found)


def _advice(args: argparse.Namespace) -> list[Advice]:
    """What to think of the configuration; nothing where nobody named one.

    Raises:
        ValueError: k is below the blocks that are always kept.
    """
    from msa.checks import require_budget
    from msa_suites.advice import advise
    from msa_suites.models.attention import INDEX_ENTRY, MsaSettings
    from msa_suites.ruler.evaluate import PAPER

    if args.msa is None and args.context is None:
        return []
    own = own_items.msa_settings(args.msa)
    config = _config(args.model)
    trained = config.get(INDEX_ENTRY)
    if isinstance(trained, dict):
        own = {"scorer": "index", **trained.get("settings", {}), **own}
    settings = MsaSettings.from_mapping({**(PAPER if args.items else {}), **own})
    require_budget(settings.topk, settings.local_blocks, settings.sink_blocks)
    return advise(settings, context=args.context, layer=_layer(config))


def _config(model: str | None) -> dict[str, Any]:
    """The configuration of a model that is a directory here; empty for any other."""
    file = Path(model or "") / "config.json"
    if not model or not file.is_file():
        return {}
    try:
        config = json.loads(file.read_text())
    except ValueError:
        return {}  # loading the model will say what is wrong with it
    return config if isinstance(config, dict) else {}


def _layer(config: dict[str, Any]) -> dict[str, int] | None:
    """Sizes of a layer; None where they are not known.

    The index branch is the model's own, or the retrofit's: a group's mean query on its keys.
    """
    from msa_suites.models.attention import INDEX_ENTRY

    trained = config.get(INDEX_ENTRY)
    config = config.get("text_config") or config
    heads = config.get("num_attention_heads")
    dim = config.get("head_dim") or config.get("hidden_size", 0) // (heads or 1)
    if not heads or not dim:
        return None
    index = config.get("sparse_attention_config") or {}
    return {
        "q_heads": heads,
        "kv_heads": config.get("num_key_value_heads") or heads,
        "dim": dim,
        "index_dim": trained["shape"]["index_dim"]
        if isinstance(trained, dict)
        else index.get("sparse_index_dim", dim),
    }
