"""Strings that came from a subject, made safe to show, and numbers as people read them.

Series names, error texts and revision names belong to whoever wrote the change under test. They
are data: they must not move the cursor, reorder a line, open a tag, break out of a table cell,
mention a person or issue a command to a workflow runner.
"""

from __future__ import annotations

import math
import re
import unicodedata

NOT_MEASURED = "n/a"

_ZERO_WIDTH_SPACE = "\u200b"
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Everything CommonMark and GitHub's extensions read as structure. As numeric references they can
# only ever be text (CommonMark, section 2.5).
_MARKDOWN_STRUCTURE = re.compile(r"[\\`*_{}\[\]<>#!|&~$^]|:(?=\S)|(?<=www)\.", re.IGNORECASE)
# Only at the start of a line or of a list item: bullets, numbers, underlines of headings.
_MARKDOWN_START = re.compile(r"^(?:[-+=]|\d(?=\d{0,8}[.)](?:\s|$)))")
_WHITESPACE = re.compile(r"[\t\n\r\v\f\x85\u2028\u2029 ]+")


def clean(text: str, *, limit: int = 2000) -> str:
    r"""Return ``text`` as one visible line of at most about ``limit`` characters.

    Runs of whitespace become one space; control, formatting (so: bidirectional) and unpaired
    surrogate characters are spelled out as ``\x1b``; what is cut is counted.
    """
    line = _WHITESPACE.sub(" ", text).strip()
    cut = len(line) - limit
    if cut > 0:
        line = line[:limit]
    shown = "".join(
        _spelled(c) if unicodedata.category(c) in _HIDDEN_CATEGORIES else c for c in line
    )
    return f"{shown} ... ({cut} more characters)" if cut > 0 else shown


def _spelled(character: str) -> str:
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def markdown(text: str, *, limit: int = 2000) -> str:
    """Return ``text`` for a place in Markdown prose or in a table cell: text and nothing else.

    No emphasis, tag, cell border, link, mention or issue reference can come of it. GitHub looks
    for mentions and references after it has decoded character references, so these are parted by
    a zero-width space.
    """
    line = clean(text, limit=limit)
    parted = re.sub(r"[@#]|(?<=[Gg][Hh])-", lambda m: m.group() + _ZERO_WIDTH_SPACE, line)
    inert = _MARKDOWN_STRUCTURE.sub(_reference, parted)
    return _MARKDOWN_START.sub(_reference, inert)


def _reference(match: re.Match[str]) -> str:
    return f"&#{ord(match.group())};"


def markdown_code(text: str, *, limit: int = 2000) -> str:
    """Return ``text`` as inline code; an element, since a backtick span ends at a table border."""
    return f"<code>{markdown(text, limit=limit)}</code>"


def log_safe(line: str) -> str:
    """Return ``line`` so that a workflow runner which reads it in a log finds no command in it.

    Runners act on ``::name`` at the start of a line and on ``##[name`` anywhere in it.
    """
    line = line.replace("##[", f"##{_ZERO_WIDTH_SPACE}[")
    body = line.lstrip()
    if body.startswith("::"):
        return line[: len(line) - len(body)] + _ZERO_WIDTH_SPACE + body
    return line


def number(value: float | None) -> str:
    """Return ``value`` to four significant digits, whole numbers in full; None is "n/a"."""
    if value is None:
        return NOT_MEASURED
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e12:
        return f"{int(value):,}"
    return f"{value:.4g}"


def share(value: float | None, *, sign: bool = False) -> str:
    """Return a fraction as a percentage; ``sign`` for a change."""
    if value is None:
        return NOT_MEASURED
    if not math.isfinite(value):
        return str(value)
    percent = 100.0 * value
    digits = ".2g" if 0 < abs(percent) < 0.1 else ".1f" if abs(percent) < 100 else ".0f"
    # No space before the sign: a line may break at a space.
    if sign and value:
        return f"{percent:+{digits}}%"
    return f"{percent:{digits}}".removesuffix(".0") + "%"


def signed(value: float | None) -> str:
    """Return ``value`` to three significant digits with its sign."""
    if value is None:
        return NOT_MEASURED
    return f"{value:+.3g}" if value else "0"


def plural(count: int, noun: str) -> str:
    """Return ``count`` with ``noun`` in the number that agrees ("1 item", "2 items")."""
    return (
        f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}{'' if noun == 'series' else 's'}"
    )


def seconds(value: float) -> str:
    """Return a time above zero to three significant digits, in the unit that fits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= 0.9999 * size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"


def prefixed(value: float, unit: str) -> str:
    """Return a number above zero to three significant digits, k, M, G, T or P before its unit."""
    for prefix, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 0.9999 * size:
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"
