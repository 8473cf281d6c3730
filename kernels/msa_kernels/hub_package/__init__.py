"""Our kernels in the layout of the Hugging Face Hub, for ``kernels.get_local_kernel``.

``python -m msa_kernels.hub_package --out FOLDER`` writes a folder with one build for CPUs and one
for CUDA. Both hold the same Python files, from this project's sources, and import nothing of it; in
either Triton's kernels run where Triton and its device are found, else plain PyTorch. The same
sources give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from importlib import metadata, resources
from pathlib import Path

import msa
from msa_kernels.hub_package.gathering import TOPS, gather

__all__ = ["BACKENDS", "NAME", "write_package"]

BACKENDS = ("cpu", "cuda")
NAME, VERSION = "msa-bench", 0
_NAME = re.compile(r"[a-z][-a-z0-9]*[a-z0-9]")
#: By this line a folder is known as written here.
_MARK = "<!-- Written by `python -m msa_kernels.hub_package`, and written anew by it. -->"


def write_package(out: Path, *, name: str = NAME, version: int = VERSION) -> None:
    """Write the package into a folder that is new, empty, or was written here before.

    Args:
        out: the folder; it becomes the root of the Hub's repository.
        name: of the kernel: small letters, digits and dashes.
        version: of its interface; 0 for one that may still change.

    Raises:
        ValueError: a name or a version that the Hub does not take.
        FileExistsError: a file, or a folder in which something else stands.
    """
    package = name.replace("-", "_")
    if not _NAME.fullmatch(name) or package in TOPS:
        raise ValueError(
            f"name: wanted small letters, digits and dashes, a letter first and no dash last, and "
            f"not {' or '.join(TOPS)}, got {name!r}"
        )
    if version < 0:
        raise ValueError(f"version: wanted 0 or more, got {version}")
    _require_free(out)
    files = {
        **gather(f"{__name__}.facade"),
        f"{package}/__init__.py": _text("older_layout.py"),
        "LICENSE": _licence(),
    }
    shutil.rmtree(out / "build", ignore_errors=True)
    for backend in BACKENDS:
        _write_build(out / "build" / f"torch-{backend}", files, name, version, backend)
    card = _text("card.md").format(mark=_MARK, name=name, version=version)
    (out / "README.md").write_bytes(card.encode())


def _write_build(
    folder: Path, files: dict[str, str], name: str, version: int, backend: str
) -> None:
    """One build: its files, and what ``kernels`` reads about them."""
    hashes = {}
    for path, text in sorted(files.items()):
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode())
        digest = hashlib.sha256(text.encode()).digest()
        hashes[path] = base64.b64encode(digest).decode()
    # Two builds of one id would share their modules in a process, so the contents name it.
    content = hashlib.sha256(json.dumps(hashes).encode()).hexdigest()[:7]
    record = {
        "id": f"_{name.replace('-', '_')}_{backend}_{content}",
        "name": name,
        "version": version,
        "license": "MIT",
        "python-depends": [],
        "backend": {"type": backend},
        "digest": {"algorithm": "sha256", "files": hashes},
    }
    (folder / "metadata.json").write_bytes(f"{json.dumps(record, indent=2)}\n".encode())


def _require_free(out: Path) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise FileExistsError(f"out: wanted a folder, got the file {out}")
    found = {path.name for path in out.iterdir()}
    card = out / "README.md"
    ours = found == {"README.md", "build"} and _MARK in card.read_text(encoding="utf-8")
    builds = {f"torch-{backend}" for backend in BACKENDS}
    if ours and {path.name for path in (out / "build").iterdir()} <= builds:
        return
    if found:
        raise FileExistsError(
            f"out: wanted a new or empty folder, or one that was written here, got {out} with "
            f"{', '.join(sorted(found)[:5])}"
        )


def _text(file: str) -> str:
    return resources.files(__name__).joinpath(file).read_text(encoding="utf-8")


def _licence() -> str:
    """The text that must go with every copy."""
    try:
        text = metadata.distribution("msa-bench").read_text("licenses/LICENSE")
    except metadata.PackageNotFoundError:
        text = None
    # Not installed: beside the sources.
    return text or (Path(msa.__file__).parents[1] / "LICENSE").read_text(encoding="utf-8")
