"""A report as one HTML file: it holds its figures, opens offline, and says how every number was taken."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from drive_unet import __version__
from drive_unet.data.dataset import DRIVEDataset
from drive_unet.evaluation.auditing import Audit
from drive_unet.evaluation.evaluator import Evaluation
from drive_unet.evaluation.guarding import Guard
from drive_unet.evaluation.records import total_confusion
from drive_unet.evaluation.results import KEYS, result
from drive_unet.evaluation.tables import details, html_table, number, span
from drive_unet.files import write_text
from drive_unet.metrics.exact import SCORES
from drive_unet.metrics.vesselwise import CALIBRES
from drive_unet.plots.charts import STYLE, plot_by_calibre, plot_intervals
from drive_unet.plots.curves import plot_precision_recall, plot_reliability, plot_roc
from drive_unet.plots.overlays import COLOURS, error_map

WORST = 3  # photographs that are shown large
STRIP = 60  # photographs in the strip, at most
# What the scores are called here, by their names in JSON.
_WORDS = {KEYS[name]: KEYS[name] if name in ("Acc", "Se", "Sp") else name for name in SCORES}
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#222;max-width:1080px;margin:2em auto;padding:0 1em}
h1{font-size:1.6em}h2{font-size:1.2em;margin-top:2em;border-bottom:1px solid #ddd}
table{border-collapse:collapse;margin:1em 0;font-variant-numeric:tabular-nums}
caption{text-align:left;font-weight:bold}
th,td{padding:.25em .7em;text-align:right;border-bottom:1px solid #eee}
th:first-child{text-align:left;font-weight:normal}
thead th{font-weight:bold}img{max-width:100%}.wide{overflow-x:auto}
.guard{background:#fff3e0;border-left:4px solid #e07b00;padding:.5em 1em;margin:.5em 0}
.verdict{background:#e8f1f8;border-left:4px solid #0072b2;padding:.5em 1em;font-size:1.1em}
.strip{display:flex;flex-wrap:wrap;gap:8px}.strip figure{margin:0;width:124px}.strip img{width:124px}
figcaption{font-size:.8em;color:#555}.worst{display:flex;gap:8px;margin:1em 0}.worst figure{margin:0;flex:1}
.key span{border:1px solid #999;padding:0 .6em;color:#000;margin-right:.5em}
"""


def report(
    path: str | Path,
    evaluation: Evaluation,
    photographs: DRIVEDataset,
    *,
    data: str = "",
    split: str = "",
    guards: Sequence[Guard] = (),
    observer: Evaluation | None = None,
    audit: Audit | None = None,
    result: Mapping[str, Any] | None = None,
) -> Path:
    """Write a report.

    Args:
        path: of the HTML file; what is there is replaced.
        evaluation: `thorough`.
        photographs: that were scored.
        data, split: what was scored, in words.
        guards: what is suspicious.
        observer: the second observer's evaluation.
        audit: of the same predictions, if there is one.
        result: of `results.result`, if it was computed already; data, split and guards are then its own.

    Returns:
        The path.
    """
    if result is None:
        result = _result(evaluation, data=data, split=split, guards=guards, observer=observer)
    with rc_context(STYLE):
        text = _page(result, evaluation, photographs, observer, audit)
    return write_text(Path(path), text)


def _page(
    result: Mapping[str, Any],
    evaluation: Evaluation,
    photographs: DRIVEDataset,
    observer: Evaluation | None,
    audit: Audit | None,
) -> str:
    protocol = result["protocols"]["inside_fov"]
    title = f"{protocol['predictor']} on {len(protocol['photographs'])} photographs"
    parts = [f"<h1>{html.escape(title)}</h1>", f"<p>{html.escape(protocol['sentence'])}</p>"]
    if audit is not None:
        parts.append(f'<p class="verdict">{html.escape(audit.verdict)}</p>')
    for guard in result["guards"]:
        words = f"Suspicious, {guard['name']}: {guard['sentence']}"
        parts.append(f'<p class="guard">{html.escape(words)}</p>')
    parts += _scores(result)
    if audit is not None:
        parts += [
            "<h2>The same predictions by every habit</h2>",
            f'<div class="wide">{audit._repr_html_()}</div>',
        ]
    parts += _curves(evaluation, observer)
    parts += _trust(result)
    parts += _vessels(result)
    parts += _observers(result)
    parts += _by_image(result, evaluation, photographs)
    parts += _protocol(result)
    body = "\n".join(part for part in parts if part)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>'
        f"<body>{body}</body></html>\n"
    )


_result = result  # `report` has an argument of that name


def _scores(result: Mapping[str, Any]) -> list[str]:
    rows = []
    for key, word in _WORDS.items():
        ends = result["intervals"].get(key)
        columns = [result[key], span(*ends) if ends else "-"]
        for name in ("whole_frame", "per_image_mean", "per_image_sd"):
            columns.append(result["protocols"].get(name, {}).get(key))
        if result["second_observer"]:
            columns.append(result["second_observer"][key])
        rows.append([word, *map(_cell, columns)])
    header = ["", "inside the field of view, pooled", "[95 %]", "whole frame", "mean over images", "± sd"]
    header += ["second observer"] if result["second_observer"] else []
    note = "Intervals: BCa bootstrap over photographs. Scores of the whole frame are not comparable."
    figure = {
        word: (result[key], *ends)
        for key, word in _WORDS.items()
        if (ends := result["intervals"].get(key)) and result[key] is not None
    }
    parts = ["<h2>Scores</h2>", html_table("", header, rows, [note])]
    if figure:
        parts.append(_picture(plot_intervals(figure, metric="score", title="How sure is each score?")))
    return parts


def _curves(evaluation: Evaluation, observer: Evaluation | None) -> list[str]:
    if evaluation.ranking is None or not (evaluation.ranking.tp[-1] and evaluation.ranking.fp[-1]):
        return []
    points = {"as cut": evaluation.confusion}
    if observer is not None:
        points["second observer"] = total_confusion(observer.records)
    roc, curve = evaluation.ranking.roc_curve(), evaluation.ranking.precision_recall_curve()
    counts = evaluation.confusion
    share = (counts.tp + counts.fn) / sum(counts)
    return [
        "<h2>All thresholds</h2>",
        _picture(plot_roc({evaluation.name: roc}, points)),
        _picture(plot_precision_recall({evaluation.name: curve}, points, prevalence=share)),
    ]


def _trust(result: Mapping[str, Any]) -> list[str]:
    trust = result["protocols"]["inside_fov"]["calibration"]
    if trust is None:
        return []
    table = details(result)["probabilities"]._repr_html_()
    name = result["protocols"]["inside_fov"]["predictor"]
    figure = plot_reliability({name: trust["reliability"]})
    return ["<h2>Can the probability be trusted?</h2>", table, _picture(figure)]


def _vessels(result: Mapping[str, Any]) -> list[str]:
    vessels = result["protocols"]["inside_fov"].get("vessels")
    if not vessels:
        return []
    found = {name: vessels[f"sensitivity, {name}"] for name in CALIBRES}
    parts = ["<h2>Which vessels are missed?</h2>", details(result)["vessels"]._repr_html_()]
    if None not in found.values():
        shares = list(vessels["share of vessel pixels"].values())
        parts.insert(1, _picture(plot_by_calibre(found, shares)))
    return parts


def _observers(result: Mapping[str, Any]) -> list[str]:
    observer = result["second_observer"]
    if not observer or not observer["agreement"]:
        return []
    gap = observer["predictor less observer"]
    differences = [
        [word, f"{gap[key]['difference']:+.4f}", span(*(_nan(gap[key][end]) for end in ("low", "high")))]
        for key, word in _WORDS.items()
        if key in gap and gap[key]["difference"] is not None
    ]
    header = ["predictor less second observer, paired", "", "[95 %]"]
    return [
        "<h2>Better than a human?</h2>",
        details(result)["observers"]._repr_html_(),
        html_table("", header, differences, []),
    ]


def _by_image(result: Mapping[str, Any], evaluation: Evaluation, photographs: DRIVEDataset) -> list[str]:
    order = sorted(evaluation.records, key=lambda part: (_nan(part.scores["Dice"], 2.0), part.name))
    colours = "".join(
        f'<span style="background:{COLOURS[kind]}">{word}</span>'
        for kind, word in (("TP", "found"), ("FP", "too many"), ("FN", "missed"))
    )
    parts = ["<h2>Photograph by photograph</h2>", f'<p class="key">{colours}</p>']
    at = {name: index for index, name in enumerate(photographs.names)}
    strip, large = [], []
    for place, part in enumerate(order[:STRIP]):
        if part.drawn is None:
            continue
        index, dice = at[part.name], _cell(part.scores["Dice"])
        errors = error_map(part.drawn, photographs.vessels[index], photographs.fovs[index])
        strip.append(_figure(errors, 124, f"{part.name} {dice}"))
        if place < WORST:
            original = photographs.stored(index).image.numpy().transpose(1, 2, 0)
            pair = _figure(original, 520, f"{part.name}: Dice {dice}") + _figure(errors, 520, "errors")
            large.append(f'<div class="worst">{pair}</div>')
    parts += [f'<div class="strip">{"".join(strip)}</div>', "<h2>The worst</h2>", *large]
    keys = [*_WORDS, "threshold"]
    rows = [[row["name"], *(_cell(row[key]) for key in keys)] for row in result["per_image"]]
    header = ["photograph", *_WORDS.values(), "threshold"]
    return [*parts, f'<div class="wide">{html_table("", header, rows, [])}</div>']


def _protocol(result: Mapping[str, Any]) -> list[str]:
    protocol = result["protocols"]["inside_fov"]
    rows = [
        ["data", f"{protocol['data']} {protocol['split']}"],
        ["photographs", ", ".join(protocol["photographs"])],
        ["pixels inside the field of view", f"{protocol['pixels']:,}"],
        ["of them vessel", f"{protocol['vessel_pixels']:,}"],
        ["threshold", f"{_cell(result['threshold'])} ({protocol['threshold_from']})"],
        ["intervals", f"{result['intervals']['method']}, {result['intervals']['resamples']:,} resamples"],
        ["drive-unet", __version__],
    ]
    return ["<h2>Protocol</h2>", html_table("", ["", ""], rows, [protocol["sentence"]])]


def _picture(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)  # laid out already: no need to draw it twice for its margins
    plt.close(figure)
    return f'<p><img alt="" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"></p>'


def _figure(pixels: np.ndarray, width: int, caption: str) -> str:
    picture = Image.fromarray(pixels)
    size = (width, max(round(width * picture.height / picture.width), 1))
    buffer = io.BytesIO()
    picture.resize(size, Image.Resampling.BILINEAR).save(buffer, "JPEG", quality=80)
    data = base64.b64encode(buffer.getvalue()).decode()
    source = f"data:image/jpeg;base64,{data}"
    return f'<figure><img alt="" src="{source}"><figcaption>{html.escape(caption)}</figcaption></figure>'


def _cell(value: Any) -> str:
    return number(_nan(value)) if value is None or isinstance(value, float) else str(value)


def _nan(value: float | None, instead: float = math.nan) -> float:
    return instead if value is None or math.isnan(value) else value
