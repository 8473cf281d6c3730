"""What lm-eval may pass to the model class: who takes each option, and which ones are refused.

HFLM ignores most of its options in silence where it is handed a loaded model. Here each is
honoured, or refused by name unless it asks for what happens anyway.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from msa_suites.models.attention import MsaSettings

_SETTINGS = frozenset(field.name for field in fields(MsaSettings))
_LOADING = frozenset(
    {
        "device_map",
        "revision",
        "subfolder",
        "trust_remote_code",
        "tokenizer",
        "use_fast_tokenizer",
        "add_bos_token",
    }
)
_HFLM = frozenset(
    {
        "max_length",
        "prefix_token_id",
        "add_bos_token",
        "think_end_token",
        "enable_thinking",
        "chat_template_args",
    }
)
#: lm-eval's command line always passes it; prompts are read one at a time whatever it says.
_WITHOUT_EFFECT = frozenset({"max_batch_size"})

_OTHER_WEIGHTS = "the weights are read as they lie in the directory or on the hub"
_ONE_WAY = "device_map=auto shares a model out over the devices"
_FLOAT = "likelihoods are float32, of a model that runs in its own dtype"
#: Values that ask for nothing, and why no other is taken.
_REFUSED: dict[str, tuple[tuple[object, ...], str]] = {
    "backend": (("default", "causal"), "only causal language models have MSA"),
    "parallelize": ((False,), _ONE_WAY),
    "tp_plan": ((), _ONE_WAY),
    "max_memory_per_gpu": ((), _ONE_WAY),
    "max_cpu_memory": ((), _ONE_WAY),
    "offload_folder": (("./offload",), _ONE_WAY),
    "peft": ((), _OTHER_WEIGHTS),
    "delta": ((), _OTHER_WEIGHTS),
    "autogptq": ((False,), _OTHER_WEIGHTS),
    "gptqmodel": ((False,), _OTHER_WEIGHTS),
    "gguf_file": ((), _OTHER_WEIGHTS),
    "load_in_8bit": ((False,), _OTHER_WEIGHTS),
    "load_in_4bit": ((False,), _OTHER_WEIGHTS),
    "quantization_config": ((), _OTHER_WEIGHTS),
    "attn_implementation": ((), "attention=msa or attention=dense chooses it"),
    "truncation": ((False,), "a prompt is read whole or refused"),
    "logits_cache": ((True,), "share_prefix=False reads every prompt on its own"),
    "softmax_dtype": (("float32",), _FLOAT),
    "mixed_precision_dtype": ((), _FLOAT),
}


@dataclass(frozen=True, slots=True)
class Options:
    """Options by who takes them: the retrofit, the loading of the model, lm-eval's own class."""

    settings: dict[str, Any]
    loading: dict[str, Any]
    hflm: dict[str, Any]


def sort_options(given: Mapping[str, Any]) -> Options:
    """Hand out the arguments that the model class has no parameter for.

    Args:
        given: by name; None asks for nothing.

    Raises:
        ValueError: an option that is refused, or that nobody knows, with near matches.
    """
    asked = {name: value for name, value in given.items() if value is not None}
    for name, value in asked.items():
        if name in _REFUSED:
            harmless, why = _REFUSED[name]
            if not any(value is other or value == other for other in harmless):
                wanted = " or ".join(map(repr, harmless)) or "nothing"
                raise ValueError(f"{name}: wanted {wanted}, because {why}, got {value!r}")
        elif name not in _SETTINGS | _LOADING | _HFLM | _WITHOUT_EFFECT:
            known = sorted(_SETTINGS | _LOADING | _HFLM | {"attention", "chunk", "share_prefix"})
            near = difflib.get_close_matches(name, known, n=2) or known
            raise ValueError(f"model_args: wanted one of {', '.join(near)}, got {name!r}")
    _check_length(asked.get("max_length", 1))
    if "revision" in asked:  # lm-eval makes a number of one that is written in digits
        asked["revision"] = str(asked["revision"])
    return Options(*(_of(names, asked) for names in (_SETTINGS, _LOADING, _HFLM)))


def check_batch_size(given: int | str | None) -> None:
    """Refuse what lm-eval could not mean by a batch size.

    Raises:
        ValueError: neither a positive number nor ``auto`` or ``auto:N``.
    """
    first, _, rest = str(given).partition(":")
    if given is None or (first == "auto" and (not rest or _is_number(rest))):
        return
    if rest or not first.isdecimal() or int(first) < 1:
        raise ValueError(f"batch_size: wanted a number above 0, auto or auto:N, got {given!r}")


def check_chunk(given: object) -> int:
    """The number of tokens read at a time.

    Raises:
        ValueError: no number, or below 0.
    """
    if isinstance(given, bool) or not isinstance(given, int) or given < 0:
        raise ValueError(f"chunk: wanted tokens read at a time, or 0 for all, got {given!r}")
    return given


def _check_length(given: object) -> None:
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        raise ValueError(f"max_length: wanted a number of tokens above 0, got {given!r}")


def _is_number(text: str) -> bool:
    try:
        return float(text) > 0
    except ValueError:
        return False


def _of(names: frozenset[str], asked: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in asked.items() if name in names}
