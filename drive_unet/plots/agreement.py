"""Measurements against their truth: a point a photograph, a panel a measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from drive_unet.plots.charts import LINES, MUTED, WIDTH, new_figure


def plot_agreement(
    truth: Mapping[str, Sequence[float]],
    measured: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    title: str | None = None,
) -> Figure:
    """Show how far measurements from photographs lie from the truth.

    Args:
        truth: true values, one a photograph, by the name of the measure.
        measured: by the name of the predictor, what was measured, as `truth`; nan leaves a photograph out.
        title: the finding; None tells which measure agrees best and which worst, by correlation.

    Returns:
        a panel a measure, four in a row: truth to the right, measured upwards, on the line where they agree.

    Raises:
        ValueError: if there is no measure, or a predictor lacks one or has another number of photographs.
    """
    names = list(truth)
    if not names or not measured:
        raise ValueError("There is nothing to show: give one measure and one predictor at least.")
    for predictor, values in measured.items():
        for name in names:
            if name not in values or len(values[name]) != len(truth[name]):
                raise ValueError(f"{predictor} has not one value of {name} for each of the photographs.")
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    first = next(iter(measured.values()))
    agreement = {name: _correlation(truth[name], first[name]) for name in names}
    known = {name: r for name, r in agreement.items() if np.isfinite(r)}
    if title is None and len(known) > 1:
        best, worst = max(known, key=known.__getitem__), min(known, key=known.__getitem__)
        title = f"From a photograph {best} is found best (r = {known[best]:.2f}), "
        title += f"{worst} worst ({known[worst]:.2f})"
    figure, axes = new_figure((WIDTH, 2.5 * rows + 0.5), title, nrows=rows, ncols=columns)
    for ax, name in zip(axes.flat, names, strict=False):
        both = [np.asarray(truth[name], float)]
        for (predictor, values), colour in zip(measured.items(), LINES * 3, strict=False):
            got = np.asarray(values[name], float)
            both.append(got)
            ax.plot(both[0], got, "o", ms=4, color=colour, alpha=0.75, mec="white", mew=0.4, label=predictor)
        every = np.concatenate(both)
        every = every[np.isfinite(every)]
        if every.size:
            margin = 0.05 * (np.ptp(every) or 1)
            ends = [every.min() - margin, every.max() + margin]
            ax.plot(ends, ends, color=MUTED, lw=1, zorder=1)
            ax.set(xlim=ends, ylim=ends, aspect="equal")
        r = agreement[name]
        ax.set_title(name + (f" (r = {r:.2f})" if np.isfinite(r) else ""), fontsize=9)
        ax.tick_params(labelsize=8)
    for ax in axes.flat[len(names) :]:
        ax.set_axis_off()
    for ax in axes[:, 0]:
        ax.set_ylabel("measured")
    for ax in axes[-1]:
        ax.set_xlabel("truth")
    if len(measured) > 1:
        figure.legend(
            *axes.flat[0].get_legend_handles_labels(), loc="outside upper right", ncols=len(measured)
        )
    return figure


def _correlation(truth: Sequence[float], measured: Sequence[float]) -> float:
    a, b = np.asarray(truth, float), np.asarray(measured, float)
    known = np.isfinite(a) & np.isfinite(b)
    if known.sum() < 3 or a[known].std() == 0 or b[known].std() == 0:
        return float("nan")
    return float(np.corrcoef(a[known], b[known])[0, 1])
