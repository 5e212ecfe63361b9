from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_dice
from torchmetrics.functional import classification as reference

from drive_unet.errors import DataError
from drive_unet.metrics import (
    SCORES,
    Confusion,
    Ranking,
    auc,
    average_precision,
    choose_threshold,
    cldice,
    confusion,
    pixel_scores,
    precision_recall_curve,
    roc_curve,
    scores,
)

counts = st.builds(Confusion, *[st.integers(0, 10**7)] * 4)


@st.composite
def scenes(draw):
    """A probability map with plenty of ties, its vessels, and a field of view with both classes in it."""
    seed, levels = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([2, 5, 50, 10**6]))
    generator = np.random.default_rng(seed)
    shape = draw(st.integers(2, 12)), draw(st.integers(2, 12))
    vessels, fov = generator.random(shape) < 0.3, generator.random(shape) < 0.8
    vessels.flat[:2], fov.flat[:2] = (True, False), True
    probability = np.round((generator.random(shape) + vessels) / 2 * levels) / levels
    return probability.astype(draw(st.sampled_from([np.float32, np.float64]))), vessels, fov


def scene(seed: int = 0, shape: tuple[int, int] = (60, 50)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    vessels, fov = generator.random(shape) < 0.2, generator.random(shape) < 0.8
    return ((generator.random(shape) + 0.5 * vessels) / 1.5).astype(np.float32), vessels, fov


# ---------------------------------------------------------------------- confusion


def test_confusion_by_hand():
    prediction = np.array([[1, 1, 0, 0], [1, 0, 0, 1]], bool)
    vessels = np.array([[1, 0, 0, 0], [1, 1, 0, 1]], np.uint8)
    fov = np.array([[1, 1, 1, 1], [1, 1, 1, 0]], np.uint8)
    assert confusion(prediction, vessels) == (3, 1, 1, 3)
    found = confusion(prediction, vessels, fov)
    assert found == (2, 1, 1, 3)
    assert found.dice == pytest.approx(2 / 3)
    assert found.iou == pytest.approx(1 / 2)
    assert found.sensitivity == pytest.approx(2 / 3)
    assert found.specificity == pytest.approx(3 / 4)
    assert found.precision == pytest.approx(2 / 3)
    assert found.accuracy == pytest.approx(5 / 7)
    assert found.mcc == pytest.approx((2 * 3 - 1 * 1) / math.sqrt(3 * 3 * 4 * 4))


def test_zero_by_zero_is_nan():
    nothing = Confusion(0, 0, 0, 9)
    for value in (nothing.dice, nothing.iou, nothing.sensitivity, nothing.precision, nothing.mcc):
        assert math.isnan(value)
    assert nothing.specificity == nothing.accuracy == 1
    background = Confusion(0, 0, 3, 9)  # predicted nothing where there was something
    assert background.dice == background.iou == background.sensitivity == 0
    assert math.isnan(background.precision)
    assert math.isnan(background.mcc)
    assert math.isnan(Confusion(3, 0, 0, 0).specificity)
    assert math.isnan(Confusion(0, 0, 0, 0).accuracy)


@settings(deadline=None)
@given(counts)
def test_identities(c):
    if c.tp:
        assert c.dice == pytest.approx(2 * c.precision * c.sensitivity / (c.precision + c.sensitivity))
        assert c.iou == pytest.approx(c.dice / (2 - c.dice))
    if not math.isnan(c.mcc):
        assert -1.0000001 <= c.mcc <= 1.0000001
        negated = Confusion(c.tn, c.fn, c.fp, c.tp)
        assert negated.mcc == pytest.approx(c.mcc)
    swapped = Confusion(c.tp, c.fn, c.fp, c.tn)
    np.testing.assert_equal(
        [swapped.dice, swapped.iou, swapped.accuracy, swapped.precision, swapped.mcc],
        [c.dice, c.iou, c.accuracy, c.sensitivity, c.mcc],
    )


@settings(max_examples=50, deadline=None)
@given(scenes(), st.sampled_from([0.2, 0.5, 0.8]))
def test_scores_equal_torchmetrics_and_monai(scene, threshold):
    probability, vessels, fov = scene
    ours = scores(probability, vessels, fov, threshold)
    called, truth = (torch.from_numpy(mask[fov]).int() for mask in (probability >= threshold, vessels))
    theirs = {
        "Dice": reference.binary_f1_score,
        "Acc": reference.binary_accuracy,
        "Se": reference.binary_recall,
        "Sp": reference.binary_specificity,
        "IoU": reference.binary_jaccard_index,
        "MCC": reference.binary_matthews_corrcoef,
    }
    for name, score in theirs.items():
        if not math.isnan(ours[name]):  # MCC where all is called the same; theirs is 0 then
            assert ours[name] == pytest.approx(float(score(called, truth)), abs=1e-5), name
    batch = (mask.float()[None, None, None] for mask in (called, truth))  # B, C, H, W
    assert ours["Dice"] == pytest.approx(float(compute_dice(*batch)), abs=1e-5)


@settings(max_examples=50, deadline=None)
@given(scenes())
def test_swapping_prediction_and_reference_swaps_fp_and_fn(scene):
    probability, vessels, fov = scene
    prediction = probability >= 0.5
    tp, fp, fn, tn = confusion(prediction, vessels, fov)
    assert confusion(vessels, prediction, fov) == (tp, fn, fp, tn)
    assert tp + fp + fn + tn == fov.sum()


@settings(max_examples=50, deadline=None)
@given(scenes())
def test_a_higher_threshold_finds_no_vessel_more_and_gives_fewer_false_alarms(scene):
    probability, vessels, fov = scene
    counts = [confusion(probability >= cut, vessels, fov) for cut in np.linspace(0, 1, 11)]
    for lower, higher in pairwise(counts):
        assert higher.tp <= lower.tp and higher.fp <= lower.fp
        assert higher.sensitivity <= lower.sensitivity and higher.specificity >= lower.specificity
    assert (counts[0].sensitivity, counts[0].specificity) == (1, 0)


@settings(max_examples=50, deadline=None)
@given(scenes(), scenes(), st.sampled_from([0.2, 0.5, 0.8]))
def test_the_order_of_images_does_not_matter_and_scores_keep_their_bounds(first, second, threshold):
    images = [list(parts) for parts in zip(first, second, strict=True)]
    one, other = (scores(*(part[::step] for part in images), threshold) for step in (1, -1))
    for name in SCORES:
        assert one[name] == pytest.approx(other[name], abs=1e-12, nan_ok=True), name
        low = -1 if name == "MCC" else 0
        assert math.isnan(one[name]) or low - 1e-9 <= one[name] <= 1 + 1e-9, name


# ---------------------------------------------------------------------- curves


@settings(max_examples=50, deadline=None)
@given(scenes())
def test_areas_equal_torchmetrics(scene):
    probability, vessels, fov = scene
    inside = torch.from_numpy(probability[fov]).double(), torch.from_numpy(vessels[fov]).int()
    # torchmetrics adds up in float32
    assert auc(probability, vessels, fov) == pytest.approx(float(reference.binary_auroc(*inside)), abs=1e-5)
    ap = float(reference.binary_average_precision(*inside))
    assert average_precision(probability, vessels, fov) == pytest.approx(ap, abs=1e-5)


@settings(max_examples=50, deadline=None)
@given(scenes())
def test_auc_is_the_chance_of_the_right_order(scene):
    probability, vessels, fov = scene
    above, below = probability[vessels & fov][:, None], probability[~vessels & fov][None]
    assert auc(probability, vessels, fov) == pytest.approx(((above > below) + 0.5 * (above == below)).mean())


@settings(max_examples=50, deadline=None)
@given(scenes())
def test_areas_do_not_change_under_monotone_transforms(scene):
    probability, vessels, fov = scene
    levels, ranks = np.unique(probability, return_inverse=True)
    evenly = (ranks.reshape(probability.shape) + 1) / (len(levels) + 1)
    assert auc(evenly, vessels, fov) == auc(probability, vessels, fov)
    assert average_precision(evenly, vessels, fov) == average_precision(probability, vessels, fov)
    assert auc(1 - evenly, vessels, fov) == pytest.approx(1 - auc(probability, vessels, fov))


@settings(max_examples=50, deadline=None)
@given(scenes())
def test_nothing_outside_the_fov_has_influence(scene):
    probability, vessels, fov = scene
    other = np.where(fov, probability, np.nan).astype(probability.dtype)
    labels = np.where(fov, vessels, 255)
    np.testing.assert_equal(scores(other, labels, fov, 0.5), scores(probability, vessels, fov, 0.5))
    masks = (probability >= 0.5) & fov, vessels & fov
    np.testing.assert_equal(cldice(probability >= 0.5, vessels, fov), cldice(*masks))


def test_curves_start_at_the_origin_and_their_areas_agree():
    probability, vessels, fov = scene()
    fpr, sensitivity, threshold = roc_curve(probability, vessels, fov)
    assert (fpr[0], sensitivity[0], threshold[0]) == (0, 0, np.inf)
    assert (fpr[-1], sensitivity[-1]) == (1, 1)
    assert (np.diff(threshold) < 0).all()
    area = np.sum(np.diff(fpr) * (sensitivity[1:] + sensitivity[:-1]) / 2)
    assert area == pytest.approx(auc(probability, vessels, fov))
    precision, recall, cuts = precision_recall_curve(probability, vessels, fov)
    assert (precision[0], recall[0], recall[-1]) == (1, 0, 1)
    assert np.sum(np.diff(recall) * precision[1:]) == pytest.approx(
        average_precision(probability, vessels, fov)
    )

    at = len(cuts) // 3
    there = confusion(probability >= cuts[at], vessels, fov)
    assert (there.precision, there.sensitivity) == (precision[at], recall[at])
    assert 1 - there.specificity == pytest.approx(fpr[at])


def test_areas_without_one_class_are_nan():
    half = np.full((3, 3), 0.5)
    assert math.isnan(auc(half, np.ones((3, 3), bool)))
    assert math.isnan(auc(half, np.zeros((3, 3), bool)))
    assert math.isnan(average_precision(half, np.zeros((3, 3), bool)))
    assert average_precision(half, np.ones((3, 3), bool)) == 1
    assert math.isnan(roc_curve(half, np.zeros((3, 3), bool)).sensitivity[-1])


def test_negative_zero_ties_with_zero():
    assert auc(np.array([[0.0, -0.0]], np.float32), np.array([[1, 0]])) == 0.5


@settings(max_examples=50, deadline=None)
@given(scenes())
def test_chosen_threshold_is_the_best_there_is(scene):
    probability, vessels, fov = scene
    threshold = choose_threshold(probability, vessels, fov)
    best = confusion(probability >= threshold, vessels, fov).dice
    tried = {cut: confusion(probability >= cut, vessels, fov).dice for cut in np.unique(probability[fov])}
    assert best == max(tried.values())
    assert threshold == max(cut for cut, dice in tried.items() if dice == best)


def test_no_threshold_without_vessels():
    with pytest.raises(DataError, match="no vessel pixel"):
        choose_threshold(np.full((3, 3), 0.5), np.zeros((3, 3), bool))


# ---------------------------------------------------------------------- several images, clDice, all at once


def test_lists_stacks_and_tensors_pool_alike():
    images = [scene(seed) for seed in range(3)]
    probability, vessels, fov = (list(part) for part in zip(*images, strict=True))
    pooled = pixel_scores(probability, vessels, fov, 0.5)
    side_by_side = pixel_scores(*(np.concatenate(part) for part in (probability, vessels, fov)), 0.5)
    stacked = pixel_scores(*(np.stack(part) for part in (probability, vessels, fov)), 0.5)
    tensors = pixel_scores(
        *([torch.from_numpy(x)[None] for x in part] for part in (probability, vessels, fov)), 0.5
    )
    assert pooled == side_by_side == stacked == tensors
    total = [sum(parts) for parts in zip(*(confusion(p >= 0.5, v, f) for p, v, f in images), strict=True)]
    assert confusion([p >= 0.5 for p in probability], vessels, fov) == tuple(total)
    assert auc(torch.rand(4, 4).bfloat16(), np.eye(4)) <= 1


def line(row: int, start: int = 5, stop: int = 55, width: int = 5) -> np.ndarray:
    mask = np.zeros((60, 60), bool)
    mask[row - width // 2 : row + width // 2 + 1, start:stop] = True
    return mask


def test_cldice_looks_at_centrelines():
    vessel = line(30)
    assert cldice(vessel, vessel) == 1
    assert cldice(line(30, width=3), vessel) == 1  # thinner, and nothing broken
    assert cldice(line(10), vessel) == 0
    half = cldice(line(30, stop=30), vessel)
    assert 0.6 < half < 0.75  # precision 1, sensitivity about a half
    assert cldice(line(30, stop=30) | line(10), vessel) < half


def test_cldice_is_cut_to_the_fov_before_thinning():
    vessel, fov = line(30), np.zeros((60, 60), bool)
    fov[:, :30] = True
    assert cldice(vessel | line(10, start=35), vessel, fov) == 1
    assert cldice(line(30, stop=30), vessel, fov) == 1


def test_cldice_of_empty_masks_and_its_mean():
    vessel, empty = line(30), np.zeros((60, 60), bool)
    assert cldice(empty, vessel) == cldice(vessel, empty) == 0
    assert math.isnan(cldice(empty, empty))
    assert cldice([vessel, empty, empty], [vessel, vessel, empty]) == 0.5  # of 1, 0 and nan


def test_scores_in_their_order():
    probability, vessels, fov = scene()
    found = scores(probability, vessels, fov, 0.4)
    counts = confusion(probability >= 0.4, vessels, fov)
    assert tuple(found) == SCORES
    assert found == {
        "AUC": auc(probability, vessels, fov),
        "AP": average_precision(probability, vessels, fov),
        "Dice": counts.dice,
        "Acc": counts.accuracy,
        "Se": counts.sensitivity,
        "Sp": counts.specificity,
        "MCC": counts.mcc,
        "IoU": counts.iou,
        "clDice": cldice(probability >= 0.4, vessels, fov),
    }
    assert all(type(value) is float for value in found.values())
    binary = scores(probability >= 0.4, vessels, fov)
    assert math.isnan(binary["AUC"])
    assert math.isnan(binary["AP"])
    assert binary["Dice"] == found["Dice"]


def test_a_pixel_at_the_threshold_is_vessel():
    assert scores(np.full((2, 2), 0.5, np.float32), np.eye(2), threshold=0.5)["Se"] == 1


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda p, v, f: auc(p * 0 + np.nan, v, f), "found nan; the network has diverged"),
        (lambda p, v, f: auc(p * 0 + np.inf, v, f), "found inf"),
        (lambda p, v, f: auc(p * 8 - 4, v, f), "sigmoid"),
        (lambda p, v, f: auc((p * 255).astype(np.uint8), v, f), "uint8"),
        (lambda p, v, f: auc(p, v * np.uint8(255), f), "found 255; divide"),
        (lambda p, v, f: auc(p, v, f * np.uint8(253)), "fov must hold 0 and 1 only, found 253"),
        (lambda p, v, f: confusion(p, v, f), "threshold it: probability >= threshold"),
        (lambda p, v, f: confusion(p[1:] > 0.5, v, f), "59x50, 60x50, 60x50"),
        (lambda p, v, f: confusion(p > 0.5, v, f[:, 1:]), "60x49"),
        (lambda p, v, f: cldice(p, v, f), "prediction must hold 0 and 1"),
        (lambda p, v, f: scores([p, p], [v], [f]), "2, 1 and 1 images"),
        (lambda p, v, f: scores(p[None, None], v, f), "must be"),
        (lambda p, v, f: scores([p[0]], [v], [f]), r"\(H, W\) or \(1, H, W\)"),
        (lambda p, v, f: scores([], []), "empty list"),
        (lambda p, v, f: scores(p, v, f & False), "field of view is empty"),
        (lambda p, v, f: confusion(p > 0.5, v, f & False), "field of view is empty"),
    ],
)
def test_bad_input_gets_one_clear_sentence(call, sentence):
    with pytest.raises(DataError, match=sentence) as caught:
        call(*scene())
    assert "\n" not in str(caught.value)


def test_a_ranking_knows_its_best_threshold():
    ranking = Ranking(np.array([1, 2, 2]), np.array([0, 0, 5]), np.array([0.9, 0.6, 0.2]))
    assert ranking.best() == (1.0, 0.6)
    assert ranking.auc() == 1.0


def test_counts_of_two_photographs_add_up():
    assert Confusion(1, 2, 3, 4).plus(Confusion(10, 20, 30, 40)) == Confusion(11, 22, 33, 44)
