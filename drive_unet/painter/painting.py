"""Fundus photographs painted by procedure, with exact labels, and whole datasets of them.

A painted eye is made in four steps: two vessel trees grow from the optic disc (`vessels`); they are drawn
here, as labels and as a map of how much blood lies on the line of sight; the retina behind them is painted
(`retina`) with what is easily taken for vessels (`lesions`); a camera looks at it (`camera`). A seed stands
for an eye, and every step has its own source of chance, so that changing one ingredient leaves the others as
they were.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from skimage.morphology import skeletonize

from drive_unet.painter import store as _store
from drive_unet.painter.camera import aperture, photograph
from drive_unet.painter.eye import AS_USUAL, Eye, Ingredients, draw_eye, waves
from drive_unet.painter.lesions import add_lesions
from drive_unet.painter.retina import background
from drive_unet.painter.vessels import Course, course, grow

VERSION = 3  # part of the cache key: raise it whenever the painted pixels change
ABSORPTION = np.array([[0.07, 0.135, 0.17], [0.12, 0.18, 0.19]])  # per pixel of artery, of vein, in R, G, B
REMAINING = np.array([0.76, 0.49, 0.70])  # share of the light, in R, G, B, that no vessel takes away
REFLEX = (0.60, 0.35)  # strength of the central light reflex of arteries, of veins
COVERED = 0.6  # share of a vein's blood that an artery in front of it hides
HAIRLINE = 0.74  # a vessel of a smaller radius, in pixels, is labelled as a line one pixel wide
SMALLEST = 32  # height and width of a frame in pixels
WALL = 0.35  # thickness in pixels of a vessel's wall, which is as good as transparent
TIP = 0.50  # radius at which vessels fade most, in pixels of a field of view 540 px across


class Fundus(NamedTuple):
    """One painted photograph, and all that is known about it: exactly, since it was made so."""

    image: np.ndarray  # (H, W, 3) uint8, RGB
    vessels: np.ndarray  # (H, W) bool: arteries and veins
    fov: np.ndarray  # (H, W) bool
    second_observer: np.ndarray  # (H, W) bool, as a careful human would draw the vessels
    arteries: np.ndarray  # (H, W) bool
    veins: np.ndarray  # (H, W) bool; both where they cross
    calibre: np.ndarray  # (H, W) float32: width in pixels of the vessel that a pixel belongs to, else 0
    centreline: np.ndarray  # (H, W) bool, one pixel wide: arteries and veins, each thinned
    eye: Eye  # where disc and fovea lie, in pixels of the frame


def paint(seed: int, size: tuple[int, int] = (584, 565), mix: Ingredients = AS_USUAL) -> Fundus:
    """Paint one fundus photograph with its exact labels.

    Args:
        seed: any non-negative integer; the same seed gives the same pixels.
        size: (height, width) of the frame in pixels.
        mix: strengths of the ingredients, such as ``Ingredients(lesions=0)``.

    Returns:
        A `Fundus`; its masks hold nothing outside the FOV.

    Raises:
        ValueError: if a strength is negative or not a number, the density 0, or the frame tiny.
    """
    mix.check()
    size = (int(size[0]), int(size[1]))
    if min(size) < SMALLEST:
        raise ValueError(f"size={size} (height, width): an eye needs {SMALLEST} pixels or more each way")
    chance = np.random.default_rng(seed).spawn(7)
    y, x = _places(size)
    eye = draw_eye(chance[0], size, mix)
    depth = aperture(chance[0], eye, x, y)
    fov = depth >= 0
    vessels = _vessels(seed, size, mix.tortuosity, mix.density, mix.twigs)
    blood, labels, calibre = _draw_vessels(chance[2], eye, vessels, size, mix)
    second_observer = _second_observer(chance[3], eye, vessels, size)

    scene = _ground(
        seed, size, mix.tortuosity, mix.density, mix.texture, mix.choroid, mix.sheen, mix.colour
    ).copy()
    add_lesions(chance[5], eye, scene, x, y, mix)
    _add_vessels(chance[2], eye, scene, blood)
    image = photograph(chance[6], eye, scene, x, y, depth, mix)
    labels &= fov
    everything = labels.any(0)
    arteries, veins = labels
    return Fundus(
        image,
        everything,
        fov,
        second_observer & fov,
        arteries,
        veins,
        np.where(everything, calibre, np.float32(0)),
        skeletonize(skeletonize(arteries) | skeletonize(veins)),
        eye,
    )


@lru_cache(maxsize=4)
def _vessels(seed: int, size: tuple[int, int], tortuosity: float, density: float, twigs: float) -> Course:
    """The vessels of an eye, kept for a while: other light or lesions grow none afresh."""
    mix = Ingredients(tortuosity=tortuosity, density=density, twigs=twigs)
    places, growth, *_ = np.random.default_rng(seed).spawn(7)
    eye = draw_eye(places, size, mix)
    return course(growth, eye, grow(growth, eye, mix))


@lru_cache(maxsize=4)
def _ground(
    seed: int, size: tuple[int, int], tortuosity: float, density: float, *strengths: float
) -> np.ndarray:
    """What lies behind an eye's vessels, kept for a while likewise: (H, W, 3) float32, to be copied."""
    usual = Ingredients(tortuosity=tortuosity, density=density)
    mix = usual._replace(**dict(zip(("texture", "choroid", "sheen", "colour"), strengths, strict=True)))
    places, _, _, _, chance, *_ = np.random.default_rng(seed).spawn(7)
    y, x = _places(size)
    return background(chance, draw_eye(places, size, mix), size, x, y, mix)


def _places(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The middles of the pixels: y (H, 1) and x (1, W)."""
    y, x = (np.arange(n, dtype=np.float32) + 0.5 for n in size)
    return y[:, None], x[None, :]


def make_dataset(
    folder: str | Path,
    *,
    seed: int = 0,
    training: int = 20,
    test: int = 20,
    workers: int | None = None,
    progress: bool = True,
    overwrite: bool = False,
) -> Path:
    """Paint a complete dataset in DRIVE's own layout and encodings.

    Args:
        folder: where to; it must not exist or be empty. It appears complete or not at all; of a call that was
            interrupted, the same call goes on with the eyes that are finished.
        seed: of the whole set; the same seed gives the same pixels, whatever `workers` is.
        training, test: number of images; 20 and 20 in DRIVE, at most 79 and 20.
        workers: threads; None takes the number of cores, at most 8.
        progress: show a progress bar, on a terminal and in notebooks.
        overwrite: replace another painted set in the folder, and what was left unfinished of one.

    Returns:
        The folder.

    Raises:
        DataError: if the folder holds something else already or cannot be written, or eyes were left
            unfinished there of another seed or version.
        ValueError: if so many images have no numbers in DRIVE's scheme.
    """
    jobs = _store.as_drive(training, test)
    return _store.write(
        folder, paint, VERSION, jobs, seed=seed, workers=workers, progress=progress, overwrite=overwrite
    )


def synthesize(
    folder: str | Path,
    images: int,
    *,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
    overwrite: bool = False,
) -> Path:
    """Paint any number of photographs with all that is known about them, in plain folders.

    Written are ``images``, ``labels`` and ``fov``, which `find_dataset` reads; beside them
    ``second_observer``, ``arteries_veins`` (red and blue, crossings green), ``centreline``, ``calibre`` (16
    bits, hundredths of a pixel) and ``eyes`` (JSON: where disc and fovea lie, in pixels). A longer set begins
    with the shorter one of the same seed; none of its eyes is in the embedded set.

    Args:
        folder: where to; it must not exist or be empty. It appears complete or not at all; of a call that was
            interrupted, the same call goes on with the eyes that are finished.
        images: how many.
        seed: of the whole set; the same seed gives the same pixels, whatever `workers` is.
        workers: threads; None takes the number of cores, at most 8.
        progress: show a progress bar, on a terminal and in notebooks.
        overwrite: replace another painted set in the folder, and what was left unfinished of one.

    Returns:
        The folder.

    Raises:
        DataError: if the folder holds something else already or cannot be written, or eyes were left
            unfinished there of another seed or version.
        ValueError: if `images` is less than 1, or more than the numbers of six digits that name them.
    """
    if not 1 <= images <= _store.MOST:
        raise ValueError(f"images={images}: ask for 1 to {_store.MOST:,} (each takes half a megabyte)")
    jobs = _store.plainly(images)
    return _store.write(
        folder, paint, VERSION, jobs, seed=seed, workers=workers, progress=progress, overwrite=overwrite
    )


def make_embedded(cache: str | Path, *, seed: int = 0, progress: bool = True) -> Path:
    """Return the painted dataset kept in a cache; it is made on first use and remade if it was damaged.

    Args:
        cache: folder for all that can be made again; the set gets a folder of its own in it.
        seed: of the set.
        progress: show a progress bar while painting.

    Returns:
        The dataset's folder, with `training` and `test` in it.

    Raises:
        DataError: if the cache folder cannot be written.
    """
    return _store.cached(Path(cache), paint, VERSION, seed=seed, progress=progress)


def _draw_vessels(rng, eye: Eye, vessels: Course, size, mix: Ingredients):
    """Blood on the line of sight, labels, and the vessels' widths.

    A vessel is a cylinder of blood in a transparent wall, to whose outside observers draw; a column of blood
    thinner than a pixel is spread over a pixel and thinned accordingly.

    Returns:
        Blood in arteries and veins (2, H, W) float32, in pixels; labels of both (2, H, W) bool; the width
        (H, W) float32 in pixels of the vessel that is nearest.
    """
    s, points = eye.scale, vessels.points
    # vessels lie at changing depths; thin ones fade, and in places all but vanish
    thinness = np.exp(-(vessels.radius / s - TIP) / 0.9)
    redness = 0.55 * waves(rng, points, 90 * s)[:, 0] + 0.35 * waves(rng, points, 30 * s)[:, 0]
    redness = 1 + mix.fading * (-0.1 * thinness + (0.2 + 0.8 * thinness) * redness)
    redness = np.maximum(redness, 0.12)
    shine = mix.reflex * rng.uniform(0.4, 1.6)  # a young eye's more than an old one's
    blood = np.zeros((2, *size), np.float32)
    labels = np.zeros((2, *size), bool)
    calibre = np.zeros(size, np.float32)
    for kind in (1, 0):  # arteries mostly pass in front
        mine = np.flatnonzero(vessels.kind == kind)
        drawn = np.maximum(vessels.radius[mine], 1.1)
        beyond, owner = _stamp(points[mine], drawn, size)
        near = np.isfinite(beyond)
        owner = owner[near]
        from_centreline, true = beyond[near] + drawn[owner], vessels.radius[mine][owner]
        labels[kind][near] = from_centreline <= np.maximum(true, HAIRLINE)
        labels[kind] = _with_hairlines(labels[kind], near, true > HAIRLINE)
        calibre[near] = np.where(labels[kind][near] | (calibre[near] == 0), 2 * true, calibre[near])
        column = true - WALL * np.clip((true - 0.8) / 1.0, 0, 1)
        radius = np.maximum(column, 1.1)
        across = np.clip(from_centreline / radius, 0, 1)  # 0 on the centreline, 1 at the wall
        chord = 2 * radius * np.sqrt(1 - across**2) * np.minimum(1, (column + 0.06) / radius) ** 2
        reflex = shine * REFLEX[kind] * np.exp(-(across**2) / 0.07) * np.clip((true / s - 1.2) / 1.2, 0, 1)
        if kind == 0:
            blood[1][near] *= 1 - COVERED * np.clip(1.5 * (1 - across), 0, 1) * np.minimum(1, true)
        blood[kind][near] = chord * (1 - np.minimum(reflex, 0.95)) * redness[mine][owner]
    return blood, labels, calibre


def _add_vessels(rng, eye: Eye, scene: np.ndarray, blood: np.ndarray) -> None:
    """Take out of `scene` (H, W, 3) what the `blood` (2, H, W), in pixels, absorbs (Beer and Lambert)."""
    blood = blood * np.float32(rng.uniform(0.80, 1.45) / eye.scale)
    absorption = ABSORPTION * rng.lognormal(0, [0.35, 0.08, 0.08])
    for c in range(3):
        absorbed = (absorption[0, c] * blood[0] + absorption[1, c] * blood[1]).astype(np.float32)
        scene[..., c] *= REMAINING[c] + (1 - REMAINING[c]) * np.exp(-absorbed)


def _second_observer(rng, eye: Eye, vessels: Course, size) -> np.ndarray:
    """The labels (H, W) bool of a careful human: faint ends missed, edges and centrelines wavering."""
    s, points, radius = eye.scale, vessels.points, vessels.radius
    carelessness = float(np.clip(rng.normal(1.0, 0.12), 0.7, 1.3))
    shift = 0.70 * waves(rng, points, 24 * s) + 0.46 * waves(rng, points, 10 * s)
    width = radius * (1 + 0.15 * waves(rng, points, 40 * s)[:, 0]) + s * rng.normal(0.05, 0.1)
    seen = radius > s * (0.76 + 0.24 * carelessness * waves(rng, points, 70 * s)[:, 0])
    moved = points + s * carelessness * shift
    wall, owner = _stamp(moved[seen], np.maximum(width[seen], HAIRLINE), size)
    return _with_hairlines(wall <= 0, np.ones(size, bool), (width[seen] > HAIRLINE)[owner].ravel())


def _with_hairlines(drawn: np.ndarray, near: np.ndarray, wide: np.ndarray) -> np.ndarray:
    """Thin what is `drawn` (H, W) to lines one pixel wide, except at the pixels `near` that are `wide`."""
    kept = np.zeros(drawn.shape, bool)
    kept[near] = wide
    return (drawn & kept) | skeletonize(drawn)


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
    owner = np.zeros(height * width, np.int32)
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
        owner[pixel[row, column]] = chosen[row]
    return wall.reshape(size), owner.reshape(size)
