"""The field of view of a fundus photograph: the lit disc in the dark frame.

Ours: no library among those that the package needs finds it.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from drive_unet.errors import DataError

_WORKING_SIDE = 600  # px; larger photographs are searched on a copy shrunk to at most this side
_BLACK_LEVEL = 8  # grey levels; a frame whose brightest pixels stay below shows nothing
_RIM = 0.25  # the rim lies this far up the step from the surround to the typical retina
_MAX_SURROUND = 0.35  # a surround brighter than this share of the retina is none, unless it is even:
_EVEN = 4  # grey levels; a surround that was filled in, white or grey, varies no more, corners and channels
_MIN_SOLIDITY = (
    0.97  # notches cost a FOV less than the rest of its convex hull; darkness at the rim costs more
)
_MIN_AREA = 0.02  # smallest believable FOV, as a share of the frame


def detect_fov(image: np.ndarray) -> np.ndarray:
    """Find the field of view: the lit disc of any fundus photograph, cut or notched as the camera left it.

    The level of the dark surround is read in the corners of the frame; what is brighter is the field of view,
    as one region without holes. Photographs larger than 600 px are searched on a shrunken copy.

    Args:
        image: (H, W, 3) or (H, W) uint8.

    Returns:
        (H, W) bool, True inside. The whole frame if the corners are neither dark nor all of one even white or
        grey, as in a crop of the retina.

    Raises:
        DataError: if the image is not uint8 of that shape, is black, or shows only a speck.

    Example:
        >>> y, x = np.mgrid[:100, :100]
        >>> disc = np.hypot(y - 50, x - 50) < 45
        >>> fov = detect_fov((disc * 200).astype(np.uint8))
        >>> float((fov == disc).mean()) > 0.99
        True
    """
    image = as_uint8_image(image, "detect_fov")
    height, width = image.shape[:2]
    factor = max(1, -(-max(height, width) // _WORKING_SIDE))
    small = np.asarray(Image.fromarray(image).reduce(factor)) if factor > 1 else image
    brightness = small.max(axis=2) if small.ndim == 3 else small

    brightest = float(np.percentile(brightness, 99))
    if brightest < _BLACK_LEVEL:
        raise DataError(
            f"The image is black (99 % of its pixels are at {brightest:.0f} of 255 or below) and shows no "
            "field of view; check the file, and scale it if it was read from 16 bits."
        )
    level, noise = _surround(brightness)
    margin = max(3.0, 6.0 * noise)
    lit = brightness > level + margin
    retina = float(np.median(brightness[lit])) if lit.any() else brightest
    bright = level > _MAX_SURROUND * retina
    if bright:
        brightness, level, margin = _off_even_surround(small), 0.0, 2.0 * _EVEN
        lit = brightness > margin
        retina = float(np.median(brightness[lit])) if lit.any() else 0.0

    region = brightness > level + max(margin, _RIM * (retina - level))
    region = _largest_solid(region)
    if bright and (region.sum() < _MIN_AREA * region.size or _solidity(region) < _MIN_SOLIDITY):
        return np.ones((height, width), dtype=bool)
    if region.sum() < _MIN_AREA * region.size:
        raise DataError(
            f"Only {region.mean():.1%} of the image is brighter than its dark surround, too little for a "
            "field of view; check that the file is a fundus photograph, or give the mask yourself."
        )
    if _solidity(region) < _MIN_SOLIDITY + 0.01:  # the exact one takes longer than all the rest
        from skimage.morphology import convex_hull_image

        hull = convex_hull_image(region)
        if region.sum() < _MIN_SOLIDITY * hull.sum():
            region = hull
    if factor == 1:
        return region
    scaled = Image.fromarray(region.astype(np.uint8) * 255).resize(
        (width, height), Image.Resampling.BILINEAR, box=(0, 0, width / factor, height / factor)
    )
    return np.asarray(scaled) > 127


def _surround(brightness: np.ndarray) -> tuple[float, float]:
    """Level and noise (grey levels) of the surround, from the darkest of the four corners."""
    side = max(2, min(brightness.shape) // 40)
    rows, columns = (slice(None, side), slice(-side, None)), (slice(None, side), slice(-side, None))
    # The darkest: a caption printed in a corner, or a disc that reaches into some of them, must not mislead.
    corner = min((brightness[r, c].astype(np.float32) for r in rows for c in columns), key=np.median)
    level = float(np.median(corner))
    return level, 1.4826 * float(np.median(np.abs(corner - level)))


def _off_even_surround(image: np.ndarray) -> np.ndarray:
    """How far each pixel is off the white or grey of all four corners (H, W); 0 where they are not even."""
    side = max(2, min(image.shape[:2]) // 40)
    rows = np.concatenate([image[:side], image[-side:]])
    corners = np.concatenate([rows[:, :side], rows[:, -side:]], axis=1)
    low, high = np.percentile(corners, (2, 98))
    if high - low > _EVEN:
        return np.zeros(image.shape[:2], np.float32)
    off = np.abs(image - np.float32(np.median(corners)))
    return off.max(axis=2) if off.ndim == 3 else off


def _solidity(region: np.ndarray) -> float:
    """The share of its convex hull that a mask fills, within .01; 0 for one without an area."""
    rows = np.flatnonzero(region.any(axis=1))
    first = region[rows].argmax(axis=1)
    last = region.shape[1] - region[rows, ::-1].argmax(axis=1)
    corners = np.concatenate([np.stack([rows + down, side], 1) for down in (0, 1) for side in (first, last)])
    try:
        return float(region.sum() / ConvexHull(corners).volume)  # of points in a plane the area
    except QhullError:
        return 0.0


def _largest_solid(region: np.ndarray) -> np.ndarray:
    """The largest connected part of a mask, its holes filled, threads and specks up to 4 px wide cut off."""
    disc = np.hypot(*np.mgrid[-2:3, -2:3]) <= 2.3
    padded = np.pad(region, 2, mode="edge")  # or the frame's border would count as surround
    region = ndimage.binary_opening(padded, disc)[2:-2, 2:-2]
    parts, count = ndimage.label(region)
    if count > 1:
        region = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    return ndimage.binary_fill_holes(region)


def box(mask: np.ndarray) -> tuple[slice, slice]:
    """The smallest window (rows, columns) that holds a mask (H, W) bool; all of it where it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return slice(None), slice(None)
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def width_of(fov: np.ndarray) -> int:
    """Pixels across a field of view (H, W) bool; 0 where it is empty."""
    columns = np.flatnonzero(fov.any(axis=0))
    return int(columns[-1] - columns[0] + 1) if len(columns) else 0


def refuse_other_size(fov: np.ndarray, image: np.ndarray) -> None:
    """DataError for a field of view (H, W) that is not of the size of its photograph (H, W[, 3])."""
    if fov.shape != image.shape[:2]:
        raise DataError(
            f"the field of view is {fov.shape} and the photograph {image.shape[:2]} (height, width): give "
            "the mask that belongs to it"
        )


def as_uint8_image(image: np.ndarray, caller: str, channels: int | None = None) -> np.ndarray:
    """The array itself; DataError if it is not an image of that kind. `channels` 1, 3, or None for either."""
    image = np.asarray(image)
    shapes = {1: "(H, W)", 3: "(H, W, 3)", None: "(H, W, 3) or (H, W)"}[channels]
    found = 1 if image.ndim == 2 else image.shape[-1] if image.ndim == 3 else 0
    if (
        image.dtype != np.uint8
        or found not in (1, 3)
        or image.ndim - (found == 3) != 2
        or channels not in (None, found)
    ):
        raise DataError(
            f"{caller} needs a {shapes} uint8 image, got shape {image.shape} and dtype {image.dtype}."
        )
    if 0 in image.shape:
        raise DataError(f"{caller} got an image without pixels, shape {image.shape}.")
    return image
