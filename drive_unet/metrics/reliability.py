"""Whether a probability can be trusted: of the pixels called vessel with .7, are seven in ten vessel?

Ours rather than torchmetrics', against which it is tested: its sums add up over photographs and give the
curve too.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

from drive_unet.metrics.ranking import ratio

BINS = 15
_LEAST = 1e-7  # probabilities nearer to 0 and 1 have no finite odds in float32


class Calibration(NamedTuple):
    """Pixels by their probability, in 15 bins of equal width; they add up over photographs.

    Args:
        pixels: how many are in each bin, int64 (15,).
        probability: the sum of their probabilities, float64 (15,).
        vessels: how many of them are vessel, int64 (15,).
        squares: the sum of the squared differences between probability and label, over all pixels.
    """

    pixels: np.ndarray
    probability: np.ndarray
    vessels: np.ndarray
    squares: float

    def plus(self, more: Calibration) -> Calibration:
        """The pixels of both together."""
        return Calibration(
            self.pixels + more.pixels,
            self.probability + more.probability,
            self.vessels + more.vessels,
            self.squares + more.squares,
        )

    @property
    def ece(self) -> float:
        """Expected calibration error (Naeini et al. 2015): |mean probability - share of vessels|, 0..1.

        The mean over the bins, weighted by their pixels; nan without any pixel.
        """
        return ratio(np.abs(self.probability - self.vessels).sum(), self.pixels.sum())

    @property
    def brier(self) -> float:
        """Brier score: the mean squared difference between probability and label, 0..1; nan without any."""
        return ratio(self.squares, self.pixels.sum())

    def reliability(self) -> list[dict[str, float]]:
        """A row a bin that holds pixels: its edges, mean probability, share of vessels, share of pixels."""
        total = self.pixels.sum()
        return [
            {
                "from": number / BINS,
                "to": (number + 1) / BINS,
                "probability": float(self.probability[number] / self.pixels[number]),
                "vessels": float(self.vessels[number] / self.pixels[number]),
                "share": float(self.pixels[number] / total),
            }
            for number in np.flatnonzero(self.pixels)
        ]


def calibration(probability: np.ndarray, truth: np.ndarray, weights: np.ndarray | None = None) -> Calibration:
    """Count pixels by their probability.

    Args:
        probability: (N,) float, 0..1.
        truth: (N,) bool, whether they are vessel; or for pixels counted together, the share that is.
        weights: (N,) how many pixels each entry stands for; None for one.

    Returns:
        The counts.

    Example:
        >>> counted = calibration(np.full(10, 0.7), np.arange(10) < 7)
        >>> round(counted.ece, 6), round(counted.brier, 6)
        (0.0, 0.21)
    """
    weights = np.ones(len(probability)) if weights is None else weights
    values, truth = probability.astype(np.float64), np.asarray(truth, dtype=np.float64)
    bins = np.minimum((values * BINS).astype(np.intp), BINS - 1)
    sums = [np.bincount(bins, weights * part, BINS) for part in (1.0, values, truth)]
    squares = float((weights * (truth * (values - 1) ** 2 + (1 - truth) * values**2)).sum())
    return Calibration(sums[0].round().astype(np.int64), sums[1], sums[2].round().astype(np.int64), squares)


def choose_temperature(probability: np.ndarray, vessels: np.ndarray, background: np.ndarray) -> float:
    """The temperature (Guo et al., arXiv 1706.04599) that makes probabilities most likely.

    Choose it on validation photographs: log odds divided by it give the calibrated probability, see
    `tempered`. Above 1 the network was too certain, below 1 not certain enough.

    Args:
        probability: (N,) float, 0..1.
        vessels, background: (N,) how many vessel and background pixels have it.

    Returns:
        0.05..20; nan where one of both kinds is missing.

    Example:
        >>> sure, half = np.array([0.01, 0.99]), np.array([1, 3])  # right in three of four, but ever so sure
        >>> choose_temperature(sure, half, half[::-1]) > 1
        True
    """
    if not vessels.sum() or not background.sum():
        return float("nan")
    odds = _log_odds(probability)

    def loss(log_temperature: float) -> float:
        scaled = odds / np.exp(log_temperature)
        return float((vessels * np.logaddexp(0, -scaled) + background * np.logaddexp(0, scaled)).sum())

    limits = (np.log(0.05), np.log(20.0))
    return float(np.exp(minimize_scalar(loss, bounds=limits, method="bounded", options={"xatol": 1e-4}).x))


def tempered(probability: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities, float 0..1, whose log odds are divided by a temperature; of their shape, float64.

    Example:
        >>> tempered(np.array([0.5, 0.8]), 2).round(3).tolist()
        [0.5, 0.667]
    """
    return 1 / (1 + np.exp(-_log_odds(probability) / temperature))


def _log_odds(probability: np.ndarray) -> np.ndarray:
    values = np.clip(np.asarray(probability, dtype=np.float64), _LEAST, 1 - _LEAST)
    return np.log(values) - np.log1p(-values)
