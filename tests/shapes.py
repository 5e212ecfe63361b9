"""Drawn shapes whose length, width and curvature are known, for tests of measurements."""

from __future__ import annotations

import numpy as np

FINE = 5  # samples a pixel and direction; an odd number, so that no pixel is covered by exactly half


def _fine(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = ((np.arange(n * FINE) + 0.5) / FINE - 0.5 for n in size)
    return rows[:, None], columns[None, :]


def _pixels(covered: np.ndarray) -> np.ndarray:
    height, width = (n // FINE for n in covered.shape)
    return covered.reshape(height, FINE, width, FINE).mean((1, 3)) >= 0.5


def polyline(points, width: float, size: tuple[int, int], *, flat: bool = False) -> np.ndarray:
    """A line of a width through points (row, column), with round ends and joints, or cut off: (H, W) bool."""
    rows, columns = _fine(size)
    covered = np.zeros((rows.size, columns.size), bool)
    points = np.asarray(points, float)
    for start, end in zip(points, points[1:], strict=False):
        low = np.maximum((np.minimum(start, end) - width - 2) * FINE, 0).astype(int)
        high = np.maximum((np.maximum(start, end) + width + 2) * FINE, 0).astype(int)
        part = slice(low[0], high[0]), slice(low[1], high[1])
        down, right = rows[part[0]] - start[0], columns[:, part[1]] - start[1]
        length = np.hypot(*(end - start))
        along = (end - start) / length
        at = down * along[0] + right * along[1]
        if flat:
            beside = np.abs(down * along[1] - right * along[0])
            covered[part] |= (at >= 0) & (at <= length) & (beside <= width / 2)
        else:
            at = at.clip(0, length)
            covered[part] |= np.hypot(down - at * along[0], right - at * along[1]) <= width / 2
    return _pixels(covered)


def line(length: float, width: float, angle: float, *, flat: bool = False, side: int | None = None):
    """A straight line in the middle of a square frame, at an angle in radians: (side, side) bool."""
    side = side or int(length + 2 * width + 8)
    half = np.array([np.sin(angle), np.cos(angle)]) * length / 2
    middle = np.array([side / 2 + 0.13, side / 2 - 0.29])
    return polyline([middle - half, middle + half], width, (side, side), flat=flat)


def arc(radius: float, angle: float, width: float, start: float = 0.0, centre=(0.21, -0.34)) -> np.ndarray:
    """Part of a ring, cut off radially at both ends: (H, W) bool."""
    side = int(2 * (radius + width) + 8)
    rows, columns = _fine((side, side))
    down, right = rows - side / 2 - centre[0], columns - side / 2 - centre[1]
    turn = np.mod(np.arctan2(down, right) - start, 2 * np.pi)
    return _pixels((np.abs(np.hypot(down, right) - radius) <= width / 2) & (turn <= angle))


def koch(order: int, side: float) -> np.ndarray:
    """The points (N, 2) of a Koch curve on a base `side` long, inside a frame (side / 2, side)."""
    points = np.array([0, 1], complex)
    for _ in range(order):
        step = np.diff(points) / 3
        a = points[:-1]
        corners = [a, a + step, a + step + step * np.exp(1j * np.pi / 3), a + 2 * step]
        points = np.r_[np.stack(corners, 1).ravel(), points[-1]]
    return np.stack([points.imag * side + 8, points.real * side + 8], 1)
