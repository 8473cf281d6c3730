"""Items of the quality tasks: shipped, hashed, the same in every run.

The text behind them depends on the Python that generated them, so they are not made again in a
run: ``data/`` holds one gzip'd JSON-lines file per task and a manifest with their hashes.
``python -m msa_suites.quality.generate`` wrote them.

A line is one document: ``{"profile", "text", "items": [[start, end, question, answer], ...]}``.
The context of an item is ``text[start:end]``; an answer of null is the rest, ``text[end:]``.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from msa_suites.quality.errors import ItemsError
from msa_suites.quality.hashed import read_hashed

DATA = Path(__file__).parent / "data"
MANIFEST = "manifest.json"
SCHEMA = "msa-bench/items/1"

#: Each profile holds the items of those before it.
PROFILES = ("quick", "standard", "full")

RECALL_TASKS = (
    "msa_niah_single",
    "msa_niah_multikey",
    "msa_niah_multivalue",
    "msa_niah_multiquery",
    "msa_facts",
)
NLL_TASKS = ("msa_tail_nll", "msa_perplexity")
TASKS = RECALL_TASKS + NLL_TASKS


@dataclass(frozen=True, slots=True)
class Item:
    """One prompt and its answer, in ASCII: a byte is a token of the embedded model.

    Attributes:
        task: name of the task.
        hash: sha256 of task, context, question and answer (16 hexadecimal digits): pairs runs.
        cluster: the same of the document: items that share a document are not independent.
        length: bytes of context for recall, of context and answer for NLL.
    """

    task: str
    hash: str
    cluster: str
    context: str
    question: str
    answer: str
    length: int

    @property
    def prompt(self) -> str:
        """What the model reads before the answer."""
        return self.context + self.question


def short_hash(*parts: str) -> str:
    """First 16 hexadecimal digits of the sha256 of the parts."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def check_name(kind: str, name: str, known: tuple[str, ...]) -> str:
    """``name`` itself, or a ValueError that lists what there is."""
    if name not in known:
        raise ValueError(f"{kind}: wanted one of {', '.join(known)}, got {name!r}")
    return name


def load_items(task: str, *, profile: str = "quick", data: Path = DATA) -> tuple[Item, ...]:
    """The items of ``task`` in ``profile``, in their shipped order.

    Raises:
        ValueError: unknown task or profile.
        ItemsError: the file is missing, unreadable, or does not have the manifest's hash.
    """
    check_name("task", task, TASKS)
    check_name("profile", profile, PROFILES)
    return _load(task, profile, data)


@lru_cache(maxsize=64)
def _load(task: str, profile: str, data: Path) -> tuple[Item, ...]:
    wanted = PROFILES[: PROFILES.index(profile) + 1]
    documents = (json.loads(line) for line in _verified(task, data).splitlines())
    return tuple(
        item
        for document in documents
        if document["profile"] in wanted
        for item in expand(task, document)
    )


def expand(task: str, document: dict[str, Any]) -> list[Item]:
    """The items of one line of a file."""
    text: str = document["text"]
    cluster = short_hash(text)
    items = []
    for start, end, question, stated in document["items"]:
        context = text[start:end]
        answer = text[end:] if stated is None else stated
        length = len(context) + (len(answer) if stated is None else 0)
        name = short_hash(task, context, question, answer)
        items.append(Item(task, name, cluster, context, question, answer, length))
    return items


def read_manifest(data: Path = DATA) -> dict[str, Any]:
    """The manifest: schema, seed, corpus hash, and per task sha256, documents and items."""
    path = data / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise ItemsError(f"items manifest: wanted {path}, got no such file") from None
    except ValueError as error:
        raise ItemsError(f"items manifest {path}: wanted JSON, got {error}") from None
    if manifest.get("schema") != SCHEMA:
        raise ItemsError(
            f"items manifest {path}: wanted schema {SCHEMA}, got {manifest.get('schema')!r}"
        )
    return manifest


def check_items(data: Path = DATA) -> None:
    """Compare every shipped file of items with the manifest.

    Raises:
        ItemsError: the text names the file, the hash that was wanted and the one that came.
    """
    for task in TASKS:
        _verified(task, data)


def _verified(task: str, data: Path) -> str:
    """The lines of a task's file, once their hash is the manifest's."""
    path = data / f"{task}.jsonl.gz"
    entry = read_manifest(data)["tasks"].get(task)
    if entry is None:
        raise ItemsError(f"items of {task}: the manifest in {data} does not name them")
    return read_hashed(path, entry["sha256"], what=f"items of {task}")


def write_items(tasks: dict[str, list[dict[str, Any]]], about: dict[str, Any], data: Path) -> None:
    """Write one file per task, then the manifest that names their hashes.

    Args:
        tasks: task name to documents (the lines).
        about: what else the manifest says: seed, corpus hash, Python version.
        data: folder, made if need be.
    """
    data.mkdir(parents=True, exist_ok=True)
    entries = {}
    for task, documents in tasks.items():
        raw = "".join(json.dumps(document) + "\n" for document in documents).encode("ascii")
        # The hash is of the content: the compressed bytes depend on the zlib at hand.
        (data / f"{task}.jsonl.gz").write_bytes(gzip.compress(raw, mtime=0))
        entries[task] = {
            "sha256": hashlib.sha256(raw).hexdigest(),
            "documents": len(documents),
            "items": sum(len(document["items"]) for document in documents),
        }
    manifest = {"schema": SCHEMA, **about, "tasks": entries}
    (data / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
