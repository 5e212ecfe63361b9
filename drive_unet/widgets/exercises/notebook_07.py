"""The exercises of notebook 07, your own photographs."""

from __future__ import annotations

import numpy as np

from drive_unet.widgets.exercises.checking import Exercise, answered, near


def _tortuosity(function) -> bool | str:
    turns = np.linspace(0, 1, 200)[:, None]
    semicircle = np.hstack([np.cos(np.pi * turns), np.sin(np.pi * turns)])
    corner = np.array([[0.0, 0.0], [0.0, 3.0], [4.0, 3.0]])
    slanting = np.array([[1.0, 1.0], [2.0, 3.0], [4.0, 7.0]])
    for name, points, expected in (
        ("a straight line of three points", slanting, 1.0),
        ("two sides of a right-angled triangle, 3 and 4", corner, 7 / 5),
        ("half a circle", semicircle, np.pi / 2),
        ("half a circle ten times as large", 10 * semicircle, np.pi / 2),
    ):
        value = float(np.asarray(answered(function(points.copy()))))
        if not abs(value - expected) < 1e-3:
            return f"of {name} it makes {value:.3f}"
    return True


def _agreement(function) -> bool | str:
    rng = np.random.default_rng(0)
    for factor, noise in ((1.0, 0.0), (1.2, 0.0), (0.9, 0.3), (1.0, 2.0)):
        truth = rng.uniform(3, 5, 12)
        seen = factor * truth + noise * rng.standard_normal(12)
        expected = 100 * (seen.mean() / truth.mean() - 1), np.corrcoef(truth, seen)[0, 1]
        off, correlation = (float(np.asarray(part)) for part in answered(function(truth.copy(), seen.copy())))
        if not np.isclose(off, expected[0], atol=1e-6):
            return f"where the mean is off by {expected[0]:.1f} % it makes {off:.1f}"
        if not np.isclose(correlation, expected[1], atol=1e-6):
            return f"where the correlation is {expected[1]:.2f} it makes {correlation:.2f}"
    return True


EXERCISES = {
    "07-1": Exercise(near(2.4, 0.01), "a share of the field of view's width is the same in both photographs"),
    "07-2": Exercise(
        _tortuosity,
        "the arc is the sum of the distances from each point to the next; np.diff gives the steps",
    ),
    "07-3": Exercise(
        _agreement,
        "how much larger is one mean, as a share of the true one? np.corrcoef gives a table of four",
    ),
}
