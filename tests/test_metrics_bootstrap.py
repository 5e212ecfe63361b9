"""Intervals over photographs: against scipy's own and against pixels, and how often they hold the truth."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap as scipy_bootstrap

from drive_unet.metrics import SCORES, Confusion, bootstrap, pixel_scores
from drive_unet.metrics.bootstrap import (
    _MOST_BINS,
    FEWEST,
    _merged,
    difference,
    intervals,
    mean_of,
    pooled_scores,
    ratios,
    sample,
)
from drive_unet.metrics.exact import count
from drive_unet.metrics.streaming import COARSE


def photograph(rng, size=400):
    """Probabilities and labels of one photograph: some are easier, some have more vessels than others."""
    truth = rng.random(size) < rng.uniform(0.05, 0.25)
    odds = rng.normal(np.where(truth, 1, -2) + rng.normal(0, 0.4), 1.5)
    return (1 / (1 + np.exp(-odds))).astype(np.float32), truth


def samples_of(photographs, threshold=0.4):
    return [
        sample(values, truth, count(values >= threshold, truth), float(np.mean(values)))
        for values, truth in photographs
    ]


def test_as_scipy_s_own():
    rng = np.random.default_rng(0)
    parts, wholes = rng.uniform(1, 5, 12), rng.uniform(5, 9, 12)

    def ratio(x, y, axis=-1):
        return x.sum(axis=axis) / y.sum(axis=axis)

    theirs = scipy_bootstrap(
        (parts, wholes), ratio, paired=True, vectorized=True, n_resamples=10_000, method="BCa",
        random_state=np.random.default_rng(1),
    )  # fmt: skip
    low, high = intervals(ratios(parts[:, None], wholes[:, None]), 12, seed=1)
    assert (low[0], high[0]) == pytest.approx(tuple(theirs.confidence_interval), abs=4e-3)
    spread = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert high[0] - low[0] == pytest.approx(spread, rel=0.05)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_a_resample_scores_as_its_pixels_do(seed, number):
    rng = np.random.default_rng(seed)
    photographs = [photograph(rng, size=150) for _ in range(number)]  # of so few no bins are joined
    draws = rng.multinomial(number, np.full(number, 1 / number), size=3)
    scores = pooled_scores(samples_of(photographs))(draws.astype(float))
    for row, times in enumerate(draws):
        values, truth = (
            np.concatenate([np.tile(part[at], n) for part, n in zip(photographs, times, strict=True)])
            for at in (0, 1)
        )
        exact = pixel_scores(values[None], truth[None], threshold=0.4)
        bins = (COARSE.of(values) / 2**16).astype(np.float32)  # where pixels share a bin they are tied
        ranked = pixel_scores(bins[None], truth[None], threshold=0.4)
        exact |= {key: ranked[key] for key in ("AUC", "AP")}
        for at, key in enumerate(SCORES[:-1]):
            assert scores[at, row] == pytest.approx(exact[key], abs=1e-9, nan_ok=True), key


def test_pixels_of_one_bin_are_half_won():
    truth = np.arange(60) % 3 == 0
    rough = np.where(np.arange(60) < 30, 0.25, 0.75).astype(np.float32)  # two bins with both kinds in each
    parts = samples_of([(rough, truth), (rough, ~truth)])
    pooled = dict(zip(SCORES, pooled_scores(parts)(np.array([[2.0, 0.0], [1.0, 1.0]])), strict=True))
    exact = [pixel_scores(rough[None], truth[None])["AUC"], 0.5]
    assert pooled["AUC"].tolist() == pytest.approx(exact, abs=1e-12)


def test_bins_are_joined_only_where_there_are_too_many():
    rng = np.random.default_rng(0)
    few = samples_of([(rng.integers(1, 9, 500).astype(np.float32) / 10, rng.random(500) < 0.2)])
    vessels, background = _merged(few)
    assert vessels.shape == background.shape == (1, 8)
    many = samples_of([(rng.random(90_000).astype(np.float32), rng.random(90_000) < 0.2)])
    held = int(((many[0].vessels + many[0].background) > 0).sum())
    vessels, background = _merged(many)
    assert held > _MOST_BINS >= vessels.shape[1] > _MOST_BINS / 4
    assert vessels.sum() + background.sum() == 90_000


def test_the_order_of_photographs_does_not_matter_and_ends_enclose_the_score():
    rng = np.random.default_rng(3)
    samples = samples_of([photograph(rng) for _ in range(9)])
    first, second = (pooled_scores(part) for part in (samples, samples[::-1]))
    point = first(np.ones((1, 9)))[:, 0]
    np.testing.assert_allclose(point, second(np.ones((1, 9)))[:, 0])
    low, high = intervals(first, 9, resamples=2000)
    assert (low <= point).all() and (point <= high).all()
    narrow = intervals(first, 9, resamples=2000, level=0.5)
    assert (narrow[1] - narrow[0] < high - low).all()
    np.testing.assert_array_equal((low, high), intervals(first, 9, resamples=2000))  # of one seed


def test_differences_are_paired():
    rng = np.random.default_rng(4)
    photographs = [photograph(rng) for _ in range(10)]
    better = [(np.clip(v + 0.15 * t, 0, 1).astype(np.float32), t) for v, t in photographs]
    one, other = (pooled_scores(samples_of(part)) for part in (photographs, better))
    at = SCORES.index("Dice")
    low, high = (ends[at] for ends in intervals(difference(other, one), 10, resamples=2000))
    apart = [intervals(statistic, 10, resamples=2000)[:, at] for statistic in (one, other)]
    assert low > 0
    assert high - low < 0.7 * min(ends[1] - ends[0] for ends in apart)  # the photographs' own spread is out
    np.testing.assert_allclose(intervals(difference(one, one), 10, resamples=500), 0, atol=1e-12)
    mean = mean_of([one, other])(np.ones((1, 10)))
    np.testing.assert_allclose(mean, (one(np.ones((1, 10))) + other(np.ones((1, 10)))) / 2)


def test_what_is_not_defined_has_no_interval_and_what_never_changes_has_no_width():
    perfect = [sample(None, np.zeros(4, bool), Confusion(5 + n, 0, 0, 9), 1.0) for n in range(6)]
    low, high = (dict(zip(SCORES, ends, strict=True)) for ends in intervals(pooled_scores(perfect), 6))
    assert low["Dice"] == high["Dice"] == low["clDice"] == 1
    assert math.isnan(low["AUC"]) and math.isnan(high["AP"])
    few = intervals(pooled_scores(perfect[: FEWEST - 1]), FEWEST - 1)
    assert np.isnan(few).all()
    empty = [sample(None, np.zeros(4, bool), Confusion(0, 0, 0, 9), math.nan) for _ in range(6)]
    low, high = (dict(zip(SCORES, ends, strict=True)) for ends in intervals(pooled_scores(empty), 6))
    assert math.isnan(low["Dice"]) and math.isnan(low["clDice"]) and low["Acc"] == high["Acc"] == 1


def coverage(number, trials, seed):
    """In how many of the trials an interval for the pooled Dice of so many photographs holds the true one."""
    rng = np.random.default_rng(seed)

    def draw(size):
        vessels = rng.gamma(20, 50, size)
        hits = vessels * rng.beta(24, 6, size)
        alarms = vessels * rng.beta(6, 24, size)
        return np.stack([2 * hits, 2 * hits + alarms + (vessels - hits)], axis=-1)

    million = draw(10**6)
    true = million[:, 0].sum() / million[:, 1].sum()
    held = 0
    for trial in range(trials):
        counts = draw(number)
        statistic = ratios(counts[:, :1], counts[:, 1:])
        low, high = intervals(statistic, number, resamples=1000, seed=trial)
        held += low[0] <= true <= high[0]
    return held / trials


def test_intervals_hold_the_true_score_about_as_often_as_they_say():
    assert 0.86 <= coverage(20, 150, seed=0) <= 1.0  # 0.95, less what 20 photographs and 150 trials blur


@pytest.mark.slow
@pytest.mark.parametrize(("number", "least"), [(5, 0.78), (10, 0.87), (20, 0.91), (45, 0.925)])
def test_coverage_by_number_of_photographs(number, least):
    share = coverage(number, 2000, seed=number)
    print(f"{number} photographs: {share:.3f} of 2,000 intervals hold the true Dice")
    assert least <= share <= 0.97


def test_joined_bins_keep_few_vessels_apart_beside_much_background():
    vessels, background = np.zeros(4000, np.int32), np.zeros(4000, np.int32)
    vessels[2000:], background[:2000] = 1, 1000
    samples = [bootstrap.Sample(Confusion(0, 0, 0, 0), math.nan, vessels, background)] * 2
    joined_vessels, joined_background = bootstrap._merged(samples)
    assert joined_vessels.sum() == 2 * vessels.sum()
    assert joined_background.sum() == 2 * background.sum()
    assert (joined_vessels[0] > 0).sum() > 400
    assert (joined_background[0] > 0).sum() > 400
