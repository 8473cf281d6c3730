"""The page a person opens after a run: one file, no network."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from msa_reports.gate_page import GatePage
from msa_reports.page import Page

_PAGE_ROWS = 150  # rows of a suite that are laid out before the reader asks for more
# Before the tables are read: where no script runs, no row may be hidden.
_EARLY = 'document.documentElement.classList.add("js");'


def _source(name: str) -> str:
    files = resources.files("msa_reports") / "templates"
    return (files / name).read_text(encoding="utf-8").strip()


def _digest(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


@cache
def _templates() -> Environment:
    return Environment(
        loader=FunctionLoader(_source),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(page: Page | GatePage) -> str:
    """Return the page of a run, or of the gate itself, as one self-contained HTML document."""
    return document("report.html.j2" if isinstance(page, Page) else "gate.html.j2", page)


def document(template: str, page: object) -> str:
    """Return what a template makes of ``page``, with the style and the script of all pages.

    Every string is escaped by the template; and the policy in the page lets a browser run the
    page's own script and style (by hash) and nothing else, and load nothing.
    """
    css, js, early = _source("report.css"), _source("report.js"), _EARLY
    policy = (
        f"default-src 'none'; style-src {_digest(css)}; script-src {_digest(js)} {_digest(early)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    # Style and script are this package's own files; only they pass unescaped.
    return (
        _templates()
        .get_template(template)
        .render(
            page=page,
            policy=policy,
            css=Markup(css),
            js=Markup(js),
            early=Markup(early),
            page_rows=_PAGE_ROWS,
        )
        + "\n"
    )
