"""Results over photographs: errors, cases, maps, the article's triple, the strip on the front page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from drive_unet.plots.charts import LINES, WIDTH, new_figure
from drive_unet.plots.overlays import (
    COLOURS,
    MEANING,
    as_image,
    as_mask,
    as_plane,
    as_probability,
    busiest,
    error_map,
    overlay,
    subdue,
    window,
)
from drive_unet.plots.pictures import box, legend, new_panels, outline, sample_parts, show, show_images


def plot_errors(
    image: Any,
    prediction: Any,
    vessels: Any,
    fov: Any = None,
    *,
    zoom: tuple[int, int] | Literal["errors"] | None = None,
    size: int = 120,
    labels: Sequence[str] | None = None,
    names: Sequence[str] = ("Photograph", "Vessels found", "Compared with the reference"),
    title: str | None = None,
) -> Figure:
    """Show photograph, prediction and errors, or two observers against each other.

    Args:
        image: the photograph; prediction, vessels: anything `overlays.as_mask` takes (threshold .5).
        fov: a mask or None; only what lies inside it counts.
        zoom: centre (row, column) of a part shown enlarged below; "errors" for where most of them are.
        size: width of that part in pixels.
        labels: what TP, FP and FN mean; for two observers ("both", "second only", "first only").
        names: of the three panels.
        title: the finding; by default the Dice and the counts of errors inside the FOV.
    """
    image, prediction, vessels = as_image(image), as_mask(prediction), as_mask(vessels)
    inside = np.ones(vessels.shape, bool) if fov is None else as_mask(fov)
    hit, extra, missed = (
        int((mask & inside).sum())
        for mask in (prediction & vessels, prediction & ~vessels, vessels & ~prediction)
    )
    dice = 2 * hit / max(2 * hit + extra + missed, 1)
    title = title or f"Dice {dice:.3f}: {hit:,} pixels in common, {missed:,} missing, {extra:,} too many"
    labels = labels or tuple(MEANING.values())
    panels = [image, prediction & inside, error_map(prediction, vessels, fov)]
    figure, axes = new_panels(panels, 1 if zoom is None else 2, 3, title, extra=0.3)
    for ax, panel, name in zip(axes[0], panels, names, strict=True):
        show(ax, panel, name)
        if fov is not None and panel is not panels[2]:
            outline(ax, fov)
    if zoom is not None:
        centre = busiest((prediction ^ vessels) & inside, size) if zoom == "errors" else zoom
        part = window(vessels.shape, centre, (round(size * image.shape[0] / image.shape[1]), size))
        for above, below, panel in zip(axes[0], axes[1], panels, strict=True):
            box(above, part, "white")
            show(below, panel[part])
    legend(figure, list(zip((COLOURS[kind] for kind in MEANING), labels, strict=True)))
    return figure


def plot_scores(scores: Mapping[str, Mapping[str, float]], *, title: str | None = None) -> Figure:
    """Show several scores of several predictors, or of one by several habits: a row each, a colour a score.

    Args:
        scores: 0..1 (MCC from -1) by the name of the row, and in it by that of the score; nan is left out.
        title: the finding; by default from where to where each score goes.
    """
    names = list(dict.fromkeys(name for row in scores.values() for name in row))
    columns = {name: np.array([row.get(name, np.nan) for row in scores.values()], float) for name in names}
    title = title or ", ".join(
        f"{name} from {np.nanmin(values):.3f} to {np.nanmax(values):.3f}" for name, values in columns.items()
    )
    figure, axes = new_figure((WIDTH, 1.3 + 0.38 * len(scores)), title)
    ax = axes[0][0]
    rows = np.arange(len(scores))
    for (name, values), colour, marker in zip(columns.items(), LINES, "oDs^vP", strict=False):
        ax.axvline(values[0], color=colour, lw=1, ls=":", zorder=1)  # the first row, which others are held to
        ax.plot(values, rows, marker, ms=8, color=colour, mec="white", ls="", label=name, clip_on=False)
    ax.set_yticks(rows, list(scores))
    ax.set(xlabel="score", ylim=(len(scores) - 0.5, -0.5))
    figure.legend(loc="outside right upper")
    return figure


def plot_cases(
    samples: Sequence[Any],
    predictions: Sequence[Any],
    scores: Sequence[float],
    names: Sequence[str] | None = None,
    *,
    count: int = 2,
    metric: str = "Dice",
    title: str | None = None,
) -> Figure:
    """Show the best and the worst cases: photographs above, their errors below.

    Args:
        samples: (image, vessels, fov) each; predictions: anything `overlays.as_mask` takes.
        scores: one per image; not-a-number ones are left out.
        names: of the images; count: how many of the best, and of the worst.
    """
    values = np.asarray(scores, float)
    order = [i for i in np.argsort(-values, kind="stable") if np.isfinite(values[i])]
    if not order:
        raise ValueError("There are no cases to show: give at least one image with a score.")
    count = min(count, max(len(order) // 2, 1))
    chosen = [*order[:count], *order[len(order) - count :]][: len(order)]
    title = title or f"{metric} {scores[chosen[0]]:.3f} at best and {scores[chosen[-1]]:.3f} at worst"
    figure, axes = new_panels([sample_parts(samples[i])[0] for i in chosen], 2, len(chosen), title, extra=0.3)
    for column, i in enumerate(chosen):
        image, vessels, fov = sample_parts(samples[i])
        name = f"{names[i]}: " if names is not None else ""
        show(axes[0][column], image, f"{name}{metric} {scores[i]:.3f}")
        show(axes[1][column], error_map(predictions[i], vessels, fov))
    legend(figure, [(COLOURS[kind], label) for kind, label in MEANING.items()])
    return figure


def show_maps(
    image: Any, probability: Any, uncertainty: Any = None, fov: Any = None, *, title: str | None = None
) -> Figure:
    """Show a photograph, the probability of vessel and, if given, how uncertain it is.

    Args:
        image: the photograph; probability: (H, W), 0..1; fov: both maps are blank outside it.
        uncertainty: (H, W), not negative: the standard deviation over the four flips.
    """
    maps = {"Probability of vessel": (as_probability(probability), "gray", 1.0)}
    if uncertainty is not None:
        spread = as_plane(uncertainty).astype(np.float32)
        maps["Spread over four flips"] = (spread, "inferno", max(float(np.quantile(spread, 0.999)), 1e-6))
    figure, axes = new_panels([as_image(image)] * (1 + len(maps)), 1, 1 + len(maps), title)
    show(axes[0][0], as_image(image), "Photograph")
    for ax, (name, (plane, cmap, top)) in zip(axes[0][1:], maps.items(), strict=True):
        plane = plane if fov is None else np.where(as_mask(fov), plane, 0)
        shown = show(ax, plane, name, cmap, (0, top))
        if fov is not None:
            outline(ax, fov)
        bar = figure.colorbar(shown, ax=ax, location="bottom", shrink=0.85, pad=0.02, aspect=40)
        bar.outline.set_visible(False)
    return figure


def visualize_segmentation(
    image: Any, mask: Any, pred: Any, *, threshold: float = 0.5, title: str | None = None
) -> Figure:
    """Show photograph, reference and prediction side by side.

    Args:
        image: (3, H, W) or (H, W, 3) tensor or array, or a PIL image; a standardised one is stretched.
        mask: the reference, tensor, array or PIL image, {0, 1} or {0, 255}; None if there is none.
        pred: logits, probabilities or a mask, told apart by their values (see `overlays.as_probability`).
        threshold: the probability from which a pixel counts as vessel; a mask needs none.
        title: the finding; by default the Dice over the whole picture, or what share of it is called vessel.
    """
    called = as_mask(pred, threshold)
    cut = f", threshold {threshold:.3g}" if np.issubdtype(as_plane(pred).dtype, np.floating) else ""
    panels, titles = [as_image(image), called], ["Photograph", f"Prediction{cut}"]
    finding = f"{100 * called.mean():.1f} % of the picture is called vessel"
    if mask is not None:
        reference = as_mask(mask)
        if reference.shape != called.shape:
            raise ValueError(
                f"The mask is {reference.shape} but the prediction {called.shape}: give both one size."
            )
        dice = 2 * (called & reference).sum() / max(called.sum() + reference.sum(), 1)
        finding = f"Dice {dice:.3f} over the whole picture"
        panels.insert(1, reference)
        titles.insert(1, "Reference")
    return show_images(panels, titles, title=title or finding, columns=3)


def hero(image: Any, prediction: Any, fov: Any = None) -> Figure:
    """Show photograph, vessels found and both together, as one dark strip without words (for the README)."""
    image, vessels = as_image(image), as_mask(prediction)
    if fov is not None:
        vessels = vessels & as_mask(fov)
    panels = [image, vessels, overlay(subdue(image, 0.75), vessels)]
    figure = plt.figure(figsize=(WIDTH, WIDTH / 3 * image.shape[0] / image.shape[1]), facecolor="black")
    for i, panel in enumerate(panels):
        show(figure.add_axes((i / 3, 0, 1 / 3, 1)), panel)
    return figure
