"""What `asv publish` does beyond its own pages; asv finds it by ``plugins`` in asv.conf.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from asv.config import Config
from asv.graph import GraphSet
from asv.publishing import OutputPublisher
from asv.repo import Repo

from msa_harness.records import write_atomic
from msa_reports import html
from msa_reports.history import assets, overview
from msa_reports.history.lines import lines_of, read_verdicts

PAGE = "overview.html"
_BEFORE = '<li id="nav-li-graphdisplay">'
# Each line of its tree of benchmarks is cut and scrolls otherwise.
_STYLE = "\n.nav-list > li { overflow: clip visible; }\n"
_LINK = f'<li id="nav-li-overview"><a href="{PAGE}">Overview</a></li>\n        '


class Overview(OutputPublisher):  # type: ignore[misc]  # asv has no types
    """All series at a glance, and a site that loads nothing from elsewhere."""

    name = "overview"
    button_label = "Overview"
    description = "All series with thresholds, verdicts and changes"
    order = 9

    @classmethod
    def publish(
        cls,
        conf: Config,
        repo: Repo,  # noqa: ARG003 - asv's signature
        benchmarks: Mapping[str, Mapping[str, object]],
        graphs: GraphSet,
        revisions: Mapping[str, int],
    ) -> None:
        """Write the overview beside asv's pages, and vendor what these load."""
        folder = Path(conf.html_dir)
        assets.vendor(folder)
        with (folder / "asv.css").open("a", encoding="utf-8") as style:
            style.write(_STYLE)
        index = folder / "index.html"
        text = index.read_text(encoding="utf-8")
        if _BEFORE not in text:
            raise RuntimeError(f"asv: wanted {_BEFORE} in its page, got another page")
        write_atomic(index, text.replace(_BEFORE, _LINK + _BEFORE, 1))
        verdicts = read_verdicts(Path(conf.results_dir))
        lines = lines_of(graphs, benchmarks, verdicts, revisions)
        url = str(conf.show_commit_url)
        page = overview.build(lines, commit_url="" if url == "#" else url)
        write_atomic(folder / PAGE, html.document("overview.html.j2", page))
