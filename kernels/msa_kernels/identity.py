"""Which code really ran: distribution, version, file and hash of an implementation."""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Identity:
    """Where an implementation comes from.

    Attributes:
        name: dotted name of the module, with the object where there is one.
        distribution: installed distribution that holds it, "" where there is none.
        version: of the distribution or the top module, "" where neither tells; an adapter's also
            names the distributions that it lists in ``RUNS``, whose code it really runs.
        file: of the module, "" where it has none.
        sha256: of that file, or of all Python files of a package; "" without a file.
    """

    name: str
    distribution: str
    version: str
    file: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.name} {self.version or '?'} sha256:{self.sha256[:12] or '?'}"

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


@functools.cache
def _distributions() -> dict[str, list[str]]:
    return dict(metadata.packages_distributions())


def identity_of(implementation: object) -> Identity:
    """The identity of a module, a function or an object (that of its class)."""
    if inspect.ismodule(implementation):
        module, name = implementation, implementation.__name__
    else:
        owner = implementation if hasattr(implementation, "__qualname__") else type(implementation)
        found = sys.modules.get(getattr(owner, "__module__", ""))
        qualified = getattr(owner, "__qualname__", type(implementation).__name__)
        if found is None:
            return Identity(qualified, "", "", "", "")
        module, name = found, f"{found.__name__}:{qualified}"
    top = module.__name__.partition(".")[0]
    owners = _distributions().get(top, [])
    distribution = owners[0] if owners else ""
    version = str(getattr(sys.modules.get(top), "__version__", ""))
    if not version and distribution:
        version = metadata.version(distribution)
    runs = getattr(module, "RUNS", ())
    if isinstance(runs, tuple) and all(isinstance(one, str) for one in runs):
        version = " with ".join([version, *_versions(runs)]).strip()
    file = getattr(module, "__file__", None)
    if not file:
        return Identity(name, distribution, version, "", "")
    return Identity(name, distribution, version, str(Path(file)), _digest(Path(file)))


def _versions(distributions: tuple[str, ...]) -> Iterator[str]:
    for name in distributions:
        try:
            yield f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            yield f"{name} of no known version"


def _digest(file: Path) -> str:
    files = sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file]
    digest = hashlib.sha256()
    for path in files:
        # The name is part of what is hashed: a renamed module is another package.
        digest.update(path.relative_to(file.parent).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
