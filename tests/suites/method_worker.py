"""A worker of the method suite in the process of the tests."""

from __future__ import annotations

import importlib

from msa import fast
from msa_harness.protocol import resolved


class Local:
    """Loads and calls as a worker does."""

    def __init__(self):
        self.loaded = {"implementation": fast}

    def load(self, handle, target, args=None):
        module, _, name = target.partition(":")
        found = importlib.import_module(module)
        found = getattr(found, name) if name else found
        if args is not None:
            found = found(*resolved(list(args), self.loaded.get))
        self.loaded[handle] = found

    def call(self, handle, operation="", args=(), kwargs=None, **_how):
        found = self.loaded[handle]
        called = getattr(found, operation) if operation else found
        return called(*resolved(list(args), self.loaded.get), **(kwargs or {}))
