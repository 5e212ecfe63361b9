"""The shape of a network, drawn from the sizes that a photograph has on its way through it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

from drive_unet.plots.charts import INK, LINES, MUTED, WIDTH, new_figure

Size = tuple[int, int, int]  # channels, height, width


def plot_unet(down: Sequence[Size], bottom: Size, up: Sequence[Size], *, title: str | None = None) -> Figure:
    """Draw a U-Net: the way down, the bottleneck, the way up, and the skips that join both.

    Args:
        down: (channels, height, width) that each encoder block makes, from the finest level to the deepest.
        bottom: the same for the bottleneck.
        up: the same for each decoder block, from the deepest level to the finest.

    Raises:
        ValueError: if the way up has another number of levels than the way down.

    Example:
        >>> figure = plot_unet([(8, 64, 64)], (16, 32, 32), [(8, 64, 64)])
        >>> len(figure.axes)
        1
    """
    if len(down) != len(up):
        raise ValueError(f"the way down has {len(down)} levels and the way up {len(up)}: a U has as many")
    depth = len(down)
    tallest = max(height for _, height, _ in down)
    widest = max(channels for channels, _, _ in (*down, bottom, *up))
    figure, axes = new_figure((WIDTH, 4.6), title or "A U-Net: down for sight, up for detail, skips between")
    ax = axes[0, 0]
    ax.set(xlim=(-1.3, 2 * depth + 1.3), ylim=(-depth - 0.6, 0.6))
    ax.axis("off")

    def block(column: int, level: int, size: Size, colour: str, align: str) -> None:
        channels, height, width = size
        tall, wide = 0.25 + 0.6 * height / tallest, 0.16 + 0.4 * channels / widest
        corner = (column - wide / 2, -level - tall / 2)
        ax.add_patch(Rectangle(corner, wide, tall, facecolor=colour, edgecolor=INK, linewidth=1, alpha=0.85))
        beside = {"right": -wide / 2 - 0.08, "left": wide / 2 + 0.08, "center": 0.0}[align]
        below = -tall / 2 - 0.15 if align == "center" else 0.0
        text = f"{channels} x {height} x {width}"
        ax.text(column + beside, -level + below, text, ha=align, va="center", fontsize=9, color=INK)

    def arrow(start: tuple[float, float], end: tuple[float, float], colour: str, line: str = "-") -> None:
        look: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 12, "linewidth": 1.6}
        ax.add_patch(FancyArrowPatch(start, end, color=colour, linestyle=line, **look))

    for level, (size, mirrored) in enumerate(zip(down, reversed(up), strict=True)):
        left, right = level, 2 * depth - level
        block(left, level, size, LINES[0], "right")
        block(right, level, mirrored, LINES[2], "left")
        arrow((left + 0.32, -level), (right - 0.32, -level), LINES[1], "--")
        arrow((left + 0.2, -level - 0.25), (left + 0.78, -level - 0.82), MUTED)
        arrow((right - 0.78, -level - 0.82), (right - 0.2, -level - 0.25), MUTED)
    block(depth, depth, bottom, LINES[3], "center")
    notes = [
        (depth, 0.12, "skip: copied across, laid beside what rises", LINES[1]),
        (0.6, -depth + 0.1, "encoder block,\nthen pooled to half", LINES[0]),
        (
            2 * depth - 0.6,
            -depth + 0.1,
            "doubled by a transposed\nconvolution, then a decoder block",
            LINES[2],
        ),
    ]
    for x, y, text, colour in notes:
        ax.text(x, y, text, ha="center", fontsize=9, color=colour)
    return figure
