"""Figures of photographs and labels: what goes into a network, and the parts of which such figures are made.

See `plots` for how to show a figure; that module passes on every function from here that draws one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from drive_unet.plots.charts import INK, LINES, MUTED, WIDTH, new_figure
from drive_unet.plots.overlays import COLOURS, as_image, as_mask, busiest, paint, to_numpy, window


def show_images(
    images: Sequence[Any],
    titles: Sequence[str] | None = None,
    *,
    title: str | None = None,
    columns: int = 4,
    cmap: str = "gray",
    limits: tuple[float, float] | None = None,
    fov: Any = None,
    colourbar: bool = False,
) -> Figure:
    """Show pictures side by side: channels, before and after, anything.

    Args:
        images: photographs and maps, anything `overlays.as_image` takes; (H, W) floats keep their values.
        titles: one per picture; title: the finding, above all of them.
        columns: the most pictures in a row.
        cmap: for (H, W) maps; limits: their values at both ends of it, else each map's own (uint8: 0..255).
        fov: a mask (H, W) whose outline is drawn on every picture of that size.
        colourbar: add the scale of the maps to each.
    """
    pictures = [_picture(image) for image in images]
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    figure, axes = new_panels(pictures, rows, columns, title, gap=0.3 * rows if titles is not None else 0.1)
    for i, ax in enumerate(axes.flat):
        if i >= len(pictures):
            ax.set_visible(False)
            continue
        shown = show(ax, pictures[i], titles[i] if titles is not None else None, cmap, limits)
        if fov is not None and as_mask(fov).shape == pictures[i].shape[:2]:
            outline(ax, fov)
        if colourbar and pictures[i].ndim == 2:
            figure.colorbar(shown, ax=ax, shrink=0.8, pad=0.02).outline.set_visible(False)
    return figure


def show_sample(sample: Any, title: str | None = None) -> Figure:
    """Show a photograph, its vessels and its field of view.

    Args:
        sample: a `data.Sample` or another (image, vessels, fov); vessels or fov may be None.
        title: the finding; by default the share of the FOV that is vessel.
    """
    image, vessels, fov = sample_parts(sample)
    height, width = image.shape[:2]
    panels, titles = [image], [f"Photograph, {width} x {height}"]
    if vessels is not None:
        inside = vessels if fov is None else vessels[fov]
        title = (
            title
            or f"{100 * inside.mean():.1f} % of the {'image' if fov is None else 'field of view'} is vessel"
        )
        panels.append(vessels)
        titles.append("Vessels, the reference")
    if fov is not None:
        panels.append(fov)
        titles.append(f"Field of view, {100 * fov.mean():.1f} % of the frame")
    return show_images(panels, titles, title=title or "A photograph without labels", columns=3, fov=fov)


def show_pairs(
    samples: Sequence[Any], titles: Sequence[str] | None = None, *, title: str | None = None
) -> Figure:
    """Show photographs above and their vessels below, such as augmented ones.

    Args:
        samples: at most six (image, vessels, fov), all of one size; titles: one per sample.
    """
    parts = [sample_parts(sample) for sample in samples]
    gap = 0.3 if titles is not None else 0.05
    figure, axes = new_panels([image for image, _, _ in parts], 2, len(parts), title, gap=gap)
    for i, (image, vessels, fov) in enumerate(parts):
        show(axes[0][i], image, titles[i] if titles is not None else None)
        show(axes[1][i], vessels if vessels is not None else np.zeros(image.shape[:2], bool))
        if fov is not None and not fov.all():
            outline(axes[0][i], fov)
            outline(axes[1][i], fov)
    return figure


def show_patches(
    image: Any, corners: Any, size: int, *, fov: Any = None, columns: int = 4, title: str | None = None
) -> Figure:
    """Show where patches lie on the photograph, and the patches.

    Args:
        image: the photograph; fov: its outline is drawn.
        corners: (N, 2) upper left corners (row, column), int.
        size: side of a patch in pixels; what lies outside the photograph is black.
    """
    image, corners = as_image(image), to_numpy(corners).astype(int)
    padded = np.pad(image, ((size, size), (size, size), (0, 0)))
    patches = [padded[r + size : r + 2 * size, c + size : c + 2 * size] for r, c in corners]
    rows, columns = -(-len(patches) // columns), min(columns, len(patches))
    aspect = image.shape[0] / image.shape[1]
    left = WIDTH / (1 + columns * aspect / rows)  # so that the patches together are as high as the photograph
    figure = plt.figure(figsize=(WIDTH, left * aspect + 0.5), layout="constrained")
    figure.suptitle(title or f"{len(patches)} patches of {size} x {size} pixels", x=0.008, ha="left")
    ratios = [left, *[(WIDTH - left) / columns] * columns]
    grid = figure.add_gridspec(rows, columns + 1, width_ratios=ratios)
    whole = figure.add_subplot(grid[:, 0])
    show(whole, image)
    if fov is not None:
        outline(whole, fov)
    for i, ((row, column), patch) in enumerate(zip(corners, patches, strict=True)):
        colour = LINES[i % len(LINES)]
        box(whole, (slice(row, row + size), slice(column, column + size)), colour, str(i + 1))
        ax = figure.add_subplot(grid[i // columns, 1 + i % columns])
        show(ax, patch)
        _frame(ax, colour)
        ax.text(0.04, 0.95, str(i + 1), transform=ax.transAxes, color="white", va="top", weight="bold")
    return figure


def show_squash(
    vessels: Any, squashed: Any, vanished: Any = None, *, size: int = 110, title: str | None = None
) -> Figure:
    """Show what squashing a label does to thin vessels: where they vanish, and close up before and after.

    Args:
        vessels: the label at native size, bool (H, W); squashed: the same after it, (h, w), bool or grey.
        vanished: bool (H, W), the vessel pixels counted as lost; by default those that are background once
            the squashed label is scaled back to native size by nearest neighbour.
        size: side of the enlarged part in pixels, which is put where most is lost.
    """
    vessels, squashed = as_mask(vessels), as_mask(squashed)
    height, width = vessels.shape
    rows, columns = (
        (2 * np.arange(n) + 1) * m // (2 * n) for n, m in zip(vessels.shape, squashed.shape, strict=True)
    )
    back = squashed[np.ix_(rows, columns)]
    vanished = vessels & ~back if vanished is None else as_mask(vanished) & vessels
    lost = 100 * vanished.sum() / max(vessels.sum(), 1)
    title = title or (
        f"Squashed from {width} x {height} to {squashed.shape[1]} x {squashed.shape[0]}: "
        f"{lost:.0f} % of the vessel pixels are lost"
    )
    marked = np.zeros((height, width, 3), np.uint8)
    paint(marked, vessels, "#B0B0B0", 1.0)
    paint(marked, vanished, COLOURS["FN"], 1.0)
    part = window(vessels.shape, busiest(vanished, size), (round(size * height / width), size))
    figure, axes = new_panels([vessels] * 3, 1, 3, title, extra=0.3)
    show(axes[0][0], marked, "What vanishes")
    box(axes[0][0], part, "white")
    show(axes[0][1], marked[part], "Close up, native size")
    show(axes[0][2], back[part], f"The same after {squashed.shape[1]} x {squashed.shape[0]}")
    legend(figure, [("#B0B0B0", "kept"), (COLOURS["FN"], "vanished")])
    return figure


def plot_receptive_field(
    image: Any, fields: Mapping[str, int], center: tuple[int, int] | None = None, *, title: str | None = None
) -> Figure:
    """Show how much of the photograph one output pixel can see.

    Args:
        image: the photograph; center: the pixel (row, column), by default the middle of the picture.
        fields: side of the receptive field in pixels by the name of the network or level, at most four.
    """
    image = as_image(image)
    row, column = center or (image.shape[0] // 2, image.shape[1] // 2)
    widest = max(fields, key=fields.__getitem__)
    title = title or f"One pixel of the {widest} is decided from {fields[widest]} x {fields[widest]} pixels"
    figure, axes = new_panels([image] * (1 + len(fields)), 1, 1 + len(fields), title)
    show(axes[0][0], image, "Photograph")
    half = max(fields.values())
    padded = np.pad(image, ((half, half), (half, half), (0, 0)))
    for ax, (name, side), colour in zip(axes[0][1:], fields.items(), LINES[1:], strict=False):
        top, left = row - side // 2, column - side // 2
        part = slice(top, top + side), slice(left, left + side)
        box(axes[0][0], part, colour)
        show(ax, padded[tuple(slice(s.start + half, s.stop + half) for s in part)], f"{name}: {side} px")
        _frame(ax, colour)
        ax.plot([side / 2 - 0.5], [side / 2 - 0.5], "+", color="white", ms=9, mew=1.5)
    axes[0][0].set(xlim=(-0.5, image.shape[1] - 0.5), ylim=(image.shape[0] - 0.5, -0.5))
    return figure


def plot_feature_maps(
    levels: Mapping[str, Any], *, count: int = 6, fov: Any = None, title: str | None = None
) -> Figure:
    """Show what the levels of a network hold: a row per level, its liveliest channels.

    Args:
        levels: activations (C, h, w) or (1, C, h, w) by the name of the level.
        count: channels per level: those with the greatest standard deviation, but none that is a near copy of
            one already chosen as long as there are others; each with its own grey scale.
        fov: a mask (H, W) of the photograph; channels and grey scales are then chosen by what lies inside it.
    """
    tensors = {name: to_numpy(value) for name, value in levels.items()}
    tensors = {name: a[0] if a.ndim == 4 else a for name, a in tensors.items()}
    figure, axes = new_panels([a[0] for a in tensors.values()], len(tensors), count, title, gap=0.05)
    for row, (name, a) in zip(axes, tensors.items(), strict=True):
        values = a[:, _inside(fov, a.shape[1:])].astype(np.float64)
        liveliest = _liveliest(values, count)
        for ax, channel in zip(row, liveliest, strict=False):
            low, high = np.quantile(values[channel], (0.005, 0.995))
            show(ax, a[channel].astype(np.float32), None, "gray", (low, max(high, low + 1e-6)))
            ax.text(0.03, 0.97, f"{channel}", transform=ax.transAxes, color="white", va="top", fontsize=7,
                    bbox={"fc": "black", "ec": "none", "pad": 0.8, "alpha": 0.6})  # fmt: skip
        for ax in row[len(liveliest) :]:
            ax.set_visible(False)
        row[0].set_ylabel(f"{name}\n{a.shape[0]} x {a.shape[1]} x {a.shape[2]}", fontsize=9)
    return figure


def _inside(fov: Any, shape: tuple[int, int]) -> np.ndarray:
    """Bring a field of view to the size of a feature map; without one, all of that is inside."""
    if fov is None:
        return np.ones(shape, bool)
    fov = as_mask(fov)
    step = 1
    while step * shape[0] < fov.shape[0] or step * shape[1] < fov.shape[1]:
        step *= 2
    rows, columns = (
        (np.arange(n) * step + step // 2).clip(max=m - 1) for n, m in zip(shape, fov.shape, strict=True)
    )
    small = fov[np.ix_(rows, columns)]
    return small if small.any() else np.ones(shape, bool)


def _liveliest(values: np.ndarray, count: int) -> list[int]:
    """Choose channels of (C, pixels) by their spread, passing over near copies; sorted."""
    order = [int(i) for i in np.argsort(-values.std(axis=1), kind="stable")]
    with np.errstate(invalid="ignore", divide="ignore"):
        alike = np.abs(np.nan_to_num(np.corrcoef(values))).reshape(len(values), -1)
    chosen: list[int] = []
    for limit in (0.9, 2.0):  # then whatever is left
        for i in order:
            if len(chosen) < count and i not in chosen and all(alike[i, j] < limit for j in chosen):
                chosen.append(i)
    return sorted(chosen)


def sample_parts(sample: Any) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Take a sample apart: uint8 (H, W, 3), and bool (H, W) or None twice."""
    image, vessels, fov, *_ = sample
    return (
        as_image(image),
        None if vessels is None else as_mask(vessels),
        None if fov is None else as_mask(fov),
    )


def _picture(image: Any) -> np.ndarray:
    """Leave (H, W) maps as they are, make RGB of all else."""
    a = to_numpy(image)
    return np.squeeze(a) if np.squeeze(a).ndim == 2 else as_image(a)


def new_panels(
    pictures: Sequence[np.ndarray],
    rows: int,
    columns: int,
    title: str | None,
    *,
    extra: float = 0,
    gap: float = 0.3,
) -> tuple[Figure, np.ndarray]:
    """Make a grid of axes as high as its pictures need, and `gap` inches for titles, `extra` for a legend."""
    aspect = max(p.shape[0] / p.shape[1] for p in pictures)
    cell = min(WIDTH / columns, 4.2)
    height = rows * cell * aspect + gap + extra + (0.4 if title else 0)
    return new_figure((cell * columns, height), title, nrows=rows, ncols=columns)


def show(
    ax: Axes,
    picture: np.ndarray,
    title: str | None = None,
    cmap: str = "gray",
    limits: tuple[float, float] | None = None,
) -> Any:
    """Draw one picture without axes."""
    if picture.ndim == 2 and limits is None:
        mask = picture.dtype == bool or (picture.dtype == np.uint8 and picture.max(initial=0) <= 1)
        limits = (0, 1) if mask else (0, 255) if picture.dtype == np.uint8 else None
    low, high = limits if limits is not None else (None, None)
    kind = "nearest" if max(picture.shape[:2]) < 200 else "antialiased"  # few pixels: show them as they are
    shown = ax.imshow(picture, cmap=cmap, vmin=low, vmax=high, interpolation=kind)
    ax.set_anchor("N")  # titles of one row at one height, whatever the shapes
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set_visible(False)
    if title:
        ax.set_title(title)
    return shown


def _frame(ax: Axes, colour: str) -> None:
    for spine in ax.spines.values():
        spine.set(visible=True, color=colour, linewidth=2)


def box(ax: Axes, part: tuple[slice, slice], colour: str, text: str | None = None) -> None:
    row, column = part[0].start, part[1].start
    height, width = part[0].stop - row, part[1].stop - column
    ax.add_patch(Rectangle((column - 0.5, row - 0.5), width, height, fill=False, ec=colour, lw=1.6))
    if text:
        ax.text(column + 4, row + 4, text, color="white", va="top", fontsize=9, weight="bold")


def outline(ax: Axes, fov: Any) -> None:
    ax.contour(as_mask(fov), [0.5], colors=[MUTED], linewidths=0.9)


def legend(figure: Figure, entries: Sequence[tuple[str, str]]) -> None:
    handles = [Patch(fc=colour, ec=INK, lw=0.6, label=label) for colour, label in entries]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(entries), fontsize=10)
