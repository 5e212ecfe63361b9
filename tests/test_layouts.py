"""The layouts of published datasets other than DRIVE: a small copy of each in the form that people have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from builders import arteries_and_veins, disc, photograph, tree, write_drive, write_files, zipped

from drive_unet.data import find, find_dataset, find_drive, load_drive
from drive_unet.data.layouts import LAYOUTS, NAMED
from drive_unet.data.reading import read_photograph
from drive_unet.errors import DataError

HRF = ("01_h", "01_dr", "01_g", "02_h", "02_dr", "02_g")


@pytest.fixture(autouse=True)
def private(monkeypatch, tmp_path_factory) -> None:
    """A cache of the test's own, no variable, no terms printed yet."""
    monkeypatch.setenv("DRIVE_UNET_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("DRIVE_UNET_DATA", raising=False)
    monkeypatch.setattr(find, "_shown", set())


def hrf(root: Path, *, labels: str = "manual1", fov: bool = True) -> Path:
    """HRF as its archive holds it, or with artery/vein labels instead."""
    files = {}
    for number, name in enumerate(HRF):
        files[f"images/{name}{'.JPG' if 'dr' in name else '.jpg'}"] = photograph(number)
        if labels == "manual1":
            files[f"manual1/{name}.tif"] = tree(number)
        else:
            files[f"{labels}{name}_AVmanual.png"] = arteries_and_veins(tree(number))
        if fov:
            files[f"mask/{name}_mask.tif"] = disc()
    return write_files(root, files)


def chase(root: Path) -> Path:
    files = {}
    for number, eye in enumerate(("01L", "01R", "02L", "02R")):
        files[f"Image_{eye}.jpg"] = photograph(number)
        files[f"Image_{eye}_1stHO.png"] = tree(number)
        files[f"Image_{eye}_2ndHO.png"] = tree(number + 1)
    return write_files(root, files)


def stare(root: Path) -> Path:
    files = {}
    for number in (1, 2, 44):
        files[f"im{number:04d}.ppm"] = photograph(number)
        files[f"labels-ah/im{number:04d}.ah.ppm"] = tree(number)
        files[f"labels-vk/im{number:04d}.vk.ppm"] = tree(number + 1)
    return write_files(root, files)


def fives(root: Path, truth: str = "Groud truth") -> Path:
    files = {}
    for split, eyes in (("train", ("1_A", "2_D", "3_G")), ("test", ("1_A", "2_N"))):
        for number, eye in enumerate(eyes):
            files[f"{split}/Original/{eye}.png"] = photograph(number)
            files[f"{split}/{truth}/{eye}.png"] = tree(number)
    return write_files(root, files)


def les_av(root: Path) -> Path:
    files = {}
    for number in (7, 285):
        files[f"images/{number}.png"] = photograph(number)
        files[f"vessel-segmentations/{number}.png"] = tree(number)
        files[f"arteries-and-veins/{number}.png"] = arteries_and_veins(tree(number))
        files[f"masks/{number}.png"] = disc()
    return write_files(root, files)


WRITERS = {"HRF": hrf, "CHASE_DB1": chase, "STARE": stare, "FIVES": fives, "LES-AV": les_av}


def test_every_row_of_the_table_is_tried_here():
    assert {layout.name for layout in NAMED} == set(WRITERS)


@pytest.mark.parametrize(
    ("name", "training", "test", "fov", "second"),
    [
        ("HRF", ["01_dr", "01_g", "01_h", "02_dr", "02_g", "02_h"], [], True, False),
        ("CHASE_DB1", ["Image_01L", "Image_01R", "Image_02L", "Image_02R"], [], False, True),
        ("STARE", ["im0001", "im0002", "im0044"], [], False, True),
        ("FIVES", ["1_A", "2_D", "3_G"], ["1_A", "2_N"], False, False),
        ("LES-AV", ["285", "7"], [], True, False),
    ],
)
@pytest.mark.parametrize("inside", ["", "somewhere/else"])
def test_layout(tmp_path, name, training, test, fov, second, inside):
    WRITERS[name](tmp_path / inside)
    dataset = find_dataset(tmp_path)
    assert (dataset.kind, dataset.root) == (name, tmp_path)
    assert [pair.name for pair in dataset.training] == training
    assert [pair.name for pair in dataset.test] == test
    for pair in dataset.training + dataset.test:
        assert pair.vessels is not None and pair.vessels.stem.startswith(pair.name)
        assert (pair.fov is not None, pair.second is not None) == (fov, second)
    with pytest.raises(DataError, match=rf"is {name}, but DRIVE is wanted: "):
        find_drive(tmp_path)


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_read_is_what_was_written(tmp_path, name):
    WRITERS[name](tmp_path)
    vessels = [read_photograph(pair).vessels[0].numpy() for pair in find_dataset(tmp_path).training]
    assert all(0 < mask.mean() < 0.2 for mask in vessels)
    if name == "CHASE_DB1":
        for number, mask in enumerate(vessels):
            np.testing.assert_array_equal(mask, tree(number))


@pytest.mark.parametrize("folder", ["arteries_veins/", "", "anything/"])
def test_colours_of_arteries_and_veins_are_all_vessel(tmp_path, folder):
    """Blue alone has less than half of green's grey level, so that a grey threshold would lose the veins."""
    dataset = find_dataset(hrf(tmp_path, labels=folder, fov=False))
    order = [HRF.index(pair.name) for pair in dataset.training]
    for number, pair in zip(order, dataset.training, strict=True):
        decoded = read_photograph(pair)
        np.testing.assert_array_equal(decoded.vessels[0].numpy(), tree(number))
        assert decoded.fov.float().mean() > 0.5  # found in the photograph


def test_plain_labels_go_before_coloured_ones(tmp_path):
    dataset = find_dataset(hrf(hrf(tmp_path), labels="arteries_veins/"))
    assert all(pair.vessels.parent.name == "manual1" and not pair.coloured for pair in dataset.training)


@pytest.mark.parametrize("truth", ["Groud truth", "Ground truth", "GroundTruth"])
def test_fives_in_any_spelling(tmp_path, truth):
    assert find_dataset(fives(tmp_path, truth)).has_test_labels


def test_split_folders_of_a_set_that_comes_without(tmp_path):
    chase(tmp_path / "train")
    chase(tmp_path / "test")
    dataset = find_dataset(tmp_path)
    assert (dataset.kind, len(dataset.training), len(dataset.test)) == ("CHASE_DB1", 4, 4)


@pytest.mark.parametrize("archive", ["all.zip", "all (1).zip", "HRF.zip", "archive.zip"])
@pytest.mark.parametrize("within", ["", "HRF"])
def test_hrf_as_its_archive(tmp_path, archive, within):
    (tmp_path / "download").mkdir()
    file = zipped(hrf(tmp_path / "hrf"), tmp_path / "download" / archive, within=within)
    for root in (file, file.parent):
        dataset = find_dataset(root)
        assert (dataset.kind, dataset.root, len(dataset.training)) == ("HRF", root, 6)


def test_variable_and_home_lead_to_any_layout(tmp_path, monkeypatch):
    hrf(tmp_path / "HRF")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("DRIVE_UNET_DATA", "~/HRF")
    assert find_dataset().kind == find_dataset("~/HRF").kind == "HRF"


def test_one_s_own_folder_by_variable_home_and_archive(tmp_path, monkeypatch):
    files = {f"images/{name}.png": photograph(2) for name in ("a", "b")}
    files |= {f"labels/{name}_vessels.png": tree(2) for name in ("a", "b")}
    write_files(tmp_path / "mine", files)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("DRIVE_UNET_DATA", "~/mine")
    archive = zipped(tmp_path / "mine", tmp_path / "mine.zip")
    for dataset in (find_dataset(), find_dataset("~/mine"), find_dataset(archive)):
        assert (dataset.kind, [pair.name for pair in dataset.training]) == ("own", ["a", "b"])


def test_photographs_of_drive_in_folders_of_one_s_own(tmp_path):
    files = {f"images/{number}_training.tif": photograph(number) for number in (21, 22)}
    files |= {f"labels/{number}_manual1.png": tree(number) for number in (21, 22)}
    dataset = find_dataset(write_files(tmp_path, files))
    assert (dataset.kind, [pair.name for pair in dataset.training]) == ("own", ["21", "22"])


def test_folds_of_a_set_without_an_official_test(tmp_path):
    drive = load_drive(hrf(tmp_path), k=3)
    assert drive.source == "HRF"
    assert drive.validation.names == ["01_dr", "02_dr"]
    assert drive.held_out.names == ["01_g", "02_g"]
    assert drive.training.names == ["01_h", "02_h"]
    assert len(drive.test) == 0
    assert "photographs of HRF;" in drive.describe() and "official" not in drive.describe()


def test_official_test_of_another_set_is_held_out(tmp_path):
    drive = load_drive(fives(tmp_path), k=3)
    assert drive.held_out is drive.test and drive.held_out.names == ["1_A", "2_N"]
    assert len(drive.training) == 2


def test_terms_are_said_once_and_not_on_stdout(tmp_path, capsys):
    for _ in range(2):
        find_dataset(hrf(tmp_path / "HRF"))
    find_dataset(write_drive(tmp_path / "DRIVE"))
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split(":")[0] for line in err.splitlines()] == ["HRF, terms of use", "DRIVE, terms of use"]
    assert "CC BY 4.0" in err
    assert all(layout.terms for layout in LAYOUTS if layout.name not in ("own", "embedded"))


def test_datasets_side_by_side_are_not_chosen_between(tmp_path):
    hrf(tmp_path / "HRF")
    chase(tmp_path / "CHASE_DB1")
    with pytest.raises(DataError, match=r"holds several datasets, CHASE_DB1 and HRF: name the folder of one"):
        find_dataset(tmp_path)


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        ("manual1/01_h.tif", r"manual1 lacks the vessel labels of 01_h\.jpg \(1 of 6\): .*HRF again"),
        ("images/01_h.jpg", r"images lacks the photographs that belong to 01_h\.tif in .*manual1: "),
        ("mask/01_h_mask.tif", r"mask lacks the field-of-view masks of 01_h\.jpg"),
    ],
)
def test_a_missing_file_is_named(tmp_path, lost, words):
    (hrf(tmp_path) / lost).unlink()
    with pytest.raises(DataError, match=words):
        find_dataset(tmp_path)


def test_a_photograph_that_exists_twice(tmp_path):
    write_files(chase(tmp_path), {"images/image_01l.png": photograph(9)})
    with pytest.raises(DataError, match=r"holds picture image_01l twice, as .*move one of them"):
        find_dataset(tmp_path)
