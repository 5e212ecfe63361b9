"""Scores over any number of photographs in constant memory: pixels are counted in fine bins of probability.

The bins are finest where networks put their pixels: their width is a 16,384th of the distance from 0, or
from 1, as far down as float32 goes. What is lost is the order of the pixels within a bin, and
`PixelCounts.error` says how much that can be worth: below 1e-4 unless many pixels of both kinds lie within a
16,384th of each other, as those of a network that calls everything the same.
"""

from __future__ import annotations

import math

import numpy as np

from drive_unet.errors import DataError
from drive_unet.metrics.exact import Confusion, called, count, pixel_scores
from drive_unet.metrics.pixels import Images, check_probability, pool
from drive_unet.metrics.ranking import PrecisionRecall, Ranking, Roc, rank

_MANTISSA = 14  # bits of it that a bin keeps: 16,384 bins from one power of two to the next
_DROPPED = 23 - _MANTISSA
_HALF = 126 << _MANTISSA  # key of 0.5, which is also its bin: 0 has the first, for itself
_HIGH = (127 - 25) << _MANTISSA  # key of the last bin, next to 1
_ABOVE = _HALF - _HIGH
BINS = _HALF + 1 + _ABOVE
# From here on a bin holds a single float32: they lie 2^-24 apart above 0.5.
_SINGLE = BINS - (((127 - 24 + _MANTISSA + 1) << _MANTISSA) - _HIGH)

EXACT = 30_000_000  # pixels up to which `Pool` keeps them all


class PixelCounts:
    """Vessel and background pixels by bin of probability; about 40 MB, whatever is counted.

    Args:
        threshold: 0..1, at which `confusion` is exact; a pixel is vessel where `probability >= threshold`.
    """

    def __init__(self, threshold: float = 0.5) -> None:
        self.threshold = threshold
        self.vessels = np.zeros(BINS, np.int64)
        self.background = np.zeros(BINS, np.int64)
        self.confusion = Confusion(0, 0, 0, 0)
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
        bins = _bins(values)
        self.vessels += np.bincount(bins[truth], minlength=BINS)
        self.background += np.bincount(bins[~truth], minlength=BINS)
        self.confusion = self.confusion.plus(count(called(values, self.threshold), truth))

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
        """Add what another, of the same threshold, has counted.

        Raises:
            ValueError: if its threshold differs.
        """
        if other.threshold != self.threshold:
            raise ValueError(
                f"counts at the thresholds {self.threshold} and {other.threshold} cannot be added: count "
                "both at one"
            )
        self._take_kind(other.finished)
        self.vessels += other.vessels
        self.background += other.background
        self.rounded |= other.rounded
        self.confusion = self.confusion.plus(other.confusion)

    @property
    def error(self) -> float:
        """How far `auc` can be from the exact one at most; nan unless there are both kinds of pixel."""
        vessels, background = int(self.vessels.sum()), int(self.background.sum())
        if not vessels or not background:
            return float("nan")
        pairs = self.vessels.astype(float) * self.background
        if not self.rounded:  # pixels of one value are ties in the exact score too
            pairs[0], pairs[_SINGLE:] = 0, 0
        return float(pairs.sum() / (2.0 * vessels * background))

    def auc(self) -> float:
        """Area under the ROC curve, within `error`."""
        return self.ranking().auc()

    def average_precision(self) -> float:
        """Area under the precision-recall curve in steps, a step a bin."""
        return self.ranking().average_precision()

    def scores(self) -> dict[str, float]:
        """The scores of `drive_unet.metrics.pixel_scores`; all but AUC and AP are exact."""
        areas = {"AUC": math.nan, "AP": math.nan} if self.finished else self.ranking().areas()
        return areas | self.confusion.scores()

    def roc_curve(self) -> Roc:
        """The ROC curve, a point a bin that holds pixels; each point is exact."""
        return self.ranking().roc_curve()

    def precision_recall_curve(self) -> PrecisionRecall:
        """The precision-recall curve, a point a bin that holds pixels; each point is exact."""
        return self.ranking().precision_recall_curve()

    def choose_threshold(self) -> float:
        """The lower edge of a bin that maximises the pooled Dice; of several the highest.

        Raises:
            DataError: if no vessel pixel was counted.
        """
        return self.ranking().best()[1]

    def ranking(self) -> Ranking:
        """Vessel and background pixels at and above each bin that holds any, and the bins' lower edges."""
        held = np.flatnonzero(self.vessels + self.background)[::-1]
        tp, fp = np.cumsum(self.vessels[held]), np.cumsum(self.background[held])
        return Ranking(tp, fp, lower_edges()[held])


class Pool:
    """Pixels of photographs that come one after the other: all kept while they are few, then counted in bins.

    Args:
        threshold: 0..1, a pixel is vessel where `probability >= threshold`.
        most: pixels up to which all are kept, so that every score is exact; None for 30 million.
    """

    def __init__(self, threshold: float = 0.5, most: int | None = None) -> None:
        self.counts = PixelCounts(threshold)
        self.most, self.size = EXACT if most is None else most, 0
        self.parts: list[tuple[np.ndarray, np.ndarray]] | None = []

    @property
    def exact(self) -> bool:
        """Whether all pixels were kept so far."""
        return self.parts is not None

    def update(self, probability: Images, vessels: Images, fov: Images | None = None) -> None:
        """Add the pixels of one photograph: float 0..1, or bool for a finished segmentation."""
        values, truth = pool(probability, vessels, fov, "probability")
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

    def scores(self) -> dict[str, float]:
        """The scores of `drive_unet.metrics.pixel_scores` over all pixels added."""
        if self.parts is None:
            return self.counts.scores()
        values, truth = self._pixels()
        return pixel_scores(values[None], truth[None], None, self.counts.threshold)

    def ranking(self) -> Ranking:
        """The pixels ranked by their probability: exactly, or by bins where they are too many to keep."""
        return self.counts.ranking() if self.parts is None else rank(*self._pixels())

    def best(self) -> tuple[float, float]:
        """The greatest pooled Dice, and the threshold that gives it.

        Raises:
            DataError: if no vessel pixel was added.
        """
        return self.ranking().best()

    def _pixels(self) -> tuple[np.ndarray, np.ndarray]:
        if not self.parts:
            raise DataError("There is no pixel to score: no photograph was added.")
        values, truth = (np.concatenate(arrays) for arrays in zip(*self.parts, strict=True))
        return values, truth


def lower_edges() -> np.ndarray:
    """The smallest probability of each bin, (BINS,) float64 that float32 can hold; rising."""
    below = _value(np.arange(_HALF), 1)  # of every bin but the first, which is that of 0
    # Above 0.5 a bin holds what lies as far from 1 as the mirrored bin lies from 0; floats lie 2^-24 apart.
    above = (np.floor((1 - _value(np.arange(_HIGH + 1, _HALF + 1))) * 2**24) + 1) / 2**24
    return np.r_[0.0, below, above[::-1]]


def _value(keys: np.ndarray, more: int = 0) -> np.ndarray:
    """The float64 that a key, the upper bits of a float32, stands for; or the float32 `more` steps above."""
    return ((keys.astype(np.uint32) << _DROPPED) + np.uint32(more)).view(np.float32).astype(np.float64)


def _bins(values: np.ndarray) -> np.ndarray:
    """The bin (N,) int64 of each probability (N,)."""
    values = values.astype(np.float32, copy=False) + np.float32(0)  # -0.0 becomes 0.0
    high = values > 0.5
    distance = np.where(high, np.float32(1) - values, values)  # exact in both cases
    bits = distance.view(np.uint32).astype(np.int64)
    low = (bits + (1 << _DROPPED) - 1) >> _DROPPED  # rounded up, so that 0 is alone
    return np.where(high, BINS - 1 - np.clip((bits >> _DROPPED) - _HIGH, 0, _ABOVE - 1), low)
