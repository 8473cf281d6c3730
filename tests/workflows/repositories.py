"""A small GitHub repository of ours: main, and pull requests as GitHub keeps them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
SCORING = "msa/fast/scoring.py"


def git(where, *words):
    names = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", "-C", where, *names, *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def copy_of_ours(folder):
    """The working tree as the one commit of a new repository's main."""
    names = git(REPOSITORY, "ls-files", "-co", "--exclude-standard", "-z").split("\0")
    for name in filter(None, names):
        source = REPOSITORY / name
        if source.is_file() and not name.startswith("reports/published/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / name)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "base")
    return folder


def good(text):
    """A change that changes nothing."""
    return text + "# the same\n"


def mean_pooling(text):
    """A planted fault: the mean of a block's scores in place of the maximum."""
    assert text.count("torch.amax(") >= 2
    return text.replace("torch.amax(", "torch.mean(")


def pull_request(origin, number, change):
    """Commit ``change`` of the scores on a branch and merge it, as GitHub does; the event of it."""
    base = git(origin, "rev-parse", "main")
    git(origin, "checkout", "-q", "-b", f"change-{number}", "main")
    path = origin / SCORING
    path.write_text(change(path.read_text()))
    git(origin, "commit", "-q", "-a", "-m", "change")
    head = git(origin, "rev-parse", "HEAD")
    git(origin, "checkout", "-q", "--detach", "main")
    git(origin, "merge", "-q", "--no-ff", "-m", "merge", head)
    merge = git(origin, "rev-parse", "HEAD")
    git(origin, "update-ref", f"refs/pull/{number}/merge", merge)
    git(origin, "checkout", "-q", "main")
    pull = {"number": number, "base": {"sha": base}}
    pull["head"] = {"sha": head, "repo": {"full_name": "someone/msa-bench"}}
    return {
        "event_name": "pull_request",
        "workflow": "gate",
        "sha": merge,
        "ref": f"refs/pull/{number}/merge",
        "repository": "msa-bench/msa-bench",
        "event": {"pull_request": pull},
    }
