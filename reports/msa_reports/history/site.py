"""The site of the history: runs written into it, asv's pages and the overview, in one folder."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from asv import util
from asv.commands.publish import Publish
from asv.config import Config
from asv.repo import get_repo

from msa_harness.records import RunError
from msa_reports.history.export import Exported, export, name_tracks, require_history
from msa_reports.history.plugin import PAGE
from msa_reports.history.recordings import read

CONFIG = "asv.conf.json"


@dataclass(frozen=True, slots=True)
class Published:
    """What was written: each recording's share, and asv's folder of pages."""

    exported: tuple[Exported, ...]
    html: Path

    @property
    def overview(self) -> Path:
        """The page with all series."""
        return self.html / PAGE


def publish(
    runs: Sequence[Path],
    config: Path,
    *,
    results: Path | None = None,
    html: Path | None = None,
    machine: str = "",
    commit_url: str = "",
) -> Published:
    """Write runs into asv's folder of results, then build the site of all that is there.

    All runs are read before the first is written.

    Args:
        runs: directories of runs or GPU passes; none: only the site.
        config: asv.conf.json; its paths are relative to its folder.
        results: instead of its ``results_dir``.
        html: instead of its ``html_dir``; what is there is replaced.
        machine: name of the machine for these runs; empty: its GPU, or processor and cores.
        commit_url: what a commit's hash is appended to for a link; empty: as configured.

    Raises:
        RunError: there is no such configuration or repository, a run is broken or has nothing for
            the history, or there is no history at all.
    """
    recordings = [read(run) for run in runs]
    overrides = {"results_dir": results, "html_dir": html}
    try:
        conf = Config.load(str(config))
        conf.__dict__.update({k: str(path.resolve()) for k, path in overrides.items() if path})
        if commit_url:
            conf.show_commit_url = commit_url
        # asv takes the paths of its configuration from the current folder.
        with contextlib.chdir(config.resolve().parent), contextlib.redirect_stdout(sys.stderr):
            folder = Path(conf.results_dir)
            _require_site(Path(conf.html_dir))
            repo = get_repo(conf)
            history = {commit for name in conf.branches for commit in repo.get_branch_commits(name)}
            for one in recordings:
                require_history(one, history)
            exported = [export(one, folder, repo, history, machine=machine) for one in recordings]
            if not folder.is_dir():
                raise RunError(f"{folder}: wanted a history, got none; name a run to begin one")
            name_tracks(folder)
            Publish.run(conf, pull=False)
            return Published(tuple(exported), Path(conf.html_dir).resolve())
    except (util.UserError, util.ProcessError) as error:
        raise RunError(f"{config}: {error}") from error


def _require_site(folder: Path) -> None:
    """Raise RunError where there is something else than a site: asv empties the folder."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "asv.js").exists():
        raise RunError(f"{folder}: wanted an empty folder or a site of asv, got another folder")
