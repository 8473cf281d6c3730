"""The implementation ``triton`` from a copy of its source, changed or not."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

from msa_kernels import triton_ops

_SOURCE = Path(triton_ops.__file__).parent
_ROOT = "msa_kernels.triton_ops"


def load_copy(folder, name, fault=None):
    """The implementation from a copy of its source under another name, with a change or none."""
    shutil.copytree(_SOURCE, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    if fault is not None:
        path = folder / name / fault.file
        text = path.read_text()
        for right, wrong in filter(None, [(fault.right, fault.wrong), fault.also]):
            assert text.count(right) == 1, f"{fault.file}: the text to change is not there once"
            text = text.replace(right, wrong)
        path.write_text(text)
    for path in (folder / name).rglob("*.py"):
        path.write_text(path.read_text().replace(_ROOT, name))
    return importlib.import_module(name)
