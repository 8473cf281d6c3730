"""A repository with a history, and runs of its commits."""

from __future__ import annotations

import json

import pytest
from histories import ROOT, git


@pytest.fixture
def history(tmp_path):
    """A repository with six commits and asv's configuration as it is shipped."""
    repo = tmp_path / "repo"
    repo.mkdir()
    git(repo, "init", "-q", "-b", "main")
    config = json.loads((ROOT / "asv.conf.json").read_text())
    (repo / "asv.conf.json").write_text(json.dumps(config))
    commits = []
    for i in range(6):
        (repo / "file").write_text(str(i))
        git(repo, "add", "-A")
        git(repo, "commit", "-q", "-m", f"change {i}", "--date", f"2026-01-0{i + 1}T00:00:00")
        commits.append(git(repo, "rev-parse", "HEAD"))
    return repo, commits


@pytest.fixture
def judged(make_run, history):
    """A maker of runs of two of the commits."""
    _, commits = history

    def make(
        series, *, base=0, head=1, name="run", dirty=False, created="2026-02-01T00:00:00+00:00"
    ):
        run = make_run(series, name=name, speed=False, sweep=False, limits=False)
        path = run / "run.json"
        header = json.loads(path.read_text())
        header["subjects"] = {
            "base": {"revision": commits[base], "dirty": False, "implementation": "torch"},
            "head": {"revision": commits[head], "dirty": dirty, "implementation": "torch"},
        }
        header["environment"] |= {
            "cpu_model": "Some(R) CPU", "cores": 2, "device": "cpu", "platform": "Linux x86_64",
            "python": "3.11.7", "packages": {"torch": "2.13.0"},
        }  # fmt: skip
        header["judge"]["model"] = "embedded"
        header["created"] = created
        path.write_text(json.dumps(header))
        return run

    return make
