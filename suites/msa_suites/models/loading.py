"""Loading a causal language model and its tokenizer, with errors that say what is missing."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import torch

from msa_suites.models import shipped

# transformers puts another module in its own place when it is loaded. A `from` in a second thread
# that waited for the first would look into the one that was there before: load it whole first.
importlib.import_module("transformers")

from transformers import (  # noqa: E402 - as above
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
)
from transformers.utils import logging as bars  # noqa: E402 - as above

#: The model that ships with the suite.
EMBEDDED = shipped.EMBEDDED

# Suites load models in threads of one process, and two loads at once lose tied weights.
_ONE_AT_A_TIME = Lock()
_DTYPES = {name: getattr(torch, name) for name in ("float32", "float16", "bfloat16", "float64")}


def find_dtype(name: str) -> torch.dtype:
    """The torch dtype called ``name``.

    Raises:
        ValueError: not one of the floating dtypes of a model.
    """
    if name not in _DTYPES:
        raise ValueError(f"dtype: wanted one of {', '.join(_DTYPES)}, got {name!r}")
    dtype: torch.dtype = _DTYPES[name]
    return dtype


def find_device(name: str) -> torch.device:
    """The torch device called ``name``.

    Raises:
        ValueError: no such device here.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device: wanted cpu or cuda, got {name!r}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device: wanted one that torch can use here, got {name!r} without CUDA")
    return device


class ModelError(ValueError):
    """A model that cannot be loaded as it lies there."""


def check_directory(path: Path) -> None:
    """Raise FileNotFoundError or ModelError unless ``path`` looks like a saved model."""
    if not path.is_dir():
        raise FileNotFoundError(f"model: wanted a model directory, got {path}")
    names = ("config.json", "tokenizer.json")
    if missing := [name for name in names if not (path / name).is_file()]:
        raise FileNotFoundError(f"model {path}: wanted {', '.join(names)}, missing {missing}")
    if not any(path.glob("*.safetensors")):
        raise FileNotFoundError(f"model {path}: wanted a *.safetensors file of weights, got none")
    try:
        json.loads((path / "config.json").read_text())
    except ValueError as error:
        raise ModelError(f"model {path}: wanted JSON in config.json, got {error}") from None


def load_model(
    model: str, *, device: str = "cpu", dtype: str = "float32"
) -> tuple[PreTrainedModel, Any]:
    """A model in evaluation mode and its tokenizer.

    Args:
        model: a directory, or the id of a model in the Hub's local cache or on the Hub.
        device: a torch device.
        dtype: name of a floating dtype; the weights are converted to it.

    Raises:
        FileNotFoundError: no such directory or id, or a file is missing from it.
        ModelError: the files are there but do not make a whole model.
        ValueError: there is no such device or dtype.
        FixtureError: it is the embedded model, and a file of it has changed.
    """
    wanted, where = find_dtype(dtype), find_device(device)
    # from_pretrained makes the dtype everybody's default for a moment, and float64 nobody expects.
    loaded = torch.float32 if wanted is torch.float64 else wanted
    if _is_path(model):
        check_directory(Path(model))
    if Path(model).resolve() == EMBEDDED.resolve():
        shipped.check_sums(EMBEDDED)
    try:
        with _ONE_AT_A_TIME, _without_bars():
            tokenizer = AutoTokenizer.from_pretrained(model)
            network, report = AutoModelForCausalLM.from_pretrained(
                model, dtype=loaded, attn_implementation="sdpa", output_loading_info=True
            )
    except OSError as error:
        raise FileNotFoundError(f"model: wanted a directory or hub id, got {model}") from error
    except Exception as error:  # of a broken file, transformers raises whatever it meets
        raise ModelError(f"model {model}: wanted a whole model, got {_first(error)}") from error
    # transformers fills what is missing with random numbers and only warns.
    problems = {name: sorted(report[name])[:4] for name in report if report[name]}
    if problems:
        raise ModelError(f"model {model}: wanted weights for every parameter, got {problems}")
    network.to(where, wanted)
    network.eval()
    network.requires_grad_(False)
    return network, tokenizer


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
