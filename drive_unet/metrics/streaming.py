"""Scores over any number of photographs in constant memory: pixels are counted in fine bins of probability.

The bins are finest where networks put their pixels: their width is a 16,384th of the distance from 0, or
from 1, as far down as float32 goes. What is lost is the order of the pixels within a bin, and
`PixelCounts.error` says how much that can be worth: below 1e-4 unless many pixels of both kinds lie within a
16,384th of each other, as those of a network that calls everything the same.

Ours rather than torchmetrics' binned scores: their bins have equal widths, and no error is told.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from drive_unet.errors import DataError
from drive_unet.metrics.pixels import Images, check_probability, pool
from drive_unet.metrics.ranking import Ranking, rank

EXACT = 30_000_000  # pixels up to which `Pool` keeps them all


class _Grid(NamedTuple):
    """Bins of probability that keep some bits of a float32's mantissa."""

    mantissa: int

    @property
    def dropped(self) -> int:
        """Bits that are not kept."""
        return 23 - self.mantissa

    @property
    def half(self) -> int:
        """Key of 0.5, which is also its bin: 0 has the first, for itself."""
        return 126 << self.mantissa

    @property
    def high(self) -> int:
        """Key of the last bin, next to 1."""
        return (127 - 25) << self.mantissa

    @property
    def bins(self) -> int:
        """How many bins there are."""
        return self.half + 1 + self.half - self.high

    def lower_edges(self) -> np.ndarray:
        """The smallest probability of each bin, (bins,) float64 that float32 can hold; rising."""
        below = self._value(np.arange(self.half), 1)  # of every bin but the first, which is that of 0
        # Above 0.5 a bin holds what lies as far from 1 as the mirrored bin lies from 0; floats lie 2^-24
        # apart.
        distance = 1 - self._value(np.arange(self.high + 1, self.half + 1))
        above = (np.floor(distance * 2**24) + 1) / 2**24
        return np.r_[0.0, below, above[::-1]]

    def middles(self) -> np.ndarray:
        """One probability to stand for each bin, (bins,) float64: its middle, and 0 for that of 0."""
        edges = np.r_[self.lower_edges(), 1.0]
        middles = (edges[:-1] + edges[1:]) / 2
        middles[0] = 0.0
        return middles

    def _value(self, keys: np.ndarray, more: int = 0) -> np.ndarray:
        """The float64 that a key, the upper bits of a float32, stands for; or the float32 `more` above."""
        bits = (keys.astype(np.uint32) << self.dropped) + np.uint32(more)
        return bits.view(np.float32).astype(np.float64)

    def of(self, values: np.ndarray) -> np.ndarray:
        """The bin (N,) int64 of each probability (N,)."""
        values = values.astype(np.float32, copy=False) + np.float32(0)  # -0.0 becomes 0.0
        high = values > 0.5
        distance = np.where(high, np.float32(1) - values, values)  # exact in both cases
        bits = distance.view(np.uint32).astype(np.int64)
        low = (bits + (1 << self.dropped) - 1) >> self.dropped  # rounded up, so that 0 is alone
        above = np.clip((bits >> self.dropped) - self.high, 0, self.half - self.high - 1)
        return np.where(high, self.bins - 1 - above, low)


FINE = _Grid(14)  # 16,384 bins from one power of two to the next
COARSE = _Grid(7)  # 128 of them: what a photograph keeps of its pixels for intervals and temperatures
BINS = FINE.bins
# From here on a bin holds a single float32: they lie 2^-24 apart above 0.5.
_SINGLE = BINS - (((127 - 24 + 14 + 1) << 14) - FINE.high)


class PixelCounts:
    """Vessel and background pixels by bin of probability; about 40 MB, whatever is counted."""

    def __init__(self) -> None:
        self.vessels = np.zeros(BINS, np.int64)
        self.background = np.zeros(BINS, np.int64)
        self.finished: bool | None = None  # whether segmentations were counted, which have no ranking
        self.rounded = False  # whether float64 was counted, so that no bin holds a single value

    def update(self, probability: Images, vessels: Images, fov: Images | None = None) -> None:
        """Count the pixels of one photograph, or of several.

        Args:
            probability: float, 0..1.
            vessels, fov: as for `drive_unet.metrics.confusion`.
        """
        self.add(*pool(probability, vessels, fov, "probability"))

    def add(self, values: np.ndarray, truth: np.ndarray) -> None:
        """Count pixels (N,) float in 0..1 of which `truth` (N,) bool says whether they are vessel."""
        self.admit(values)
        self.rounded |= values.dtype == np.float64
        bins = FINE.of(values)
        self.vessels += np.bincount(bins[truth], minlength=BINS)
        self.background += np.bincount(bins[~truth], minlength=BINS)

    def admit(self, values: np.ndarray) -> None:
        """DataError unless the values (N,) are probabilities, or a segmentation, as those before were."""
        check_probability(values)
        self._take_kind(values.dtype == bool)

    def _take_kind(self, finished: bool | None) -> None:
        if None not in (finished, self.finished) and finished != self.finished:
            raise DataError(
                "Some predictions are probability maps, others finished segmentations; give one kind."
            )
        self.finished = self.finished if finished is None else finished

    def merge(self, other: PixelCounts) -> None:
        """Add what another has counted."""
        self._take_kind(other.finished)
        self.vessels += other.vessels
        self.background += other.background
        self.rounded |= other.rounded

    @property
    def error(self) -> float:
        """How far the AUC can be from the exact one at most; nan unless there are both kinds of pixel."""
        return bin_error(self.vessels, self.background, None if self.rounded else _SINGLE)

    def ranking(self) -> Ranking:
        """Vessel and background pixels at and above each bin that holds any, and the bins' lower edges."""
        held = np.flatnonzero(self.vessels + self.background)[::-1]
        tp, fp = np.cumsum(self.vessels[held]), np.cumsum(self.background[held])
        return Ranking(tp, fp, FINE.lower_edges()[held])


def bin_error(vessels: np.ndarray, background: np.ndarray, single: int | None) -> float:
    """How far the AUC can be from the exact one at most, whose pixels were counted in bins.

    Args:
        vessels, background: pixels by bin, the first of which holds 0 alone.
        single: the bin from which on each holds a single value, as the first does, so that its pixels tie in
            any case; None if no bin does.

    Returns:
        0..0.5; nan unless there are both kinds of pixel.
    """
    whole = 2.0 * float(vessels.sum()) * float(background.sum())
    pairs = vessels.astype(float) * background
    if single is not None:
        pairs[0], pairs[single:] = 0, 0
    return float(pairs.sum() / whole) if whole else float("nan")


class Pool:
    """Pixels of photographs that come one after the other: all kept while they are few, then counted in bins.

    Args:
        most: pixels up to which all are kept, so that every score is exact; None for 30 million.

    Example:
        >>> pool = Pool()
        >>> for _ in range(2):
        ...     pool.update(np.array([[0.9, 0.2]]), np.array([[1, 0]]))
        >>> pool.best(), pool.exact
        ((1.0, 0.9), True)
    """

    def __init__(self, most: int | None = None) -> None:
        self.counts = PixelCounts()
        self.most, self.size = EXACT if most is None else most, 0
        self.parts: list[tuple[np.ndarray, np.ndarray]] | None = []

    @property
    def exact(self) -> bool:
        """Whether all pixels were kept so far."""
        return self.parts is not None

    def update(self, probability: Images, vessels: Images, fov: Images | None = None) -> None:
        """Add the pixels of one photograph: float 0..1, or bool for a finished segmentation."""
        self.add(*pool(probability, vessels, fov, "probability"))

    def add(self, values: np.ndarray, truth: np.ndarray) -> None:
        """Add pixels (N,), float in 0..1 or bool, of which `truth` (N,) bool says whether they are vessel."""
        self.counts.admit(values)  # before anything is kept
        self.size += values.size
        if self.parts is not None:
            self.parts.append((values, truth))
            if self.size <= self.most:
                return
            for part in self.parts:
                self.counts.add(*part)
            self.parts = None
        else:
            self.counts.add(values, truth)

    def join(self, more: Pool) -> None:
        """Add the pixels of another pool.

        Raises:
            DataError: if one holds probabilities, the other finished segmentations.
        """
        for values, truth in more.parts or ():
            self.add(values, truth)
        if more.parts is None:
            for values, truth in self.parts or ():
                self.counts.add(values, truth)
            self.parts, self.size = None, self.size + more.size
            self.counts.merge(more.counts)

    def ranking(self) -> Ranking:
        """The pixels ranked by their probability: exactly, or by bins where they are too many to keep."""
        if self.parts is None:
            return self.counts.ranking()
        if not self.parts:
            raise DataError("There is no pixel to score: no photograph was added.")
        return rank(*(np.concatenate(arrays) for arrays in zip(*self.parts, strict=True)))

    def best(self) -> tuple[float, float]:
        """The greatest pooled Dice, and the threshold that gives it.

        Raises:
            DataError: if no vessel pixel was added.
        """
        return self.ranking().best()
