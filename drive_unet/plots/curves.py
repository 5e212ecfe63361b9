"""Curves over the threshold: ROC, precision and recall, and the scores themselves (see `plots`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.integrate import trapezoid

from drive_unet.plots.charts import FAINT, INK, LINES, MUTED, WIDTH, new_figure
from drive_unet.plots.overlays import to_numpy


def plot_roc(
    curves: Mapping[str, Any],
    points: Mapping[str, Any] | None = None,
    *,
    corner: float = 0.2,
    title: str | None = None,
) -> Figure:
    """Show receiver operating characteristics, whole and enlarged where the choice is made.

    Args:
        curves: by the name of the predictor, what `metrics.roc_curve` returns, or a pair (false positive
            rate, sensitivity).
        points: the frozen threshold, the second observer, each a `metrics.Confusion` or such a pair; None
            where there is none.
        corner: the false positive rate up to which the right-hand panel reaches.
    """
    named = {name: _ascending(*curve[:2]) for name, curve in curves.items()}
    points = {name: _rates(point) for name, point in (points or {}).items() if point is not None}
    areas = {name: float(trapezoid(y, x)) for name, (x, y) in named.items()}
    best = max(areas, key=areas.__getitem__)
    title = title or f"{best}: area under the curve {areas[best]:.4f}"
    figure, axes = new_figure((WIDTH, 4.5), title, ncols=2)
    whole, near = axes[0]
    lowest = 1.0
    for (name, curve), colour in zip(named.items(), LINES * 3, strict=False):
        x, y = _thinned(*curve)
        lowest = min(lowest, float(np.interp(corner / 8, x, y)))
        for ax in (whole, near):
            ax.plot(x, y, color=colour, label=f"{name}, AUC {areas[name]:.4f}")
    for ax in (whole, near):
        ax.plot([0, 1], [0, 1], color=MUTED, lw=1, ls=":", label="guessing")
        _points(ax, points)
        ax.set(xlabel="1 - specificity (background called vessel)", ylabel="sensitivity (vessel found)")
    lowest = min([lowest, *(y - 0.05 for x, y in points.values() if x <= corner)])
    whole.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), title="The whole curve")
    whole.add_patch(plt.Rectangle((0, lowest), corner, 1 - lowest, fill=False, ec=INK, lw=1))
    near.set(xlim=(0, corner), ylim=(max(lowest, 0), 1.0), title="The corner where a threshold is chosen")
    near.legend(loc="lower right")
    return figure


def plot_precision_recall(
    curves: Mapping[str, Any],
    points: Mapping[str, Any] | None = None,
    *,
    prevalence: float | None = None,
    title: str | None = None,
) -> Figure:
    """Show precision against sensitivity over all thresholds, with lines of equal Dice.

    Args:
        curves: by the name of the predictor, what `metrics.precision_recall_curve` returns, or a pair
            (precision, sensitivity).
        points: the frozen threshold, the second observer, each a `metrics.Confusion` or such a pair; None
            where there is none.
        prevalence: the share of vessel pixels, which is the precision of guessing.
    """
    named = {name: _ascending(*curve[1::-1]) for name, curve in curves.items()}
    points = {
        name: (point.sensitivity, point.precision) if hasattr(point, "tp") else (point[1], point[0])
        for name, point in (points or {}).items()
        if point is not None
    }
    if title is None:
        with np.errstate(invalid="ignore", divide="ignore"):
            tops = {name: float(np.nanmax(2 * x * y / (x + y))) for name, (x, y) in named.items()}
        best = max(tops, key=tops.__getitem__)
        title = f"{best}: no threshold gives a Dice above {tops[best]:.3f}"
    figure, axes = new_figure((WIDTH, 4.8), title)
    ax = axes[0][0]
    recall = np.linspace(0.01, 1, 400)
    for dice in (0.5, 0.6, 0.7, 0.8, 0.9):
        with np.errstate(divide="ignore", invalid="ignore"):
            precision = dice * recall / (2 * recall - dice)
        good = (precision > 0) & (precision <= 1.0)
        ax.plot(recall[good], precision[good], color=FAINT, lw=1, zorder=1)
        ax.annotate(f"Dice {dice:.1f}", (1.0, dice / (2 - dice)), (4, 0), textcoords="offset points",
                    color=MUTED, fontsize=8, va="center", annotation_clip=False)  # fmt: skip
    for (name, (x, y)), colour in zip(named.items(), LINES * 3, strict=False):
        ax.plot(*_thinned(x, y), color=colour, label=name)
    if prevalence is not None:
        ax.axhline(prevalence, color=MUTED, lw=1, ls=":", label=f"guessing ({prevalence:.3f})")
    _points(ax, points)
    ax.grid(False)
    ax.set(xlabel="sensitivity (vessel found)", ylabel="precision (calls that are right)")
    ax.set(xlim=(0, 1.0), ylim=(0, 1.02))
    ax.legend(loc="lower left", frameon=True, framealpha=1, edgecolor="none")
    return figure


def plot_threshold(
    thresholds: Any, scores: Mapping[str, Any], *, chosen: float | None = None, title: str | None = None
) -> Figure:
    """Show how scores depend on the threshold.

    Args:
        thresholds: in any order; those outside 0..1 are left out.
        scores: values at these thresholds by name, first the one that decides.
        chosen: the frozen threshold; None marks none.
    """
    thresholds = to_numpy(thresholds).astype(float)
    order = np.argsort(thresholds, kind="stable")
    order = order[(thresholds[order] >= 0) & (thresholds[order] <= 1)]
    thresholds = thresholds[order]
    scores = {name: to_numpy(column).astype(float)[order] for name, column in scores.items()}
    first, values = next(iter(scores.items()))
    best = int(np.nanargmax(values))
    near = thresholds[values >= values[best] - 0.01]
    title = title or (
        f"{first} is greatest at {thresholds[best]:.2f}, "
        f"and within .01 of it from {near[0]:.2f} to {near[-1]:.2f}"
    )
    figure, axes = new_figure((WIDTH, 3.6), title)
    ax = axes[0][0]
    for i, (name, column) in enumerate(scores.items()):
        ax.plot(
            *_thinned(thresholds, column), lw=2.4 if i == 0 else 1.4, color=LINES[i % len(LINES)], label=name
        )
    ax.axvspan(near[0], near[-1], color=LINES[0], alpha=0.08, lw=0)
    if chosen is not None:
        ax.axvline(chosen, color=INK, lw=1.2, ls="--", label=f"chosen, frozen: {chosen:.2f}")
    ax.set(xlabel="threshold", ylabel="score", xlim=(0, 1), ylim=(0, 1.02))
    figure.legend(loc="outside right upper")
    return figure


def plot_reliability(
    curves: Mapping[str, Sequence[Mapping[str, float]]], *, title: str | None = None
) -> Figure:
    """Show how often pixels of each probability are vessel, and below how many there are.

    Args:
        curves: by the name of the predictor, the rows of `metrics.Calibration.reliability`: "probability",
            "vessels" and "share" of each bin.
        title: the finding; by default how far the first predictor's probabilities are off on average.
    """
    first, rows = next(iter(curves.items()))
    off = sum(row["share"] * abs(row["probability"] - row["vessels"]) for row in rows)
    more = sum(row["share"] * (row["probability"] - row["vessels"]) for row in rows)
    side = "some too low, others too high"
    if abs(more) > off / 2:  # three quarters of the gap lie on one side
        side = "mostly too high" if more > 0 else "mostly too low"
    title = title or f"{first}: probabilities are off by {off:.3f} on average, {side}"
    figure, axes = new_figure((WIDTH, 5.2), title, nrows=2, sharex=True, height_ratios=[3.2, 1])
    above, below = axes[0][0], axes[1][0]
    above.plot([0, 1], [0, 1], color=MUTED, lw=1, ls=":", label="to be trusted")
    for (name, rows), colour in zip(curves.items(), LINES * 3, strict=False):
        x = [row["probability"] for row in rows]
        above.plot(x, [row["vessels"] for row in rows], "o-", ms=5, color=colour, label=name)
        below.plot(x, [100 * row["share"] for row in rows], "o-", ms=3, color=colour)
    above.set(ylabel="share that is vessel", ylim=(-0.02, 1.02), xlim=(-0.01, 1.01))
    above.legend(loc="upper left")
    below.set(xlabel="probability of vessel", ylabel="% of pixels", yscale="log")
    return figure


def _thinned(x: Any, y: Any, most: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    """Keep at most `most` points of a curve, spread evenly along its length."""
    x, y = to_numpy(x).astype(float).ravel(), to_numpy(y).astype(float).ravel()
    if x.size <= most:
        return x, y
    along = np.concatenate([[0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    keep = np.unique(np.searchsorted(along, np.linspace(0, along[-1], most)).clip(0, x.size - 1))
    return x[keep], y[keep]


def _rates(point: Any) -> tuple[float, float]:
    return (1 - point.specificity, point.sensitivity) if hasattr(point, "tp") else (point[0], point[1])


def _points(ax: Axes, points: Mapping[str, tuple[float, float]]) -> None:
    markers = ("o", "D", "s", "^", "v")
    for i, (name, (x, y)) in enumerate(points.items()):
        colour = LINES[0] if i == 0 else INK if i == 1 else LINES[i % len(LINES)]
        ax.plot(x, y, markers[i % 5], ms=8, color=colour, mec="white", mew=1.2, ls="", label=name, zorder=5)


def _ascending(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    x, y = to_numpy(x).astype(float).ravel(), to_numpy(y).astype(float).ravel()
    return (x[::-1], y[::-1]) if x.size and x[0] > x[-1] else (x, y)
