"""Measuring section after section, each kept on disk as soon as it is there."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msa_harness.records import RunError, write_atomic
from msa_suites.reproduction import SECTIONS
from msa_suites.reproduction.setup import CannotRun, Setup

SCHEMA = "msa-bench/reproduction/1"
DATA = "data"
#: What may go wrong inside a section without ending the others: what a command reports as an error.
_EXPECTED = (ValueError, TypeError, LookupError, OSError, RuntimeError, ImportError)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a section ended.

    Attributes:
        section: its name.
        why_not: why it has no result; empty where it has one.
        failed: whether that was an error, and not something that cannot run here.
    """

    section: str
    why_not: str = ""
    failed: bool = False


def describe(setup: Setup) -> dict[str, Any]:
    """What two measurements of a section must share for one to stand in for the other."""
    import torch

    from msa_harness.environment import capture

    found = capture(threads=torch.get_num_threads(), device=setup.device)
    cuda = setup.device == "cuda"
    packages = {name: found.packages[name] for name in ("torch", "transformers", "numpy")}
    return {
        "model": _model(setup.model),
        "seed": setup.seed,
        "device": torch.cuda.get_device_name() if cuda else found.cpu_model,
        "cores": found.cores,
        "threads": found.threads,
        "quick": setup.quick,
        "python": found.python,
        **packages,
    }


def _model(name: str) -> dict[str, str]:
    """Name and hash of the weights; of a model of the Hub the hash is empty."""
    from msa_suites.models.shipped import EMBEDDED

    folder = Path(name) if name else EMBEDDED
    sums = [hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.safetensors")]
    together = hashlib.sha256("".join(sorted(sums)).encode()).hexdigest() if sums else ""
    # The folder's own name: where it lies is nobody's business.
    shown = folder.resolve().name if folder.is_dir() and name else name
    return {"name": shown or "embedded", "sha256": together}


def command(setup: Setup) -> str:
    """The command that measures a document like this one."""
    from msa_suites.plan import here

    inside = setup.out.is_relative_to(here())
    shown = setup.out.relative_to(here()) if inside else Path(setup.out.name)
    words = ["msa-bench reproduce", f"--out {shown}"]
    if setup.model:
        words.append(f"--model {_model(setup.model)['name']}")
    if setup.seed:
        words.append(f"--seed {setup.seed}")
    if setup.device != "cpu":
        words.append(f"--device {setup.device}")
    return " ".join([*words, "--quick"] if setup.quick else words)


def measure(setup: Setup, sections: Iterable[str], *, resume: bool) -> Iterator[Outcome]:
    """Measure the sections that are not there yet, in the order of the table.

    Args:
        setup: how.
        sections: names from the table.
        resume: take over what ``setup.out`` has; else nothing may be there.

    Yields:
        How each section ended, after its file is on disk.

    Raises:
        ValueError: a file of an earlier run is there without ``resume``, is broken, or was
            measured with another set-up.
        RunError: the folder cannot be written.
    """
    chosen = [name for name in SECTIONS if name in set(sections)]
    about = describe(setup)
    kept = {name: _kept(setup, name, about, resume=resume) for name in chosen}
    place = _commit(setup.out)
    folder = setup.out / DATA
    folder.mkdir(parents=True, exist_ok=True)
    for name in chosen:
        if kept[name]:
            yield Outcome(name)
            continue
        started = time.monotonic()
        result, why_not, failed = _run(setup, name)
        document = {
            "schema": SCHEMA,
            "section": name,
            "setup": about,
            **place,
            "command": command(setup),
            "seconds": round(time.monotonic() - started, 1),
            "result": result,
            "why_not": why_not,
        }
        text = json.dumps(document, indent=1, allow_nan=False)
        write_atomic(folder / f"{name}.json", text + "\n")
        yield Outcome(name, why_not, failed)


def _run(setup: Setup, name: str) -> tuple[dict[str, Any] | None, str, bool]:
    try:
        result = importlib.import_module(SECTIONS[name]).measure(setup)
        json.dumps(result, allow_nan=False)
    except CannotRun as why:
        return None, str(why), False
    except RunError:  # a disk that is full is no fault of the section
        raise
    except _EXPECTED as error:
        return None, f"{type(error).__name__}: {error}", True
    return result, "", False


def _kept(setup: Setup, name: str, about: dict[str, Any], *, resume: bool) -> bool:
    """Whether the section is there already; one without a result is measured again."""
    file = setup.out / DATA / f"{name}.json"
    if not file.exists():
        return False
    if not resume:
        raise ValueError(
            f"--out: {file} is there already; go on with --resume, or delete it to measure the "
            "section again"
        )
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        before, done = found["setup"], found["result"] is not None
        right = found["schema"] == SCHEMA and found["section"] == name
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: wanted a recorded section, got {error!r}") from error
    if not right or not isinstance(before, dict):
        raise ValueError(f"{file}: wanted section {name} of {SCHEMA}, got another")
    names = [key for key in sorted({*before, *about}) if before.get(key) != about.get(key)]
    if names:
        differs = "; ".join(f"{key}: {before.get(key)!r}, now {about.get(key)!r}" for key in names)
        raise ValueError(
            f"--resume: wanted section {name} measured with the same set-up, got another "
            f"({differs}); delete {file} or name another --out"
        )
    return done


def _commit(out: Path) -> dict[str, Any]:
    """The commit of the code; what this run itself writes is no change of it."""
    from msa_harness.subjects import SubjectError, is_dirty, resolve_revision
    from msa_suites.plan import here

    root = here().resolve()
    written = [out, out.with_name(f"{out.name}.md")]
    own = [path for path in written if path.is_relative_to(root)]
    if (root / ".git").exists():
        with contextlib.suppress(SubjectError):
            return {
                "commit": resolve_revision(root, "HEAD"),
                "dirty": is_dirty(root, besides=own),
            }
    return {"commit": "", "dirty": False}
