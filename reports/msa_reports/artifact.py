"""The verdict in the archive that a pull request's run left behind.

Whoever wrote the change may have written the archive too. Nothing of it is unpacked: one file is
read, within bounds, and what is in it is checked before anybody believes or shows it.
"""

from __future__ import annotations

import io
import stat
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from msa_harness.samples import RunError
from msa_harness.verdicts import EXIT_CODES, Outcome, Verdict, worst
from msa_reports.report import VERDICT, read_outcome
from msa_reports.text import clean

#: Bytes; a run of the quick profile takes a fiftieth.
MAX_ARCHIVE = 16 << 20
MAX_VERDICT = 4 << 20
MAX_FILES = 1000
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# What the standard library raises over an archive that is none.
_BROKEN = (
    *(zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, struct.error),
    *(NotImplementedError, RuntimeError, OSError, EOFError, ValueError, OverflowError),
)


class ArtifactError(ValueError):
    """An archive without a verdict of ours; the text may hold words of whoever made it."""


def read_archive(data: bytes) -> Outcome:
    """Return the outcome in ``verdict.json`` of a zip archive.

    Args:
        data: the archive.

    Raises:
        ArtifactError: it is no archive of a run, or the verdict is broken or contradicts itself.
    """
    if len(data) > MAX_ARCHIVE:
        raise ArtifactError(f"wanted an archive of at most {MAX_ARCHIVE:,} bytes, got more")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            text = _read_verdict(archive)
    except ArtifactError:
        raise
    except _BROKEN as error:
        raise ArtifactError(f"wanted a zip archive of a run, got a broken one: {error}") from error
    return _checked(text)


def _read_verdict(archive: zipfile.ZipFile) -> bytes:
    entries = archive.infolist()
    if len(entries) > MAX_FILES:
        raise ArtifactError(f"wanted at most {MAX_FILES} files, got {len(entries):,}")
    for entry in entries:
        _require_plain(entry)
    found = [entry for entry in entries if entry.filename == VERDICT]
    if len(found) != 1:
        raise ArtifactError(f"wanted one {VERDICT}, got {len(found) or 'none'}")
    if found[0].file_size > MAX_VERDICT:
        raise ArtifactError(
            f"{VERDICT}: wanted at most {MAX_VERDICT:,} bytes, got {found[0].file_size:,}"
        )
    with archive.open(found[0]) as file:
        return file.read(MAX_VERDICT)


def _require_plain(entry: zipfile.ZipInfo) -> None:
    """A run holds files beneath its own folder: anything else was not uploaded by our workflow."""
    name = entry.filename
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise ArtifactError(f"wanted files of a run, got the path {clean(name, limit=80)}")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or entry.compress_type not in _PACKED:
        raise ArtifactError(f"wanted plain files, got {clean(name, limit=80)}, which is none")


def _checked(text: bytes) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / VERDICT
        path.write_bytes(text)
        try:
            outcome = read_outcome(path)
        except RunError as error:
            raise ArtifactError(str(error).replace(str(path), VERDICT)) from error
        except (TypeError, OverflowError, RecursionError) as error:
            raise ArtifactError(f"{VERDICT}: wanted a verdict of a run, got: {error}") from error
    if outcome is None or outcome.verdict not in EXIT_CODES:
        raise ArtifactError(f"{VERDICT}: wanted the verdict of a whole run, got that of a series")
    if outcome.verdict is Verdict.PASS and worst(s.verdict for s in outcome.series) != "PASS":
        raise ArtifactError(f"{VERDICT}: says PASS, and its series do not")
    return outcome
