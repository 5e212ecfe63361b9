"""Charts: the figure style, and every figure that shows numbers rather than photographs (see `plots`)."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler

from drive_unet.plots.overlays import COLOURS, as_mask, calibre, to_numpy

WIDTH = 10.0  # inches: the width of a notebook's text column at 100 dots per inch
INK, MUTED, FAINT = "#222222", "#767676", "#DDDDDD"
LINES = ["#0072B2", "#E07B00", "#009E73", "#CC5FA0", "#56B4E9", "#8A6D3B"]  # after Okabe and Ito
STYLE: Any = {
    "figure.dpi": 100, "savefig.dpi": 100, "figure.facecolor": "white", "savefig.facecolor": "white",
    "figure.titlesize": 13, "figure.titleweight": "bold",
    "font.size": 10, "axes.labelsize": 10,
    "axes.titlesize": 11, "axes.titlelocation": "left", "axes.titlepad": 6,
    "text.color": INK, "axes.labelcolor": INK, "axes.titlecolor": INK, "axes.edgecolor": MUTED,
    "xtick.color": MUTED, "ytick.color": MUTED, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True,
    "grid.color": FAINT, "grid.linewidth": 0.8, "lines.linewidth": 1.8, "legend.frameon": False,
    "axes.prop_cycle": cycler(color=LINES), "image.cmap": "gray", "image.interpolation": "antialiased",
}  # fmt: skip


def use_style() -> None:
    """Set the style of all figures, and inside a notebook inline figures as JPEG (quality 80, 100 dpi)."""
    mpl.rcParams.update(STYLE)
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or not hasattr(shell, "kernel"):
        return
    from matplotlib_inline.config import InlineBackend

    # Set the backend's configuration rather than its present formats: it starts with the first figure, and
    # then takes the formats from here.
    backend = InlineBackend.instance(parent=shell)
    backend.shell = shell
    jpeg = {"quality": 80, "optimize": True, "progressive": True}  # a tenth smaller, no pixel changed
    options: dict[str, Any] = {"bbox_inches": "tight", "pil_kwargs": jpeg}
    backend.print_figure_kwargs = options
    backend.figure_formats = {"jpeg"}


def new_figure(size: tuple[float, float], title: str | None = None, **grid: Any) -> tuple[Figure, np.ndarray]:
    """Make a figure of `size` (width, height) inches with its title at the left, and a grid of axes."""
    figure, axes = plt.subplots(figsize=size, squeeze=False, layout="constrained", **grid)
    figure.get_layout_engine().set(w_pad=0.04, h_pad=0.04, wspace=0.0, hspace=0.0)
    if title:
        figure.suptitle(title, x=0.008, ha="left", wrap=True)
    return figure, axes


def plot_histograms(
    image: Any | Mapping[str, Any],
    regions: Mapping[str, Any],
    *,
    title: str | None = None,
    xlabel: str = "value",
    bins: int = 64,
) -> Figure:
    """Show how the values of each channel are distributed within regions of the picture.

    Args:
        image: an RGB picture (H, W, 3) or (3, H, W), or named channels {"green": (H, W), ...}; any dtype.
        regions: bool masks by name, such as {"inside the FOV": fov, "outside": ~fov}.
        title: the finding; bins: over the range of each channel.
    """
    if not isinstance(image, Mapping):
        values = to_numpy(image)
        values = np.moveaxis(values, 0, -1) if values.shape[0] == 3 else values
        image = {name: values[..., i] for i, name in enumerate(("red", "green", "blue"))}
    masks = {name: as_mask(mask) for name, mask in regions.items()}
    figure, axes = new_figure((WIDTH, 3.1), title, ncols=len(image))
    for ax, (channel, values) in zip(axes[0], image.items(), strict=True):
        values = np.squeeze(to_numpy(values))
        low, high = float(values.min()), float(values.max())
        if values.dtype == np.uint8:  # whole numbers fall evenly into bins of whole width
            step = max(256 // bins, 1)
            edges: np.ndarray = np.arange(0, 256 + step, step)
        else:
            edges = np.linspace(low, max(high, low + 1e-6), bins + 1)
        for (name, mask), colour in zip(masks.items(), LINES, strict=False):
            inside = values[mask]
            share = np.histogram(inside, edges)[0] / max(inside.size, 1)
            ax.stairs(share, edges, fill=True, color=colour, alpha=0.25)
            ax.stairs(share, edges, color=colour, lw=1.5, label=name)
        ax.set(title=channel, xlabel=xlabel, yticks=[], xlim=(edges[0], edges[-1]))
        ax.grid(False)
        ax.spines["left"].set_visible(False)
        # one pile, such as the black outside the FOV, must not flatten all else
        peaks = sorted(float(stairs.get_data().values.max()) for stairs in ax.patches[::2])
        top = 1.12 * min(peaks[-1], 4 * peaks[0]) or 1
        ax.set_ylim(0, top)
        for stairs in ax.patches[::2]:
            highest = int(stairs.get_data().values.argmax())
            share = float(stairs.get_data().values[highest])
            if share > top:
                ax.annotate(f"up to {100 * share:.0f} %", (edges[highest + 1], 0.97 * top), (4, 0), va="top",
                            textcoords="offset points", fontsize=9,
                            color=stairs.get_facecolor()[:3])  # fmt: skip
    axes[0][0].set_ylabel("share of the region's pixels")
    axes[0][-1].legend(loc="upper right")
    return figure


def plot_calibre(vessels: Any, *, thin: float = 3, title: str | None = None) -> Figure:
    """Show how much of the vessels' length has which width.

    Args:
        vessels: one label (H, W) or a list of them, anything `overlays.as_mask` takes.
        thin: widths up to this many pixels count as thin and are drawn in colour.
    """
    many = vessels if isinstance(vessels, (list, tuple)) else [vessels]
    widths = np.concatenate([width[line] for width, line in map(calibre, many)])
    top = max(int(np.ceil(np.quantile(widths, 0.9995))) if widths.size else 1, 8)
    share, edges = np.histogram(widths.clip(max=top), np.arange(0.5, top + 1))
    share = 100 * share / max(widths.size, 1)
    centres = (edges[:-1] + edges[1:]) / 2
    part = 100 * float(np.mean(widths <= thin + 0.5)) if widths.size else 0.0
    title = title or f"{part:.0f} % of the length of the vessels is at most {thin:g} pixels wide"
    figure, axes = new_figure((WIDTH, 3.4), title)
    is_thin = centres <= thin
    axes[0][0].bar(centres[is_thin], share[is_thin], 0.86, color=LINES[1], label=f"thin: up to {thin:g} px")
    axes[0][0].bar(centres[~is_thin], share[~is_thin], 0.86, color=LINES[0], label="thicker")
    axes[0][0].set(xlabel="width in pixels", ylabel="% of the centreline", xticks=centres)
    axes[0][0].grid(axis="x", visible=False)
    axes[0][0].legend()
    return figure


def plot_by_calibre(
    sensitivity: Mapping[str, float], share: Sequence[float] | None = None, *, title: str | None = None
) -> Figure:
    """Show how much is found of the vessels of each width.

    Args:
        sensitivity: 0..1 by the name of the width, the thinnest first.
        share: of all vessel pixels that have that width, 0..1, in the same order.
    """
    names, values = list(sensitivity), 100 * np.asarray(list(sensitivity.values()), float)
    title = title or (
        f"Found of the thinnest vessels: {values[0]:.0f} % of the pixels, of the thickest: {values[-1]:.0f} %"
    )
    if share is not None:
        names = [f"{name}\n{100 * part:.0f} % of all" for name, part in zip(names, share, strict=True)]
    figure, axes = new_figure((WIDTH, 3.4), title)
    colours = [LINES[1], *[LINES[0]] * (len(values) - 1)]
    bars = axes[0][0].bar(names, values, 0.62, color=colours)
    axes[0][0].bar_label(bars, fmt="%.0f %%", padding=2)
    axes[0][0].set(xlabel="width of the vessel", ylabel="% of the pixels found", ylim=(0, 108))
    axes[0][0].set_yticks(range(0, 101, 20))
    axes[0][0].grid(axis="x", visible=False)
    return figure


def plot_history(history: Sequence[Mapping[str, float]], *, title: str | None = None) -> Figure:
    """Show a training run: loss, validation Dice and learning rate over the steps.

    Args:
        history: one row per recorded step, with keys "step", "loss", "lr" and, on validation steps, "dice";
            any but "step" may be missing or None on some rows.
    """

    def column(key: str) -> tuple[np.ndarray, np.ndarray]:
        rows = [(row["step"], row[key]) for row in history if row.get(key) is not None]
        table = np.array(rows, float).reshape(-1, 2)
        return table[:, 0], table[:, 1]

    steps, loss = column("loss")
    at, dice = column("dice")
    best = int(np.nanargmax(dice)) if np.isfinite(dice).any() else None
    if title is None and best is not None:
        title = f"Validation Dice reaches {dice[best]:.3f} at step {at[best]:.0f}"
    names = ["loss", *(["dice"] if at.size else []), "lr"]
    ratios = {"loss": 2.0, "dice": 2.0, "lr": 1.2}
    figure, axes = new_figure(
        (WIDTH, 3.2), title, ncols=len(names), width_ratios=[ratios[name] for name in names]
    )
    panels = dict(zip(names, axes[0], strict=True))
    smooth = _smoothed(loss, len(loss) // 25)
    panels["loss"].plot(steps, loss, color=LINES[0], alpha=0.3, lw=1)
    panels["loss"].plot(steps, smooth, color=LINES[0], label="running mean")
    panels["loss"].set_title("Training loss")
    if loss.size and np.isfinite(loss).any():
        top = np.nanquantile(loss, 0.99)
        panels["loss"].set_ylim(min(0, float(np.nanmin(loss))), 1.1 * float(top) or 1)
    if at.size:
        panels["dice"].plot(at, dice, color=LINES[1], marker="o", ms=4)
        panels["dice"].set_title("Validation Dice")
    if best is not None:
        panels["dice"].plot(at[best], dice[best], "o", ms=11, mfc="none", mec=INK, mew=1.3, label="best")
        panels["dice"].legend(loc="lower right")
    when, rate = column("lr")
    power = int(np.floor(np.log10(max(rate.max(initial=0), 1e-12))))
    panels["lr"].plot(when, rate / 10.0**power, color=LINES[2])
    panels["lr"].set(title=f"Learning rate $\\times\\,10^{{{power}}}$", ylim=(0, None))
    last = max((float(row["step"]) for row in history), default=1)
    for ax in axes[0]:
        ax.set(xlabel="step", xlim=(-0.02 * last, 1.03 * last))
    return figure


def _smoothed(values: np.ndarray, half: int) -> np.ndarray:
    """Average each value with its `half` neighbours on both sides, fewer at the ends."""
    if half < 1:
        return values
    kernel = np.ones(2 * half + 1)
    return np.convolve(values, kernel, "same") / np.convolve(np.ones_like(values), kernel, "same")


def plot_per_image(
    scores: Mapping[str, Sequence[float]],
    names: Sequence[str] | None = None,
    *,
    metric: str = "Dice",
    title: str | None = None,
) -> Figure:
    """Show a score of every image as a dot, a row per predictor, and the mean as a bar.

    Args:
        scores: one value per image, by the name of the predictor.
        names: of the images, to label the extremes of the first row.
    """
    columns = {name: np.asarray(values, float) for name, values in scores.items()}
    first, values = next(iter(columns.items()))
    title = title or (
        f"{first}: {metric} from {np.nanmin(values):.3f} to {np.nanmax(values):.3f} from image to image, "
        f"mean {np.nanmean(values):.3f}"
    )
    figure, axes = new_figure((WIDTH, 1.5 + 0.7 * len(columns)), title)
    ax = axes[0][0]
    for row, ((_, values), colour) in enumerate(zip(columns.items(), LINES * 3, strict=False)):
        offsets = np.zeros(len(values))
        offsets[np.argsort(values, kind="stable")] = np.resize([0, 0.16, -0.16], len(values))
        ax.plot(values, row + offsets, "o", ms=6.5, color=colour, alpha=0.75, mec="white")
        mean = float(np.nanmean(values))
        ax.plot([mean, mean], [row - 0.36, row + 0.36], color=INK, lw=2, label="mean" if row == 0 else None)
        if names is not None and row == 0 and len(values) > 1:
            for i, side in ((int(np.nanargmin(values)), -1), (int(np.nanargmax(values)), 1)):
                ax.annotate(str(names[i]), (values[i], row + offsets[i]), (9 * side, 0), va="center",
                            fontsize=9, textcoords="offset points",
                            ha="right" if side < 0 else "left")  # fmt: skip
    ax.set_yticks(range(len(columns)), list(columns))
    ax.set(xlabel=f"{metric} of one image", ylim=(len(columns) - 0.45, -0.55))
    ax.margins(x=0.08)
    ax.grid(axis="y", visible=False)
    figure.legend(loc="outside upper right")
    return figure


def plot_intervals(
    scores: Mapping[str, tuple[float, float, float]],
    *,
    metric: str = "Dice",
    zero: bool = False,
    title: str | None = None,
) -> Figure:
    """Show scores with their intervals, a row each.

    Args:
        scores: (score, lower end, upper end) by the name of the predictor; ends may be nan or None.
        metric: what the score is.
        zero: mark zero, for differences, which are written with their sign.
        title: the finding; by default the first score and its interval.

    Example:
        >>> figure = plot_intervals({"U-Net": (0.81, 0.79, 0.83), "second observer": (0.79, 0.77, 0.8)})
        >>> len(figure.axes)
        1
    """
    ends = {name: np.array(values, dtype=float) for name, values in scores.items()}  # None becomes nan
    known = any(np.isfinite(values[1]) for values in ends.values())
    first, (value, low, high) = next(iter(ends.items()))
    form = "{:+.4f}" if zero else "{:.3f}"
    if title is None:
        title = f"{first}: {metric} {form.format(value)}"
        title += f", 95 % interval {form.format(low)} to {form.format(high)}" if low == low else ""
    figure, axes = new_figure((WIDTH, 1.4 + 0.5 * len(scores)), title)
    ax = axes[0][0]
    for row, ((value, low, high), colour) in enumerate(zip(ends.values(), LINES * 9, strict=False)):
        ax.plot([low, high], [row, row], color=colour, lw=3, alpha=0.45, solid_capstyle="butt")
        ax.plot(value, row, "o", ms=8, color=colour, mec="white")
        ax.annotate(form.format(value), (value, row), (0, 8), textcoords="offset points", ha="center",
                    fontsize=9)  # fmt: skip
    if zero:
        ax.axvline(0, color=MUTED, lw=1, ls=":")
    ax.set_yticks(range(len(scores)), list(scores))
    spread = "and its 95 % interval over photographs" if known else "of too few photographs for intervals"
    ax.set(xlabel=f"{metric}, {spread}", ylim=(len(scores) - 0.5, -0.7))
    ax.margins(x=0.08)
    ax.grid(axis="y", visible=False)
    return figure


def plot_confusion(confusion: Any, *, title: str | None = None) -> Figure:
    """Show a confusion matrix: the reference in rows, the prediction in columns.

    Args:
        confusion: four counts of pixels in the order tp, fp, fn, tn, such as `metrics.Confusion`.
    """
    tp, fp, fn, tn = (float(count) for count in confusion)
    total, positive, called = max(tp + fp + fn + tn, 1), max(tp + fn, 1), max(tp + fp, 1)
    title = title or (
        f"Of 100 vessel pixels {100 * tp / positive:.0f} are found; "
        f"of 100 drawn {100 * tp / called:.0f} are right"
    )
    figure, axes = new_figure((6.4, 3.4), title)
    ax = axes[0][0]
    cells = [(0, 0, "TP", tp), (0, 1, "FN", fn), (1, 0, "FP", fp), (1, 1, "TN", tn)]
    for row, column, kind, count in cells:
        ax.add_patch(plt.Rectangle((column, row), 1, 1, fc=COLOURS.get(kind, FAINT), ec=MUTED, alpha=0.9))
        ax.text(
            column + 0.5, row + 0.42, f"{count:,.0f}", ha="center", va="center", fontsize=15, color="black"
        )
        ax.text(column + 0.5, row + 0.7, f"{kind}, {100 * count / total:.1f} % of all pixels",
                ha="center", va="center", color="black", fontsize=9)  # fmt: skip
    ax.set(xlim=(0, 2), ylim=(2, 0))
    ax.set_xticks([0.5, 1.5], ["called vessel", "called background"])
    ax.set_yticks([0.5, 1.5], ["vessel", "background"])
    ax.tick_params(length=0)
    ax.xaxis.tick_top()
    ax.set_ylabel("reference")
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set_visible(False)
    return figure
