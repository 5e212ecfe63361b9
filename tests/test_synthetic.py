"""The painter and its dataset: layout, encodings, repeatability, and what happens when files are damaged."""

from __future__ import annotations

import json
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from drive_unet import embedded as store
from drive_unet import synthetic, vasculature
from drive_unet.errors import DataError
from drive_unet.synthetic import Fundus, make_dataset, paint


def dice(a, b):
    return 2 * np.logical_and(a, b).sum() / (a.sum() + b.sum())


def sketch(seed: int) -> Fundus:
    """A stand-in for `paint` that takes no time; its pixels depend on the seed alone."""
    rng = np.random.default_rng(seed)
    fov = np.ones((12, 10), bool)
    return Fundus(
        rng.integers(0, 255, (12, 10, 3), np.uint8),
        rng.random((12, 10)) > 0.8,
        fov,
        rng.random((12, 10)) > 0.8,
    )


@pytest.fixture(scope="module")
def eyes() -> list[Fundus]:
    return [paint(seed) for seed in range(4)]


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    return make_dataset(
        tmp_path_factory.mktemp("painted") / "set", training=1, test=1, workers=2, progress=False
    )


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DRIVE_UNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(synthetic, "paint", sketch)
    return tmp_path / "cache"


def contents(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


# ---- one picture
def test_shapes_and_types(eyes):
    for eye in eyes:
        assert eye.image.shape == (584, 565, 3)
        assert eye.image.dtype == np.uint8
        for mask in (eye.vessels, eye.fov, eye.second_observer):
            assert mask.shape == (584, 565)
            assert mask.dtype == bool


def test_same_seed_same_pixels_other_seed_other_pixels(eyes):
    again = paint(0)
    assert all(np.array_equal(a, b) for a, b in zip(again, eyes[0], strict=True))
    assert not np.array_equal(eyes[0].vessels, eyes[1].vessels)


def test_field_of_view_as_in_drive(eyes):
    for eye in eyes:
        assert 0.675 < eye.fov.mean() < 0.70
        assert not ((eye.vessels | eye.second_observer) & ~eye.fov).any()
        assert eye.image[~eye.fov].mean() < 20 < 60 < eye.image[eye.fov].mean()


def test_density_as_in_drive(eyes):
    densities = np.array([eye.vessels[eye.fov].mean() for eye in eyes])
    assert ((densities > 0.087) & (densities < 0.168)).all(), densities
    assert 0.11 < densities.mean() < 0.14


def test_second_observer_is_human(eyes):
    agreement = np.array([dice(eye.vessels, eye.second_observer) for eye in eyes])
    assert ((agreement > 0.70) & (agreement < 0.87)).all(), agreement
    assert 0.76 < agreement.mean() < 0.82


def test_vessels_are_darker_than_what_is_beside_them(eyes):
    from scipy import ndimage

    for eye in eyes:
        green = eye.image[..., 1].astype(float)
        beside = ndimage.binary_dilation(eye.vessels, iterations=4) & ~eye.vessels & eye.fov
        assert 0.05 < 1 - green[eye.vessels].mean() / green[beside].mean() < 0.35


def test_vessels_avoid_the_fovea_and_reach_the_periphery():
    eye = paint(3)
    rng = np.random.default_rng(3)
    where = vasculature.draw_eye(rng, (584, 565))
    y, x = np.ogrid[:584, :565]
    foveal = np.hypot(x - where.fovea[0], y - where.fovea[1]) < 15
    rim = np.hypot(x - where.centre[0], y - where.centre[1]) > 0.9 * where.radius
    assert eye.vessels[foveal].mean() < 0.02
    assert eye.vessels[rim & eye.fov].mean() > 0.04


def test_murray_law_and_trees():
    rng = np.random.default_rng(5)
    xy, parent, kind, radius = vasculature.grow(rng, vasculature.draw_eye(rng, (584, 565)))
    node = np.arange(len(xy))
    assert (parent < node).all(), "a child follows its parent, so there are no loops"
    inner = parent >= 0
    assert (kind[inner] == kind[parent[inner]]).all(), "arteries do not turn into veins"
    assert (radius[inner] <= radius[parent[inner]] + 1e-9).all(), "vessels taper"
    assert radius[kind == 0].max() < radius[kind == 1].max()


@pytest.mark.parametrize("size", [(292, 283), (300, 420)])
def test_other_sizes(size):
    eye = paint(1, size)
    assert eye.image.shape == (*size, 3)
    assert 0.5 < eye.fov.mean() < 0.75 or size[1] > size[0]
    assert 0.08 < eye.vessels[eye.fov].mean() < 0.22


# ---- the dataset
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
    with Image.open(painted / "test/images/01_test.tif") as picture:
        assert np.array_equal(np.asarray(picture), eye.image)
    with Image.open(painted / "test/1st_manual/01_manual1.gif") as picture:
        assert np.array_equal(np.asarray(picture) > 127, eye.vessels)
    with Image.open(painted / "test/2nd_manual/01_manual2.gif") as picture:
        assert np.array_equal(np.asarray(picture.convert("L")) > 127, eye.second_observer)


def test_workers_do_not_change_pixels(painted, tmp_path):
    alone = make_dataset(tmp_path / "alone", training=1, test=1, workers=1, progress=False)
    assert contents(alone) == contents(painted)


def test_folder_must_be_new_or_empty(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("keep me", encoding="utf-8")
    with pytest.raises(DataError, match="mine.*empty"):
        make_dataset(tmp_path / "mine", progress=False)
    assert (tmp_path / "mine" / "thesis.txt").read_text(encoding="utf-8") == "keep me"


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "empty").mkdir()
    store.write(tmp_path / "empty", sketch, 1, training=1, test=1, progress=False)
    assert store.intact(tmp_path / "empty", 1, 0)


def test_failure_leaves_nothing(tmp_path):
    def fails(seed):
        raise RuntimeError("out of paint")

    with pytest.raises(RuntimeError, match="out of paint"):
        store.write(tmp_path / "set", fails, 1, training=3, test=1, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_too_many_images_are_refused(tmp_path):
    with pytest.raises(ValueError, match="training=80"):
        make_dataset(tmp_path / "set", training=80, progress=False)


# ---- the cache
def test_cache_is_made_once_and_quick_to_check(cache, monkeypatch):
    folder = synthetic.embedded(progress=False)
    assert folder == cache / f"embedded-v{synthetic.VERSION}-seed0"
    assert (
        len(list(folder.glob("training/images/*.tif"))) == len(list(folder.glob("test/images/*.tif"))) == 20
    )
    assert [p.name for p in cache.iterdir()] == [folder.name], "nothing half-made stays behind"
    monkeypatch.setattr(synthetic, "paint", None)  # a second use paints nothing
    assert synthetic.embedded(progress=False) == folder


@pytest.mark.parametrize("damage", ["missing", "truncated", "altered", "manifest", "version"])
def test_damage_is_seen_and_repaired(cache, damage):
    folder = synthetic.embedded(progress=False)
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
    assert not store.intact(folder, synthetic.VERSION, 0)
    assert synthetic.embedded(progress=False) == folder
    assert contents(folder) == before
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_first_use_by_several_at_once(cache):
    results, errors = [], []

    def use():
        try:
            results.append(synthetic.embedded(progress=False))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(set(results)) == 1
    assert store.intact(results[0], synthetic.VERSION, 0)
    assert [p.name for p in cache.iterdir()] == [results[0].name]


def test_unwritable_cache_names_folder_and_remedy(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    monkeypatch.setenv("DRIVE_UNET_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(synthetic, "paint", sketch)
    with pytest.raises(DataError, match="file.cache.*DRIVE_UNET_CACHE"):
        synthetic.embedded(progress=False)


def test_works_from_a_plain_script_without_a_main_guard(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from drive_unet.synthetic import make_dataset\n"
        "print('once')\n"
        f"make_dataset({str(tmp_path / 'set')!r}, training=1, test=0, workers=2, progress=False)\n",
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["once"]
    assert done.stderr == ""
    assert store.intact(tmp_path / "set", synthetic.VERSION, 0)
