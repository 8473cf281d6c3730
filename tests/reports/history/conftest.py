"""A repository with a history, and runs of its commits."""

from __future__ import annotations

import pytest
from histories import judging, repository


@pytest.fixture
def history(tmp_path):
    """A repository with six commits and asv's configuration as it is shipped."""
    return repository(tmp_path / "repo")


@pytest.fixture
def judged(make_run, history):
    """A maker of runs of two of the commits."""
    return judging(make_run, history[1])
