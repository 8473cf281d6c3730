"""asv's page without a network: scripts and styles that it loads from elsewhere, beside it."""

from __future__ import annotations

import re
import shutil
from importlib.metadata import PackageNotFoundError, distribution
from importlib.resources import files
from pathlib import Path

FOLDER = "vendor"
#: What asv's page loads, by a part of the address -> the installed package and the file in it. The
#: three small ones that nobody packages have their two functions in `asv_page.js`.
_PACKAGED = {
    "jquery-3": ("js.jquery", r"jquery-[\d.]+\.min\.js"),
    "jquery.flot.min": ("js.jquery_flot", r"jquery\.flot\.min\.js"),
    "jquery.flot.time": ("js.jquery_flot", r"jquery\.flot\.time\.min\.js"),
    "jquery.flot.selection": ("js.jquery_flot", r"jquery\.flot\.selection\.min\.js"),
    "jquery.flot.categories": ("js.jquery_flot", r"jquery\.flot\.categories\.min\.js"),
    "bootstrap.min.js": ("js.bootstrap", r"bootstrap\.min\.js"),
    "bootstrap.min.css": ("js.bootstrap", r"bootstrap\.min\.css"),
}
_OWN = "asv_page.js"
_REPLACED = ("jquery.flot.orderBars", "stupidtable", "md5")
_LOADED = re.compile(
    r"<(?:script|link)\b[^>]*?(?:src|href)=\"(https?://[^\"]+)\"[^>]*>(?:</script>)?"
)


def vendor(html: Path) -> list[str]:
    """Copy what asv's page loads from elsewhere beside it, and let the page load the copies.

    Args:
        html: the folder that asv has published into.

    Returns:
        The names of the files copied.

    Raises:
        RuntimeError: a package that has them is missing, or this asv loads something unknown.
    """
    page = html / "index.html"
    folder = html / FOLDER
    folder.mkdir(exist_ok=True)
    copied: list[str] = []

    def local(match: re.Match[str]) -> str:
        address = match[1]
        known = next((name for name in _PACKAGED if name in address), "")
        if known:
            source = _file(*_PACKAGED[known])
            name = source.name
            shutil.copyfile(source, folder / name)
        elif any(part in address for part in _REPLACED):
            if _OWN in copied:
                return ""
            name = _OWN
            text = (files("msa_reports") / "templates" / _OWN).read_text(encoding="utf-8")
            (folder / name).write_text(text, encoding="utf-8")
        else:
            raise RuntimeError(f"asv: its page loads {address}, which this version does not know")
        copied.append(name)
        if match[0].startswith("<link"):
            return f'<link rel="stylesheet" href="{FOLDER}/{name}">'
        return f'<script src="{FOLDER}/{name}"></script>'

    text = _LOADED.sub(local, page.read_text(encoding="utf-8"))
    page.write_text(text, encoding="utf-8")
    return copied


def _file(package: str, pattern: str) -> Path:
    try:
        listed = distribution(package).files or ()
    except PackageNotFoundError:
        raise RuntimeError(
            f"{package}: wanted it for a site without a network, got none; "
            "python -m pip install 'msa-bench[asv]'"
        ) from None
    found = next((one for one in listed if re.fullmatch(pattern, one.name)), None)
    if found is None:
        raise RuntimeError(f"{package}: wanted a file like {pattern}, got none of that name")
    return Path(str(found.locate()))
