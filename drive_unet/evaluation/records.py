"""What is kept of one photograph when it was scored: enough for pooled scores, intervals and every table."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from drive_unet.metrics.bootstrap import Sample, sample
from drive_unet.metrics.exact import Confusion, called, cldice, count
from drive_unet.metrics.pixels import binary, check_probability, pool
from drive_unet.metrics.ranking import rank, ratio
from drive_unet.metrics.reliability import Calibration, calibration, choose_temperature, tempered
from drive_unet.metrics.streaming import COARSE, Pool
from drive_unet.metrics.vesselwise import Structure, structure

UNRANKED = {"AUC": float("nan"), "AP": float("nan")}


class Prediction(NamedTuple):
    """Of one photograph: probability (H, W) float 0..1, a finished segmentation (H, W) bool, or both.

    Where both are there, the segmentation is what is called vessel, and the map is for what ranks pixels.
    """

    probability: np.ndarray | None
    vessels: np.ndarray | None = None


class Labels(NamedTuple):
    """Of one photograph, (H, W) bool each: the reference, the field of view, and what else is known."""

    vessels: np.ndarray
    fov: np.ndarray | None
    second: np.ndarray | None = None
    kinds: tuple[np.ndarray, np.ndarray] | None = None  # arteries and veins


@dataclass(frozen=True, eq=False)
class Record:
    """One photograph's scores and what it adds to pooled ones.

    Args:
        name: of the photograph.
        scores: by their names in `metrics.SCORES`.
        sample: its counts and its pixels by probability.
        threshold: at which its probabilities were cut; None for a finished segmentation.
        structure: its vessels one by one; None where that was not asked for.
        calibration: its pixels by probability, for reliability; None for finished segmentations.
        observers: pixels by who called them vessel, (8,) int64: 4 first observer + 2 second + 1 prediction;
            None without a second observer.
        packed: what was called vessel, a bit a pixel, and its shape, for reports; see `drawn`.
    """

    name: str
    scores: dict[str, float]
    sample: Sample
    threshold: float | None
    structure: Structure | None = None
    calibration: Calibration | None = None
    observers: np.ndarray | None = None
    packed: tuple[np.ndarray, tuple[int, int]] | None = None

    @property
    def drawn(self) -> np.ndarray | None:
        """What was called vessel, (H, W) bool; None where it was not kept."""
        if self.packed is None:
            return None
        bits, (height, width) = self.packed
        return np.unpackbits(bits, count=height * width).reshape(height, width).astype(bool)

    def row(self) -> dict[str, Any]:
        """The scores with the photograph's name, for tables."""
        return {"name": self.name, **self.scores}


def record(
    name: str,
    prediction: Prediction,
    labels: Labels,
    threshold: float,
    pixels: Pool,
    *,
    thorough: bool = False,
) -> Record:
    """Score one photograph, and add its pixels to a pool.

    Args:
        name: of the photograph.
        prediction, labels: of it.
        threshold: 0..1, at which the probability is cut where there is no finished segmentation.
        pixels: where its pixels go.
        thorough: look at its vessels one by one, at the observers and at the calibration too.

    Raises:
        DataError: if prediction and labels do not fit each other.
    """
    probability, vessels = prediction
    ranked = probability is not None and probability.dtype != bool
    given = vessels if vessels is not None else probability
    values, truth = pool(given if not ranked else probability, labels.vessels, labels.fov, "probability")
    check_probability(values)
    inside = slice(None) if labels.fov is None else binary(labels.fov, "fov").ravel()
    if vessels is not None:
        drawn = binary(vessels.ravel()[inside], "prediction")
    else:
        drawn = called(values, threshold)
    counts = count(drawn, truth)
    mask = vessels if vessels is not None else called(probability, threshold)
    detail = structure(mask, labels.vessels, labels.fov, labels.kinds) if thorough else None
    line = detail.cldice if detail is not None else cldice(mask, labels.vessels, labels.fov)
    areas = rank(values, truth).areas() if ranked else UNRANKED
    pixels.add(values if ranked else drawn, truth)
    observers = None
    if thorough and labels.second is not None:
        codes = 4 * truth + 2 * labels.second.ravel()[inside].astype(bool) + drawn
        observers = np.bincount(codes, minlength=8)
    return Record(
        name,
        areas | counts.scores() | {"clDice": line},
        sample(values if ranked else None, truth, counts, line),
        None if vessels is not None or not ranked else threshold,
        detail,
        calibration(values, truth) if thorough and ranked else None,
        observers,
        (np.packbits(mask.astype(bool)), mask.shape) if thorough else None,
    )


def over(parts: Sequence[Record]) -> Record:
    """One photograph as several networks saw it: the mean of its scores, the sum of what is counted."""
    first = parts[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a score that none of them defines
        scores = {key: float(np.nanmean([part.scores[key] for part in parts])) for key in first.scores}
    ranked = all(part.sample.vessels is not None for part in parts)
    binned: Any = [(part.sample.vessels, part.sample.background) for part in parts]
    sums = np.sum(binned, axis=0) if ranked else (None, None)
    cuts = {part.threshold for part in parts}
    observers = None if first.observers is None else np.sum([part.observers for part in parts], axis=0)
    return Record(
        first.name,
        scores,
        Sample(total_confusion(parts), scores["clDice"], *sums),
        cuts.pop() if len(cuts) == 1 else None,
        total_structure(parts),
        total_calibration(parts),
        observers,
    )


def total_confusion(records: Iterable[Record]) -> Confusion:
    """The counts of all photographs together."""
    return reduce(Confusion.plus, (part.sample.confusion for part in records), Confusion(0, 0, 0, 0))


def total_structure(records: Sequence[Record]) -> Structure | None:
    """The vessels of all photographs together; None where they were not looked at."""
    parts = [part.structure for part in records]
    return None if not parts or None in parts else reduce(Structure.plus, parts)


def total_calibration(records: Sequence[Record]) -> Calibration | None:
    """The pixels of all photographs by probability; None for finished segmentations."""
    parts = [part.calibration for part in records]
    return None if not parts or any(part is None for part in parts) else reduce(Calibration.plus, parts)


def tempered_calibration(
    records: Sequence[Record], temperature: float | None = None
) -> tuple[Calibration, list[float]]:
    """The calibration after the probabilities were tempered, from bins of probability.

    Args:
        records: of photographs with probabilities.
        temperature: chosen on validation photographs; None chooses it for each photograph on all the others,
            so that none has a say in its own.

    Returns:
        The calibration, and the temperature of each photograph; nan where none can be chosen.
    """
    middle = COARSE.middles()
    vessels, background = (
        np.array([getattr(part.sample, kind) for part in records]) for kind in ("vessels", "background")
    )
    all_vessels, all_background = vessels.sum(axis=0), background.sum(axis=0)
    parts, temperatures = [], []
    for own, others in zip(vessels, background, strict=True):
        rest = all_vessels - own, all_background - others
        held = (rest[0] + rest[1]) > 0
        chosen = temperature
        if chosen is None:
            chosen = choose_temperature(middle[held], rest[0][held], rest[1][held])
        temperatures.append(chosen)
        present = (own + others) > 0
        pixels = (own + others)[present].astype(float)
        values = tempered(middle[present], chosen)
        parts.append(calibration(values, own[present] / pixels, pixels) if np.isfinite(chosen) else None)
    if None in parts:
        nothing = np.zeros(0)
        return Calibration(nothing, nothing, nothing, 0.0), temperatures
    return reduce(Calibration.plus, parts), temperatures


def agreement(records: Sequence[Record]) -> dict[str, Any] | None:
    """How prediction and two observers agree, on the photographs that have both; None without any.

    Returns:
        Dice and Cohen's kappa of the three pairs, and of the pixels that both observers call vessel, or
        background, how many the prediction calls the other, in number and as a share.
    """
    known = [part.observers for part in records if part.observers is not None]
    if not known:
        return None
    counts = np.sum(known, axis=0).reshape(2, 2, 2).astype(int)  # first, second, prediction
    pairs = {
        "prediction and first observer": counts.sum(axis=1),
        "prediction and second observer": counts.sum(axis=0),
        "both observers": counts.sum(axis=2),
    }
    both_vessel, both_background = int(counts[1, 1].sum()), int(counts[0, 0].sum())
    missed, invented = int(counts[1, 1, 0]), int(counts[0, 0, 1])
    return {
        "photographs": len(known),
        "dice": {name: ratio(2 * t[1, 1], 2 * t[1, 1] + t[0, 1] + t[1, 0]) for name, t in pairs.items()},
        "kappa": {name: _kappa(t) for name, t in pairs.items()},
        "both observers say vessel": both_vessel,
        "of these the prediction misses": missed,
        "share missed": ratio(missed, both_vessel),
        "both observers say background": both_background,
        "of these the prediction calls vessel": invented,
        "share called vessel": ratio(invented, both_background),
    }


def _kappa(table: np.ndarray) -> float:
    """Cohen's kappa of a 2 by 2 table; nan if both only know one class."""
    total = float(table.sum())
    by_chance = float((table.sum(axis=0) * table.sum(axis=1)).sum())
    return ratio(total * float(np.trace(table)) - by_chance, total * total - by_chance)
