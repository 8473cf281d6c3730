"""Loading a causal language model and its tokenizer, with errors that say what is missing."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import torch

from msa_suites.models import index, shipped
from msa_suites.models.attention import INDEX_ENTRY
from msa_suites.models.placing import DeviceMap, find_device, find_device_map, find_dtype

# transformers puts another module in its own place when it is loaded. A `from` in a second thread
# that waited for the first would look into the one that was there before: load it whole first.
importlib.import_module("transformers")

from transformers import (  # noqa: E402 - as above
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import (  # noqa: E402 - as above
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)
from transformers.utils import logging as bars  # noqa: E402 - as above

#: The model that ships with the suite.
EMBEDDED = shipped.EMBEDDED

# Suites load models in threads of one process, and two loads at once lose tied weights.
_ONE_AT_A_TIME = Lock()
#: A directory with one of these has a tokenizer without ``tokenizer.json``.
_OTHER_TOKENIZERS = ("tokenizer.model", "vocab.json")


class ModelError(ValueError):
    """A model that cannot be loaded as it lies there."""


def check_directory(path: Path, *, tokenizer: bool = True) -> None:
    """Raise FileNotFoundError or ModelError unless ``path`` looks like a saved model.

    Args:
        path: where ``config.json`` and the weights should lie.
        tokenizer: whether its tokenizer should lie there too.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"model: wanted a model directory, got {path}")
    names = ["config.json"]
    if tokenizer and not any((path / name).is_file() for name in _OTHER_TOKENIZERS):
        names.append("tokenizer.json")
    if missing := [name for name in names if not (path / name).is_file()]:
        raise FileNotFoundError(f"model {path}: wanted {', '.join(names)}, missing {missing}")
    if not any((*path.glob("*.safetensors"), *path.glob("pytorch_model*.bin"))):
        raise FileNotFoundError(f"model {path}: wanted a *.safetensors file of weights, got none")
    try:
        json.loads((path / "config.json").read_text())
    except ValueError as error:
        raise ModelError(f"model {path}: wanted JSON in config.json, got {error}") from None


def load_model(
    model: str,
    *,
    device: str = "cpu",
    dtype: str | torch.dtype = "float32",
    device_map: object = None,
    revision: str | None = None,
    subfolder: str = "",
    trust_remote_code: bool = False,
    tokenizer: Any = None,  # noqa: ANN401 - transformers is untyped
    use_fast_tokenizer: bool = True,
    add_bos_token: bool | None = None,
) -> tuple[PreTrainedModel, Any]:
    """A model in evaluation mode and its tokenizer.

    Args:
        model: a directory, or the id of a model in the Hub's local cache or on the Hub.
        device: a torch device for the whole model.
        dtype: name of a floating dtype, to which the weights are converted; ``auto`` is that of
            the checkpoint.
        device_map: shares the model out, and then ``device`` is not asked:
            :func:`msa_suites.models.placing.find_device_map`.
        revision: branch, tag or commit on the Hub.
        subfolder: folder of the model, and of its tokenizer, below ``model``.
        trust_remote_code: run code that comes with the model.
        tokenizer: another directory or id to take the tokenizer from, or a tokenizer.
        use_fast_tokenizer: the tokenizer written in Rust where there is one.
        add_bos_token: whether the tokenizer puts the token in front that begins a text; None
            leaves it as it is.

    Raises:
        FileNotFoundError: no such directory or id, or a file is missing from it.
        ModelError: the files are there but do not make a whole model.
        ValueError: there is no such device or dtype, float64 with a device map, or a revision of
            a directory.
        FixtureError: it is the embedded model, and a file of it has changed.
    """
    wanted = find_dtype(dtype)
    placed = None if device_map is None else find_device_map(device_map)
    where = find_device(device) if placed is None else None
    if placed is not None and wanted is torch.float64:
        raise ValueError("dtype: wanted one of 32 bits or fewer with a device_map, got float64")
    if _is_path(model):
        check_directory(Path(model) / subfolder, tokenizer=tokenizer is None)
        if revision not in (None, "main"):
            raise ValueError(f"revision: wanted none of a directory, got {revision!r} of {model}")
    if _is_path(model) and Path(model).resolve() in [
        folder.resolve() for folder in (EMBEDDED, shipped.EMBEDDED_CPT)
    ]:
        shipped.check_sums(Path(model))
    source: dict[str, Any] = {"subfolder": subfolder, "trust_remote_code": trust_remote_code}
    if revision is not None:
        source["revision"] = revision
    reading: dict[str, Any] = {**source, "use_fast": use_fast_tokenizer}
    if add_bos_token is not None:
        reading["add_bos_token"] = add_bos_token
    if isinstance(tokenizer, str):
        tokenizer = _load_other_tokenizer(tokenizer, reading)
    try:
        with _ONE_AT_A_TIME, _without_bars():
            if tokenizer is None:
                tokenizer = AutoTokenizer.from_pretrained(model, **reading)
            network, report = _load_weights(model, wanted, placed, source)
    except OSError as error:
        raise FileNotFoundError(f"model: wanted a directory or hub id, got {model}") from error
    except Exception as error:  # of a broken file, transformers raises whatever it meets
        raise ModelError(f"model {model}: wanted a whole model, got {_first(error)}") from error
    # transformers fills what is missing with random numbers and only warns.
    problems = {name: sorted(report[name])[:4] for name in report if report[name]}
    if problems:
        raise ModelError(f"model {model}: wanted weights for every parameter, got {problems}")
    if hasattr(network.config, INDEX_ENTRY):
        _attach_index(network, model, source)
    if where is not None:
        network.to(where)
    if wanted is torch.float64:
        network.to(wanted)
    network.eval()
    network.requires_grad_(False)
    return network, tokenizer


def _attach_index(network: PreTrainedModel, model: str, source: Mapping[str, Any]) -> None:
    """Add the trained index branch that lies beside the weights."""
    from transformers.utils import cached_file

    plain = {key: value for key, value in source.items() if key != "trust_remote_code"}
    try:
        index.attach_saved(network, Path(cached_file(model, index.FILE, **plain)))
    except (OSError, ValueError) as error:
        raise ModelError(f"model {model}: {_first(error)}") from error


def _load_other_tokenizer(name: str, how: Mapping[str, Any]) -> Any:  # noqa: ANN401 - untyped
    """The tokenizer of another model; of its folders and revisions nothing was said."""
    plain = {key: value for key, value in how.items() if key not in ("subfolder", "revision")}
    try:
        with _ONE_AT_A_TIME, _without_bars():
            return AutoTokenizer.from_pretrained(name, **plain)
    except Exception as error:  # of a broken file, transformers raises whatever it meets
        raise ModelError(
            f"tokenizer: wanted a directory or hub id of one, got {name!r}, {_first(error)}"
        ) from error


def _load_weights(
    model: str, dtype: torch.dtype | None, device_map: DeviceMap | None, source: dict[str, Any]
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The network, and what transformers says was missing or too much.

    What transformers keeps in float32 whatever the dtype (angles of the rotation: bfloat16 would
    turn a position of 4,096 by several radians) stays so: nothing is converted again.
    """
    kind = AutoConfig.from_pretrained(model, **source).model_type
    # Some models that see are no causal models to transformers, MiniMax-M3 among them.
    sees = kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    only_sees = sees and kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    family = AutoModelForImageTextToText if only_sees else AutoModelForCausalLM
    loaded: str | torch.dtype = "auto" if dtype is None else dtype
    # from_pretrained makes the dtype everybody's for a moment, and float64 nobody expects.
    if dtype is torch.float64:
        loaded = torch.float32
    network, report = family.from_pretrained(
        model,
        dtype=loaded,
        device_map=device_map,
        attn_implementation="sdpa",
        output_loading_info=True,
        **source,
    )
    return network, report


@contextmanager
def _without_bars() -> Iterator[None]:
    """A run has a progress line of its own."""
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()


def _is_path(model: str) -> bool:
    """Whether ``model`` can only be a path: it exists, or no hub id is written like it."""
    return Path(model).exists() or model.startswith((".", "/", "~")) or model.count("/") != 1


def _first(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
