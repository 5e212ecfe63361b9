"""The exercises of notebook 05, evaluation."""

from __future__ import annotations

import numpy as np

from drive_unet.metrics import confusion
from drive_unet.widgets.exercises.checking import Exercise, answered


def _everything(dice, prevalence) -> bool | str:
    if abs(dice - prevalence) < 1e-4:
        return "that is the precision alone"
    return abs(dice - 2 * prevalence / (1 + prevalence)) <= 1e-3


def _squashed(dice, maps, labels, fovs, threshold, squash) -> bool | str:
    def score(cut):
        rows = zip(maps, labels, fovs, strict=True)
        small = [[squash(part) for part in row] for row in rows]
        return confusion(*([row[i] >= (cut, 0.5, 0.5)[i] for row in small] for i in range(3))).dice

    native = confusion([p >= threshold for p in maps], labels, fovs).dice
    if abs(dice - native) < 1e-4 < abs(score(threshold) - native):
        return "that is the Dice at native size"
    drawn = [squash(p >= threshold) >= 0.5 for p in maps]
    cut_first = confusion(drawn, *([squash(part) >= 0.5 for part in parts] for parts in (labels, fovs))).dice
    if abs(dice - cut_first) < 1e-4 < abs(score(threshold) - cut_first):
        return "that squashes the finished drawing: squash the probabilities, then cut"
    return abs(dice - score(threshold)) <= 5e-3


def _interval(function) -> bool | str:
    rng = np.random.default_rng(0)
    for count, spread in ((12, 0.02), (40, 0.1)):
        values = rng.normal(0.8, spread, count)
        low, high = answered(function(values.copy()))
        theory = 2 * 1.96 * values.std() / count**0.5
        if not low < values.mean() < high:
            return f"of {count} scores with the mean {values.mean():.3f} it makes {low:.3f} to {high:.3f}"
        if not 0.88 < (high - low) / theory < 1.12:
            return f"of {count} scores it is {high - low:.3f} wide where about {theory:.3f} is to be expected"
    return True


EXERCISES = {
    "05-1": Exercise(_everything, "TP is the prevalence p, FN is 0, FP is 1 - p; put them into Dice"),
    "05-2": Exercise(
        _squashed, "squash(p) >= threshold for each map p, masks likewise; confusion takes lists"
    ),
    "05-3": Exercise(_interval, "rng.choice(values, (1000, len(values))).mean(axis=1), then np.percentile"),
}
