"""Whether a probability can be trusted: by hand, against torchmetrics and scikit-learn, after tempering."""

import math

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss
from torchmetrics.functional.classification import binary_calibration_error

from drive_unet.metrics import Calibration, choose_temperature, tempered
from drive_unet.metrics.reliability import BINS, calibration


def pixels(seed=0, count=20_000, temperature=1.0):
    """Probabilities that are true when divided by a temperature, and labels."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(-2, 2.5, count)
    truth = rng.random(count) < 1 / (1 + np.exp(-odds))
    return (1 / (1 + np.exp(-odds * temperature))).astype(np.float32), truth


def test_by_hand():
    found = calibration(np.array([0.1, 0.1, 0.9, 0.9]), np.array([False, True, True, True]))
    assert found.ece == pytest.approx((2 * abs(0.1 - 0.5) + 2 * abs(0.9 - 1)) / 4)
    assert found.brier == pytest.approx((0.01 + 0.81 + 0.01 + 0.01) / 4)
    rows = found.reliability()
    assert [row["vessels"] for row in rows] == [0.5, 1] and [row["share"] for row in rows] == [0.5, 0.5]
    assert rows[1]["from"] <= 0.9 < rows[1]["to"]
    assert found.pixels.shape == (15,) and found.pixels[[1, 13]].tolist() == [2, 2]
    certain = calibration(np.array([0.0, 1.0]), np.array([False, True]))
    assert certain.ece == certain.brier == 0
    assert math.isnan(calibration(np.zeros(0), np.zeros(0, bool)).ece)


@pytest.mark.parametrize("seed", range(3))
def test_as_torchmetrics_and_scikit_learn(seed):
    probability, truth = pixels(seed, temperature=1.7)
    found = calibration(probability, truth)
    tensors = torch.from_numpy(probability), torch.from_numpy(truth).int()
    assert found.ece == pytest.approx(
        float(binary_calibration_error(*tensors, n_bins=BINS, norm="l1")), abs=1e-5
    )
    assert found.brier == pytest.approx(brier_score_loss(truth, probability), abs=1e-7)
    shares, means = calibration_curve(truth, probability, n_bins=BINS)
    np.testing.assert_allclose([row["vessels"] for row in found.reliability()], shares, atol=1e-6)
    np.testing.assert_allclose([row["probability"] for row in found.reliability()], means, atol=1e-6)


def test_photographs_add_up_and_weights_count():
    probability, truth = pixels()
    halves = calibration(probability[:9000], truth[:9000]).plus(calibration(probability[9000:], truth[9000:]))
    whole = calibration(probability, truth)
    assert halves.ece == pytest.approx(whole.ece) and halves.brier == pytest.approx(whole.brier)
    assert isinstance(halves, Calibration) and halves.pixels.sum() == len(truth)
    weighted = calibration(np.array([0.3, 0.3]), np.array([True, False]), np.array([3, 7]))
    assert weighted.ece == pytest.approx(0) and weighted.brier == pytest.approx(0.3 * 0.49 + 0.7 * 0.09)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_is_found_and_makes_probabilities_true(temperature):
    probability, truth = pixels(1, 200_000, temperature)
    chosen = choose_temperature(probability, truth, ~truth)
    assert chosen == pytest.approx(temperature, rel=0.03)
    after = calibration(tempered(probability, chosen), truth)
    assert after.ece < 0.005
    assert after.ece <= calibration(probability, truth).ece + 1e-3
    ranks = np.argsort(probability, kind="stable")
    assert (np.diff(tempered(probability, chosen)[ranks]) >= 0).all()  # no pixel changes its place


def test_a_temperature_needs_both_kinds():
    assert math.isnan(choose_temperature(np.array([0.2]), np.array([0]), np.array([5])))
    assert math.isnan(choose_temperature(np.array([0.2]), np.array([5]), np.array([0])))
