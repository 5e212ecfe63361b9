"""Fundus photographs painted by procedure, with exact vessel labels, and a whole dataset of them.

A painted eye is made in four steps: two vessel trees grow from the optic disc (`vasculature`); they are drawn
here, as labels and as a map of how much blood lies on the line of sight; the retina behind them is painted;
a camera looks at it (`retina`). All chance comes from one generator, so that a seed stands for an eye.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from drive_unet import embedded as _store
from drive_unet.retina import add_distractors, aperture, background, photograph
from drive_unet.vasculature import TIP_RADIUS, Course, Eye, course, draw_eye, grow, waves

VERSION = 2  # part of the cache key: raise it whenever the painted pixels change
ABSORPTION = np.array([[0.05, 0.105, 0.14], [0.09, 0.14, 0.16]])  # per pixel of artery, of vein, in R, G, B
REMAINING = np.array([0.80, 0.54, 0.74])  # share of the light, in R, G, B, that no vessel takes away
REFLEX = (0.60, 0.35)  # strength of the central light reflex of arteries, of veins
THINNEST = 0.56  # radius in pixels below which labels do not go, lest they fall apart


class Fundus(NamedTuple):
    """One painted photograph, its exact labels, and what a second observer drew."""

    image: np.ndarray  # (H, W, 3) uint8, RGB
    vessels: np.ndarray  # (H, W) bool, exact
    fov: np.ndarray  # (H, W) bool
    second_observer: np.ndarray  # (H, W) bool


def paint(seed: int, size: tuple[int, int] = (584, 565)) -> Fundus:
    """Paint one fundus photograph with its exact labels.

    Args:
        seed: any non-negative integer; the same seed gives the same pixels.
        size: (height, width) of the frame in pixels.

    Returns:
        A `Fundus`: image (H, W, 3) uint8; vessels, fov, second_observer (H, W) bool, nothing outside the FOV.
    """
    rng = np.random.default_rng(seed)
    size = (int(size[0]), int(size[1]))
    y, x = (np.arange(n, dtype=np.float32) + 0.5 for n in size)
    y, x = y[:, None], x[None, :]
    eye = draw_eye(rng, size)
    depth = aperture(rng, eye, x, y)
    fov = depth >= 0
    vessels = course(rng, eye, grow(rng, eye))
    blood, labels = _draw_vessels(rng, eye, vessels, size)
    second_observer = _second_observer(rng, eye, vessels, size)

    scene = background(rng, eye, size, x, y)
    add_distractors(rng, eye, scene, x, y)
    blood *= np.float32(rng.uniform(0.65, 1.25) / eye.scale)
    for c in range(3):
        absorbed = (ABSORPTION[0, c] * blood[0] + ABSORPTION[1, c] * blood[1]).astype(np.float32)
        scene[..., c] *= REMAINING[c] + (1 - REMAINING[c]) * np.exp(-absorbed)
    image = photograph(rng, eye, scene, x, y, depth)
    return Fundus(image, labels & fov, fov, second_observer & fov)


def make_dataset(
    folder: str | Path,
    *,
    seed: int = 0,
    training: int = 20,
    test: int = 20,
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Paint a complete dataset in DRIVE's own layout and encodings.

    Args:
        folder: where to; it must not exist or be empty. It appears complete or not at all.
        seed: of the whole set; the same seed gives the same pixels, whatever `workers` is.
        training, test: number of images; 20 and 20 in DRIVE, at most 79 and 20.
        workers: threads; None takes the number of cores, at most 8.
        progress: show a progress bar.

    Returns:
        The folder.

    Raises:
        DataError: if the folder holds something already or cannot be written.
        ValueError: if so many images have no numbers in DRIVE's scheme.
    """
    amount = {"seed": seed, "training": training, "test": test}
    return _store.write(folder, paint, VERSION, **amount, workers=workers, progress=progress)


def embedded(seed: int = 0, progress: bool = True) -> Path:
    """Return the painted dataset in the user's cache; it is made on first use and remade if it was damaged.

    The cache folder is the system's own for user caches, or the one named by the environment variable
    DRIVE_UNET_CACHE.

    Args:
        seed: of the set; each has a folder of its own.
        progress: show a progress bar while painting.

    Returns:
        The dataset's folder, with `training` and `test` in it.

    Raises:
        DataError: if the cache folder cannot be written.
    """
    return _store.cached(paint, VERSION, seed=seed, progress=progress)


def _draw_vessels(rng, eye: Eye, vessels: Course, size) -> tuple[np.ndarray, np.ndarray]:
    """Blood on the line of sight in arteries and veins (2, H, W) float32, in pixels, and labels (H, W) bool.

    A vessel is a cylinder; one thinner than a pixel is spread over a pixel and thinned accordingly.
    """
    s, points = eye.scale, vessels.points
    # vessels lie at changing depths; thin ones fade, and in places all but vanish
    thinness = np.exp(-(vessels.radius / s - TIP_RADIUS) / 0.9)
    redness = 0.55 * waves(rng, points, 90 * s)[:, 0] + 0.35 * waves(rng, points, 30 * s)[:, 0]
    redness = np.maximum(1 - 0.1 * thinness + (0.2 + 0.8 * thinness) * redness, 0.12)
    blood = np.zeros((2, *size), np.float32)
    labels = np.zeros(size, bool)
    for kind in (0, 1):
        mine = np.flatnonzero(vessels.kind == kind)
        drawn = np.maximum(vessels.radius[mine], 1.1)
        wall, which = _stamp(points[mine], drawn, size)
        near = np.isfinite(wall)
        wall, which = wall[near], which[near]
        radius, true = drawn[which], vessels.radius[mine][which]
        labels[near] |= wall + radius <= np.maximum(true, THINNEST)
        across = np.clip((wall + radius) / radius, 0, 1)  # 0 on the centreline, 1 at the wall
        chord = 2 * radius * np.sqrt(1 - across**2) * np.minimum(1, (true + 0.06) / radius) ** 2
        reflex = REFLEX[kind] * np.exp(-(across**2) / 0.07) * np.clip((true / s - 1.5) / 1.2, 0, 1)
        blood[kind][near] = chord * (1 - reflex) * redness[mine][which]
    return blood, labels


def _second_observer(rng, eye: Eye, vessels: Course, size) -> np.ndarray:
    """The labels (H, W) bool of a careful human: faint ends missed, edges and centrelines wavering."""
    s, points, radius = eye.scale, vessels.points, vessels.radius
    carelessness = float(np.clip(rng.normal(1.0, 0.12), 0.7, 1.3))
    shift = 0.70 * waves(rng, points, 24 * s) + 0.46 * waves(rng, points, 10 * s)
    width = radius * (1 + 0.15 * waves(rng, points, 40 * s)[:, 0]) + s * rng.normal(0.05, 0.1)
    seen = radius > s * (0.76 + 0.24 * carelessness * waves(rng, points, 70 * s)[:, 0])
    moved = points + s * carelessness * shift
    wall, _ = _stamp(moved[seen], np.maximum(width[seen], 0.62), size)
    return wall <= 0


def _stamp(points: np.ndarray, radius: np.ndarray, size) -> tuple[np.ndarray, np.ndarray]:
    """Stamp a round brush on every point.

    Args:
        points: (M, 2) x, y in pixels.
        radius: (M,) of the brush.
        size: (height, width).

    Returns:
        The distance (H, W) float32 to the nearest wall, negative inside a vessel, inf far from all; and the
        index (H, W) int32 of the point to which that wall belongs.
    """
    height, width = size
    wall = np.full(height * width, np.inf, np.float32)
    which = np.zeros(height * width, np.int32)
    corner = np.floor(points).astype(np.int32)
    offset = (points - corner - 0.5).astype(np.float32)
    radius = radius.astype(np.float32)
    reach = np.ceil(radius + 0.5).astype(np.int32)
    inside = (corner >= reach[:, None]).all(1) & (corner < np.array([width, height]) - reach[:, None]).all(1)
    for r in np.unique(reach):
        chosen = np.flatnonzero((reach == r) & inside)
        dy, dx = (d.ravel() for d in np.mgrid[-r : r + 1, -r : r + 1].astype(np.int32))
        brush = dx**2 + dy**2 <= (r + 0.7) ** 2
        dx, dy = dx[brush], dy[brush]
        value = (np.float32(dx) - offset[chosen, :1]) ** 2 + (np.float32(dy) - offset[chosen, 1:]) ** 2
        value = np.sqrt(value) - radius[chosen, None]  # float32 as `wall` is, or the comparison below fails
        pixel = (corner[chosen, 1:] + dy) * width + corner[chosen, :1] + dx
        np.minimum.at(wall, pixel.ravel(), value.ravel())
        row, column = np.nonzero(value <= wall[pixel])
        which[pixel[row, column]] = chosen[row]
    return wall.reshape(size), which.reshape(size)
