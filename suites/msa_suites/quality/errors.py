"""What can be wrong with a quality measurement, apart from its result."""

from __future__ import annotations


class QualityInvalid(ValueError):
    """The measurement would say nothing about selection, so it has no result.

    Raised when a context does not exceed ``topk * block`` (there MSA equals dense attention) and
    when a prompt would be cut to fit the model.
    """


class ItemsError(ValueError):
    """A shipped item file is missing, corrupt, or not the one its manifest names."""
