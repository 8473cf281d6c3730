"""Pictures of the pages: ``python tests/reports/screenshots.py DIRECTORY [RUN]``.

Writes ``overview.png`` and ``asv-graph.png`` of the history that is kept in this repository; and of
a run ``report.png`` (desktop, light), ``report-dark.png`` (its plots), ``report-phone.png`` and
``report-print.png``. For a run worth a picture, spoil the working tree (say, the maximum over a
block in ``msa/fast/scoring.py`` becomes the mean) and let the gate find it::

    msa-bench gate --suite quality --out RUN; msa-bench sweep --out RUN; msa-bench report RUN
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import browser

from msa_reports.history.site import publish

ROOT = Path(__file__).parents[2]

#: A picture in the documentation should not weigh more than the page it shows.
MOST_BYTES = 300_000
_TO = "document.querySelector('{}').scrollIntoView()"
# What is computed, and what it takes, has changed most.
_FILTERED = """
const words = document.querySelector(".tools input");
words.value = "work/";
words.dispatchEvent(new Event("input"));
"""
HISTORY = {
    "overview": ("overview.html", {"width": 1280, "height": 1150}, _FILTERED),
    "asv-graph": (
        "index.html#work.peak_bytes.prefill-8192-low",
        {"width": 1280, "height": 800},
        "",
    ),
}
PICTURES = {
    "report": ({"width": 1280, "height": 1150}, ""),
    "report-dark": ({"width": 1280, "height": 1150, "dark": True}, _TO.format("#plots")),
    "report-phone": ({"width": 390, "height": 1150}, _TO.format("#results")),
    "report-print": ({"width": 794, "height": 1123, "media": "print"}, ""),
}


def main(target: Path, run: Path | None) -> None:
    """Write the pictures of the history, and of a run's page where one is given.

    Raises:
        FileNotFoundError: The run has no page.
        ValueError: A picture is too heavy.
    """
    page = run / "report.html" if run else None
    if page and not page.exists():
        raise FileNotFoundError(f"RUN: wanted a directory with report.html, got {run}")
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        driver = browser.start(Path(folder) / "profile")
        try:
            html = publish([], ROOT / "asv.conf.json", html=Path(folder) / "site").html
            with browser.served(html) as home:
                for name, (address, screen, script) in HISTORY.items():
                    browser.show(driver, home + address, **screen)
                    time.sleep(2)  # asv draws when its files have come
                    driver.execute_script(script)
                    _keep(target / f"{name}.png", browser.picture(driver))
            for name, (screen, script) in PICTURES.items() if page else ():
                browser.show(driver, page, **screen)
                driver.execute_script(script)
                _keep(target / f"{name}.png", browser.picture(driver))
        finally:
            driver.quit()


def _keep(path: Path, data: bytes) -> None:
    if len(data) > MOST_BYTES:
        raise ValueError(f"{path}: wanted at most {MOST_BYTES} B, got {len(data)}")
    path.write_bytes(data)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        raise SystemExit("usage: python tests/reports/screenshots.py DIRECTORY [RUN]")
    main(Path(sys.argv[1]), Path(sys.argv[2]) if sys.argv[2:] else None)
