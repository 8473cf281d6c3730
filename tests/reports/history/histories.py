"""What the tests of the history share: git, a series of recall, six runs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from msa_harness.verdicts import Verdict

ROOT = Path(__file__).parents[3]


def git(repo, *arguments):
    done = subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments],
        cwd=repo, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout.strip()


def repository(repo):
    """Six commits in a new folder, with asv's configuration as it is shipped; and their names."""
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


def judging(make_run, commits):
    """A maker of runs of two of the commits."""

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


def recall(make_series, value, verdict=Verdict.PASS, *, base=0.97):
    return make_series(
        name="quality/msa_facts/recall", suite="quality", unit="recall", direction="higher",
        base=base, head=value, threshold=0.0, method="binary", verdict=verdict,
    )  # fmt: skip


def publish_six(judged, make_series, repo, **options):
    """The site of runs over six commits; in the fourth, recall falls from 0.97 to 0.5."""
    from msa_reports.history.site import publish

    found = [(0.97, 0.97)] * 2 + [(0.97, 0.5)] + [(0.5, 0.5)] * 2
    runs = []
    for i, (base, head) in enumerate(found):
        verdict = Verdict.REGRESSION if base > head else Verdict.PASS
        series = [recall(make_series, head, verdict, base=base), make_series()]
        created = f"2026-02-0{i + 1}T00:00:00+00:00"
        runs.append(judged(series, base=i, head=i + 1, name=f"r{i}", created=created))
    return publish(runs, repo / "asv.conf.json", **options)


def written(run, repo):
    """What of a run goes into the history; no site is built."""
    from asv.config import Config
    from asv.repo import get_repo

    from msa_reports.history.export import export
    from msa_reports.history.recordings import read

    folder = repo / "reports/published/asv"
    folder.mkdir(parents=True, exist_ok=True)
    config = Config.load(str(repo / "asv.conf.json"))
    config.repo = str(repo)
    repository = get_repo(config)
    return export(read(run), folder, repository, repository.get_branch_commits("main"))
