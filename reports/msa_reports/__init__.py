"""What people see of a run: terminal table, Markdown comment, self-contained HTML page."""

from __future__ import annotations
