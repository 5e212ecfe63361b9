"""Scores over any number of photographs in constant memory: pixels are counted in fine bins of probability.

The bins are finest where networks put their pixels: their width is a 16,384th of the distance from 0, or
from 1, down to 2^-64 and 2^-24. What is lost is the order of the pixels within a bin, and
`PixelCounts.error` says how much that can be worth: below 1e-4 unless many pixels of both kinds have the
same probability anyway, whose order counts for nothing in the exact score either.
"""

from __future__ import annotations

import numpy as np

from drive_unet.errors import DataError
from drive_unet.metrics.exact import (
    Confusion,
    PrecisionRecall,
    Roc,
    called,
    pixel_scores,
)
from drive_unet.metrics.pixels import Images, check_probability, pool

_MANTISSA = 14  # bits of it that a bin keeps: 16,384 bins from one power of two to the next
_LOW, _HIGH = (127 - 64) << _MANTISSA, (127 - 25) << _MANTISSA  # keys of the first bins next to 0 and to 1
_HALF = 126 << _MANTISSA  # key of 0.5
_BELOW, _ABOVE = _HALF - _LOW, _HALF - _HIGH
BINS = _BELOW + 1 + _ABOVE

EXACT = 30_000_000  # pixels up to which `Pool` keeps them all


class PixelCounts:
    """Vessel and background pixels by bin of probability; about 23 MB, whatever is counted.

    Args:
        threshold: 0..1, at which `confusion` is exact; a pixel is vessel where `probability >= threshold`.
    """

    def __init__(self, threshold: float = 0.5) -> None:
        self.threshold = threshold
        self.vessels = np.zeros(BINS, np.int64)
        self.background = np.zeros(BINS, np.int64)
        self.confusion = Confusion(0, 0, 0, 0)
        self.finished = False  # whether segmentations were counted, which have no ranking

    def update(self, probability: Images, vessels: Images, fov: Images | None = None) -> None:
        """Count the pixels of one photograph, or of several.

        Args:
            probability: float, 0..1.
            vessels, fov: as for `drive_unet.metrics.confusion`.
        """
        self.add(*pool(probability, vessels, fov, "probability"))

    def add(self, values: np.ndarray, truth: np.ndarray) -> None:
        """Count pixels (N,) float in 0..1 of which `truth` (N,) bool says whether they are vessel."""
        check_probability(values)
        self.finished |= values.dtype == bool
        bins = _bins(values)
        self.vessels += np.bincount(bins[truth], minlength=BINS)
        self.background += np.bincount(bins[~truth], minlength=BINS)
        positive = called(values, self.threshold)
        tp, fp = int((positive & truth).sum()), int((positive & ~truth).sum())
        counts = (tp, fp, int(truth.sum()) - tp, int((~truth).sum()) - fp)
        self.confusion = Confusion(*(a + b for a, b in zip(self.confusion, counts, strict=True)))

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
        self.vessels += other.vessels
        self.background += other.background
        self.finished |= other.finished
        self.confusion = Confusion(*(a + b for a, b in zip(self.confusion, other.confusion, strict=True)))

    @property
    def error(self) -> float:
        """How far `auc` can be from the exact one at most; nan unless there are both kinds of pixel."""
        vessels, background = int(self.vessels.sum()), int(self.background.sum())
        if not vessels or not background:
            return float("nan")
        return float((self.vessels.astype(float) * self.background).sum() / (2.0 * vessels * background))

    def auc(self) -> float:
        """Area under the ROC curve, within `error`."""
        tp, fp = self._above()
        area = (np.diff(fp) * (tp[1:] + tp[:-1]).astype(float)).sum()
        whole = 2.0 * tp[-1] * fp[-1]
        return float(area / whole) if whole else float("nan")

    def average_precision(self) -> float:
        """Area under the precision-recall curve in steps, a step a bin."""
        tp, fp = self._above()
        gained, marked = np.diff(tp), np.maximum(tp[1:] + fp[1:], 1)
        return float((gained * (tp[1:] / marked)).sum() / tp[-1]) if tp[-1] else float("nan")

    def scores(self) -> dict[str, float]:
        """The scores of `drive_unet.metrics.pixel_scores`; all but AUC and AP are exact."""
        counts = self.confusion
        return {
            "AUC": float("nan") if self.finished else self.auc(),
            "AP": float("nan") if self.finished else self.average_precision(),
            "Dice": counts.dice,
            "Acc": counts.accuracy,
            "Se": counts.sensitivity,
            "Sp": counts.specificity,
            "MCC": counts.mcc,
            "IoU": counts.iou,
        }

    def roc_curve(self) -> Roc:
        """The ROC curve, a point a bin that holds pixels; each point is exact."""
        tp, fp, edges = self._points()
        with np.errstate(invalid="ignore"):
            return Roc(fp / np.float64(fp[-1]), tp / np.float64(tp[-1]), edges)

    def precision_recall_curve(self) -> PrecisionRecall:
        """The precision-recall curve, a point a bin that holds pixels; each point is exact."""
        tp, fp, edges = self._points()
        precision = np.r_[1.0, tp[1:] / (tp[1:] + fp[1:])]
        with np.errstate(invalid="ignore"):
            return PrecisionRecall(precision, tp / np.float64(tp[-1]), edges)

    def choose_threshold(self) -> float:
        """The lower edge of a bin that maximises the pooled Dice; of several the highest.

        Raises:
            DataError: if no vessel pixel was counted.
        """
        tp, fp, edges = self._points()
        if not tp[-1]:
            raise DataError(
                "No threshold can be chosen: the labels hold no vessel pixel inside the field of view."
            )
        dice = 2 * tp / (tp + fp + tp[-1])
        return float(edges[np.argmax(dice)])

    def _above(self) -> tuple[np.ndarray, np.ndarray]:
        """Vessel and background pixels at and above each bin, from the highest down, after a first 0."""
        return tuple(np.r_[0, np.cumsum(counts[::-1])] for counts in (self.vessels, self.background))

    def _points(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The same at bins that hold pixels, and their lower edges; the first threshold is infinite."""
        tp, fp = self._above()
        held = np.r_[True, (np.diff(tp) + np.diff(fp)) > 0]
        edges = np.r_[np.inf, lower_edges()[::-1]]
        return tp[held], fp[held], edges[held]


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
        values, truth = (np.concatenate(arrays) for arrays in zip(*self.parts, strict=True))
        return pixel_scores(values[None], truth[None], None, self.counts.threshold)


def lower_edges() -> np.ndarray:
    """The smallest probability of each bin, (BINS,) float64 that float32 can hold; rising."""
    below = _value(np.arange(_LOW, _HALF))
    below[0] = 0.0
    # Above 0.5 a bin holds what lies as far from 1 as the mirrored bin lies from 0; floats lie 2^-24 apart.
    above = (np.floor((1 - _value(np.arange(_HIGH + 1, _HALF + 1))) * 2**24) + 1) / 2**24
    return np.r_[below, 0.5, above[::-1]]


def _value(keys: np.ndarray) -> np.ndarray:
    """The float64 that a bin's key, the upper bits of a float32, stands for."""
    return (keys.astype(np.uint32) << (23 - _MANTISSA)).view(np.float32).astype(np.float64)


def _bins(values: np.ndarray) -> np.ndarray:
    """The bin (N,) int64 of each probability (N,)."""
    values = values.astype(np.float32, copy=False) + np.float32(0)  # -0.0 becomes 0.0
    high = values > 0.5
    distance = np.where(high, np.float32(1) - values, values)  # exact in both cases
    keys = (distance.view(np.uint32) >> (23 - _MANTISSA)).astype(np.int64)
    low = np.clip(keys - _LOW, 0, _BELOW)  # 0.5 itself comes after those below
    return np.where(high, BINS - 1 - np.clip(keys - _HIGH, 0, _ABOVE - 1), low)
