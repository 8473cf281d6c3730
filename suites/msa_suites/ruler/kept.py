"""Items in a folder: one file a task and length, a manifest with hashes, and lm-eval's task files.

``DIR/manifest.json``, ``DIR/<task>-<length>.jsonl.gz`` and ``DIR/tasks/<task>.yaml``. Items are
written once and never again: every run that compares two sides reads the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from msa_harness.files import write_atomic
from msa_suites.quality.errors import ItemsError
from msa_suites.quality.hashed import read_hashed
from msa_suites.ruler.task_files import task_text

MANIFEST = "manifest.json"
SCHEMA = "msa-bench/long-text/1"
TASK_FILES = "tasks"


@dataclass(frozen=True, slots=True)
class Folder:
    """What a folder of items holds.

    Attributes:
        path: the folder.
        settings: what the items were made with.
        files: by stem, ``{"task", "length", "sha256", "items", "tokens"}``.
    """

    path: Path
    settings: dict[str, Any]
    files: dict[str, dict[str, Any]]

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, in their order."""
        return tuple(dict.fromkeys(str(entry["task"]) for entry in self.files.values()))

    def lengths(self, task: str) -> list[int]:
        """Lengths that a task has items of."""
        return sorted(entry["length"] for entry in self.files.values() if entry["task"] == task)


def stem(task: str, length: int) -> str:
    """Name of a file of items without its ending."""
    return f"{task}-{length}"


def read_folder(path: Path) -> Folder:
    """What the folder's manifest says.

    Raises:
        ItemsError: there is none, or it is no manifest of ours.
    """
    try:
        document = json.loads((path / MANIFEST).read_text())
        if document["schema"] != SCHEMA:
            raise ItemsError(
                f"items: wanted schema {SCHEMA} in {path / MANIFEST}, got {document['schema']!r}"
            )
        return Folder(path, document["settings"], document["files"])
    except FileNotFoundError:
        raise ItemsError(
            f"items: wanted a folder that `msa-bench items` has written, got {path}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, ItemsError):
            raise
        raise ItemsError(f"items: wanted a manifest in {path / MANIFEST}, got {error!r}") from None


def check_folder(path: Path) -> Folder:
    """The folder, once every file has the manifest's hash and every task file is as it was.

    Raises:
        ItemsError: the text names the file, the hash that was wanted and the one that came.
    """
    folder = read_folder(path)
    for task in folder.tasks:
        load_kept(path, task)
        file = path / TASK_FILES / f"{task}.yaml"
        if not file.is_file() or file.read_text() != task_text(task, folder.lengths(task)):
            raise ItemsError(
                f"items: wanted {file} as `msa-bench items` writes it (and would again), got "
                f"{'another text' if file.is_file() else 'no such file'}"
            )
    return folder


def load_kept(path: Path, task: str) -> list[dict[str, Any]]:
    """The items of a task at all lengths, as lm-eval's documents.

    Raises:
        ItemsError: there is no such task, or a file is missing, corrupt or has changed.
    """
    folder = read_folder(path)
    if task not in folder.tasks:
        raise ItemsError(f"items: wanted one of {', '.join(folder.tasks)} in {path}, got {task!r}")
    files = tuple(
        (f"{name}.jsonl.gz", entry["sha256"])
        for name, entry in folder.files.items()
        if entry["task"] == task
    )
    return [dict(item) for item in _load(path, files)]


@lru_cache(maxsize=1)  # a task of long items is large
def _load(path: Path, files: tuple[tuple[str, str], ...]) -> tuple[dict[str, Any], ...]:
    return tuple(
        json.loads(line)
        for name, wanted in files
        for line in read_hashed(path / name, wanted, what="items").splitlines()
    )


def is_whole(folder: Folder, name: str) -> bool:
    """Whether a file of items is there as the manifest says."""
    if name not in folder.files:
        return False
    try:
        read_hashed(folder.path / f"{name}.jsonl.gz", folder.files[name]["sha256"], what="items")
    except ItemsError:
        return False
    return True


def keep(folder: Folder, task: str, length: int, items: Iterable[Mapping[str, Any]]) -> None:
    """Write a file of items, then the manifest that names it."""
    rows = list(items)
    raw = "".join(json.dumps(row) + "\n" for row in rows).encode()
    # The hash is of the content: the compressed bytes depend on the zlib at hand.
    name, tokens = stem(task, length), [int(row["length"]) for row in rows]
    (folder.path / f"{name}.jsonl.gz").write_bytes(gzip.compress(raw, mtime=0))
    folder.files[name] = {
        "task": task,
        "length": length,
        "sha256": hashlib.sha256(raw).hexdigest(),
        "items": len(rows),
        "tokens": [min(tokens), max(tokens)],
    }
    write_manifest(folder)


def write_manifest(folder: Folder) -> None:
    """Write the manifest, and lm-eval's file for every task in it."""
    document = {"schema": SCHEMA, "settings": folder.settings, "files": folder.files}
    write_atomic(folder.path / MANIFEST, json.dumps(document, indent=1) + "\n")
    for task in folder.tasks:
        file = folder.path / TASK_FILES / f"{task}.yaml"
        write_atomic(file, task_text(task, folder.lengths(task)))
