"""Vessels one by one: hand-drawn cases, and what must hold for any drawing."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage import measure, morphology

from drive_unet.metrics import CALIBRES, cldice
from drive_unet.metrics.vesselwise import Structure, calibre, structure


def lines(*spans, shape=(40, 60)):
    """Horizontal vessels: (row, start, stop, width) each."""
    mask = np.zeros(shape, bool)
    for row, start, stop, width in spans:
        mask[row : row + width, start:stop] = True
    return mask


@st.composite
def drawings(draw):
    """A reference, a drawing that resembles it, and a field of view."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.integers(8, 30)), draw(st.integers(8, 30))
    reference = ndimage.gaussian_filter(rng.normal(size=shape), 1.2) > 0.15
    drawn = reference ^ (rng.random(shape) < draw(st.sampled_from([0, 0.05, 0.3])))
    fov = rng.random(shape) < draw(st.sampled_from([0.6, 1.0]))
    return drawn, reference, fov


def test_a_vessel_with_a_gap_is_one_break_and_a_missing_end_none():
    vessel = lines((10, 5, 55, 3), (30, 5, 55, 3))
    gap = lines((10, 5, 25, 3), (10, 30, 55, 3), (30, 5, 55, 3))
    assert (structure(gap, vessel).breaks, structure(gap, vessel).lost) == (1, 0)
    assert structure(gap.T, vessel.T).breaks == structure(gap.T[::-1], vessel.T[::-1]).breaks == 1
    short = lines((10, 5, 40, 3), (30, 5, 55, 3))
    assert (structure(short, vessel).breaks, structure(short, vessel).lost) == (0, 1)
    missing = lines((10, 5, 55, 3))
    assert (structure(missing, vessel).breaks, structure(missing, vessel).lost) == (0, 1)
    both = lines((10, 5, 20, 3), (10, 25, 40, 3), (10, 45, 50, 3))
    assert (structure(both, vessel).breaks, structure(both, vessel).lost) == (2, 2)
    assert (structure(vessel, vessel).breaks, structure(vessel, vessel).lost) == (0, 0)


def test_sensitivity_by_calibre_by_hand():
    vessel = lines((4, 5, 55, 2), (12, 5, 55, 4), (20, 5, 55, 6), (30, 5, 55, 8))
    half = vessel & (np.arange(60) < 30)
    counts = structure(half | lines((12, 5, 55, 4)), vessel)
    # At its two ends a vessel's centreline forks and is narrower: a few pixels count as of less width.
    assert counts.vessels == pytest.approx((100, 200, 300, 400), abs=25)
    assert counts.found == pytest.approx((50, 200, 150, 200), abs=25)
    found = [counts.scores()[f"sensitivity, {name}"] for name in CALIBRES]
    assert found == pytest.approx([0.5, 1, 0.5, 0.5], abs=0.04)
    assert sum(counts.vessels) == vessel.sum() and sum(counts.found) == 50 + 200 + 150 + 200
    assert sum(counts.shares().values()) == pytest.approx(1)


def test_widths_of_other_cameras_are_brought_to_one_scale():
    vessel = lines((4, 5, 55, 2), (20, 5, 55, 8))
    fov = np.zeros((40, 60), bool)
    fov[:, :58] = True
    large = np.kron(vessel, np.ones((20, 20), bool)), np.kron(fov, np.ones((20, 20), bool))
    counts = structure(large[0], *large)  # a field of view of 1,160 pixels: 40 px are some 19 of DRIVE's
    assert counts.vessels[-1] == sum(counts.vessels)
    once = structure(vessel, vessel, np.ones((40, 60), bool))  # of 60 pixels: all widths grow ninefold
    assert once.vessels[-1] == sum(once.vessels)


def test_precision_and_recall_within_a_pixel_or_two():
    vessel, drawn = lines((10, 5, 55, 1)), lines((11, 5, 55, 1), (13, 5, 55, 1))
    scores = structure(drawn, vessel).scores()
    assert scores["precision within 1 px"] == 0.5 and scores["precision within 2 px"] == 0.5
    assert scores["recall within 1 px"] == scores["recall within 2 px"] == 1
    far = structure(lines((12, 5, 55, 1)), vessel).scores()
    assert (far["recall within 1 px"], far["recall within 2 px"]) == (0, 1)


def test_arteries_and_veins_apart_and_crossings_in_neither():
    vessel = lines((5, 5, 55, 3), (20, 5, 55, 3)) | lines((0, 30, 33, 40))
    arteries, veins = lines((5, 5, 55, 3)), lines((20, 5, 55, 3)) | lines((0, 30, 33, 40))
    drawn = lines((5, 5, 30, 3), (20, 5, 55, 3))
    counts = structure(drawn, vessel, None, (arteries, veins))
    assert counts.arteries == 3 * (50 - 3) and counts.arteries_found == 3 * 25
    assert counts.veins == (veins & ~arteries).sum() and counts.veins_found == 3 * 50
    assert counts.scores()["sensitivity, arteries"] == pytest.approx(75 / 141)
    assert "sensitivity, arteries" not in structure(drawn, vessel).scores()


def test_nothing_and_everything_are_defined():
    empty, full, vessel = (
        np.zeros((20, 20), bool),
        np.ones((20, 20), bool),
        lines((5, 2, 18, 3), shape=(20, 20)),
    )
    for drawn, reference in ((empty, empty), (empty, vessel), (vessel, empty), (full, vessel), (full, full)):
        counts = structure(drawn, reference)
        assert all(value >= 0 or math.isnan(value) for value in counts.scores().values())
    assert math.isnan(structure(empty, empty).cldice)
    assert structure(empty, vessel).cldice == structure(vessel, empty).cldice == 0
    assert structure(vessel, vessel, empty).scores()["centreline covered"] != 0
    assert structure(empty, vessel).lost == 1


@settings(max_examples=40, deadline=None)
@given(drawings())
def test_what_lies_outside_has_no_influence_and_cldice_is_the_known_one(case):
    drawn, reference, fov = case
    counts = structure(drawn, reference, fov)
    assert counts == structure(drawn | ~fov, reference & fov, fov)
    np.testing.assert_equal(counts.cldice, cldice(drawn, reference, fov))
    for name, value in counts.scores().items():
        assert math.isnan(value) or 0 <= value <= (
            1 if "per" not in name and "components" not in name else 1e6
        )
    assert counts.near_vessels[0] <= counts.near_vessels[1] <= counts.drawn
    assert sum(counts.found) == (drawn & reference & fov).sum()


@settings(max_examples=40, deadline=None)
@given(drawings())
def test_counts_add_up_and_agree_with_scikit_image(case):
    drawn, reference, _ = case
    whole = structure(drawn, reference)
    assert whole.components == measure.label(reference, connectivity=2).max()
    assert whole.drawn_components == measure.label(drawn, connectivity=2).max()
    for reach, disk in ((0, morphology.disk(1)), (1, morphology.disk(2))):
        near = ndimage.binary_dilation(reference, disk)
        assert whole.near_vessels[reach] == (near & drawn).sum()
    twice = whole.plus(whole)
    assert twice.covered == 2 * whole.covered and twice.vessels == tuple(2 * n for n in whole.vessels)
    assert Structure().plus(whole) == whole
    swapped = structure(reference, drawn)
    assert (swapped.centreline, swapped.covered) == (whole.drawn_centreline, whole.on_vessels)
    np.testing.assert_equal(swapped.cldice, whole.cldice)


@settings(max_examples=30, deadline=None)
@given(drawings())
def test_calibre_is_the_distance_transform_at_twice_the_size(case):
    _, reference, _ = case
    width, line = calibre(reference)
    twice = np.pad(reference.repeat(2, 0).repeat(2, 1), 1)
    distance = ndimage.distance_transform_edt(twice)[1:-1, 1:-1]
    across = distance.reshape(len(reference), 2, -1, 2).max(axis=(1, 3))
    np.testing.assert_allclose(width[line], across[line], rtol=1e-6)
