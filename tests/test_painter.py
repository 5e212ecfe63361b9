"""The painter and its datasets: anatomy, statistics, ingredients, encodings, repeatability, damage."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import threading
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from drive_unet import DRIVEDataset
from drive_unet.data.find import find_dataset
from drive_unet.data.painted import embedded_folder
from drive_unet.errors import DataError
from drive_unet.painter import painting, store
from drive_unet.painter import vessels as vessel_trees
from drive_unet.painter.eye import Eye, Ingredients, draw_eye
from drive_unet.painter.lesions import add_lesions
from drive_unet.painter.painting import Fundus, make_dataset, paint, synthesize
from drive_unet.plots import overlays

SIZE, SMALL = (584, 565), (146, 141)
EIGHT = np.ones((3, 3))  # neighbours
SHAPE_THE_VESSELS = {"tortuosity", "density", "twigs"}


def dice(a, b):
    return 2 * np.logical_and(a, b).sum() / (a.sum() + b.sum())


def away(place, size=SIZE):
    """How far (H, W) each pixel's middle lies from a place (x, y)."""
    y, x = np.ogrid[: size[0], : size[1]]
    return np.hypot(x + 0.5 - place[0], y + 0.5 - place[1])


def same(one, other):
    """Whether two eyes, or two pictures of eyes, are equal in all their fields."""
    return all(
        same(a, b) if isinstance(a, Eye) else np.array_equal(a, b) for a, b in zip(one, other, strict=True)
    )


def sketch(seed: int) -> Fundus:
    """A stand-in for `paint` that takes no time; its pixels depend on the seed alone."""
    rng = np.random.default_rng(seed)
    size = (12, 10)
    arteries, veins, second_observer = rng.random((3, *size)) > 0.85
    vessels = arteries | veins
    return Fundus(
        image=rng.integers(0, 255, (*size, 3), np.uint8),
        vessels=vessels,
        fov=np.ones(size, bool),
        second_observer=second_observer,
        arteries=arteries,
        veins=veins,
        calibre=np.where(vessels, rng.uniform(0.8, 9.0, size), 0).astype(np.float32),
        centreline=vessels & (rng.random(size) > 0.5),
        eye=draw_eye(rng, size),
    )


@pytest.fixture(scope="module")
def eyes() -> list[Fundus]:
    return [paint(seed) for seed in range(10)]


@pytest.fixture(scope="module")
def measured(eyes) -> list[tuple[np.ndarray, np.ndarray]]:
    """Widths and centrelines of the eyes' vessels, measured on the labels."""
    return [overlays.calibre(eye.vessels) for eye in eyes]


@pytest.fixture(scope="module")
def trees() -> list[tuple[Eye, vessel_trees.Trees]]:
    """Eyes in frames of several sizes, with what grew in them."""
    grown = []
    for seed, size in enumerate([SIZE, SIZE, (292, 283), (300, 420)]):
        rng = np.random.default_rng(seed)
        eye = draw_eye(rng, size)
        grown.append((eye, vessel_trees.grow(rng, eye)))
    return grown


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    return make_dataset(
        tmp_path_factory.mktemp("painted") / "set", training=1, test=1, workers=2, progress=False
    )


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A set in plain folders: two small eyes of seed 5."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(painting, "paint", functools.partial(paint, size=SMALL))
        folder = tmp_path_factory.mktemp("plain") / "set"
        return synthesize(folder, 2, seed=5, workers=3, progress=False)


@pytest.fixture(scope="module")
def plain_eyes() -> list[Fundus]:
    """The eyes that are in `plain`."""
    return [paint(store.image_seed(5, store.PLAIN + number), SMALL) for number in (1, 2)]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DRIVE_UNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(painting, "paint", sketch)
    return tmp_path / "cache"


def contents(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def decoded(path):
    with Image.open(path) as picture:
        return np.array(picture)


# ---- one picture
def test_shapes_and_types(eyes):
    for eye in eyes:
        assert eye.image.shape == (*SIZE, 3)
        assert eye.image.dtype == np.uint8
        masks = (eye.vessels, eye.fov, eye.second_observer, eye.arteries, eye.veins, eye.centreline)
        for mask in masks:
            assert mask.shape == SIZE
            assert mask.dtype == bool
        assert eye.calibre.shape == SIZE
        assert eye.calibre.dtype == np.float32


def test_same_seed_same_pixels_other_seed_other_pixels(eyes):
    assert same(paint(0), eyes[0])
    assert not np.array_equal(eyes[0].vessels, eyes[1].vessels)
    assert not np.array_equal(eyes[0].image, eyes[1].image)


def test_nothing_lies_outside_the_field_of_view(eyes):
    for eye in eyes:
        labels = eye.vessels | eye.second_observer | eye.arteries | eye.veins | eye.centreline
        assert not ((labels | (eye.calibre > 0)) & ~eye.fov).any()
        assert eye.image[~eye.fov].mean() < 20 < 60 < eye.image[eye.fov].mean()


def test_vessels_are_darker_than_what_is_beside_them(eyes):
    for eye in eyes:
        green = eye.image[..., 1].astype(float)
        beside = ndimage.binary_dilation(eye.vessels, iterations=4) & ~eye.vessels & eye.fov
        for vessels in (eye.vessels, eye.arteries & ~eye.veins, eye.veins & ~eye.arteries):
            assert 0.03 < 1 - green[vessels].mean() / green[beside].mean() < 0.4


def test_vessels_avoid_the_fovea_and_reach_the_periphery(eyes):
    for eye in eyes[:4]:
        foveal = away(eye.eye.fovea) < 15
        rim = away(eye.eye.centre) > 0.9 * eye.eye.radius
        assert eye.vessels[foveal].mean() < 0.02
        assert eye.vessels[rim & eye.fov].mean() > 0.04


@pytest.mark.parametrize("size", [(292, 283), (300, 420)])
def test_other_sizes(size):
    eye = paint(1, size)
    assert eye.image.shape == (*size, 3)
    assert 0.5 < eye.fov.mean() < 0.75 or size[1] > size[0]
    assert 0.08 < eye.vessels[eye.fov].mean() < 0.22
    assert eye.fov[tuple(eye.eye.disc[::-1].astype(int))]
    assert eye.eye.scale == pytest.approx(min(size[0] / 584, size[1] / 565))


# ---- as in DRIVE
def test_field_of_view_as_in_drive(eyes):
    for eye in eyes:
        assert 0.675 < eye.fov.mean() < 0.70
        assert eye.fov.sum() == pytest.approx(np.pi * eye.eye.radius**2, rel=0.01)


def test_density_as_in_drive(eyes):
    densities = np.array([eye.vessels[eye.fov].mean() for eye in eyes])
    assert ((densities > 0.087) & (densities < 0.168)).all(), densities
    assert abs(densities.mean() - 0.125) < 0.015


def test_some_vessels_are_one_pixel_wide(measured):
    """Observers draw the finest twigs so; without them the set would be easier than it looks."""
    shares = [(width[centreline] < 1.5).mean() for width, centreline in measured]
    assert 0.02 < min(shares) and max(shares) < 0.3, shares
    assert 0.05 < np.mean(shares) < 0.2


def test_arteries_and_veins_share_the_retina(eyes):
    for eye in eyes:
        assert 0.3 < eye.arteries.sum() / eye.veins.sum() < 1
        crossings = eye.arteries & eye.veins
        assert 0 < crossings.sum() < 0.1 * eye.vessels.sum()


def test_second_observer_is_human(eyes):
    agreement = np.array([dice(eye.vessels, eye.second_observer) for eye in eyes])
    assert ((agreement > 0.70) & (agreement < 0.87)).all(), agreement
    assert 0.76 < agreement.mean() < 0.82
    assert agreement.std() < 0.05


# ---- disc and fovea
def test_the_disc_is_in_the_picture_and_brighter_than_what_is_around_it(eyes):
    for eye in eyes:
        distance = away(eye.eye.disc) / eye.eye.disc_radius
        assert eye.fov[distance < 1].mean() > 0.95
        bright = eye.image[..., :2].sum(-1)
        inside, around = (distance < 0.85) & ~eye.vessels, (distance > 1.3) & (distance < 2) & ~eye.vessels
        assert bright[inside].mean() > 1.1 * bright[around & eye.fov].mean()


def test_the_fovea_is_in_the_picture_and_darker_than_what_is_around_it(eyes):
    for eye in eyes:
        distance = away(eye.eye.fovea) / eye.eye.scale
        inside, around = distance < 12, (distance > 60) & (distance < 80) & ~eye.vessels & eye.fov
        assert eye.fov[inside].all()
        bright = eye.image[..., :2].sum(-1)
        assert bright[inside].mean() < 0.95 * bright[around].mean()


def test_left_and_right_eyes(eyes):
    for eye in eyes:
        assert np.sign(eye.eye.fovea[0] - eye.eye.disc[0]) == eye.eye.side
        assert eye.eye.fovea[1] > eye.eye.disc[1]  # the fovea lies a little lower than the disc
    assert {eye.eye.side for eye in eyes} == {-1.0, 1.0}


# ---- the trees
def test_a_tree_has_no_loops_and_one_kind_of_blood(trees):
    for _, (xy, parent, kind, radius) in trees:
        node = np.arange(len(xy))
        assert (parent < node).all(), "a child follows its parent, so there are no loops"
        inner = parent >= 0
        assert (kind[inner] == kind[parent[inner]]).all(), "arteries do not turn into veins"
        assert (radius[inner] <= radius[parent[inner]] + 1e-9).all(), "vessels taper"
        assert set(kind) == {0, 1}


def test_murrays_law(trees):
    """The cubes of the children's radii, and what leaks off on one step, make the cube of the parent's."""
    for _, (xy, parent, kind, radius) in trees:
        cube, inner = radius**3, np.zeros(len(xy), bool)
        inner[parent[parent >= 0]] = True
        of_children = np.bincount(parent[parent >= 0], cube[parent >= 0], minlength=len(xy))
        for k in (0, 1):
            (tip, *others) = cube[(kind == k) & ~inner]
            np.testing.assert_allclose(others, tip, rtol=1e-9, err_msg="all tips carry the same")
            leak = vessel_trees.LEAK * vessel_trees.STEP * tip
            mine = (kind == k) & inner
            np.testing.assert_allclose(cube[mine], of_children[mine] + leak, rtol=1e-9)


def test_arteries_are_two_thirds_as_wide_as_veins(trees):
    for eye, (_, _, kind, radius) in trees:
        widest = radius[kind == 1].max()
        assert radius[kind == 0].max() == pytest.approx(widest * 2 / 3, rel=1e-9)
        expected = eye.scale * vessel_trees.VEIN_RADIUS * eye.density**0.45
        assert widest == pytest.approx(expected, rel=1e-9)


def test_vessels_grow_from_the_disc_step_by_step(trees):
    for eye, (xy, parent, kind, radius) in trees:
        roots = parent < 0
        assert (np.bincount(kind[roots]) == 2).all(), "an arcade upwards and one downwards of either kind"
        assert (np.hypot(*(xy[roots] - eye.disc).T) < eye.disc_radius).all()
        assert radius[roots].min() > 3 * radius.min()
        steps = np.hypot(*(xy[~roots] - xy[parent[~roots]]).T)
        np.testing.assert_allclose(steps, vessel_trees.STEP * eye.scale, atol=0.002)  # they are rounded
        assert (np.hypot(*(xy - eye.fovea).T) > 0.7 * vessel_trees.FOVEAL_ZONE * eye.scale).all()


def test_a_course_is_a_line_of_points_half_a_pixel_apart(trees):
    eye, grown = trees[0]
    points, radius, kind = vessel_trees.course(np.random.default_rng(0), eye, grown)
    along = np.hypot(*np.diff(points, axis=0).T)
    assert np.quantile(along, 0.9) <= 0.5 + 1e-9  # but where one branch ends in the list and the next begins
    assert grown.radius.min() <= radius.min() and radius.max() <= grown.radius.max()
    assert set(kind) == {0, 1}


# ---- labels of several kinds
def test_arteries_and_veins_make_up_the_vessels(eyes):
    for eye in eyes:
        assert np.array_equal(eye.arteries | eye.veins, eye.vessels)


def test_centreline_is_thin_and_in_the_vessels(eyes, measured):
    for eye, (_, skeleton) in zip(eyes, measured, strict=True):
        line = eye.centreline
        assert not (line & ~eye.vessels).any()
        blocks = line[1:, 1:] & line[:-1, 1:] & line[1:, :-1] & line[:-1, :-1]
        assert blocks.sum() < 0.004 * line.sum()
        assert line.sum() == pytest.approx(skeleton.sum(), rel=0.15)


def test_centreline_and_calibre_give_the_vessels_back(eyes):
    for eye in eyes:
        distance, (row, column) = ndimage.distance_transform_edt(~eye.centreline, return_indices=True)
        reached = distance <= eye.calibre[row, column] / 2 + 1
        assert (reached & eye.vessels).sum() > 0.985 * eye.vessels.sum()
        assert (
            reached & ~eye.vessels & eye.fov
        ).sum() < 0.9 * eye.vessels.sum()  # the pixel more on each side


def test_centreline_is_unbroken(eyes):
    for eye in eyes:
        (_, lines), (_, vessels) = (ndimage.label(mask, EIGHT) for mask in (eye.centreline, eye.vessels))
        assert lines <= vessels + 5


def test_calibre_is_positive_in_vessels_alone_and_as_measured_there(eyes, measured):
    for eye, (width, _) in zip(eyes, measured, strict=True):
        assert np.array_equal(eye.calibre > 0, eye.vessels)
        wide = eye.centreline & (width > 3)
        assert wide.sum() > 1000
        assert np.median(np.abs(eye.calibre - width)[wide]) < 1
        arteries, veins = eye.calibre[eye.arteries & ~eye.veins], eye.calibre[eye.veins & ~eye.arteries]
        assert arteries.max() < veins.max() and np.median(arteries) < np.median(veins)


# ---- ingredients
@pytest.fixture(scope="module")
def usual() -> Fundus:
    return paint(0, SMALL)


@pytest.mark.parametrize("ingredient", Ingredients._fields)
def test_an_ingredient_changes_the_picture_and_nothing_else(usual, ingredient):
    least = 0.5 if ingredient == "density" else 0.0
    without = paint(0, SMALL, Ingredients(**{ingredient: least}))
    change = np.abs(without.image.astype(int) - usual.image)
    assert change.mean() > 0.05
    assert np.array_equal(without.fov, usual.fov)
    own = {ingredient} & {"tortuosity", "density"}  # which an eye knows of itself
    assert same(
        without.eye._replace(**{name: 0 for name in own}), usual.eye._replace(**{name: 0 for name in own})
    )
    labels = ("vessels", "arteries", "veins", "second_observer", "calibre", "centreline")
    unchanged = [np.array_equal(getattr(without, name), getattr(usual, name)) for name in labels]
    assert unchanged == [ingredient not in SHAPE_THE_VESSELS] * len(labels)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_lesions_are_no_vessels(seed):
    without, sick = (paint(seed, SMALL, Ingredients(lesions=strength)) for strength in (0, 3))
    assert not np.array_equal(without.image, sick.image)
    assert same(without._replace(image=0), sick._replace(image=0))


def test_lesions_are_as_many_as_their_strength_says():
    y, x = (np.arange(n, dtype=np.float32) + 0.5 for n in SMALL)
    painted_over = []
    for strength in (0, 1, 3):
        scenes = []
        for seed in range(20):
            chance = np.random.default_rng(seed)
            scene = np.full((*SMALL, 3), 100, np.float32)
            add_lesions(
                chance, draw_eye(chance, SMALL), scene, x[None], y[:, None], Ingredients(lesions=strength)
            )
            scenes.append(scene)
        painted_over.append(np.mean(np.abs(np.array(scenes) - 100) > 1))
    none, usual, many = painted_over
    assert none == 0
    assert 0 < 2 * usual < many


def test_what_ingredients_do_to_the_vessels():
    def course(**strengths):
        chance, mix = np.random.default_rng(4).spawn(2), Ingredients(**strengths)
        eye = draw_eye(chance[0], SMALL, mix)
        return vessel_trees.course(chance[1], eye, vessel_trees.grow(chance[1], eye, mix))

    usual = course()
    assert len(course(tortuosity=0).points) < len(usual.points) < len(course(tortuosity=3).points)
    assert len(course(twigs=0).points) < len(course(twigs=0.5).points) < len(usual.points)
    assert len(course(density=0.7).points) < len(usual.points) < len(course(density=1.4).points)


def test_what_ingredients_do_to_the_picture(usual):
    def green(**strengths):
        return paint(0, SMALL, Ingredients(**strengths)).image[..., 1].astype(float)

    def roughness(image):
        return np.abs(image - ndimage.gaussian_filter(image, 1))[usual.fov & ~usual.vessels].mean()

    now, still = usual.image[..., 1].astype(float), green(noise=0)
    dark = ndimage.binary_erosion(~usual.fov, iterations=8)
    assert now[dark].std() > 1.25 * still[dark].std()
    assert roughness(still) < roughness(now) < roughness(green(noise=2))
    assert roughness(green(noise=0, blur=2)) < roughness(still) < roughness(green(noise=0, blur=0))
    thick = usual.centreline & (usual.calibre > 0.7 * usual.calibre.max())
    assert green(reflex=0)[thick].mean() < now[thick].mean() < green(reflex=2)[thick].mean()


@pytest.mark.parametrize(
    "strengths", [{"density": 0}, {"density": -1.0}, {"noise": -0.1}, {"lesions": -1}, {"twigs": -1}]
)
def test_strengths_that_are_none_are_refused(strengths):
    with pytest.raises(ValueError, match="strengths of ingredients are 0 or more.*density"):
        paint(0, SMALL, Ingredients(**strengths))


# ---- a dataset as DRIVE is
def test_layout_and_encodings(painted):
    names = set(contents(painted))
    assert names == {
        "manifest.json",
        "training/images/21_training.tif",
        "training/1st_manual/21_manual1.gif",
        "training/mask/21_training_mask.gif",
        "test/images/01_test.tif",
        "test/1st_manual/01_manual1.gif",
        "test/2nd_manual/01_manual2.gif",
        "test/mask/01_test_mask.gif",
    }
    with Image.open(painted / "training/images/21_training.tif") as picture:
        assert (picture.format, picture.mode, picture.size) == ("TIFF", "RGB", (565, 584))
        assert picture.info["compression"] == "tiff_lzw"
    for name in (
        "training/1st_manual/21_manual1.gif",
        "training/mask/21_training_mask.gif",
        "test/mask/01_test_mask.gif",
    ):
        with Image.open(painted / name) as picture:
            assert (picture.format, picture.mode, picture.size) == ("GIF", "L", (565, 584)), name
            assert np.unique(np.asarray(picture)).tolist() == [0, 255]
    with Image.open(painted / "test/2nd_manual/01_manual2.gif") as picture:
        assert (picture.format, picture.mode) == ("GIF", "P")
        assert np.unique(np.asarray(picture)).tolist() == [0, 1]
        assert np.unique(np.asarray(picture.convert("L"))).tolist() == [3, 253]


def test_files_hold_what_was_painted(painted):
    seed = json.loads((painted / "manifest.json").read_text(encoding="utf-8"))["seed"]
    eye = paint(store.image_seed(seed, 1))
    assert np.array_equal(decoded(painted / "test/images/01_test.tif"), eye.image)
    assert np.array_equal(decoded(painted / "test/1st_manual/01_manual1.gif") > 127, eye.vessels)
    assert np.array_equal(decoded(painted / "test/mask/01_test_mask.gif") > 127, eye.fov)
    with Image.open(painted / "test/2nd_manual/01_manual2.gif") as picture:
        assert np.array_equal(np.asarray(picture.convert("L")) > 127, eye.second_observer)


def test_workers_do_not_change_pixels(painted, tmp_path):
    alone = make_dataset(tmp_path / "alone", training=1, test=1, workers=1, progress=False)
    assert contents(alone).keys() == contents(painted).keys()
    for name in contents(alone):  # not their bytes: how a TIFF is written may vary with old Pillows
        if not name.endswith(".json"):
            assert np.array_equal(decoded(alone / name), decoded(painted / name)), name


def test_folder_must_be_new_or_empty(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("keep me", encoding="utf-8")
    with pytest.raises(DataError, match="mine.*empty"):
        make_dataset(tmp_path / "mine", progress=False)
    assert (tmp_path / "mine" / "thesis.txt").read_text(encoding="utf-8") == "keep me"


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "empty").mkdir()
    store.write(tmp_path / "empty", sketch, 1, store.as_drive(1, 1), progress=False)
    assert store.intact(tmp_path / "empty", 1, 0)


@pytest.mark.parametrize("jobs", [store.as_drive, store.plainly])
def test_failure_leaves_nothing(tmp_path, jobs):
    def fails(seed):
        raise RuntimeError("out of paint")

    with pytest.raises(RuntimeError, match="out of paint"):
        store.write(tmp_path / "set", fails, 1, jobs(3), progress=False)
    assert list(tmp_path.iterdir()) == []


class Interrupts:
    """Paints until it is interrupted as by Ctrl+C, and counts."""

    def __init__(self, after):
        self.after, self.painted = after, 0

    def __call__(self, seed):
        if self.painted == self.after:
            raise KeyboardInterrupt
        self.painted += 1
        return sketch(seed)


@pytest.mark.parametrize("jobs", [store.as_drive(4, 3), store.plainly(7)])
def test_an_interrupted_set_goes_on_with_the_eyes_that_are_finished(tmp_path, jobs):
    folder, calls = tmp_path / "set", {"workers": 1, "progress": False}
    with pytest.raises(KeyboardInterrupt):
        store.write(folder, Interrupts(3), 1, jobs, **calls)
    assert not folder.exists()
    work = store.unfinished(folder)
    photographs = sorted(path for path in work.rglob("*") if path.parent.name == "images")
    assert len(photographs) == 3
    photographs[0].write_bytes(b"damaged")
    with (work / store.FINISHED).open("a", encoding="utf-8") as record:
        record.write('["7", {"ima')  # as a killed process leaves it

    for settings in ({"seed": 1, "version": 1}, {"seed": 0, "version": 2}):
        wanted = f"not of seed {settings['seed']} and version {settings['version']}"
        with pytest.raises(DataError, match=wanted):
            store.write(folder, sketch, settings["version"], jobs, seed=settings["seed"], **calls)
    with pytest.raises(KeyboardInterrupt):  # also where a set is to be overwritten
        store.write(folder, Interrupts(1), 1, jobs, overwrite=True, **calls)
    rest = Interrupts(99)
    store.write(folder, rest, 1, jobs, **calls)
    assert rest.painted == 4  # of seven three were whole: the damaged one is painted again
    assert contents(folder) == contents(store.write(tmp_path / "at once", sketch, 1, jobs, **calls))
    assert {path.name for path in tmp_path.iterdir()} == {"set", "at once"}


def test_more_eyes_than_were_begun(tmp_path):
    folder = tmp_path / "set"
    with pytest.raises(KeyboardInterrupt):
        store.write(folder, Interrupts(3), 1, store.plainly(4), workers=1, progress=False)
    rest = Interrupts(99)
    store.write(folder, rest, 1, store.plainly(5), workers=1, progress=False)
    assert rest.painted == 2
    at_once = store.write(tmp_path / "at once", sketch, 1, store.plainly(5), progress=False)
    assert contents(folder) == contents(at_once)


def test_fewer_eyes_than_were_begun_lose_none_unless_that_is_said(tmp_path):
    folder, calls = tmp_path / "set", {"workers": 1, "progress": False}
    with pytest.raises(KeyboardInterrupt):
        store.write(folder, Interrupts(3), 1, store.plainly(4), **calls)
    begun = contents(store.unfinished(folder))
    with pytest.raises(DataError, match="1 finished eyes of a larger set, which would be lost: ask for as"):
        store.write(folder, sketch, 1, store.plainly(2), **calls)
    assert contents(store.unfinished(folder)) == begun and not folder.exists()
    rest = Interrupts(99)
    store.write(folder, rest, 1, store.plainly(2), overwrite=True, **calls)
    assert rest.painted == 0
    at_once = store.write(tmp_path / "at once", sketch, 1, store.plainly(2), progress=False)
    assert contents(folder) == contents(at_once)
    assert {path.name for path in tmp_path.iterdir()} == {"set", "at once"}


def test_two_calls_do_not_paint_into_one_folder(tmp_path):
    folder, refusals = tmp_path / "set", []

    def paint(seed):
        with pytest.raises(DataError) as caught:
            store.write(folder, sketch, 1, store.plainly(2), progress=False)
        refusals.append(str(caught.value))
        return sketch(seed)

    store.write(folder, paint, 1, store.plainly(2), workers=1, progress=False)
    assert len(refusals) == 2
    assert refusals[0].startswith(f"another process is painting into {folder}: wait")
    at_once = store.write(tmp_path / "at once", sketch, 1, store.plainly(2), progress=False)
    assert contents(folder) == contents(at_once)


def test_the_same_set_again_is_left_as_it_is_and_another_only_replaced_if_said(tmp_path):
    folder = tmp_path / "set"
    store.write(folder, sketch, 1, store.plainly(2), progress=False)
    before, again = contents(folder), Interrupts(99)
    store.write(folder, again, 1, store.plainly(2), progress=False)
    assert contents(folder) == before and again.painted == 0
    for jobs, seed in ((store.plainly(1), 0), (store.plainly(2), 1), (store.as_drive(2, 0), 0)):
        with pytest.raises(DataError, match="not an empty folder.*overwrite"):
            store.write(folder, sketch, 1, jobs, seed=seed, progress=False)
    (folder / "images" / "mine.png").write_bytes(b"keep me")
    with pytest.raises(DataError, match=r"mine.png is no file of the painted set"):
        store.write(folder, sketch, 1, store.plainly(1), seed=1, progress=False, overwrite=True)
    (folder / "images" / "mine.png").unlink()
    assert contents(folder) == before
    store.write(folder, sketch, 1, store.plainly(1), seed=1, progress=False, overwrite=True)
    other = store.write(tmp_path / "other", sketch, 1, store.plainly(1), seed=1, progress=False)
    assert contents(folder) == contents(other)

    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("keep me")
    with pytest.raises(DataError, match="not an empty folder"):
        store.write(foreign, sketch, 1, store.plainly(1), progress=False, overwrite=True)


def test_pictures_are_encoded_in_memory(tmp_path, monkeypatch):
    targets = []
    save = Image.Image.save

    def watched(picture, target, *arguments, **options):
        targets.append(target)
        save(picture, target, *arguments, **options)

    monkeypatch.setattr(Image.Image, "save", watched)
    for name, jobs in (("drive", store.as_drive(1, 1)), ("plain", store.plainly(1))):
        store.write(tmp_path / name, sketch, 1, jobs, progress=False)
    assert len(targets) == 3 + 4 + 7 and all(isinstance(target, BytesIO) for target in targets)


def test_a_log_has_no_bars(tmp_path, capsys):
    store.write(tmp_path / "set", sketch, 1, store.plainly(2), progress=True)
    assert capsys.readouterr().err == ""


def test_too_many_images_are_refused(tmp_path):
    for training, test in ((80, 1), (1, 21), (-1, 1)):
        with pytest.raises(ValueError, match=f"training={training}, test={test}: .*synthesize"):
            make_dataset(tmp_path / "set", training=training, test=test, progress=False)
    assert list(tmp_path.iterdir()) == []


# ---- a dataset in plain folders
def test_plain_layout(plain):
    folders = ("images", "labels", "fov", "second_observer", "arteries_veins", "centreline", "calibre")
    names = {f"{folder}/{number:06d}.png" for folder in folders for number in (1, 2)}
    assert set(contents(plain)) == names | {"manifest.json", "eyes/000001.json", "eyes/000002.json"}
    assert store.intact(plain, painting.VERSION, 5)
    assert not store.intact(plain, painting.VERSION, 6)
    (plain / "calibre" / "000002.png").rename(plain / "away")
    try:
        assert not store.intact(plain, painting.VERSION, 5)
    finally:
        (plain / "away").rename(plain / "calibre" / "000002.png")


def test_plain_encodings_hold_what_was_painted(plain, plain_eyes):
    for number, eye in enumerate(plain_eyes, start=1):
        name = f"{number:06d}.png"
        assert np.array_equal(decoded(plain / "images" / name), eye.image)
        for folder, mask in (
            ("labels", eye.vessels),
            ("fov", eye.fov),
            ("second_observer", eye.second_observer),
            ("centreline", eye.centreline),
        ):
            picture = decoded(plain / folder / name)
            assert picture.dtype == np.uint8
            assert np.array_equal(picture, mask * np.uint8(255)), folder


def test_arteries_are_red_veins_blue_and_crossings_green(plain, plain_eyes):
    for number, eye in enumerate(plain_eyes, start=1):
        colours = decoded(plain / "arteries_veins" / f"{number:06d}.png")
        crossing = eye.arteries & eye.veins
        for colour, mask in (
            ((255, 0, 0), eye.arteries & ~crossing),
            ((0, 255, 0), crossing),
            ((0, 0, 255), eye.veins & ~crossing),
            ((0, 0, 0), ~eye.vessels),
        ):
            assert mask.any()
            assert np.array_equal((colours == colour).all(-1), mask), colour
        assert np.array_equal(colours.any(-1), decoded(plain / "labels" / f"{number:06d}.png") > 0)


def test_calibre_is_written_in_hundredths_of_a_pixel(plain, plain_eyes):
    for number, eye in enumerate(plain_eyes, start=1):
        picture = decoded(plain / "calibre" / f"{number:06d}.png")
        assert picture.dtype == np.uint16
        np.testing.assert_allclose(picture / 100, eye.calibre, atol=0.00501)
        assert np.array_equal(picture > 0, eye.vessels)


def test_eyes_are_written_as_numbers(plain, plain_eyes):
    for number, eye in enumerate(plain_eyes, start=1):
        record = json.loads((plain / "eyes" / f"{number:06d}.json").read_text(encoding="utf-8"))
        assert set(record) == {"seed", *Eye._fields}
        assert record["seed"] == store.image_seed(5, store.PLAIN + number)
        for name, value in eye.eye._asdict().items():
            np.testing.assert_allclose(record[name], value, atol=0.00501, err_msg=name)
            assert np.shape(record[name]) == np.shape(value)


def test_workers_do_not_change_a_plain_set_and_a_longer_one_begins_with_it(plain, tmp_path, monkeypatch):
    monkeypatch.setattr(painting, "paint", functools.partial(paint, size=SMALL))
    longer = contents(synthesize(tmp_path / "longer", 3, seed=5, workers=1, progress=False))
    shorter = contents(plain)
    assert len(longer) == len(shorter) + 8
    for name in set(shorter) - {"manifest.json"}:
        assert longer[name] == shorter[name], name
    of_longer, of_shorter = (json.loads(files["manifest.json"]) for files in (longer, shorter))
    assert of_shorter["files"].items() <= of_longer["files"].items()


@pytest.mark.parametrize("jobs", [store.as_drive(2, 2), store.plainly(5)])
def test_the_bytes_are_the_same_for_any_number_of_workers_and_other_for_another_seed(tmp_path, jobs):
    sets = [
        contents(
            store.write(
                tmp_path / f"{workers} {seed}", sketch, 1, jobs, workers=workers, seed=seed, progress=False
            )
        )
        for workers, seed in ((1, 0), (3, 0), (3, 1))
    ]
    assert sets[0] == sets[1]
    assert sets[1].keys() == sets[2].keys()
    assert all(sets[1][name] != sets[2][name] for name in sets[1] if "image" in name)


def test_a_plain_set_is_found_with_labels_and_fields_of_view(plain, plain_eyes):
    found = find_dataset(plain)
    assert (found.kind, found.test) == ("own", ())
    assert [pair.name for pair in found.training] == ["000001", "000002"]
    photographs = DRIVEDataset.from_pairs(found.training)
    for eye, photograph, vessels, fov in zip(
        plain_eyes, photographs, photographs.vessels, photographs.fovs, strict=True
    ):
        np.testing.assert_array_equal(np.asarray(photograph.image).transpose(1, 2, 0) * 255, eye.image)
        np.testing.assert_array_equal(vessels, eye.vessels)
        np.testing.assert_array_equal(fov, eye.fov)


def test_a_plain_set_is_refused_where_something_is(tmp_path, monkeypatch):
    monkeypatch.setattr(painting, "paint", sketch)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("keep me", encoding="utf-8")
    (tmp_path / "file").write_text("keep me too", encoding="utf-8")
    for name in ("mine", "file"):
        with pytest.raises(DataError, match=f"{name}.*empty"):
            synthesize(tmp_path / name, 1, progress=False)
    assert contents(tmp_path) == {"mine/thesis.txt": b"keep me", "file": b"keep me too"}


@pytest.mark.parametrize("images", [0, -1, 1_000_000, 10**25])
def test_a_plain_set_of_no_images_or_of_more_than_have_numbers_is_refused(tmp_path, images):
    with pytest.raises(ValueError, match=f"images={images}: ask for 1 to 999,999"):
        synthesize(tmp_path / "set", images, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_seeds_of_images_differ():
    seeds = {store.image_seed(seed, number) for seed in range(20) for number in range(1, 100)}
    assert len(seeds) == 20 * 99
    assert min(seeds) > 1_000_000  # larger than any that is written by hand
    assert store.image_seed(0, 1) == store.image_seed(0, 1)


# ---- the cache
def test_cache_is_made_once_and_quick_to_check(cache, monkeypatch):
    folder = embedded_folder(progress=False)
    assert folder == cache / f"embedded-v{painting.VERSION}-seed0"
    assert (
        len(list(folder.glob("training/images/*.tif"))) == len(list(folder.glob("test/images/*.tif"))) == 20
    )
    assert [p.name for p in cache.iterdir()] == [folder.name], "nothing half-made stays behind"
    monkeypatch.setattr(painting, "paint", None)  # a second use paints nothing
    assert embedded_folder(progress=False) == folder


@pytest.mark.parametrize("damage", ["missing", "truncated", "altered", "manifest", "version"])
def test_damage_is_seen_and_repaired(cache, damage):
    folder = embedded_folder(progress=False)
    before = contents(folder)
    victim = folder / "test/images/07_test.tif"
    if damage == "missing":
        victim.unlink()
    elif damage == "truncated":
        victim.write_bytes(victim.read_bytes()[:100])
    elif damage == "altered":
        data = bytearray(victim.read_bytes())
        data[len(data) // 2] ^= 1
        victim.write_bytes(bytes(data))
    elif damage == "manifest":
        (folder / "manifest.json").write_text('{"files": [', encoding="utf-8")
    else:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        (folder / "manifest.json").write_text(json.dumps(manifest | {"version": -1}), encoding="utf-8")
    assert not store.intact(folder, painting.VERSION, 0)
    assert embedded_folder(progress=False) == folder
    assert contents(folder) == before
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_first_use_by_several_at_once(cache):
    results, errors = [], []

    def use():
        try:
            results.append(embedded_folder(progress=False))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(set(results)) == 1
    assert store.intact(results[0], painting.VERSION, 0)
    assert [p.name for p in cache.iterdir()] == [results[0].name]


def test_unwritable_cache_names_folder_and_remedy(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    monkeypatch.setenv("DRIVE_UNET_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(painting, "paint", sketch)
    with pytest.raises(DataError, match="file.cache.*DRIVE_UNET_CACHE"):
        embedded_folder(progress=False)


def test_works_from_a_plain_script_without_a_main_guard(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from drive_unet.painter.painting import make_dataset\n"
        "print('once')\n"
        f"make_dataset({str(tmp_path / 'set')!r}, training=1, test=0, workers=2, progress=False)\n",
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["once"]
    assert done.stderr == ""
    assert store.intact(tmp_path / "set", painting.VERSION, 0)


def test_a_plain_set_repeats_no_eye_of_the_embedded_one(cache, tmp_path):
    embedded = contents(embedded_folder(progress=False))
    pixels = {
        np.asarray(Image.open(embedded_folder(progress=False) / name)).tobytes()
        for name in embedded
        if name.endswith(".tif")
    }
    store.write(tmp_path / "plain", sketch, 1, store.plainly(40), progress=False)
    plain = [np.asarray(Image.open(path)).tobytes() for path in (tmp_path / "plain/images").iterdir()]
    assert len(pixels) == len(plain) == 40
    assert not pixels & set(plain)


def test_the_folder_that_one_is_in_can_be_filled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store.write(".", sketch, 1, store.plainly(1), progress=False)
    assert store.intact(tmp_path, 1, 0)
    assert len(list((tmp_path / "images").iterdir())) == 1


@pytest.mark.parametrize("size", [(31, 200), (200, 31), (0, 0)])
def test_tiny_frames_are_refused(size):
    with pytest.raises(ValueError, match="32 pixels or more"):
        paint(0, size)


@pytest.mark.parametrize("strength", [-1.0, float("nan"), float("inf")])
def test_strengths_are_numbers_of_0_or_more(strength):
    with pytest.raises(ValueError, match="0 or more"):
        paint(0, (64, 64), Ingredients(noise=strength))
