"""The exercises of notebook 01, the data."""

from __future__ import annotations

import numpy as np
from skimage.morphology import skeletonize

from drive_unet.plots.overlays import calibre
from drive_unet.widgets.exercises.checking import Exercise, answered, near


def _empty(accuracy, vessels, fov) -> bool | str:
    if near((~vessels)[fov].mean(), 0.002)(accuracy):
        return True
    return near((~vessels).mean(), 0.002)(accuracy) and "that is the accuracy on the whole frame"


def _thin(share, vessels) -> bool | str:
    width, line = calibre(vessels)
    if near((width[line] <= 2.5).mean(), 0.005)(share):
        return True
    area = near((width[vessels] <= 2.5).mean(), 0.005)(share)
    return area and "that is the share of the area, not of the length"


def _binary(function) -> bool | str:
    rng = np.random.default_rng(0)
    vessels = skeletonize(rng.random((40, 30)) > 0.6)
    labels = {
        "{0, 1}": vessels.astype(np.uint8),
        "{0, 255}": vessels * np.uint8(255),
        "{3, 253}": np.where(vessels, np.uint8(253), np.uint8(3)),
        "{0, 255} with some grey": vessels * np.uint8(255),
        "{255, 0}, dark on white": np.where(vessels, np.uint8(0), np.uint8(255)),
        "{0}, without any vessel": np.zeros((8, 8), np.uint8),
    }
    some = tuple(
        np.argwhere(vessels)[:6].T
    )  # vessel pixels that lose some of their white, three of them most
    labels["{0, 255} with some grey"][some] = [170, 170, 170, 90, 90, 90]
    for name, grey in labels.items():
        mask = np.asarray(answered(function(grey.copy())))
        if mask.dtype != bool:
            return f"of a label in {name} it gives {mask.dtype} instead of bool"
        if mask.shape != grey.shape:
            return f"of a label in {name} it gives the shape {mask.shape} instead of {grey.shape}"
        expected = grey > (int(grey.min()) + int(grey.max())) / 2
        expected = ~expected if expected.mean() > 0.5 else expected
        wrong = np.count_nonzero(mask != expected)
        if wrong:
            return f"of a label in {name} it makes a mask that is wrong in {wrong} of {grey.size:,} pixels"
    return True


EXERCISES = {
    "01-1": Exercise(_empty, "inside the FOV, everything that is not vessel is right"),
    "01-2": Exercise(_thin, "calibre gives widths and centreline; look at the widths on the centreline only"),
    "01-3": Exercise(
        _binary,
        "use the range that is there, and think of a label of one level, and of which side is the rarer",
    ),
}
