"""All that an evaluation has to say, as JSON: ten plain numbers first, everything else in five drawers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from drive_unet.evaluation.evaluator import Evaluation
from drive_unet.evaluation.guarding import Guard
from drive_unet.evaluation.records import (
    Record,
    agreement,
    tempered_calibration,
    total_calibration,
    total_structure,
)
from drive_unet.evaluation.tables import ends, known, without_nan
from drive_unet.metrics.bootstrap import FEWEST, LEVEL, RESAMPLES, difference, intervals, ratios
from drive_unet.metrics.exact import SCORES
from drive_unet.metrics.vesselwise import CALIBRES

# The scores' names in JSON.
KEYS = {
    "Dice": "dice",
    "AUC": "auc",
    "AP": "ap",
    "Acc": "accuracy",
    "Se": "sensitivity",
    "Sp": "specificity",
    "MCC": "mcc",
    "clDice": "cldice",
    "IoU": "iou",
}


def plain(scores: Mapping[str, float]) -> dict[str, float | None]:
    """Scores by the names that JSON has for them; None where one is not defined."""
    return {key: known(scores[name]) for name, key in KEYS.items()}


def result(
    evaluation: Evaluation,
    *,
    data: str,
    split: str,
    guards: Sequence[Guard] = (),
    observer: Evaluation | None = None,
    parts: Sequence[Mapping[str, Any]] = (),
    against: Evaluation | None = None,
) -> dict[str, Any]:
    """The scores of one predictor with all that belongs to them, for `json.dump`.

    Args:
        evaluation: of the predictor, `thorough`.
        data, split: what was scored, in words.
        guards: what is suspicious about it.
        observer: the second observer's, thorough likewise.
        parts: of a cross-validation, a fold each.
        against: of another predictor on the same photographs, for differences.

    Returns:
        At the top the numbers named in `KEYS` and "threshold", under the default protocol; the rest under
        "intervals", "per_image", "protocols", "second_observer" and "guards". What is not defined is None.
    """
    records = evaluation.records
    protocols: dict[str, Any] = {"inside_fov": _protocol(evaluation, data, split)}
    if evaluation.whole_frame is not None:
        protocols["whole_frame"] = plain(evaluation.whole_frame.pooled)
    protocols["per_image_mean"] = plain(evaluation.mean())
    protocols["per_image_sd"] = plain(evaluation.std())
    if evaluation.members:
        protocols["seeds"] = [
            {"name": member.name, **plain(member.pooled), "threshold": member.threshold}
            for member in evaluation.members
        ]
        protocols["sd_over_seeds"] = plain(evaluation.seed_spread())
    if parts:
        protocols["folds"] = list(parts)
    spans = {KEYS[key]: ends(*pair) for key, pair in evaluation.intervals.items()}
    spans |= structure_intervals(records)
    spread: dict[str, Any] = {
        "level": LEVEL,
        "resamples": RESAMPLES,
        "method": "BCa over photographs",
        **spans,
    }
    if len(records) < FEWEST:
        spread["why none"] = f"fewer than {FEWEST} photographs"
    if against is not None:
        spread["difference"] = {"from": against.name, **differences(evaluation, against)}
    return {
        **plain(evaluation.pooled),
        "threshold": evaluation.threshold,
        "intervals": spread,
        "per_image": [per_image(part) for part in records],
        "protocols": protocols,
        "second_observer": None if observer is None else _observer(evaluation, observer),
        "guards": [guard.to_dict() for guard in guards],
    }


def per_image(part: Record) -> dict[str, Any]:
    """One photograph's scores, counts and vessels."""
    row: dict[str, Any] = {"name": part.name, **plain(part.scores), "threshold": part.threshold}
    row |= part.sample.confusion._asdict()
    if part.structure is not None:
        row["vessels"] = without_nan(part.structure.scores())
    if part.calibration is not None:
        row |= {"ece": known(part.calibration.ece), "brier": known(part.calibration.brier)}
    return row


def differences(first: Evaluation, second: Evaluation) -> dict[str, Any]:
    """The first's pooled scores less the second's on the photographs of both, paired, with intervals.

    Returns:
        By score the "difference" and its interval "low", "high" (None for too few photographs), and
        "photographs", how many.
    """
    names = [name for name in first.names if name in set(second.names)]
    if not names:
        return {"photographs": 0}
    statistic = difference(first.statistic(names), second.statistic(names))
    point = statistic(np.ones((1, len(names))))[:, 0]
    limits = intervals(statistic, len(names))
    rows = {
        KEYS[key]: {"difference": known(value), "low": known(low), "high": known(high)}
        for key, value, low, high in zip(SCORES, point, *limits, strict=True)
    }
    return {"photographs": len(names), **rows}


def structure_intervals(records: Sequence[Record]) -> dict[str, list[float] | None]:
    """Intervals of the scores of vessels, by name; empty where vessels were not looked at."""
    total = total_structure(records)
    if total is None:
        return {}
    names = list(total.parts())
    nothing = (0.0, 0.0)
    counts = np.array(
        [[part.structure.parts().get(name, nothing) for name in names] for part in records], dtype=float
    )
    limits = intervals(ratios(counts[..., 0], counts[..., 1]), len(records))
    return {name: ends(*pair) for name, pair in zip(names, limits.T, strict=True)}


def trust(records: Sequence[Record], temperature: float | None = None) -> dict[str, Any] | None:
    """Whether the probabilities can be trusted, as they are and tempered; None for finished segmentations.

    Args:
        records: of the photographs.
        temperature: chosen on validation photographs; None: for each photograph on all the others.
    """
    total = total_calibration(records)
    if total is None:
        return None
    after, chosen = tempered_calibration(records, temperature)
    finite = [value for value in chosen if math.isfinite(value)]
    return {
        "ece": known(total.ece),
        "brier": known(total.brier),
        "reliability": total.reliability(),
        "temperature": known(float(np.mean(finite))) if finite else None,
        "temperature_from": "given, from validation photographs"
        if temperature is not None
        else "chosen for each photograph on all the others",
        "ece_tempered": known(after.ece),
        "brier_tempered": known(after.brier),
    }


def _protocol(evaluation: Evaluation, data: str, split: str) -> dict[str, Any]:
    counts, vessels = evaluation.confusion, total_structure(evaluation.records)
    protocol: dict[str, Any] = {
        "predictor": evaluation.name,
        "data": data,
        "split": split,
        "photographs": list(evaluation.names),
        "sentence": evaluation.protocol,
        "threshold_from": evaluation.threshold_from,
        "auc_within": evaluation.binned,
        "pixels": sum(counts),
        "vessel_pixels": counts.tp + counts.fn,
        **counts._asdict(),
        "precision": known(counts.precision),
    }
    if vessels is not None:
        protocol["vessels"] = {
            **without_nan(vessels.scores()),
            "share of vessel pixels": without_nan(vessels.shares()),
            "cldice of pooled centrelines": known(vessels.cldice),
            "calibres": list(CALIBRES),
        }
    protocol["calibration"] = trust(evaluation.records)
    return protocol


def _observer(evaluation: Evaluation, observer: Evaluation) -> dict[str, Any]:
    vessels = total_structure(observer.records)
    both = agreement(evaluation.records)
    return {
        **plain(observer.pooled),
        "photographs": list(observer.names),
        "intervals": {KEYS[key]: ends(*pair) for key, pair in observer.intervals.items()},
        "per_image": [per_image(part) for part in observer.records],
        "vessels": None if vessels is None else without_nan(vessels.scores()),
        "agreement": None if both is None else without_nan(both),
        "predictor less observer": differences(evaluation, observer),
    }
