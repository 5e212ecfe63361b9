"""How sure a score is: intervals over photographs, from what each photograph adds to the pooled score.

Photographs are what was sampled, not pixels: those of one eye are alike. So photographs are drawn again with
replacement, ten thousand times, and the pooled score is made anew of what each of them holds: its four
counts, its pixels by probability, its centrelines. That costs seconds, for no pixel is looked at again;
`scipy.stats.bootstrap`, against which it is tested, would score ten thousand times from pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from drive_unet.metrics.exact import SCORES, Confusion
from drive_unet.metrics.streaming import COARSE, bin_error

RESAMPLES = 10_000
LEVEL = 0.95
FEWEST = 5  # photographs; of fewer an interval would promise more than they can tell
_MOST_BINS = 1024  # of probability, in the average precision of a resample

# Scores (K, R) of R resamples: (R, N) how often each holds each of N photographs.
Statistic = Callable[[np.ndarray], np.ndarray]


class Sample(NamedTuple):
    """What one photograph adds to pooled scores.

    Args:
        confusion: its four counts.
        cldice: its centreline Dice; nan where there is none.
        vessels, background: its pixels by bins of probability (see `streaming.COARSE`), int32; None for
            finished segmentations.
    """

    confusion: Confusion
    cldice: float
    vessels: np.ndarray | None = None
    background: np.ndarray | None = None


def sample(probability: np.ndarray | None, truth: np.ndarray, confusion: Confusion, cldice: float) -> Sample:
    """What a photograph adds: of its pixels (N,) float 0..1 (None without a ranking) and labels (N,) bool."""
    if probability is None:
        return Sample(confusion, cldice)
    bins = COARSE.of(probability)
    kinds = (np.bincount(bins[mask], minlength=COARSE.bins) for mask in (truth, ~truth))
    return Sample(confusion, cldice, *(kind.astype(np.int32) for kind in kinds))


def pooled_scores(samples: Sequence[Sample]) -> Statistic:
    """The statistic of all `SCORES`, pooled over photographs that are drawn any number of times."""
    counts = np.array([part.confusion for part in samples], dtype=np.float64)
    cldice = np.array([part.cldice for part in samples])
    known = np.isfinite(cldice)
    ranked = all(part.vessels is not None for part in samples)
    if ranked:
        vessels, background = _merged(samples)
        below = np.cumsum(background, axis=1) - background / 2  # within a bin half of the pairs
        won = (
            vessels @ below.T
        )  # (N, N): pairs that the vessel pixels of one win against another's background

    def statistic(draws: np.ndarray) -> np.ndarray:
        tp, fp, fn, tn = (draws @ counts).T
        lines = draws[:, known]
        with np.errstate(invalid="ignore", divide="ignore"):
            auc = ap = np.full(len(draws), np.nan)
            if ranked:
                pairs = (tp + fn) * (fp + tn)
                auc = np.einsum("rn,nm,rm->r", draws, won, draws, optimize=True) / pairs
                hits, alarms = (np.cumsum((draws @ part)[:, ::-1], axis=1) for part in (vessels, background))
                gained = np.diff(hits, axis=1, prepend=0)
                ap = np.nansum(gained * (hits / (hits + alarms)), axis=1) / hits[:, -1]
            scores = {
                "AUC": auc,
                "AP": ap,
                "Dice": 2 * tp / (2 * tp + fp + fn),
                "Acc": (tp + tn) / (tp + fp + fn + tn),
                "Se": tp / (tp + fn),
                "Sp": tn / (tn + fp),
                "MCC": (tp * tn - fp * fn) / np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)),
                "IoU": tp / (tp + fp + fn),
                "clDice": (lines @ cldice[known]) / lines.sum(axis=1),
            }
        return np.stack([scores[name] for name in SCORES])

    return statistic


def within(samples: Sequence[Sample]) -> float | None:
    """How far an AUC from these bins can be from the exact one at most; None for finished segmentations."""
    binned = [(part.vessels, part.background) for part in samples]
    if not binned or any(vessels is None for vessels, _ in binned):
        return None
    vessels, background = np.sum(np.array(binned, dtype=float), axis=0)
    return bin_error(vessels, background, single=COARSE.bins)


def ratios(parts: np.ndarray, wholes: np.ndarray) -> Statistic:
    """The statistic of quotients whose numerators and denominators (N, K) add up over photographs."""

    def statistic(draws: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return ((draws @ parts) / (draws @ wholes)).T

    return statistic


def difference(first: Statistic, second: Statistic) -> Statistic:
    """The first less the second, photograph by photograph: both on the very same resample."""
    return lambda draws: first(draws) - second(draws)


def mean_of(statistics: Sequence[Statistic]) -> Statistic:
    """The mean of several, as of trainings with several seeds, on the same resample."""
    return lambda draws: np.mean([statistic(draws) for statistic in statistics], axis=0)


def intervals(
    statistic: Statistic, count: int, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> np.ndarray:
    """Intervals by the bias-corrected and accelerated bootstrap over photographs (Efron 1987).

    Args:
        statistic: of K scores.
        count: N, the number of photographs.
        resamples: how many.
        level: the share of such intervals that shall hold the true score.
        seed: of the draws.

    Returns:
        Lower and upper ends (2, K); nan for fewer than `FEWEST` photographs, and where the score is not
        defined for all draws.

    Example:
        >>> scores = np.array([0.7, 0.8, 0.75, 0.85, 0.9, 0.8])  # one score, of six photographs
        >>> low, high = intervals(lambda draws: (draws @ scores / len(scores))[None], 6, resamples=1000)
        >>> bool(0.7 < low[0] < scores.mean() < high[0] < 0.9)
        True
    """
    from scipy.stats import DegenerateDataWarning, bootstrap  # here: they load for most of a second

    identity = np.eye(count)
    point = statistic(np.ones((1, count)))[:, 0]
    if count < FEWEST:
        return np.full((2, len(point)), np.nan)

    def of_indices(indices: np.ndarray, axis: int = -1) -> np.ndarray:
        drawn = np.moveaxis(np.asarray(indices), axis, -1)
        rows = drawn.reshape(-1, drawn.shape[-1])
        return statistic(identity[rows].sum(axis=1)).reshape(-1, *drawn.shape[:-1])

    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter("ignore", DegenerateDataWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        result = bootstrap(
            (np.arange(count),),
            of_indices,
            n_resamples=resamples,
            batch=1000,
            vectorized=True,
            confidence_level=level,
            method="BCa",
            random_state=np.random.default_rng(seed),
        )
    ends = np.stack(result.confidence_interval)
    still = np.ptp(result.bootstrap_distribution, axis=-1) < 1e-12  # the same whatever is drawn
    return np.where(still & np.isfinite(point), point, ends)


def _merged(samples: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray]:
    """The histograms of all photographs (N, B) float64, neighbouring bins joined where little is in them."""
    vessels, background = (
        np.array([getattr(part, kind) for part in samples], dtype=np.float64)
        for kind in ("vessels", "background")
    )
    held = np.flatnonzero(vessels.any(axis=0) | background.any(axis=0))
    vessels, background = vessels[:, held], background[:, held]
    if len(held) <= _MOST_BINS:
        return vessels, background
    mass = sum(part.sum(axis=0) / max(part.sum(), 1) for part in (vessels, background))
    group = ((np.cumsum(mass) - mass / 2) / mass.sum() * _MOST_BINS).astype(np.intp)
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    return np.add.reduceat(vessels, starts, axis=1), np.add.reduceat(background, starts, axis=1)
