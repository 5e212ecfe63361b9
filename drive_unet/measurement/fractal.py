"""How densely a set fills the plane, from coarse to fine: the box-counting dimension.

Ours: no library among those that the package needs counts boxes.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

import numpy as np
from scipy.optimize import brentq

FINEST = 3  # pixels; smaller boxes see the pixels' own staircases
COARSEST = 12  # the largest box fits so many times into the set
ENOUGH = 6  # sizes of box from which a slope is read
LEAST = 4  # sizes of box below which there is none: what is read from fewer is off by .2
BLOCKS = (4, 6)  # coarse pixels to a box: boxes of 4, 6, 8, 12, 16, 24, ... pixels
_POINTS = 0.05  # a dimension below which a set is taken for single points


def box_counting_dimension(mask: np.ndarray, finest: float = FINEST, coarsest: float = COARSEST) -> float:
    """The dimension of a set: how fast the number of boxes that it touches grows as boxes shrink.

    Boxes are squares of 3 pixels up to a twelfth of the set's extent, and the number of those touched is the
    mean over the ways to lay their grid. By definition (Mandelbrot, 1982) the dimension D is the slope of
    log(number) over log(1 / side) for small boxes. Ours are not small, and boxes at the rim stand out: a line
    of length L touches on average L / side + 1, a square of that side (L / side + 1) ** 2. So D is where
    number ** (1 / D) - 1 goes with 1 / side. A curve of one pixel has 1, a solid shape 2, whatever its
    direction. A thick line has something between, so vessels are counted by their skeleton.

    Args:
        mask: (H, W) bool.
        finest: side in pixels of the smallest box that counts, such as twice the calibre of the vessels whose
            skeleton this is; without effect where fewer than six sizes would be left.
        coarsest: how many times the largest box fits into the set's extent.

    Returns:
        the dimension; nan where there are fewer than four sizes of box, as for a set of less than eight times
        `coarsest` pixels.

    Example:
        >>> round(box_counting_dimension(np.ones((240, 240), bool)), 1)
        2.0
    """
    mask = np.asarray(mask, bool)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows) == 0:
        return float("nan")
    mask = _joined(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    largest = max(mask.shape) / coarsest
    sides, counts = [FINEST], [_touched(mask, FINEST)]
    grain, coarse = 1, mask
    while 4 * grain <= largest:
        for block in BLOCKS:
            if block * grain <= largest:
                sides.append(block * grain)
                counts.append(_touched(coarse, block))
        coarse, grain = _any(coarse, 2), 2 * grain
    if len(sides) < LEAST:
        return float("nan")
    kept = np.array(sides) >= finest
    if kept.sum() < ENOUGH:
        kept[:] = True
    side, number = np.log(np.array(sides)[kept]), np.log(np.array(counts)[kept])

    def excess(dimension: float) -> float:
        """How much faster than 1 / side number ** (1 / dimension) - 1 goes."""
        extent = number / dimension
        return -np.polyfit(side, extent + np.log(-np.expm1(-extent)), 1)[0] - 1

    if excess(_POINTS) <= 0:  # as many boxes of any size: points
        return 0.0
    return float(brentq(excess, _POINTS, 2.5))


def _joined(mask: np.ndarray) -> np.ndarray:
    """A mask whose pixels that touch at a corner alone have one more between them.

    A line from one pixel to the next over a corner passes no box that it does not fill; small boxes would
    find an oblique line shorter than large ones do.
    """
    mask = mask.copy()
    above, below = mask[:-1], mask[1:]
    falling = above[:, :-1] & below[:, 1:] & ~above[:, 1:] & ~below[:, :-1]
    rising = above[:, 1:] & below[:, :-1] & ~above[:, :-1] & ~below[:, 1:]
    below[:, :-1] |= falling
    above[:, :-1] |= rising
    return mask


def _touched(mask: np.ndarray, block: int) -> float:
    """How many blocks are touched, on average over the ways to lay the grid."""
    height, width = (side + block - 1 for side in mask.shape)
    padded = np.pad(mask, block - 1)
    rows = _either(padded[k : k + height] for k in range(block))
    touched = _either(rows[:, k : k + width] for k in range(block))  # by the block that begins at each pixel
    return np.count_nonzero(touched) / block**2


def _any(mask: np.ndarray, block: int) -> np.ndarray:
    """Which blocks of so many pixels a side hold a true one."""
    whole = np.pad(mask, [(0, -side % block) for side in mask.shape])
    rows = _either(whole[k::block] for k in range(block))
    return _either(rows[:, k::block] for k in range(block))


def _either(parts: Iterable[np.ndarray]) -> np.ndarray:
    return reduce(np.logical_or, parts)
