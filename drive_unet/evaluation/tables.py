"""Small tables, as aligned text and as HTML. Ours: two functions take the place of a dependency."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


def number(value: float) -> str:
    """A score in a table; a dash where it is not defined."""
    return "-" if math.isnan(value) else f"{value:.4f}"


def span(low: float, high: float) -> str:
    """An interval in a table, with three digits; a dash where it is not defined."""
    if math.isnan(low) or math.isnan(high):
        return "-"
    return " ".join(
        f"{end:.3f}".replace("0.", ".", 1) if abs(end) < 1 else f"{end:.3g}" for end in (low, high)
    )


def known(value: Any) -> Any:
    """A number for JSON, which has no nan: None in its place, and Python's own types."""
    if isinstance(value, (float, np.floating)):
        return None if math.isnan(value) else float(value)
    return int(value) if isinstance(value, np.integer) else value


def without_nan(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same for a dictionary, and for those in it."""
    return {key: without_nan(v) if isinstance(v, Mapping) else known(v) for key, v in values.items()}


def ends(low: float, high: float) -> list[float] | None:
    """An interval for JSON; None where it is not defined."""
    return None if math.isnan(low) else [float(low), float(high)]


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
    return f"{table}<p><small>{below}</small></p>" if below else table


@dataclass(frozen=True)
class Table:
    """A small table that prints as aligned text, and shows as HTML in a notebook."""

    header: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        table = [text_table(self.header, self.rows)] if self.rows else []
        return "\n".join([*table, *self.notes])

    def __repr__(self) -> str:
        return f"<Table of {len(self.rows)} rows>"

    def _repr_html_(self) -> str:
        if not self.rows:
            return "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        return html_table("", self.header, self.rows, self.notes)


_REGION = "Inside the field of view, the pixels of all photographs counted together"
_COUNTS = ("breaks", "lost", "components")  # these are no shares


def details(result: Mapping[str, Any]) -> dict[str, Table]:
    """What lies beyond pixels, as tables.

    Args:
        result: of `results.result`.

    Returns:
        "vessels", vessels one by one; "probabilities", how far to trust them; "observers", who agrees with
        whom; and "difference" from another predictor. Where something is not known, its table has no row, and
        a note says why.
    """
    protocol, spread = result["protocols"]["inside_fov"], result["intervals"]
    tables = {
        "vessels": Table([], [], ["Vessels were not looked at one by one: evaluate(..., thorough=True)."]),
        "probabilities": Table([], [], ["These are finished segmentations, without probabilities."]),
        "observers": Table([], [], ["There are no labels by a second observer."]),
        "difference": Table([], [], ["There is no second predictor."]),
    }
    if vessels := protocol.get("vessels"):
        rows = [
            [
                name,
                _cell(value, 1 if name.startswith(_COUNTS) else 4),
                span(*(spread.get(name) or (math.nan, math.nan))),
            ]
            for name, value in vessels.items()
            if not isinstance(value, (dict, list))
        ]
        note = f"{_REGION}; widths in pixels of a field of view that is about 540 pixels wide."
        tables["vessels"] = Table(["vessels one by one", "", "[95 %]"], rows, [note])
    if trust := protocol.get("calibration"):
        rows = [
            ["as they are", _cell(trust["ece"]), _cell(trust["brier"]), "-"],
            ["tempered", *(_cell(trust[key]) for key in ("ece_tempered", "brier_tempered", "temperature"))],
        ]
        header = ["probabilities", "ECE", "Brier", "temperature"]
        tables["probabilities"] = Table(
            header, rows, [f"ECE in 15 bins of equal width; temperature {trust['temperature_from']}."]
        )
    if both := (result["second_observer"] or {}).get("agreement"):
        rows = [[name, _cell(both["dice"][name]), _cell(both["kappa"][name]), "-"] for name in both["dice"]]
        rows.append(["missed where both observers see a vessel", "-", "-", _cell(both["share missed"])])
        rows.append(["called vessel where both see none", "-", "-", _cell(both["share called vessel"])])
        tables["observers"] = Table(["agreement of", "Dice", "kappa", "share"], rows, [f"{_REGION}."])
    if gap := spread.get("difference"):
        rows = [
            [
                name,
                f"{row['difference']:+.4f}",
                span(*((row[k] if row[k] is not None else math.nan) for k in ("low", "high"))),
            ]
            for name, row in gap.items()
            if isinstance(row, dict) and row["difference"] is not None
        ]
        tables["difference"] = Table([f"difference from {gap['from']}", "", "[95 %]"], rows)
    return tables


def detail_tables(result: Mapping[str, Any]) -> str:
    """The tables of `details` that have rows, as text."""
    return "\n\n".join(str(table) for table in details(result).values() if table.rows)


def _cell(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
