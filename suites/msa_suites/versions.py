"""Versions of what a worker runs on."""

from __future__ import annotations

from msa_harness.client import Worker

#: What decides how fast equal code is.
SOFTWARE = ("python", "torch", "triton", "numpy", "threads")


def software_of(worker: Worker) -> dict[str, str]:
    """What a worker runs on, by name of :data:`SOFTWARE`; what it lacks is left out."""
    found = worker.info()
    worker.load("versions", "msa_harness.environment:versions")
    packages = worker.call("versions", "", [[name for name in SOFTWARE if name not in found]])
    own = {name: str(found[name]) for name in SOFTWARE if name in found}
    return {name: text for name in SOFTWARE if (text := {**own, **packages}.get(name, ""))}
