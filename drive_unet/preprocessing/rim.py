"""What a network takes for a vessel at the rim of the field of view, and is none.

The rim itself is a dark line, and on some cameras a dark crescent lies along it. Networks that learned from
one camera draw it as a vessel on others. It goes along the rim; vessels run into it.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from drive_unet.preprocessing.fov import width_of

_DEPTH = 0.03  # of the field of view's width: how far from the rim a crescent is looked for
_ARC = 0.1  # of the way around: a stretch of rim of which more than half looks like vessel is none
_FLOOR = 0.15  # a probability that is not doubted
_OUTERMOST = 0.012  # of the width: so far from the rim half of what a network sees is dark
_MOST = 0.4  # of the mean probability further inside; observers draw a third to two thirds there
_DENSEST = 0.49  # of the share called vessel further inside; photographs like those learned from stay below


class Rim:
    """The rim of a field of view, and what may be believed there.

    At each depth below the rim, the median along a stretch of it is what the rim alone looks like, and is
    taken off. If the outermost 1.2 % of the field of view's width still hold more vessel than networks find
    there in photographs like those that they learned from, all of it counts the less: `belief` weighs the
    probabilities, `limit` counts what a threshold makes of them.

    Args:
        fov: (h, w) bool; where the frame cuts it off there is no rim.
    """

    def __init__(self, fov: np.ndarray) -> None:
        self.fov = fov
        self.ring = np.zeros_like(fov)
        width = width_of(fov)
        if not width or fov.all():
            return
        depth, nearest = ndimage.distance_transform_edt(fov, return_indices=True)
        self.ring = fov & (depth <= _DEPTH * width)
        if not self.ring.any():
            return
        centre = ndimage.center_of_mass(fov)
        rows, columns = nearest[0][self.ring] - centre[0], nearest[1][self.ring] - centre[1]
        self.around = max(8, int(np.pi * width / 2))  # bins of two pixels
        bins = ((np.arctan2(rows, columns) / (2 * np.pi) + 0.5) * self.around).astype(int) % self.around
        level = (depth[self.ring] - 0.5).astype(int)
        self.place = level * self.around + bins
        self.size = (level.max() + 1) * self.around
        self.count = np.bincount(self.place, minlength=self.size)
        self.outermost = fov & (depth <= _OUTERMOST * width)

    def belief(self, probability: np.ndarray) -> np.ndarray:
        """What to multiply probabilities of vessel by, for what lies beside them along the rim.

        Args:
            probability: (h, w) float, 0..1.

        Returns:
            (h, w) float32, 0..1; 1 away from the rim.
        """
        belief = np.ones(self.fov.shape, np.float32)
        if not self.ring.any():
            return belief
        own = probability[self.ring]
        mean = np.bincount(self.place, own, minlength=self.size) / np.maximum(self.count, 1)
        strip = _filled(mean.reshape(-1, self.around), self.count.reshape(-1, self.around) > 0)
        stretch = int(_ARC * self.around) | 1
        typical = np.stack([ndimage.median_filter(row, stretch, mode="wrap") for row in strip])  # 1-D is fast
        doubt = (typical.ravel()[self.place] - _FLOOR).clip(0)
        belief[self.ring] = 1 - (doubt / np.maximum(own, 1e-6)).clip(0, 1)

        inside = self.fov & ~self.outermost
        if self.outermost.any() and inside.any():
            there = float((probability[self.outermost] * belief[self.outermost]).mean())
            most = _MOST * float(probability[inside].mean())
            belief[self.outermost] *= min(1.0, most / max(there, 1e-6))
        return belief

    def limit(self, probability: np.ndarray, threshold: float) -> np.ndarray:
        """What to multiply believed probabilities by, so that the outermost pixels are not called too often.

        Args:
            probability: (h, w) float, 0..1, times `belief`.
            threshold: at and above which a pixel is vessel; a lower one than .15 is taken for that.

        Returns:
            (h, w) float32, 0..1; 1 where fewer are called vessel than may be, and away from the rim.
        """
        limit = np.ones(self.fov.shape, np.float32)
        if not self.ring.any():
            return limit
        inside, threshold = self.fov & ~self.outermost, max(threshold, _FLOOR)
        outermost = np.sort(probability[self.outermost])[::-1]
        called = float((probability[inside] >= threshold).mean()) if inside.any() else 0.0
        most = int(_DENSEST * called * len(outermost))
        if most < len(outermost) and outermost[most] >= threshold:
            limit[self.outermost] = 0.999 * threshold / outermost[most]
        return limit


def _filled(strip: np.ndarray, known: np.ndarray) -> np.ndarray:
    """A strip (depths, around) with the bins that no pixel fell into filled between their neighbours."""
    positions = np.arange(strip.shape[1])
    for values, there in zip(strip, known, strict=True):
        if there.any() and not there.all():
            values[~there] = np.interp(
                positions[~there], positions[there], values[there], period=len(positions)
            )
    return strip
