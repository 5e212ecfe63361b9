"""Pictures as arrays: conversions, error colours, overlays, outlines, crops and vessel calibre.

Everything here takes tensors, PIL images or arrays and gives NumPy arrays; figures and widgets draw with it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

#: One triple for every figure: white, orange and blue keep apart under all three common colour deficiencies,
#: on black and on a dark grey photograph, and no two of them are equally light.
COLOURS: dict[str, str] = {"TP": "#FFFFFF", "FP": "#FF8C00", "FN": "#2E9BFF"}
#: Vessels found, where nothing is said about right or wrong, on a photograph in its own colours.
FOUND = "#3BF0DC"
#: What the three colours mean, in legends.
MEANING: dict[str, str] = {"TP": "found (TP)", "FP": "false alarm (FP)", "FN": "missed (FN)"}


def rgb(colour: str) -> np.ndarray:
    """Turn "#RRGGBB" into three uint8 numbers."""
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.uint8)


def to_numpy(value: Any) -> np.ndarray:
    """Turn a tensor (any device, with or without gradient), a PIL image or an array into a numpy array."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()
    return np.asarray(value)


def as_image(value: Any) -> np.ndarray:
    """Turn any picture into an RGB photograph.

    Args:
        value: (H, W), (H, W, C) or (C, H, W) with C of 1, 3 or 4, or a batch of one of these. Integers are
            0..255 (0..65535 if larger, 0..1 if none is above 1), floats 0..1; floats outside that, such as
            standardised ones, are stretched from their minimum to their maximum.
    Returns:
        uint8 (H, W, 3).
    Raises:
        ValueError: if the shape is none of these.
    """
    a = to_numpy(value)
    shape = a.shape
    if a.ndim == 4 and len(a) == 1:
        a = a[0]
    if a.ndim == 3 and a.shape[0] in (1, 3, 4) and a.shape[-1] not in (1, 3, 4):
        a = np.moveaxis(a, 0, -1)
    if a.ndim == 2:
        a = a[..., None]
    if a.ndim != 3 or a.shape[-1] not in (1, 3, 4):
        raise ValueError(
            f"A picture of shape {shape} cannot be shown: expected (H, W), (H, W, 3) or (3, H, W)."
        )
    a = a[..., :3]
    if a.dtype == bool:
        a = a * np.uint8(255)
    elif np.issubdtype(a.dtype, np.integer):
        top = int(a.max(initial=0))
        a = a * 255 if top <= 1 else a // 257 if top > 255 else a
    else:
        low, high = float(np.nanmin(a)), float(np.nanmax(a))
        if low < -1e-3 or high > 1 + 1e-3:
            a = (a - low) / max(high - low, 1e-12)
        a = np.nan_to_num(a).clip(0, 1) * 255 + 0.5
    return np.ascontiguousarray(np.broadcast_to(a.astype(np.uint8), (*a.shape[:2], 3)))


def as_plane(value: Any) -> np.ndarray:
    """Turn a one-channel map into (H, W), dtype kept; of three channels the largest counts.

    Raises:
        ValueError: if there is more than one map.
    """
    a = to_numpy(value)
    shape = a.shape
    while a.ndim > 2 and 1 in (a.shape[0], a.shape[-1]):
        a = a[0] if a.shape[0] == 1 else a[..., 0]
    if a.ndim == 3 and 3 in (a.shape[0], a.shape[-1]):
        a = a.max(axis=0 if a.shape[0] == 3 else -1)
    if a.ndim != 2:
        raise ValueError(f"A map of shape {shape} cannot be shown: expected (H, W), (1, H, W) or (H, W, 1).")
    return a


def as_probability(value: Any) -> np.ndarray:
    """Turn logits, probabilities or a mask into probabilities.

    Args:
        value: one map. Booleans and integers are masks (true above half of their greatest value). Floats
            within 0..1 are probabilities; floats outside it are logits and go through the sigmoid, so
            logits that all happen to lie in 0..1 are misread: apply the sigmoid first where that can be.
    Returns:
        float32 (H, W), 0..1.
    """
    a = as_plane(value)
    if not np.issubdtype(a.dtype, np.floating):
        return as_mask(a).astype(np.float32)
    a = a.astype(np.float32)
    if a.min(initial=0) < -1e-3 or a.max(initial=0) > 1 + 1e-3:
        a = 0.5 * (1 + np.tanh(0.5 * a))  # the sigmoid, without overflow
    return a.clip(0, 1)


def as_mask(value: Any, threshold: float = 0.5) -> np.ndarray:
    """Turn a mask, probabilities or logits (see `as_probability`) into bool (H, W): `threshold` or more."""
    a = as_plane(value)
    if a.dtype == bool:
        return a
    if np.issubdtype(a.dtype, np.integer):
        return a > max(int(a.max(initial=0)), 1) / 2  # {0, 1}, {0, 255} and {3, 253} alike
    return as_probability(a) >= threshold


def fov_outline(fov: Any, width: int = 2) -> np.ndarray:
    """Mark the rim of the field of view: bool (H, W), `width` pixels inside its edge, none at the frame."""
    fov = as_mask(fov)
    return fov & ~ndimage.binary_erosion(fov, iterations=width, border_value=1)


def error_map(prediction: Any, vessels: Any, fov: Any = None, *, outline: bool = True) -> np.ndarray:
    """Colour every pixel by what became of it: found, false alarm or missed, on black.

    Args:
        prediction: vessels found, bool (H, W) or anything `as_mask` takes; vessels: the reference, the same.
        fov: bool (H, W); pixels outside it stay black. None counts the whole frame.
        outline: draw the rim of the field of view in grey.
    Returns:
        uint8 (H, W, 3), in `COLOURS`.
    """
    prediction, vessels = as_mask(prediction), as_mask(vessels)
    inside = np.ones(vessels.shape, bool) if fov is None else as_mask(fov)
    picture = np.zeros((*vessels.shape, 3), np.uint8)
    if outline and fov is not None:
        picture[fov_outline(inside)] = 90
    return paint_errors(picture, prediction & inside, vessels & inside, 1.0)


def paint_errors(
    picture: np.ndarray, prediction: np.ndarray, vessels: np.ndarray, opacity: float
) -> np.ndarray:
    """Paint TP, FP and FN onto `picture` (uint8 (H, W, 3)) in place and return it; masks are bool (H, W)."""
    for kind, mask in (
        ("TP", prediction & vessels),
        ("FP", prediction & ~vessels),
        ("FN", vessels & ~prediction),
    ):
        paint(picture, mask, COLOURS[kind], opacity)
    return picture


def paint(picture: np.ndarray, mask: np.ndarray, colour: str, opacity: float) -> np.ndarray:
    """Blend `colour` into `picture` (uint8 (H, W, 3)) where `mask` is true, in place, and return it."""
    if opacity >= 1:
        picture[mask] = rgb(colour)
    elif opacity > 0:
        picture[mask] = (picture[mask] * (1 - opacity) + rgb(colour) * np.float32(opacity) + 0.5).astype(
            np.uint8
        )
    return picture


def subdue(image: np.ndarray, brightness: float = 0.5) -> np.ndarray:
    """Make a quiet ground for colours: the photograph in grey, its brightest parts at `brightness` of white.

    Args:
        image: uint8 (H, W, 3).
    Returns:
        uint8 (H, W, 3), three equal channels.
    """
    # the green channel shows the vessels best, so it gets more than its share of a usual luminance
    grey = (image @ np.array([0.25, 0.65, 0.1], np.float32)).astype(np.uint8)
    counts = np.bincount(grey.ravel(), minlength=256).cumsum()
    white = max(int(np.searchsorted(counts, 0.998 * counts[-1])), 1)
    levels = (np.arange(256) * (255 * brightness / white)).clip(0, 255 * brightness).astype(np.uint8)
    return np.repeat(levels[grey][..., None], 3, axis=2)


def overlay(
    image: Any,
    prediction: Any,
    vessels: Any = None,
    fov: Any = None,
    *,
    opacity: float = 0.9,
    outline: int | None = None,
) -> np.ndarray:
    """Lay what was found over the photograph.

    Args:
        image: the photograph, anything `as_image` takes; prediction: vessels found, anything `as_mask` takes.
        vessels: the reference. With it the photograph turns dark grey, and the colours are the errors';
            without it the vessels found are drawn in `FOUND` on the photograph as it is.
        fov: bool (H, W); nothing is drawn outside it.
        opacity: of the colour, 0..1.
        outline: without a reference, draw a line of so many pixels around what was found, so that the
            vessels themselves stay visible; None fills it.
    Returns:
        uint8 (H, W, 3).
    """
    picture, called = as_image(image), as_mask(prediction)
    inside = np.ones(called.shape, bool) if fov is None else as_mask(fov)
    if vessels is None:
        shown = called & inside
        if outline is not None:
            shown = ndimage.binary_dilation(shown, iterations=outline) & ~shown & inside
        return paint(picture.copy(), shown, FOUND, opacity)
    return paint_errors(subdue(picture), called & inside, as_mask(vessels) & inside, opacity)


def window(
    shape: tuple[int, ...], center: tuple[int, int], size: int | tuple[int, int]
) -> tuple[slice, slice]:
    """Cut a window of `size` (height, width) around `center` (row, column), moved to lie inside the picture.

    Returns:
        two slices, for use as `image[window(image.shape, (280, 300), 96)]`.
    """
    sizes = (size, size) if isinstance(size, (int, np.integer)) else size
    slices = []
    for length, middle, wanted in zip(shape[:2], center, sizes, strict=True):
        wanted = min(int(wanted), length)
        start = min(max(int(middle) - wanted // 2, 0), length - wanted)
        slices.append(slice(start, start + wanted))
    return slices[0], slices[1]


def busiest(mask: np.ndarray, size: int) -> tuple[int, int]:
    """Find the centre (row, column) of the square window of `size` pixels that holds the most true pixels."""
    size = min(size, *mask.shape)
    sums = np.pad(mask.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    inside = sums[size:, size:] - sums[:-size, size:] - sums[size:, :-size] + sums[:-size, :-size]
    row, column = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(row) + size // 2, int(column) + size // 2


def calibre(vessels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Measure how wide each vessel is.

    Args:
        vessels: bool (H, W), or anything `as_mask` takes.
    Returns:
        width: float32 (H, W), pixels; at each vessel pixel that of the nearest centreline point, else 0;
        centreline: bool (H, W), the skeleton.
    """
    from drive_unet.metrics.vesselwise import calibre  # here: few figures need it; loads scikit-image

    return calibre(as_mask(vessels))
