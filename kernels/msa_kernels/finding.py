"""Where an implementation is found: by a table, by entry points, as a module or in a file."""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

#: Name -> where the module or the object stands. Imported only when it is asked for.
IMPLEMENTATIONS: dict[str, str] = {
    "reference": "msa.reference",
    "torch": "msa.fast",
    "triton": "msa_kernels.triton_ops",
    "sm100": "msa_kernels.gluon_ops:sm100",
    "sm90": "msa_kernels.gluon_ops:sm90",
    "sm100_simulated": "msa_kernels.gluon_ops:sm100_simulated",
    "sm90_simulated": "msa_kernels.gluon_ops:sm90_simulated",
    "dense_sdpa": "msa_kernels.adapters.dense_sdpa",
    "transformers": "msa_kernels.adapters.transformers_m3",
    "flex_attention": "msa_kernels.adapters.flex_attention",
    "fmha_sm100": "msa_kernels.adapters.fmha_sm100",
    "msa_v1": "msa_kernels.adapters.msa_v1",
    "hub": "msa_kernels.adapters.hub_msa",
    "flashinfer": "msa_kernels.adapters.flashinfer_msa",
    "vllm": "msa_kernels.adapters.vllm_msa",
}


#: Entry points by which an installed package names its own.
GROUP = "msa_bench.implementations"


class ImplementationError(ValueError):
    """An implementation that is unknown, broken, or cannot run here."""


def installed() -> dict[str, str]:
    """Names that installed packages have entered, and where they point; ours cannot be taken."""
    found = importlib.metadata.entry_points(group=GROUP)
    return {one.name: one.value for one in found if one.name not in IMPLEMENTATIONS}


def find(spec: str) -> Any:  # noqa: ANN401  # what outsiders write has no common type
    """What ``spec`` names, whether it can run here or not.

    Raises:
        ImplementationError: no such name, module or object.
    """
    place = IMPLEMENTATIONS.get(spec) or installed().get(spec)
    if place is None and not any(sign in spec for sign in ".:/"):
        names = {**IMPLEMENTATIONS, **installed()}
        near = difflib.get_close_matches(spec, names, n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        try:
            known = importlib.util.find_spec(spec) is not None
        except (ImportError, ValueError):
            known = False
        if not known:
            raise ImplementationError(
                f"implementation: wanted one of {', '.join(names)}, a module or "
                f"module:object, got {spec!r}{hint}"
            )
    module_name, _, path = (place or spec).partition(":")
    found: object = _module(spec, module_name)
    for part in path.split(".") if path else ():
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, dir(found), n=3)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise ImplementationError(
                f"implementation {spec!r}: wanted an attribute of {module_name}, "
                f"got {part!r}, which it has not{hint}"
            )
        found = getattr(found, part)
    return found


def _module(spec: str, name: str) -> ModuleType:
    try:
        if name.endswith(".py"):
            return _module_of_file(Path(name))
        return importlib.import_module(name)
    except Exception as error:
        # Whatever a foreign module raises while it loads is the reason, in its own words.
        missing = isinstance(error, ModuleNotFoundError) and error.name == name.partition(".")[0]
        advice = "; a file can be named as path/to/file.py:object" if missing else ""
        raise ImplementationError(
            f"implementation {spec!r}: cannot import {name}: {type(error).__name__}: {error}"
            f"{advice}"
        ) from error


def _module_of_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError(f"wanted a Python file, got {path}, which does not exist")
    name = f"msa_implementation_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise ImportError(f"wanted a Python file, got {path}")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickles of the module look it up here.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
