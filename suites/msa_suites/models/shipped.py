"""The embedded model's files and their hashes, which are checked before anything is measured.

`SHA256SUMS` is what ``sha256sum -c`` reads. Imports nothing heavy.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

#: The model that ships with the suite.
EMBEDDED = Path(__file__).parent / "embedded"
#: The same, converted to MSA with a trained index branch.
EMBEDDED_CPT = Path(__file__).parent / "embedded_cpt"
SUMS = "SHA256SUMS"


class FixtureError(ValueError):
    """A shipped file is missing, or is not the one that its hash names."""


def write_sums(directory: Path) -> None:
    """Hash the files that make a model: weights, and JSON but for the training log."""
    files = [*directory.glob("*.safetensors"), *directory.glob("*.json")]
    names = sorted(path.name for path in files if path.name != "training.json")
    lines = [f"{_sha256(directory / name)}  {name}\n" for name in names]
    (directory / SUMS).write_text("".join(lines))


def check_sums(directory: Path) -> None:
    """Compare the files with their hashes.

    Raises:
        FixtureError: a file is missing or changed; the text names it, the hash that was wanted and
            the one that came.
    """
    sums = directory / SUMS
    try:
        lines = sums.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FixtureError(f"fixture {sums}: wanted hashes, got {error}") from error
    named = [line.split(maxsplit=1) for line in lines]
    if not named or any(len(row) != 2 for row in named):
        raise FixtureError(f"fixture {sums}: wanted lines of a hash and a name, got {lines[:1]}")
    for wanted, name in named:
        path = directory / name
        try:
            got = _sha256(path)
        except OSError as error:
            reason = error.strerror
            raise FixtureError(f"fixture {path}: wanted sha256 {wanted}, got {reason}") from error
        if got != wanted:
            raise FixtureError(f"fixture {path}: wanted sha256 {wanted}, got {got}")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
