"""Vessels rather than pixels: how wide they are, whether they hold together, how near a drawing comes.

All of it is counted inside the field of view and adds up over photographs, so that scores are pooled and
intervals taken as for pixels. Widths are in pixels of a photograph whose field of view is about 540 pixels
wide, as DRIVE's are; those of other cameras are brought to that scale.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.morphology import skeletonize

from drive_unet.metrics.exact import centreline_dice
from drive_unet.metrics.pixels import binary
from drive_unet.metrics.ranking import ratio
from drive_unet.preprocessing.fov import box

CALIBRES = ("up to 2 px", "3 to 4 px", "5 to 6 px", "7 px or more")
_EDGES = (2.5, 4.5, 6.5)
_FOV_WIDTH = 540
_EIGHT = np.ones((3, 3), bool)


class Structure(NamedTuple):
    """Counts of one photograph, or of several together.

    Args:
        vessels, found: reference pixels by calibre (see `CALIBRES`), and those of them that were called.
        centreline, covered: pixels of the reference's centreline, and those that the drawing covers.
        drawn_centreline, on_vessels: pixels of the drawing's centreline, and those that lie on vessels.
        breaks: gaps in the covered centreline with vessel found on both sides.
        lost: pieces of centreline of which nothing, or only one side, was found.
        components, drawn_components: connected parts of the reference, and of the drawing.
        drawn, near_vessels: pixels called vessel, and those within 1 and within 2 pixels of the reference.
        near_drawn: reference pixels within 1 and within 2 pixels of what was called vessel.
        arteries, arteries_found, veins, veins_found: reference pixels of which the labels know the kind.
    """

    vessels: tuple[int, ...] = (0,) * len(CALIBRES)
    found: tuple[int, ...] = (0,) * len(CALIBRES)
    centreline: int = 0
    covered: int = 0
    drawn_centreline: int = 0
    on_vessels: int = 0
    breaks: int = 0
    lost: int = 0
    components: int = 0
    drawn_components: int = 0
    drawn: int = 0
    near_vessels: tuple[int, int] = (0, 0)
    near_drawn: tuple[int, int] = (0, 0)
    arteries: int = 0
    arteries_found: int = 0
    veins: int = 0
    veins_found: int = 0

    def plus(self, more: Structure) -> Structure:
        """The counts of both together."""
        counts: Iterable[tuple[Any, Any]] = zip(self, more, strict=True)
        return Structure._make(
            tuple(map(sum, zip(a, b, strict=True))) if isinstance(a, tuple) else a + b for a, b in counts
        )

    @property
    def cldice(self) -> float:
        """Centreline Dice of these counts; 0 if only one of both is empty, nan if both are."""
        return centreline_dice(self.on_vessels, self.drawn_centreline, self.covered, self.centreline)

    def parts(self) -> dict[str, tuple[float, float]]:
        """Every score as a numerator and a denominator, which add up over photographs."""
        reference = sum(self.vessels)
        parts: dict[str, tuple[float, float]] = {
            f"sensitivity, {name}": (found, vessels)
            for name, found, vessels in zip(CALIBRES, self.found, self.vessels, strict=True)
        }
        for reach in (0, 1):
            parts[f"precision within {reach + 1} px"] = (self.near_vessels[reach], self.drawn)
            parts[f"recall within {reach + 1} px"] = (self.near_drawn[reach], reference)
        parts |= {
            "centreline covered": (self.covered, self.centreline),
            "drawn centreline on vessels": (self.on_vessels, self.drawn_centreline),
            "breaks per 1000 px of centreline": (1000 * self.breaks, self.centreline),
            "lost ends and vessels per 1000 px of centreline": (1000 * self.lost, self.centreline),
            "components drawn for one of the reference": (self.drawn_components, self.components),
        }
        if self.arteries or self.veins:
            parts["sensitivity, arteries"] = (self.arteries_found, self.arteries)
            parts["sensitivity, veins"] = (self.veins_found, self.veins)
        return parts

    def scores(self) -> dict[str, float]:
        """The scores by name; nan where there was nothing to measure."""
        return {name: ratio(part, whole) for name, (part, whole) in self.parts().items()}

    def shares(self) -> dict[str, float]:
        """Which share of the reference's pixels has which calibre."""
        return {name: ratio(n, sum(self.vessels)) for name, n in zip(CALIBRES, self.vessels, strict=True)}


def structure(
    prediction: np.ndarray,
    vessels: np.ndarray,
    fov: np.ndarray | None = None,
    kinds: tuple[np.ndarray, np.ndarray] | None = None,
) -> Structure:
    """Compare a drawing of vessels with the reference, vessel by vessel.

    Args:
        prediction, vessels, fov: (H, W) bool, or 0 and 1; None for the whole frame.
        kinds: pixels of arteries and of veins (H, W) bool each; those of both count as neither.

    Returns:
        Its counts.

    Raises:
        DataError: for values other than 0 and 1 inside the field of view.

    Example:
        >>> bar = np.zeros((12, 30), bool)
        >>> bar[4:7] = True
        >>> half = bar & (np.arange(30) < 15)
        >>> counts = structure(half, bar)
        >>> sum(counts.found), sum(counts.vessels), counts.components
        (45, 90, 1)
    """
    inside = np.ones(vessels.shape, bool) if fov is None else binary(fov, "fov")
    window = box(inside)
    inside = inside[window]
    drawn = binary(np.where(inside, prediction[window], 0), "prediction")
    reference = binary(np.where(inside, vessels[window], 0), "vessels")
    width, line = calibre(reference)
    scale = inside.shape[1] / _FOV_WIDTH
    scale = scale if fov is not None and not 0.75 < scale < 1.33 else 1.0
    of_calibre = np.digitize(width[reference], np.array(_EDGES) * scale)
    hits = drawn[reference]
    drawn_line = skeletonize(drawn)
    covered = line & drawn
    breaks, lost = _gaps(line, covered)

    def near(mask: np.ndarray, other: np.ndarray) -> tuple[int, int]:
        one, two = (int((grown & mask).sum()) for grown in _grown(other))
        return one, two

    nothing = np.zeros_like(inside)
    arteries, veins = (nothing, nothing) if kinds is None else (kind[window] for kind in kinds)
    arteries, veins = arteries & ~veins & reference, veins & ~arteries & reference
    return Structure(
        vessels=tuple(np.bincount(of_calibre, minlength=len(CALIBRES)).tolist()),
        found=tuple(np.bincount(of_calibre[hits], minlength=len(CALIBRES)).tolist()),
        centreline=int(line.sum()),
        covered=int(covered.sum()),
        drawn_centreline=int(drawn_line.sum()),
        on_vessels=int((drawn_line & reference).sum()),
        breaks=breaks,
        lost=lost,
        components=int(ndimage.label(reference, _EIGHT)[1]),
        drawn_components=int(ndimage.label(drawn, _EIGHT)[1]),
        drawn=int(drawn.sum()),
        near_vessels=near(drawn, reference),
        near_drawn=near(reference, drawn),
        arteries=int(arteries.sum()),
        arteries_found=int((arteries & drawn).sum()),
        veins=int(veins.sum()),
        veins_found=int((veins & drawn).sum()),
    )


def calibre(vessels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How wide each vessel is.

    Args:
        vessels: (H, W) bool.

    Returns:
        width: float32 (H, W), pixels; at each vessel pixel that of the nearest centreline point, else 0;
        centreline: bool (H, W), the skeleton.

    Example:
        >>> bar = np.zeros((12, 30), bool)
        >>> bar[4:7] = True
        >>> width, centreline = calibre(bar)
        >>> float(width[5, 15]), centreline[:, 15].nonzero()[0].tolist()
        (3.0, [5])
    """
    line = skeletonize(vessels)
    if not line.any():
        return np.zeros(vessels.shape, np.float32), line
    # At twice the size, the distance to the background on the axis is the width in pixels, odd or even. Only
    # the axis needs it, and only the background that has a side in common with vessels can be nearest.
    axis = _quarters(np.pad(line, 1))
    tree = cKDTree(
        _rim(np.pad(vessels, 1)), balanced_tree=False, compact_nodes=False
    )  # built once, asked once
    distance = tree.query(axis)[0].reshape(-1, 4).max(axis=1)
    across = np.zeros(vessels.shape, np.float32)
    across[line] = distance
    rows, columns = ndimage.distance_transform_edt(~line, return_distances=False, return_indices=True)
    return np.where(vessels, across[rows, columns], 0), line


def _quarters(mask: np.ndarray) -> np.ndarray:
    """The four pixels that each pixel of a mask becomes at twice the size: (4 N, 2), row and column."""
    points = 2 * np.argwhere(mask)[:, None]
    return (points + [[0, 0], [0, 1], [1, 0], [1, 1]]).reshape(-1, 2)


def _rim(mask: np.ndarray) -> np.ndarray:
    """The background (N, 2) at twice the size that has a side in common with a mask, row and column."""
    points = []
    for axis in (0, 1):
        before, after = (np.take(mask, np.arange(mask.shape[axis] - 1) + step, axis) for step in (0, 1))
        for edge, step in ((after & ~before, 0), (before & ~after, 1)):
            at = np.argwhere(edge)
            at[:, axis] += step
            at *= 2
            at[:, axis] += 1 - step  # the half that faces the mask
            points += [at, at + np.eye(2, dtype=at.dtype)[1 - axis]]
    return np.concatenate(points)


def _gaps(line: np.ndarray, covered: np.ndarray) -> tuple[int, int]:
    """Gaps in a centreline between covered parts, and pieces that were lost: nothing or one side covered."""
    missed, count = ndimage.label(line & ~covered, _EIGHT)
    if not count:
        return 0, 0
    found, _ = ndimage.label(covered, _EIGHT)
    pairs = []
    missed, found = np.pad(missed, 1), np.pad(found, 1)
    rows, columns = np.nonzero(missed)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            beside = found[rows + down, columns + right]
            pairs.append(np.stack([missed[rows, columns], beside])[:, beside > 0])
    touched = np.unique(np.concatenate(pairs, axis=1), axis=1)[0]
    sides = np.bincount(touched, minlength=count + 1)[1:]
    return int((sides > 1).sum()), int((sides < 2).sum())


def _grown(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What lies within 1 and within 2 pixels of a mask, from centre to centre."""
    height, width = mask.shape
    padded = np.pad(mask, 2)

    def shifted(down: int, right: int) -> np.ndarray:
        return padded[2 + down : 2 + down + height, 2 + right : 2 + right + width]

    one = mask.copy()
    for offset in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        one |= shifted(*offset)
    two = one.copy()
    for offset in ((-1, -1), (-1, 1), (1, -1), (1, 1), (-2, 0), (2, 0), (0, -2), (0, 2)):
        two |= shifted(*offset)
    return one, two
