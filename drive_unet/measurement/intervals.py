"""How far a measurement may be off: from what the network sees in flipped photographs and near its threshold.

A network that is unsure of a vessel answers differently when the photograph is flipped, and a slightly
other threshold changes what it calls vessel. Both spreads together, times factors found on photographs whose
truth is known (`calibrate`), give the interval.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

import numpy as np

from drive_unet.errors import DataError
from drive_unet.measurement.table import Disc, Measurements, measure

CONFIDENCE = 0.9
SHIFT = 0.4  # by which the threshold's log odds are moved up and down
LEAST = 0.01  # of the value: no spread is smaller
COUNTED = 1.0  # no spread of a count is smaller
COUNTS = ("branch_points", "end_points")
PACKAGED = "calibration.json"

#: By region and measure, how many spreads the truth lies from the measurement: (low, high).
Calibration = Mapping[str, Mapping[str, tuple[float, float]]]


def measure_flips(
    flips: np.ndarray,
    threshold: float,
    fov: np.ndarray | None = None,
    *,
    disc: Disc | tuple[float, float, float] | None = None,
    scale: float | None = None,
    calibration: Calibration | None = None,
) -> Measurements:
    """Measure what a network finds, with a 90 % interval for every measurement.

    Args:
        flips: (N, H, W) float, 0..1: probability maps of the flipped photograph, turned back, from
            `drive_unet.inference.predict_flips`; their mean is what is measured.
        threshold: of the mean, at and above which a pixel is vessel: ``model.threshold_for(tta=True)``.
        fov, disc, scale: see `measure`.
        calibration: from `calibrate` or `packaged_calibration`; None takes the widest of the packaged ones.

    Returns:
        The table with its intervals.

    Raises:
        DataError: as `measure`, or for maps that are not (N, H, W) with two flips or more.
    """
    table, spread = with_spread(flips, threshold, fov, disc=disc, scale=scale)
    factors = packaged_calibration() if calibration is None else calibration
    intervals: dict[str, dict[str, tuple[float, float]]] = {}
    for region, values in table.values.items():
        intervals[region] = {}
        for key, value in values.items():
            low, high = factors.get(region, {}).get(key, (np.nan, np.nan))
            unit = spread[region][key]
            intervals[region][key] = (max(value + low * unit, 0.0), value + high * unit)
    return dataclasses.replace(table, intervals=intervals)


def with_spread(
    flips: np.ndarray,
    threshold: float,
    fov: np.ndarray | None = None,
    *,
    disc: Disc | tuple[float, float, float] | None = None,
    scale: float | None = None,
) -> tuple[Measurements, dict[str, dict[str, float]]]:
    """The table without intervals, and the spread of each measurement, in its own unit.

    Arguments and errors: see `measure_flips`.
    """
    flips = np.asarray(flips, np.float32)
    if flips.ndim != 3 or len(flips) < 2:
        raise DataError(f"flips must be (N, H, W) with two maps or more, got shape {flips.shape}.")
    mean = flips.mean(axis=0)
    table = measure(mean >= threshold, fov, disc=disc, scale=scale)
    variants = [measure(flip >= threshold, fov, disc=disc) for flip in flips]
    moved = [threshold / (threshold + (1 - threshold) * np.exp(by)) for by in (SHIFT, -SHIFT)]
    more, fewer = (measure(mean >= level, fov, disc=disc) for level in moved)
    spread: dict[str, dict[str, float]] = {}
    for region, values in table.values.items():
        spread[region] = {}
        for key, value in values.items():
            among = np.array([variant.values[region][key] for variant in variants])
            across = more.values[region][key] - fewer.values[region][key]
            known = among[np.isfinite(among)]
            parts = [
                known.std(ddof=1) if len(known) > 1 else 0.0,
                across / 2 if np.isfinite(across) else 0.0,
                COUNTED if key in COUNTS else LEAST * abs(value),
            ]
            spread[region][key] = float(np.sqrt(np.square(parts).sum()))
    return table, spread


def calibrate(
    truth: Sequence[Mapping[str, Mapping[str, float]]],
    tables: Sequence[Measurements],
    spreads: Sequence[Mapping[str, Mapping[str, float]]],
    confidence: float = CONFIDENCE,
) -> dict[str, dict[str, tuple[float, float]]]:
    """Between how many spreads below and above the measurement the truth lies, in so many photographs.

    Args:
        truth: by photograph the true values, by region and measure.
        tables, spreads: of the same photographs, from `with_spread`.
        confidence: the share of photographs, 0..1, equally many left out at both ends (split conformal
            prediction: Lei et al., 2018).

    Returns:
        the factors, for `measure_flips`; a measure that fewer than ten photographs have is left out.
    """
    factors: dict[str, dict[str, tuple[float, float]]] = {}
    for region in tables[0].values:
        factors[region] = {}
        for key in tables[0].values[region]:
            off = np.array(
                [
                    (true[region][key] - table.values[region][key]) / spread[region][key]
                    for true, table, spread in zip(truth, tables, spreads, strict=True)
                ]
            )
            off = np.sort(off[np.isfinite(off)])
            if len(off) < 10:
                continue
            tail = (1 - confidence) / 2
            # of n values, n + 1 gaps are equally likely for the next one
            low = np.interp(tail * (len(off) + 1) - 1, np.arange(len(off)), off)
            high = np.interp((1 - tail) * (len(off) + 1) - 1, np.arange(len(off)), off)
            factors[region][key] = (float(low), float(high))
    return factors


def packaged_calibration(weights: str | None = None) -> dict[str, dict[str, tuple[float, float]]]:
    """The factors found on painted eyes for packaged weights.

    Args:
        weights: their name; None, or a name without factors of its own, takes the widest of all.

    Returns:
        the factors, for `measure_flips`.

    Example:
        >>> factors = packaged_calibration("synthetic-fast")
        >>> low, high = factors["whole"]["calibre_mean"]
        >>> low < high
        True
    """
    known = _packaged()
    chosen = [known[weights]] if weights in known else list(known.values())
    widest: dict[str, dict[str, tuple[float, float]]] = {}
    for factors in chosen:
        for region, values in factors.items():
            for key, (low, high) in values.items():
                before = widest.setdefault(region, {}).get(key, (np.inf, -np.inf))
                widest[region][key] = (min(low, before[0]), max(high, before[1]))
    return widest


def calibrated_weights() -> list[str]:
    """The names of the weights that have packaged factors of their own."""
    return sorted(_packaged())


def _packaged() -> dict[str, dict[str, dict[str, tuple[float, float]]]]:
    return json.loads(
        resources.files("drive_unet.measurement").joinpath(PACKAGED).read_text(encoding="utf-8")
    )


def save_calibration(calibrations: Mapping[str, Calibration]) -> Path:
    """Write packaged factors, by the name of the weights, beside those of other weights; the file's path."""
    path = Path(str(resources.files("drive_unet.measurement").joinpath(PACKAGED)))
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    rounded = {
        name: {
            region: {key: [round(low, 3), round(high, 3)] for key, (low, high) in values.items()}
            for region, values in factors.items()
        }
        for name, factors in calibrations.items()
    }
    path.write_text(json.dumps(kept | rounded, indent=1) + "\n", encoding="utf-8")
    return path
