"""What the suites measure with, checked against its hashes before anything is measured."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from msa_suites.models.shipped import EMBEDDED, check_sums
from msa_suites.quality.items import check_items
from msa_suites.ruler.kept import check_folder

#: Suites that read the items; those of them that run the embedded model too.
_READ_ITEMS = frozenset({"quality", "speed"})
_LOAD_MODEL = frozenset({"method", "quality", "speed"})


def check_fixtures(suites: Collection[str], *, items: str | None = None) -> None:
    """Check the embedded model and the items, where one of the suites uses them.

    Args:
        suites: names of those that run.
        items: the user's own folder of items, which is checked too.

    Raises:
        FixtureError: a file of the model has changed.
        ItemsError: a file of items has changed.
    """
    if _LOAD_MODEL.intersection(suites):
        check_sums(EMBEDDED)
    if _READ_ITEMS.intersection(suites):
        check_items()
    if items:
        check_folder(Path(items))
