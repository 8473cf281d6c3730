"""The kernel of the folder above, for versions of ``kernels`` that look for it here."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_file = Path(__file__).parents[1] / "__init__.py"
_spec = importlib.util.spec_from_file_location(f"{__name__}_flat", _file)
if _spec is None or _spec.loader is None:
    raise ImportError(f"wanted a module in {_file}, got none")
_module = importlib.util.module_from_spec(_spec)
# Its own imports look it up here.
sys.modules[_spec.name] = _module
_spec.loader.exec_module(_module)

__all__ = list(_module.__all__)
globals().update({name: getattr(_module, name) for name in __all__})
