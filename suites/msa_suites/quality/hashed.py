"""Files of items whose content has a hash in a manifest."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from pathlib import Path

from msa_suites.quality.errors import ItemsError


def read_hashed(path: Path, wanted: str, *, what: str) -> str:
    """The text of a gzip'd file, once its hash is the manifest's.

    Args:
        path: the file.
        wanted: sha256 of its content.
        what: begins the message of an error.

    Raises:
        ItemsError: it is missing, corrupt, or has another hash.
    """
    try:
        raw = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise ItemsError(f"{what}: wanted {path}, got no such file") from None
    except (OSError, EOFError, zlib.error) as error:
        raise ItemsError(f"{what}: {path} is corrupt: {error}") from None
    got = hashlib.sha256(raw).hexdigest()
    if got != wanted:
        raise ItemsError(
            f"{what}: wanted content with sha256 {wanted} (manifest), got {got} in {path}"
        )
    return raw.decode()
