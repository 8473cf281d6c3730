"""Which code ran: a module's file, version and hash, and whether it came from where it should.

Imports the standard library only: the first half runs inside the worker.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


def module_info(name: str) -> dict[str, str]:
    """File, version and hash of an importable module.

    The hash covers the module's own file, or every Python file below a package's directory.
    """
    module = importlib.import_module(name)
    file = getattr(module, "__file__", None) or ""
    version, distribution = _version(module, name.partition(".")[0], file)
    return {
        "file": file,
        "distribution": distribution,
        "version": version,
        "sha256": source_hash(Path(file)) if file else "",
    }


def _version(module: object, top: str, file: str) -> tuple[str, str]:
    """Version and distribution; a distribution counts only if the file lies in its directory."""
    for name in _distributions(top, file):
        distribution = importlib.metadata.distribution(name)
        place = Path(str(distribution.locate_file(""))).resolve()
        if Path(file).resolve().is_relative_to(place):
            return distribution.version, name
    own = getattr(importlib.import_module(top), "__version__", "")
    return str(getattr(module, "__version__", own)), ""


def _distributions(top: str, file: str) -> list[str]:
    """Distributions that say they hold the package; none where its folder of the path has none.

    Reading all that is installed takes a third of a second, and a checkout holds no distribution.
    """
    above = {str(folder) for folder in Path(file).resolve().parents} if file else set()
    places = [entry for entry in sys.path if str(Path(entry).resolve()) in above]
    if next(iter(importlib.metadata.distributions(path=places)), None) is None:
        return []
    return list(importlib.metadata.packages_distributions().get(top, []))


def source_hash(file: Path) -> str:
    """SHA-256 of a module's file, or, for a package's `__init__.py`, of all its Python files."""
    if file.name != "__init__.py":
        return hashlib.sha256(file.read_bytes()).hexdigest()
    digest = hashlib.sha256()
    for part in sorted(file.parent.rglob("*.py")):
        digest.update(f"{part.relative_to(file.parent)}\0".encode())
        digest.update(hashlib.sha256(part.read_bytes()).digest())
    return digest.hexdigest()


def attest(modules: Mapping[str, Mapping[str, str]], roots: Sequence[Path]) -> list[str]:
    """What speaks against the claim that these modules came from these directories.

    Args:
        modules: Name to `module_info`, as a worker's `info` answers.
        roots: Import path entries of the subject.

    Returns:
        One text per problem; empty where every module came from a root with the hash found there.
    """
    problems = []
    for name, info in modules.items():
        file = Path(info["file"]).resolve()
        if not info["file"] or not any(file.is_relative_to(root.resolve()) for root in roots):
            wanted = ", ".join(str(root) for root in roots)
            problems.append(f"{name}: wanted it from {wanted}, got {info['file'] or 'no file'}")
        elif source_hash(file) != info["sha256"]:
            problems.append(f"{name}: {file} changed while it ran")
    return problems


def ran(name: str, info: Mapping[str, str]) -> str:
    """One line for a record: "msa.fast 0.1.0 sha256:0123456789ab"."""
    parts = [name, info["version"], f"sha256:{info['sha256'][:12]}" if info["sha256"] else ""]
    return " ".join(part for part in parts if part)
