"""The exercises of notebook 01, the data."""

from __future__ import annotations

import numpy as np
from skimage.morphology import skeletonize

from drive_unet.plots.overlays import calibre
from drive_unet.widgets.exercises.checking import Exercise, answered


def _empty(accuracy, vessels, fov) -> bool:
    return abs(accuracy - (~vessels)[fov].mean()) <= 0.002


def _thin(share, vessels) -> bool | str:
    width, line = calibre(vessels)
    if abs(share - (width[vessels] <= 2.5).mean()) < 0.005:
        return "that is the share of the area, not of the length"
    return abs(share - (width[line] <= 2.5).mean()) < 0.005


def _binary(function) -> bool | str:
    rng = np.random.default_rng(0)
    vessels = skeletonize(rng.random((40, 30)) > 0.6)
    labels = {
        "{0, 1}": vessels.astype(np.uint8),
        "{0, 255}": vessels * np.uint8(255),
        "{3, 253}": np.where(vessels, np.uint8(253), np.uint8(3)),
        "{0, 255} with some grey": vessels * np.uint8(255),
        "{255, 0}, dark on white": np.where(vessels, np.uint8(0), np.uint8(255)),
    }
    labels["{0, 255} with some grey"][0, :3] = 90
    for name, grey in labels.items():
        mask = np.asarray(answered(function(grey.copy())))
        if mask.dtype != bool:
            return f"it gives {mask.dtype} instead of bool"
        expected = grey > (int(grey.min()) + int(grey.max())) / 2
        expected = ~expected if expected.mean() > 0.5 else expected
        if mask.shape != grey.shape or not np.array_equal(mask, expected):
            return f"of a label in {name} it makes a mask that is wrong in {(mask != expected).sum()} pixels"
    nothing = np.asarray(function(np.zeros((8, 8), np.uint8)))
    return not nothing.any() or "of a label without any vessel it makes vessels"


EXERCISES = {
    "01-1": Exercise(_empty, "inside the FOV, everything that is not vessel is right"),
    "01-2": Exercise(_thin, "calibre gives widths and centreline; look at the widths on the centreline only"),
    "01-3": Exercise(
        _binary,
        "half of the range in use, then the rarer side; 8 bits overflow, and there may be one level only",
    ),
}
