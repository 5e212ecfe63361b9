"""Pixels ranked by their probability, in one sort: the curves, the areas under them, the best threshold."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from drive_unet.errors import DataError
from drive_unet.metrics.pixels import check_probability


class Roc(NamedTuple):
    """Receiver operating characteristic: a point per threshold, the strictest first; it starts at (0, 0)."""

    false_positive_rate: np.ndarray
    sensitivity: np.ndarray
    threshold: np.ndarray


class PrecisionRecall(NamedTuple):
    """Precision and recall: a point per threshold, the strictest first; by convention it starts at (1, 0)."""

    precision: np.ndarray
    recall: np.ndarray
    threshold: np.ndarray


class Ranking(NamedTuple):
    """Pixels at and above each threshold, from the highest down.

    Args:
        tp, fp: vessel and background pixels, int64; they rise.
        threshold: float64, strictly falling; each has pixels.
    """

    tp: np.ndarray
    fp: np.ndarray
    threshold: np.ndarray

    def auc(self) -> float:
        """Area under the ROC curve; nan unless there are both vessel and background pixels."""
        tp, fp, _ = self._with_origin()
        return ratio(int((np.diff(fp) * (tp[1:] + tp[:-1])).sum()), 2 * int(tp[-1]) * int(fp[-1]))

    def average_precision(self) -> float:
        """Area under the precision-recall curve in steps; nan if there is no vessel pixel."""
        gained = np.diff(self.tp, prepend=0)
        return ratio((gained * (self.tp / (self.tp + self.fp))).sum(), self._with_origin()[0][-1])

    def areas(self) -> dict[str, float]:
        """AUC and average precision, as in `drive_unet.metrics.SCORES`."""
        return {"AUC": self.auc(), "AP": self.average_precision()}

    def roc_curve(self) -> Roc:
        """The ROC curve, a point per threshold."""
        tp, fp, threshold = self._with_origin()
        with np.errstate(invalid="ignore"):
            return Roc(fp / np.float64(fp[-1]), tp / np.float64(tp[-1]), threshold)

    def precision_recall_curve(self) -> PrecisionRecall:
        """The precision-recall curve, a point per threshold."""
        tp, fp, threshold = self._with_origin()
        precision = np.r_[1.0, tp[1:] / (tp[1:] + fp[1:])]
        with np.errstate(invalid="ignore"):
            return PrecisionRecall(precision, tp / np.float64(tp[-1]), threshold)

    def best(self) -> tuple[float, float]:
        """The greatest Dice, and the threshold that gives it; of several the highest.

        Raises:
            DataError: if there is no vessel pixel, so that no threshold is better than another.
        """
        vessel_pixels = self._with_origin()[0][-1]
        if vessel_pixels == 0:
            raise DataError(
                "No threshold can be chosen: the labels hold no vessel pixel inside the field of view."
            )
        dice = 2 * self.tp / (self.tp + self.fp + vessel_pixels)
        best = int(np.argmax(dice))
        return float(dice[best]), float(self.threshold[best])

    def _with_origin(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """tp, fp, threshold with a first point that calls nothing vessel."""
        return np.r_[0, self.tp], np.r_[0, self.fp], np.r_[np.inf, self.threshold]


def rank(probability: np.ndarray, vessels: np.ndarray) -> Ranking:
    """Rank pixels (N,), float in 0..1, of which `vessels` (N,) bool says whether they are vessel.

    Raises:
        DataError: for other values.
    """
    check_probability(probability)
    # IEEE floats of 0 and above order like their bits, and the sign bit is free: so one plain sort of
    # integers, the label in the lowest bit, replaces an argsort and two gathers.
    values = probability.astype(np.float64 if probability.dtype == np.float64 else np.float32)
    np.add(values, 0, out=values)  # -0.0 becomes 0.0
    bits = np.dtype(f"u{values.itemsize}")
    keys = np.sort((values.view(bits) << 1) | vessels)[::-1]
    ordered = keys >> 1
    last = np.r_[np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1]  # the last pixel of each tie
    tp = np.cumsum(keys & 1, dtype=np.int64)[last]
    return Ranking(tp, last + 1 - tp, ordered[last].view(values.dtype).astype(np.float64))


def ratio(part: float, whole: float) -> float:
    """part / whole; nan where the whole is 0."""
    return float(part / whole) if whole else float("nan")
