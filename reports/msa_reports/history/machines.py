"""A machine as the history names it: by what it measures with, never by its host."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from msa_harness.records import RunError
from msa_reports.text import clean


def machine_of(environment: Mapping[str, Any], name: str = "") -> dict[str, str]:
    """The machine as asv describes one.

    Args:
        environment: as a run's header has it: cpu_model, cores, device, gpu, platform.
        name: instead of the GPU's, or of the processor with its cores.

    Raises:
        RunError: there is no name, or none of 1 to 80 letters and digits.
    """
    gpu, cores = environment.get("gpu"), str(environment.get("cores") or "")
    if environment.get("device", "cpu") == "cpu":
        device = str(environment.get("cpu_model") or "cpu")
        text = name or f"{device} {cores} cores"
    else:
        device = str(gpu.get("name") or "") if isinstance(gpu, Mapping) else ""
        if not (text := name or device):
            raise RunError("machine: wanted the GPU's name in the run, got none; give --machine")
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if not slug or len(slug) > 80:
        raise RunError(f"machine: wanted a name of 1 to 80 letters and digits, got {text!r:.100}")
    system, _, architecture = str(environment.get("platform") or "").partition(" ")
    facts = {"os": system, "arch": architecture, "cpu": device, "num_cpu": cores, "ram": ""}
    return {"machine": slug} | {key: plain(text) for key, text in facts.items()}


def plain(text: str) -> str:
    """``text`` for asv's pages, which show what they are given as HTML."""
    return re.sub(r"[<>&\"'`]", "_", clean(text, limit=60))
