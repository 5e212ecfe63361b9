"""Small tables, as aligned text and as HTML."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from typing import Any


def number(value: float) -> str:
    """A score in a table; a dash where it is not defined."""
    return "-" if math.isnan(value) else f"{value:.4f}"


def without_nan(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same for JSON, which has no nan: None in its place."""
    return {
        key: None if isinstance(value, float) and math.isnan(value) else value
        for key, value in values.items()
    }


def text_table(header: list[str], rows: list[list[str]]) -> str:
    """Columns as wide as their widest cell, the first to the left and the others to the right."""
    widths = [max(len(line[column]) for line in [header, *rows]) for column in range(len(header))]
    lines = [
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))]
        )
        for line in [header, *rows]
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def html_table(caption: str, header: list[str], rows: list[list[str]], notes: list[str]) -> str:
    """The same as HTML, its first column as row headers, the notes in small print below."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = ""
    for first, *cells in rows:
        body += (
            f"<tr><th>{html.escape(first)}</th>{''.join(f'<td>{html.escape(c)}</td>' for c in cells)}</tr>"
        )
    title = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    below = "<br>".join(html.escape(note) for note in notes)
    table = f'<table class="scores">{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f"{table}<p><small>{below}</small></p>"
