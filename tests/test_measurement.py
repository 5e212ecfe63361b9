"""Measurements of drawn shapes against what is known of them."""

from __future__ import annotations

import numpy as np
import pytest
from shapes import arc, koch, line, polyline

from drive_unet import DataError, measure
from drive_unet.measurement import box_counting_dimension, skeleton


@pytest.mark.parametrize("flat", [False, True], ids=["round ends", "cut off"])
@pytest.mark.parametrize("width", [2.5, 5, 9, 20])
def test_straight_lines_at_any_angle(width, flat):
    for angle in (0.1, 0.4, 0.8, 1.2, 2.0, 3.0):
        mask = line(240, width, angle, flat=flat)
        table = measure(mask)
        assert table["length_density"] * mask.size == pytest.approx(240, rel=0.02)
        assert table["calibre_mean"] == pytest.approx(width, rel=0.02)
        assert table["tortuosity"] == pytest.approx(1, abs=1e-3)
        assert table["curvature"] < 1e-3
        assert (table["branch_points"], table["end_points"]) == (0, 2)


def test_what_cannot_be_measured_is_refused():
    mask = np.ones((20, 30), bool)
    for arguments, message in (
        ({"fov": mask[:10]}, "differ in size"),
        ({"fov": ~mask}, "empty"),
        ({"scale": 0}, "scale=0"),
        ({"disc": (3, 3, 0)}, "diameter"),
        ({"probability": np.ones((3, 3))}, "differ in size"),
    ):
        with pytest.raises(DataError, match=message):
            measure(mask, **arguments)
    with pytest.raises(DataError, match="divide a 0/255 mask"):
        measure(mask * np.uint8(255))


@pytest.mark.parametrize(("radius", "angle"), [(30, 2.0), (60, 1.0), (60, 4.5), (110, 2.5)])
def test_arcs(radius, angle):
    for width, start in ((2.5, 0.4), (6, 2.2), (15, 5.0)):
        if radius * angle < 8 * width:
            continue  # too stout: where its ends are cut is too much of it
        mask = arc(radius, angle, width, start)
        table = measure(mask)
        length = radius * angle
        assert table["length_density"] * mask.size == pytest.approx(length, rel=0.02, abs=width / 2)
        assert table["calibre_mean"] == pytest.approx(width, rel=0.02)
        assert table["curvature"] == pytest.approx(1 / radius, rel=0.1)
        chord = 2 * radius * np.sin(angle / 2)
        assert table["tortuosity"] == pytest.approx(length / chord, rel=0.04)


def test_a_ring_is_a_loop_and_has_no_ends():
    mask = arc(60, 7, 5)
    table = measure(mask)
    assert table["length_density"] * mask.size == pytest.approx(2 * np.pi * 60, rel=0.02)
    assert table["calibre_mean"] == pytest.approx(5, rel=0.02)
    assert table["curvature"] == pytest.approx(1 / 60, rel=0.05)
    assert (table["branch_points"], table["end_points"]) == (0, 0)
    assert np.isnan(table["tortuosity"]), "it has no chord"


@pytest.mark.parametrize(("amplitude", "wavelength"), [(3, 40), (10, 60), (12, 120)])
def test_waves(amplitude, wavelength):
    x = np.linspace(0, 240, 481)
    y = amplitude * np.sin(2 * np.pi * x / wavelength)
    turn = np.array([[np.cos(0.3), np.sin(0.3)], [-np.sin(0.3), np.cos(0.3)]])
    points = np.stack([y, x - 120], 1) @ turn + 150
    mask = polyline(points, 4, (300, 300))
    table = measure(mask)
    steps = np.hypot(*np.diff(points, axis=0).T)
    assert table["length_density"] * mask.size == pytest.approx(steps.sum(), rel=0.02)
    assert table["calibre_mean"] == pytest.approx(4, rel=0.03)
    assert table["tortuosity"] == pytest.approx(steps.sum() / 240, rel=0.02)
    slope, bend = (amplitude * (2 * np.pi / wavelength) ** n for n in (1, 2))
    phase = 2 * np.pi * x / wavelength
    curvature = np.abs(bend * np.sin(phase)) / (1 + (slope * np.cos(phase)) ** 2) ** 1.5
    assert table["curvature"] == pytest.approx(np.average(curvature[1:], weights=steps), rel=0.15)


def test_a_spiral():
    angle = np.linspace(0.8, 4 * np.pi, 600)
    radius = 9 * angle
    points = np.stack([150 + radius * np.sin(angle), 150 + radius * np.cos(angle)], 1)
    mask = polyline(points, 5, (300, 300))
    table = measure(mask)
    length = np.hypot(*np.diff(points, axis=0).T).sum()
    assert table["length_density"] * mask.size == pytest.approx(length, rel=0.02)
    assert table["calibre_mean"] == pytest.approx(5, rel=0.02)
    assert (table["branch_points"], table["end_points"]) == (0, 2)


@pytest.mark.parametrize("width", [3, 7])
def test_a_tree(width):
    root, fork, end, left = (190, 100.3), (110, 100.3), (20, 160.7), (25, 41.2)
    right, twig = (68, 128.3), (60, 190)
    mask = np.zeros((220, 220), bool)
    for line_ in ([root, fork], [fork, end], [fork, left], [right, twig]):
        mask |= polyline(line_, width, mask.shape)
    table = measure(mask)
    length = sum(np.hypot(*np.subtract(a, b)) for a, b in ((root, fork), (fork, end), (fork, left)))
    on_axis = np.subtract(fork, (0, 0)) + 0.467 * np.subtract(end, fork)  # where the twig leaves
    length += np.hypot(*np.subtract(twig, on_axis))
    assert (table["branch_points"], table["end_points"]) == (2, 4)
    assert table["length_density"] * mask.size == pytest.approx(length, rel=0.025)
    assert table["calibre_mean"] == pytest.approx(width, rel=0.03)
    assert table["tortuosity"] == pytest.approx(1, abs=3e-3)


@pytest.mark.parametrize("angle", [0.5, 1.0, 1.57])
@pytest.mark.parametrize("width", [3, 10])
def test_a_crossing_is_one_branch_point(width, angle):
    mask = line(200, width, 0.2, side=240) | line(200, width, 0.2 + angle, side=240)
    table = measure(mask)
    assert (table["branch_points"], table["end_points"]) == (1, 4)
    assert table["length_density"] * mask.size == pytest.approx(400, rel=0.02)
    assert table["calibre_mean"] == pytest.approx(width, rel=0.03)


def test_the_fractal_dimension():
    assert box_counting_dimension(np.pad(np.ones((150, 150), bool), 9)) == pytest.approx(2, abs=0.05)
    assert measure(np.pad(np.ones((150, 150), bool), 9))["fractal_dimension"] == pytest.approx(2, abs=0.05)
    for angle in (0.1, 0.8, 1.3):
        assert measure(line(240, 4, angle))["fractal_dimension"] == pytest.approx(1, abs=0.05)
    for width in (1, 2, 3):
        curve = polyline(koch(5, 480), width, (256, 496))
        assert measure(curve)["fractal_dimension"] == pytest.approx(np.log(4) / np.log(3), abs=0.05)


DOT, FRAME = np.pad([[True]], 20), (60, 80)
ODD = {
    "empty": np.zeros(FRAME, bool),
    "full": np.ones(FRAME, bool),
    "one pixel": DOT,
    "all of one pixel": np.ones((1, 1), bool),
    "two pixels": np.pad([[True, True]], 9),
    "a row": np.ones((1, 90), bool),
    "noise": np.random.default_rng(0).random(FRAME) < 0.4,
    "chequers": np.indices(FRAME).sum(0) % 2 == 0,
    "a square": np.pad(np.ones((40, 40), bool), 20),
    "a disc": arc(25, 7, 50),
    "a frame": ~np.pad(np.ones((56, 76), bool), 2),
    "islands": np.indices(FRAME).max(0) % 7 == 3,
    "a plus": line(60, 15, 0, side=90) | line(60, 15, np.pi / 2, side=90),
}


@pytest.mark.parametrize("name", list(ODD))
def test_odd_masks_are_measured_without_a_crash(name):
    mask = ODD[name]
    table = measure(mask, disc=(10, 10, 8), scale=4)
    assert table["area_density"] == pytest.approx(mask.mean())
    assert table["length_density"] >= 0
    assert set(table.values) == {"whole", "B", "C"}
    assert "vessel area density" in str(table)


def test_a_large_full_mask_takes_no_minutes(monkeypatch):
    thinned = []
    thin = skeleton.skeletonize
    monkeypatch.setattr(
        skeleton, "skeletonize", lambda mask, **how: thinned.append(mask.sum()) or thin(mask, **how)
    )
    mask = np.ones((900, 900), bool)
    mask[:, 300:330] = False
    mask[:, 310:318] = True
    table = measure(mask)
    assert max(thinned) < 50_000, "what is thick is thinned at a lower resolution"
    assert table["area_density"] == pytest.approx(mask.mean())
    assert table["calibre_5"] == pytest.approx(8, rel=0.02)
