"""Images of any accepted form, as the pixels that a metric counts; or one sentence about what is wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from drive_unet.errors import DataError

Images = np.ndarray | torch.Tensor | Sequence[np.ndarray | torch.Tensor]


def as_images(images: Images, name: str) -> list[np.ndarray]:
    """One image or several, as a list of (H, W) arrays of whatever type; `name` is what errors call them."""
    if isinstance(images, (np.ndarray, torch.Tensor)):
        if images.ndim not in (2, 3):
            raise DataError(
                f"{name} must be (H, W), (N, H, W) or a list of (H, W), got shape {tuple(images.shape)}."
            )
        images = [images] if images.ndim == 2 else list(images)
    arrays = []
    for number, image in enumerate(images):
        if isinstance(image, torch.Tensor):
            image = image.detach().cpu()
            image = (image.float() if image.dtype == torch.bfloat16 else image).numpy()
        array = np.asarray(image)
        array = array[0] if array.ndim == 3 and len(array) == 1 else array
        if array.ndim != 2:
            raise DataError(f"{name} {number} must be (H, W) or (1, H, W), got shape {np.shape(image)}.")
        arrays.append(array)
    return arrays


def aligned(
    prediction: Images, vessels: Images, fov: Images | None, name: str
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """The same images from all arguments, with equal shapes."""
    first, second = as_images(prediction, name), as_images(vessels, "vessels")
    third = [None] * len(first) if fov is None else as_images(fov, "fov")
    if not len(first) == len(second) == len(third):
        raise DataError(f"{name}, vessels and fov hold {len(first)}, {len(second)} and {len(third)} images.")
    for number, (a, b, c) in enumerate(zip(first, second, third, strict=True)):
        if a.shape != b.shape or (c is not None and c.shape != b.shape):
            sizes = ", ".join(f"{x.shape[0]}x{x.shape[1]}" for x in (a, b, c) if x is not None)
            raise DataError(
                f"Image {number}: {name}, vessels and fov differ in size ({sizes}); score at native size."
            )
    return list(zip(first, second, third, strict=True))


def pool(prediction: Images, vessels: Images, fov: Images | None, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The pixels inside the field of view of all images: (N,) as given, and (N,) bool."""
    pixels, truth = [], []
    for a, b, c in aligned(prediction, vessels, fov, name):
        inside = slice(None) if c is None else binary(c, "fov").ravel()
        pixels.append(a.ravel()[inside])
        truth.append(b.ravel()[inside])
    if not pixels:
        raise DataError(f"There is no image to score: {name} is an empty list.")
    if not any(part.size for part in pixels):
        raise DataError("There is no pixel to score: the field of view is empty.")
    return np.concatenate(pixels), binary(np.concatenate(truth), "vessels")


def binary(values: np.ndarray, name: str) -> np.ndarray:
    """As bool; DataError unless the values are 0 and 1."""
    if values.dtype == bool:
        return values
    wrong = values[(values != 0) & (values != 1)]
    if wrong.size:
        advice = (
            "threshold it: probability >= threshold" if name == "prediction" else "divide a 0/255 mask by 255"
        )
        raise DataError(f"{name} must hold 0 and 1 only, found {wrong.flat[0]!s}; {advice}.")
    return values.astype(bool)


def check_probability(values: np.ndarray) -> None:
    """DataError unless the values are floats in 0..1, or bool."""
    if not np.issubdtype(values.dtype, np.floating) and values.dtype != bool:
        raise DataError(
            f"probability must be float in 0..1, got {values.dtype}; give a finished segmentation as bool."
        )
    if values.size and not (values.min() >= 0 and values.max() <= 1):  # nan compares false
        wrong = values[~((values >= 0) & (values <= 1))][0]
        advice = (
            "pass logits through a sigmoid"
            if np.isfinite(wrong)
            else "the network has diverged, or its input has nan"
        )
        raise DataError(f"probability must lie in 0..1, found {wrong!s}; {advice}.")
