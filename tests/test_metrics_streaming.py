"""Scores in constant memory against the exact ones."""

import numpy as np
import pytest

from drive_unet import metrics
from drive_unet.errors import DataError
from drive_unet.metrics import PixelCounts, Pool, streaming


def sigmoid(x):
    return (1 / (1 + np.exp(-x))).astype(np.float32)  # x in float64, so that the smallest float32 occur


def predictions(kind, rng, size=200_000):
    """Probabilities (1, N) and vessels (1, N) as a network could give them."""
    vessels = rng.random((1, size)) < 0.12
    separated = rng.normal(np.where(vessels, 2.0, -2.5), 1.8)
    values = {
        "usual": sigmoid(separated),
        "timid": sigmoid(0.05 * separated),
        "certain": sigmoid(8 * separated),
        "near 0": sigmoid(separated - 15),
        "near 1": sigmoid(separated + 9),
        "nearly all 0": sigmoid(8 * separated - 60),  # to the smallest float32, and 0 itself
        "nearly all 1": sigmoid(3 * separated + 25),  # ties at 1 in the exact score too
        "rough": np.round(sigmoid(separated), 2),
        "chance": rng.random((1, size), np.float32),
    }
    return values[kind].astype(np.float32), vessels


KINDS = ("usual", "timid", "certain", "near 0", "near 1", "nearly all 0", "nearly all 1", "rough", "chance")


@pytest.mark.parametrize("kind", KINDS)
def test_bins_lose_less_than_one_in_ten_thousand(kind):
    probability, vessels = predictions(kind, np.random.default_rng(0))
    counts = PixelCounts()
    counts.update(probability, vessels)
    exact, binned = metrics.pixel_scores(probability, vessels), counts.ranking().areas()
    assert abs(binned["AUC"] - exact["AUC"]) <= counts.error + 1e-12
    assert abs(binned["AUC"] - exact["AUC"]) < 1e-4
    assert counts.error < 1e-4 or kind == "rough"  # tied in the exact score as well
    assert abs(binned["AP"] - exact["AP"]) < 1e-4


def test_the_error_that_is_stated_is_a_bound_where_bins_are_useless():
    rng = np.random.default_rng(0)
    vessels = rng.random((1, 5000)) < 0.5
    probability = (0.250001 + 2e-6 * (rng.random((1, 5000)) + vessels)).astype(np.float32)  # all in one bin
    counts = PixelCounts()
    counts.update(probability, vessels)
    exact = metrics.auc(probability, vessels)
    assert exact > 0.9 and counts.ranking().auc() == pytest.approx(0.5)
    assert counts.error == pytest.approx(0.5) and abs(counts.ranking().auc() - exact) <= counts.error


@pytest.mark.parametrize("kind", KINDS)
def test_every_point_of_the_curves_is_one_of_the_exact_ones(kind):
    probability, vessels = predictions(kind, np.random.default_rng(1), 20_000)
    counts = PixelCounts()
    counts.update(probability, vessels)
    _, sensitivities, thresholds = counts.ranking().roc_curve()
    for threshold, sensitivity in zip(thresholds[1::97], sensitivities[1::97], strict=True):
        assert sensitivity == pytest.approx(
            metrics.confusion(probability >= threshold, vessels).sensitivity, abs=1e-12
        )
    curve = counts.ranking().precision_recall_curve()
    assert (curve.precision[0], curve.recall[0]) == (1, 0) and curve.recall[-1] == 1
    chosen, exact = counts.ranking().best()[1], metrics.choose_threshold(probability, vessels)
    dice = [metrics.confusion(probability >= t, vessels).dice for t in (chosen, exact)]
    assert dice[0] <= dice[1] and dice[1] - dice[0] < 1e-4


def test_photographs_one_by_one_and_in_two_halves():
    rng = np.random.default_rng(2)
    images = [predictions("usual", rng, 5000) for _ in range(4)]
    fovs = [rng.random((1, 5000)) > 0.3 for _ in images]
    whole, halves = PixelCounts(), [PixelCounts(), PixelCounts()]
    for number, ((probability, vessels), fov) in enumerate(zip(images, fovs, strict=True)):
        whole.update(probability, vessels, fov)
        halves[number % 2].update(probability, vessels, fov)
    halves[0].merge(halves[1])
    assert halves[0].ranking().areas() == whole.ranking().areas()
    assert (whole.vessels + whole.background).sum() == sum(int(fov.sum()) for fov in fovs)


@pytest.mark.parametrize("grid", [streaming.FINE, streaming.COARSE])
def test_edges_of_bins_separate_what_is_in_them(grid):
    edges = grid.lower_edges()
    assert edges.shape == (grid.bins,) and (np.diff(edges) >= 0).all()
    rng = np.random.default_rng(3)
    small = 10 ** (-22 * rng.random(3000))
    values = np.r_[rng.random(3000), small, 1 - small, 0, 0.5, 1].astype(np.float32)
    bins = grid.of(values)
    for held in np.unique(bins)[::50]:
        assert (values >= edges[held]).sum() == (bins >= held).sum()


@pytest.mark.parametrize("grid", [streaming.FINE, streaming.COARSE])
def test_an_edge_is_the_smallest_float32_of_its_bin(grid):
    edges = grid.lower_edges().astype(np.float32)
    numbers = np.arange(grid.bins)
    filled = np.r_[edges[:-1] < edges[1:], True]  # next to 1 some bins hold no float32 at all
    assert (grid.of(edges)[filled] == numbers[filled]).all()
    assert (grid.of(np.nextafter(edges[1:], np.float32(-1))) < numbers[1:]).all()
    assert grid.of(np.array([0.5]))[0] == grid.half and filled[grid.half]
    middles = grid.middles()
    assert middles[0] == 0 and middles[-1] == (edges[-1].astype(float) + 1) / 2
    np.testing.assert_allclose(middles[1:-1], (edges[1:-1].astype(float) + edges[2:]) / 2)


@pytest.mark.parametrize("value", [0.0, 1.0, np.float32(1) - np.float32(2**-24)])
def test_a_bin_of_one_value_adds_nothing_to_the_error(value):
    counts = PixelCounts()
    counts.update(np.full((1, 6), value, np.float32), np.arange(6)[None] % 2 == 0)
    assert counts.error == 0 and counts.ranking().auc() == 0.5


def test_nothing_to_measure_is_nan():
    counts = PixelCounts()
    assert np.isnan([*counts.ranking().areas().values(), counts.error]).all()
    counts.update(np.full((2, 2), 0.3), np.zeros((2, 2), bool))
    assert np.isnan(counts.ranking().auc())
    with pytest.raises(DataError, match="no vessel pixel"):
        counts.ranking().best()[1]
    with pytest.raises(DataError, match="lie in 0..1"):
        counts.update(np.full((2, 2), 1.3), np.zeros((2, 2), bool))


def test_float64_between_two_float32_is_in_the_bound():
    rng = np.random.default_rng(5)
    vessels = rng.random((1, 5000)) < 0.5
    probability = 1 - 1e-9 * (1 + rng.random((1, 5000)) - vessels)  # all of them 1 as float32
    counts = PixelCounts()
    counts.update(probability, vessels)
    assert counts.ranking().auc() == 0.5
    assert abs(counts.ranking().auc() - metrics.auc(probability, vessels)) <= counts.error + 1e-12


@pytest.mark.parametrize("most", [0, 10**6])
def test_what_is_refused_leaves_the_pool_as_it_was(most):
    probability, vessels = predictions("usual", np.random.default_rng(6), 5000)
    pooled = Pool(most=most)
    pooled.update(probability, vessels)
    before = pooled.ranking().areas()
    with pytest.raises(DataError, match="found nan"):
        pooled.update(probability * np.nan, vessels)
    with pytest.raises(DataError, match="give one kind"):
        pooled.update(probability > 0.5, vessels)
    assert pooled.ranking().areas() == before and pooled.size == 5000
    segmentations = PixelCounts()
    segmentations.update(probability > 0.5, vessels)
    with pytest.raises(DataError, match="give one kind"):
        segmentations.merge(pooled.counts)
    with pytest.raises(DataError, match="no photograph was added"):
        Pool().ranking()


def test_a_pool_keeps_few_pixels_and_counts_many():
    rng = np.random.default_rng(4)
    images = [predictions("usual", rng, 3000) for _ in range(5)]
    together = (np.stack([p for p, _ in images]), np.stack([v for _, v in images]))
    exact = {"AUC": metrics.auc(*together), "AP": metrics.average_precision(*together)}
    few, many = Pool(), Pool(most=7000)
    for probability, vessels in images:
        few.update(probability, vessels)
        many.update(probability, vessels)
    assert few.exact and few.ranking().areas() == exact
    assert few.best()[1] == metrics.choose_threshold(*together)
    assert not many.exact and many.parts is None
    assert many.ranking().areas() == pytest.approx(exact, abs=1e-4)
    assert many.best()[0] == pytest.approx(few.best()[0], abs=1e-4)
    segmentations = Pool(most=1)
    segmentations.update(images[0][0] > 0.5, images[0][1])
    assert segmentations.counts.finished and not many.counts.finished


@pytest.mark.parametrize(
    "most", [(10**6, 0), (0, 10**6), (0, 0)], ids=["a binned one", "to a binned one", "both"]
)
def test_no_pixel_is_lost_where_an_exact_pool_and_a_binned_one_are_joined(most):
    chance = np.random.default_rng(0)
    values, truth = chance.random((2, 500)).astype(np.float32), chance.random((2, 500)) < 0.3
    together = Pool(most=0)
    pools = [Pool(most=limit) for limit in most]
    for pool, value, label in zip(pools, values, truth, strict=True):
        pool.add(value, label)
        together.add(value, label)
    pools[0].join(pools[1])
    assert pools[0].size == 1000 and not pools[0].exact
    assert pools[0].ranking().areas() == together.ranking().areas()
    assert pools[0].best() == together.best()
