"""Measurements of drawn shapes against what is known of them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from shapes import arc, koch, line, polyline

from drive_unet import DataError, measure
from drive_unet.measurement import (
    MEASURES,
    ZONES,
    Disc,
    Measurements,
    Segment,
    box_counting_dimension,
    calibrate,
    intervals,
    measure_flips,
    packaged_calibration,
    save_calibration,
    skeleton,
    trace,
    widths_along,
    with_spread,
)


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


@pytest.mark.parametrize(("radius", "angle"), [(50, 3.5), (60, 4.5), (110, 2.5)])
def test_arcs(radius, angle):
    for width, start in ((3.5, 0.4), (6, 2.2), (15, 5.0)):
        mask = arc(radius, angle, width, start)
        table = measure(mask)
        length = radius * angle
        assert table["length_density"] * mask.size == pytest.approx(length, rel=0.02)
        assert table["calibre_mean"] == pytest.approx(width, rel=0.025)
        assert table["curvature"] == pytest.approx(1 / radius, rel=0.1)
        chord = 2 * radius * np.sin(angle / 2)
        assert table["tortuosity"] == pytest.approx(length / chord, rel=0.04)


def test_a_ring_at_the_end_of_a_line_bends_nothing():
    rows, columns = np.mgrid[:400, :400]
    line = (abs(rows - 200) <= 2) & (columns > 20) & (columns < 200)
    ring = abs(np.hypot(rows - 200, columns - 250) - 50) <= 2
    assert measure(line | ring)["tortuosity"] == pytest.approx(1, abs=0.001)
    eight = ring | (abs(np.hypot(rows - 200, columns - 150) - 50) <= 2)
    assert np.isnan(measure(eight)["tortuosity"]), "loops alone have none"


def test_a_ring_is_a_loop_and_has_no_ends():
    mask = arc(60, 7, 5)
    table = measure(mask)
    assert table["length_density"] * mask.size == pytest.approx(2 * np.pi * 60, rel=0.02)
    assert table["calibre_mean"] == pytest.approx(5, rel=0.02)
    assert table["curvature"] == pytest.approx(1 / 60, rel=0.05)
    assert (table["branch_points"], table["end_points"]) == (0, 0)
    assert np.isnan(table["tortuosity"]), "it has no chord"
    beside = np.pad(mask, [(0, 40), (0, 0)])
    beside[-20:-15, 10:-10] = True
    table = measure(beside)
    assert table["tortuosity"] == pytest.approx(1, abs=1e-3), "of the line alone"
    assert table["length_density"] * beside.size > 2 * np.pi * 60 + 80


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
    square = np.pad(np.ones((150, 150), bool), 9)
    assert measure(square)["fractal_dimension"] == pytest.approx(2, abs=0.05)
    assert np.isnan(measure(square, fractal=False)["fractal_dimension"])
    for angle in np.arange(0, 12) * np.pi / 12:  # in boxes laid where they are fewest, 45 degrees had .5
        for length, width in ((75, 3), (200, 3), (240, 4), (300, 20)):
            assert measure(line(length, width, angle))["fractal_dimension"] == pytest.approx(1, abs=0.05)
    diagonal = np.pad(np.eye(355, dtype=bool), 5)  # pixels that touch at their corners alone
    crossed = line(300, 2, np.pi / 4) | line(300, 2, 3 * np.pi / 4)
    for mask in (diagonal, diagonal[::-1], crossed):
        assert measure(mask)["fractal_dimension"] == pytest.approx(1, abs=0.05)
    dots = np.zeros((300, 300), bool)
    dots[[5, 290], [5, 280]] = True
    assert box_counting_dimension(dots) == 0
    for length, known in ((40, False), (60, True)):
        assert np.isfinite(measure(line(length, 3, 0.1))["fractal_dimension"]) == known
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


def test_walls_between_the_pixels_are_read_from_the_probability():
    for width in (4.3, 6.6):
        fine = line(120 * 4, width * 4, 0.0, side=160 * 4)  # along the pixels, where a mask has whole widths
        fine = ndimage.gaussian_filter(fine.astype(np.float32), 4)
        probability = fine.reshape(160, 4, 160, 4).mean((1, 3))
        vessels = probability >= 0.5
        assert abs(measure(vessels)["calibre_mean"] / width - 1) > 0.05, "a mask cannot tell"
        for threshold in (0.5, None):
            table = measure(vessels, probability=probability, threshold=threshold)
            assert table["calibre_mean"] == pytest.approx(width, rel=0.02 if threshold else 0.05)


def test_the_same_vessels_are_compared_in_two_masks():
    wide, fine = (line(120, width, 0.3, side=200) for width in (9, 3))
    beside = np.roll(fine, 60, axis=0)
    first, second = widths_along(trace(fine | beside), wide)
    there = np.isfinite(second)
    assert np.median(first[there]) == pytest.approx(3, rel=0.05)
    assert np.median(second[there]) == pytest.approx(9, rel=0.05)
    assert there.mean() == pytest.approx(0.5, abs=0.05), "the second line is in one mask only"
    assert [len(each) for each in widths_along(trace(np.zeros_like(wide)), wide)] == [0, 0]


def test_zones_are_rings_around_the_disc():
    mask = line(300, 4, 0.0, side=320)
    table = measure(mask, disc=(160, 160, 60))
    rows, columns = np.ogrid[:320, :320]
    away = np.hypot(rows - 160, columns - 160) / 60
    for zone, (near, far) in {"B": (1, 1.5), "C": (1, 2.5)}.items():
        area = ((away >= near) & (away < far)).sum()
        assert table.values[zone]["length_density"] * area == pytest.approx(2 * 60 * (far - near), rel=0.03)
        assert table.values[zone]["calibre_mean"] == pytest.approx(4, rel=0.02)
    assert "zone B is 1 to 1.5" in str(table) and "zone C is 1 to 2.5" in table._repr_html_()
    with_nothing = measure(mask, disc=(1000, 1000, 5))
    assert np.isnan(list(with_nothing.values["B"].values())).all()


def test_a_vessel_that_the_field_of_view_cuts_off_does_not_end_there():
    fov = arc(60, 7, 120)
    mask = np.zeros(fov.shape, bool)
    middle = fov.shape[0] // 2
    mask[middle - 2 : middle + 2, :middle] = True
    table = measure(mask, fov)
    assert table["end_points"] == 1
    assert table["area_density"] == pytest.approx((mask & fov).sum() / fov.sum())
    assert table.fov_width == np.ptp(np.flatnonzero(fov.any(0))) + 1


def test_units_and_rows():
    mask = line(200, 5, 0.4, side=240)
    table = measure(mask, scale=8)
    cells = {row[1]: row for row in table.rows()}
    width = table["calibre_mean"]
    assert cells["mean calibre"][2:] == (f"{width:.2f} px", f"{width / 240:.5f}", f"{8 * width:.1f} µm")
    assert cells["vessel length density"][3] == f"{table['length_density'] * 240:.2f}"
    row = table.as_dict()
    assert row["calibre_mean"] == width and row["fov_width"] == 240 and row["micrometres_per_pixel"] == 8
    assert row["calibre_mean_fov"] == width / 240
    assert row["length_density_fov"] == table["length_density"] * 240 and "tortuosity_fov" not in row
    assert len(table.calibres) == pytest.approx(200, abs=12) and np.median(table.calibres) == pytest.approx(
        5, rel=0.03
    )


def test_an_interval_follows_the_doubt_of_the_flips():
    first = ndimage.gaussian_filter(line(200, 5, 0.4, side=240).astype(np.float32), 1.2)
    second = np.zeros_like(first)
    second[200:206, 20:200] = 1
    sure = np.stack([first + 0.9 * second] * 4)
    unsure = np.stack([first + strength * second for strength in (0.4, 0.9, 0.45, 0.95)])
    factors = {"whole": {"length_density": (-1.0, 2.0)}}
    widths = []
    for flips in (sure, unsure):
        table = measure_flips(flips, 0.5, calibration=factors)
        low, high = table.intervals["whole"]["length_density"]
        assert low < table["length_density"] < high
        assert np.isnan(table.intervals["whole"]["calibre_mean"]).all(), "it was not calibrated"
        assert table.as_dict()["length_density_high"] == high
        assert "90 % interval" in str(table)
        widths.append((high - low) / table["length_density"])
    assert widths[1] > 2 * widths[0]
    with pytest.raises(DataError, match="two maps or more"):
        measure_flips(sure[0], 0.5)


def test_calibrated_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(1)

    def photographs(count):
        truth, tables, spreads = [], [], []
        for _ in range(count):
            value, spread = rng.normal(5, 1), rng.uniform(0.1, 0.5)
            truth.append({"whole": {"calibre_mean": value}})
            off = {"calibre_mean": value - 0.3 - 2 * spread * rng.standard_normal()}  # biased, and too sure
            tables.append(Measurements({"whole": off}, np.empty(0), 540))
            spreads.append({"whole": {"calibre_mean": spread}})
        return truth, tables, spreads

    low, high = calibrate(*photographs(300))["whole"]["calibre_mean"]
    inside = [
        table["calibre_mean"] + low * spread["whole"]["calibre_mean"]
        <= true["whole"]["calibre_mean"]
        <= table["calibre_mean"] + high * spread["whole"]["calibre_mean"]
        for true, table, spread in zip(*photographs(1000), strict=True)
    ]
    assert 0.85 <= np.mean(inside) <= 0.95
    assert "calibre_mean" not in calibrate(*photographs(9))["whole"], "too few to say"


def test_packaged_factors_are_the_widest_where_the_weights_are_not_known(tmp_path, monkeypatch):
    monkeypatch.setattr(intervals.resources, "files", lambda package: tmp_path)
    one, two = {"whole": {"calibre_mean": (-1.0, 2.0)}}, {"whole": {"calibre_mean": (-3.0, 1.0)}}
    assert save_calibration({"one": two}).parent == tmp_path
    save_calibration({"one": one})
    save_calibration({"two": two})  # "one" stays
    assert packaged_calibration("one") == one
    assert packaged_calibration("mine") == packaged_calibration() == {"whole": {"calibre_mean": (-3.0, 2.0)}}


def test_a_segment_knows_its_points_its_width_and_its_ends():
    [segment] = trace(line(100, 6, 0.0)).segments
    assert isinstance(segment, Segment)
    assert segment.points.shape == (len(segment.position), 2)
    assert len(segment.width) == len(segment.curvature) == len(segment.position)
    assert np.nanmedian(segment.width) == pytest.approx(6, rel=0.05)
    assert not segment.closed
    assert trace(np.zeros((9, 9), bool)).segments == []


def test_a_disc_gives_the_zones_and_each_measure_is_in_the_table():
    mask = line(240, 5, 0.3)
    middle = mask.shape[0] / 2, mask.shape[1] / 2
    table = measure(mask, disc=Disc(*middle, 40))
    assert table.values.keys() == {"whole", *ZONES}
    assert set(table.values["whole"]) == set(MEASURES)
    assert table.values == measure(mask, disc=(*middle, 40)).values


def test_flips_that_agree_leave_little_spread():
    mask = line(120, 6, 0.3)
    certain = np.where(mask, 0.999, 0.001)
    table, spread = with_spread(np.stack([certain] * 4), 0.5)
    assert table.values == measure(mask).values
    assert table.intervals is None or not table.intervals
    assert spread["whole"].keys() == table.values["whole"].keys()
    moved = np.stack([np.roll(certain, by, axis=0) if by else certain * 0.6 for by in (0, 3)])
    assert with_spread(moved, 0.5)[1]["whole"]["end_points"] >= spread["whole"]["end_points"]
    with pytest.raises(DataError, match="two maps or more"):
        with_spread(certain[None], 0.5)
