"""The exercises of notebook 06, visualization."""

from __future__ import annotations

import numpy as np

from drive_unet.plots.overlays import error_map
from drive_unet.widgets.exercises.checking import Exercise, answered, near


def _thinnest(threshold, found_by_calibre) -> bool | str:
    found, above = (found_by_calibre(round(cut, 2))[0] for cut in (threshold, threshold + 0.01))
    return found >= 0.8 > above or f"there {found:.3f} is found, and a hundredth higher {above:.3f}"


def _picture(function) -> bool | str:
    rng = np.random.default_rng(0)
    for shape in ((9, 7), (20, 16)):
        prediction, vessels, fov = rng.random((3, *shape)) < 0.6
        given = np.asarray(answered(function(prediction.copy(), vessels.copy(), fov.copy())))
        expected = error_map(prediction, vessels, fov, outline=False)
        if given.shape != expected.shape or given.dtype != np.uint8:
            return f"it gives {given.shape} {given.dtype}, not {expected.shape} uint8"
        if given[~fov].any():
            return "there is colour outside the field of view"
        if not np.array_equal(given, expected):
            return f"{(given != expected).any(axis=-1).sum()} of {fov.size} pixels have another colour"
    return True


EXERCISES = {
    "06-1": Exercise(near("blue"), "a lower threshold calls more pixels vessel, never fewer"),
    "06-2": Exercise(
        _thinnest, "try 0.99, 0.98, ... and stop where found_by_calibre(t)[0] first reaches 0.8"
    ),
    "06-3": Exercise(_picture, "three masks, as in the cell that paints the picture; each inside the FOV"),
}
