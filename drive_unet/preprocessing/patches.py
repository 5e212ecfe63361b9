"""Patches cut out of a photograph, and what squashing the whole of it to a small square costs."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.morphology import skeletonize

from drive_unet.errors import DataError
from drive_unet.preprocessing.fov import as_uint8_image


def sample_patch_corners(
    fov: np.ndarray, size: int | tuple[int, int], count: int, generator: np.random.Generator | int
) -> np.ndarray:
    """Draw patches that lie in the frame and whose centre lies in the field of view.

    Args:
        fov: (H, W) bool.
        size: side, or (height, width), of the patches in px.
        count: how many, drawn with replacement.
        generator: a NumPy random generator, or a seed for one.

    Returns:
        (count, 2) int64, the (row, column) of each patch's upper left pixel.

    Raises:
        DataError: if the frame is smaller than a patch, or no patch has its centre in the field of view.

    Example:
        >>> sample_patch_corners(np.ones((64, 64), bool), 32, 5, 0).shape
        (5, 2)
    """
    fov = _as_mask(fov, "fov")
    height, width = _pair(size)
    if height > fov.shape[0] or width > fov.shape[1]:
        raise DataError(
            f"A patch of {height}x{width} px does not fit into a frame of {fov.shape[0]}x{fov.shape[1]}."
        )
    # Corner (r, c) has its centre at (r + height // 2, c + width // 2).
    centres = fov[height // 2 :, width // 2 :][: fov.shape[0] - height + 1, : fov.shape[1] - width + 1]
    candidates = np.argwhere(centres)
    if not len(candidates):
        raise DataError(
            f"No patch of {height}x{width} px has its centre in the field of view; use smaller patches."
        )
    return candidates[np.random.default_rng(generator).integers(len(candidates), size=count)]


def extract_patches(image: np.ndarray, corners: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """Cut the patches at `corners` out of an image, or of a mask.

    Args:
        image: (H, W) or (H, W, C), any dtype.
        corners: (N, 2) int, (row, column) of each patch's upper left pixel, as `sample_patch_corners` gives
            them.
        size: side, or (height, width), in px.

    Returns:
        (N, height, width) or (N, height, width, C), the dtype of `image`.

    Example:
        >>> image = np.arange(16).reshape(4, 4)
        >>> extract_patches(image, np.array([[0, 0], [2, 1]]), 2).tolist()
        [[[0, 1], [4, 5]], [[9, 10], [13, 14]]]
    """
    image, corners = np.asarray(image), np.asarray(corners, dtype=np.int64).reshape(-1, 2)
    height, width = _pair(size)
    last = np.array(image.shape[:2]) - (height, width)
    if (corners < 0).any() or (corners > last).any():
        raise DataError(
            f"A patch of {height}x{width} px at these corners leaves the frame of {image.shape[:2]}."
        )
    windows = np.lib.stride_tricks.sliding_window_view(image, (height, width), axis=(0, 1))
    patches = windows[corners[:, 0], corners[:, 1]]  # (N, height, width), or (N, C, height, width)
    return np.ascontiguousarray(np.moveaxis(patches, 1, -1) if image.ndim == 3 else patches)


def squash(image: np.ndarray, size: tuple[int, int] = (256, 256)) -> np.ndarray:
    """Resize to a fixed size, whatever the proportions, as many tutorials do.

    Args:
        image: (H, W, 3) or (H, W) uint8, resized with antialiased bilinear weights; or a (H, W) bool mask, of
            which a new pixel is true where at least half of its weight was.
        size: (height, width) of the result in px.

    Returns:
        (height, width[, 3]), the dtype of `image`.

    Example:
        >>> squash(np.full((584, 565, 3), 7, np.uint8)).shape
        (256, 256, 3)
    """
    image = np.asarray(image)
    height, width = _pair(size)
    if image.dtype == bool:
        weights = Image.fromarray(image.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(weights) >= 0.5
    image = as_uint8_image(image, "squash")
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def vanished_fraction(
    vessels: np.ndarray,
    size: tuple[int, int] = (256, 256),
    of: Literal["pixels", "centreline", "segments"] = "pixels",
) -> float:
    """How much of a vessel label is gone after a squash to `size` and the way back to its own size.

    Args:
        vessels: (H, W) bool.
        size: (height, width) of the squash in px.
        of: "pixels" counts vessel pixels; "centreline" the pixels of the vessels' skeleton, so that a thin
            vessel weighs as much as a thick one; "segments" the pieces of skeleton between branchings, of 5
            px or longer, that lost more than half of their length.

    Returns:
        The lost share, 0..1; nan if there is nothing to lose.

    Example:
        >>> line = np.zeros((200, 200), bool)
        >>> line[100] = True  # one pixel wide
        >>> vanished_fraction(line, (50, 50))
        1.0
    """
    vessels = _as_mask(vessels, "vessels")
    height, width = vessels.shape
    small = Image.fromarray(squash(vessels, size).astype(np.uint8))
    lost = vessels & (np.asarray(small.resize((width, height), Image.Resampling.NEAREST)) == 0)
    if of == "pixels":
        counted = vessels
    elif of in ("centreline", "segments"):
        counted = skeletonize(vessels)
    else:
        raise ValueError(f'vanished_fraction knows of="pixels", "centreline" and "segments", not {of!r}.')
    if of != "segments":
        return float(lost[counted].mean()) if counted.any() else float("nan")

    neighbours = ndimage.convolve(counted.astype(np.uint8), np.ones((3, 3), np.uint8), mode="constant") - 1
    pieces, count = ndimage.label(counted & (neighbours <= 2), structure=np.ones((3, 3)))
    length = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    gone = np.bincount(pieces[lost], minlength=count + 1)[1:]
    long = length >= 5
    return float((gone[long] > length[long] / 2).mean()) if long.any() else float("nan")


# ---------------------------------------------------------------------- checks of arguments


def _as_mask(mask: np.ndarray, name: str) -> np.ndarray:
    mask = np.asarray(mask)
    if mask.ndim != 2 or not (mask.dtype == bool or np.isin(mask, (0, 1)).all()):
        raise DataError(
            f"{name} must be (H, W) with the values 0 and 1 only, got shape {mask.shape}, dtype {mask.dtype}."
        )
    return mask.astype(bool)


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    sizes: Any = (size, size) if np.ndim(size) == 0 else size
    height, width = sizes
    if height < 1 or width < 1:
        raise ValueError(f"A size must be at least 1x1 px, got {size}.")
    return int(height), int(width)
