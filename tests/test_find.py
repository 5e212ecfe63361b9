"""Every layout in which DRIVE is found on people's disks, and what is looked at first."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import pytest
from builders import TEST, TRAINING, write_drive, write_split, zipped

from drive_unet.data import find as locate
from drive_unet.data.find import FALLBACK, find_drive
from drive_unet.errors import DataError
from drive_unet.painter import painting


@pytest.fixture(scope="session")
def official(tmp_path_factory) -> Path:
    """Today's official download, unpacked; tests read it only."""
    return write_drive(tmp_path_factory.mktemp("official") / "DRIVE")


@pytest.fixture(scope="session")
def archives(official, tmp_path_factory) -> Path:
    """Today's official download as it comes: training.zip and test.zip."""
    folder = tmp_path_factory.mktemp("archives")
    for split in ("training", "test"):
        zipped(official / split, folder / f"{split}.zip")
    return folder


@pytest.fixture(autouse=True)
def private(monkeypatch, tmp_path_factory) -> Path:
    """No variable, no data/DRIVE above the working folder, and a cache of the test's own; returns that."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("DRIVE_UNET_CACHE", str(cache))
    monkeypatch.delenv("DRIVE_UNET_DATA", raising=False)
    monkeypatch.chdir(tmp_path_factory.mktemp("working"))
    return cache


@pytest.fixture
def painted(monkeypatch, official) -> Path:
    """Stands for the embedded set, which takes seconds to paint."""
    monkeypatch.setattr("drive_unet.data.painted.embedded_folder", lambda: official)
    return official


def check_official(found: locate.DriveFolder) -> None:
    """All of the official download was found, in order."""
    assert [pair.name for pair in found.training] == [f"{number:02d}" for number in TRAINING]
    assert [pair.name for pair in found.test] == [f"{number:02d}" for number in TEST]
    assert all(pair.vessels and pair.fov for pair in found.training)
    assert all(pair.vessels is None and pair.fov for pair in found.test)
    assert found.kind == "DRIVE"
    assert not found.has_test_labels
    pair = found.training[3]
    assert (pair.image.name, pair.vessels.name, pair.fov.name) == (
        "24_training.tif",
        "24_manual1.gif",
        "24_training_mask.gif",
    )


def test_official_layout(official):
    check_official(find_drive(official))
    check_official(find_drive(str(official)))


def test_historical_archive(tmp_path):
    found = find_drive(write_drive(tmp_path, test_labels=True))
    assert found.has_test_labels
    assert found.test[0].vessels.name == "01_manual1.gif"
    assert found.test[0].second.name == "01_manual2.gif"


@pytest.mark.parametrize("name", ["testing", "Test", "TESTING"])
def test_other_names_of_test(tmp_path, name):
    check_official(find_drive(write_drive(tmp_path, test_name=name)))


@pytest.mark.parametrize("inside", ["DRIVE", "DRIVE/DRIVE", "datasets/DRIVE", "anything"])
def test_nested_folder(tmp_path, official, inside):
    shutil.copytree(official, tmp_path / inside)
    check_official(find_drive(tmp_path))


def test_nested_drive_beside_other_folders(tmp_path, official):
    shutil.copytree(official, tmp_path / "DRIVE")
    for other in ("CHASE_DB1", "__MACOSX", ".ipynb_checkpoints"):
        (tmp_path / other).mkdir()
    check_official(find_drive(tmp_path))


def test_unpacker_that_doubles_the_folder(tmp_path, official):
    for split in ("training", "test"):
        shutil.copytree(official / split, tmp_path / split / split)
    check_official(find_drive(tmp_path))


def test_litter_is_ignored(tmp_path, official):
    root = tmp_path / "DRIVE"
    shutil.copytree(official, root)
    for folder in (root, root / "training", root / "training" / "images", root / "test" / "mask"):
        for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._21_training.tif", "README.txt"):
            (folder / name).write_bytes(b"litter")
        shutil.copytree(official / "training", folder / "__MACOSX" / "training")
    check_official(find_drive(root))


def test_upper_case_suffixes(tmp_path, official):
    shutil.copytree(official, tmp_path, dirs_exist_ok=True)
    for file in list(tmp_path.rglob("*.*")):
        if file.is_file():
            file.rename(file.with_suffix(file.suffix.upper()))
    found = find_drive(tmp_path)
    assert found.training[0].image.name == "21_training.TIF"
    assert found.training[0].vessels.name == "21_manual1.GIF"
    assert len(found.training) == len(found.test) == 20


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_labels_of_another_format(tmp_path, suffix):
    found = find_drive(write_drive(tmp_path, suffix=suffix))
    assert found.training[0].vessels.name == f"21_manual1{suffix}"


def together(target: Path, *sources: Path) -> Path:
    """All files below some folders, side by side in one."""
    target.mkdir(parents=True)
    for file in (file for source in sources for file in source.rglob("*.*")):
        shutil.copy(file, target / file.name)
    return target


@pytest.mark.parametrize("form", ["one folder", "archive", "a folder each", "kinds", "wrapped"])
def test_files_that_lie_side_by_side(tmp_path, official, form):
    root = tmp_path / "mine"
    if form == "a folder each":
        for split in ("training", "test"):
            together(root / split, official / split)
    elif form == "kinds":
        for kind in ("images", "1st_manual", "mask"):
            together(root / kind, official / "training" / kind, official / "test" / kind)
    else:
        together(root / "all" if form == "wrapped" else root, official)
    check_official(find_drive(zipped(root, tmp_path / "mine.zip") if form == "archive" else root))


def test_files_side_by_side_of_which_some_are_missing(tmp_path, official):
    root = together(tmp_path / "mine", write_drive(tmp_path / "old", test_labels=True))
    (root / "unet.png").write_bytes(b"a figure")
    assert find_drive(root).has_test_labels
    (root / "31_training_mask.gif").unlink()
    with pytest.raises(
        DataError, match=r"mine lacks the field-of-view masks of 31_training.tif \(1 of 20\): "
    ):
        find_drive(root)
    part = together(tmp_path / "part", official / "training" / "images", official / "training" / "mask")
    with pytest.raises(DataError, match=r"part holds no vessel labels such as 21_manual1.gif"):
        find_drive(part)


def test_no_fov_masks(tmp_path):
    found = find_drive(write_drive(tmp_path, fov=False))
    assert all(pair.fov is None for pair in found.training + found.test)


def test_empty_label_folder_of_test_is_no_labels(tmp_path, official):
    shutil.copytree(official, tmp_path, dirs_exist_ok=True)
    (tmp_path / "test" / "1st_manual").mkdir()
    check_official(find_drive(tmp_path))


def test_training_alone(tmp_path):
    write_split(tmp_path / "training", "training", TRAINING)
    found = find_drive(tmp_path)
    assert len(found.training) == 20
    assert found.test == ()
    assert not found.has_test_labels


def test_a_small_sample_of_drive_is_allowed(tmp_path):
    write_split(tmp_path / "training", "training", (21, 25, 40))
    assert [pair.name for pair in find_drive(tmp_path).training] == ["21", "25", "40"]


def test_painted_set_may_have_any_size(tmp_path):
    painting.make_dataset(tmp_path / "set", training=1, test=1, progress=False)
    found = find_drive(tmp_path)  # in a nested folder
    assert (found.kind, len(found.training), len(found.test)) == ("embedded", 1, 1)
    assert found.has_test_labels
    assert found.test[0].second is not None


# --------------------------------------------------------------------------------------------------- archives


def tree_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file with size and time of change, to see that a folder was left alone."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
    }


def test_the_two_official_archives(archives, private):
    before = tree_of(archives)
    check_official(find_drive(archives))
    assert tree_of(archives) == before
    assert len(list((private / "archives").iterdir())) == 2


def test_one_archive_by_name(archives):
    found = find_drive(archives / "training.zip")
    assert (len(found.training), len(found.test)) == (20, 0)
    found = find_drive(archives / "test.zip")
    assert (len(found.training), len(found.test)) == (0, 20)


def test_one_archive_in_a_folder(archives, tmp_path):
    shutil.copy(archives / "training.zip", tmp_path / "training.zip")
    found = find_drive(tmp_path)
    assert (len(found.training), len(found.test)) == (20, 0)


def test_one_part_unpacked_the_other_not(archives, official, tmp_path):
    shutil.copy(archives / "test.zip", tmp_path)
    shutil.copytree(official / "training", tmp_path / "training")
    check_official(find_drive(tmp_path))


def test_unpacked_folders_go_before_archives(official, tmp_path):
    shutil.copytree(official, tmp_path, dirs_exist_ok=True)
    (tmp_path / "training.zip").write_bytes(b"left over from an interrupted download")
    check_official(find_drive(tmp_path))


def test_second_download_of_the_same_archive(archives, tmp_path):
    shutil.copytree(archives, tmp_path, dirs_exist_ok=True)
    shutil.copy(archives / "training.zip", tmp_path / "training (1).zip")
    (tmp_path / "training_notes.zip").write_bytes(b"something else")
    check_official(find_drive(tmp_path))


def test_archive_of_everything(official, tmp_path):
    archive = zipped(official, tmp_path / "archive.zip")
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr("__MACOSX/DRIVE/training/images/._21_training.tif", b"litter")
        opened.writestr("DRIVE/.DS_Store", b"litter")
    check_official(find_drive(archive))
    check_official(find_drive(tmp_path))


def test_archive_without_a_folder_around(official, tmp_path):
    for split in ("training", "test"):
        zipped(official / split, tmp_path / f"{split}.zip", within="")
    check_official(find_drive(tmp_path))


@pytest.mark.parametrize("flat", [False, True])
def test_a_test_photograph_among_the_training_ones_is_refused(tmp_path, official, flat):
    root = tmp_path / "mine"
    for split in ("training", "test"):
        if flat:
            together(root / split, official / split)
        else:
            shutil.copytree(official / split, root / split)
    astray = "training" if flat else "training/images"
    shutil.copy(official / "test/images/01_test.tif", root / astray)
    with pytest.raises(DataError, match=r"training\S* holds 01_test.tif, but DRIVE's training .* 21 to 40"):
        find_drive(root)


@pytest.mark.parametrize(
    "names",
    [
        ("DRIVE_training.zip", "DRIVE_test.zip"),
        ("Training (2).zip", "testing-20240131T090000Z-001.zip"),
    ],
)
def test_archives_of_the_parts_by_other_names(official, tmp_path, names):
    for split, name in zip(("training", "test"), names, strict=True):
        zipped(official / split, tmp_path / name)
    check_official(find_drive(tmp_path))


@pytest.mark.parametrize(
    "name", ["DRIVE-master.zip", "drive dataset.zip", "DRIVE - Digital Retinal Images.zip"]
)
def test_archives_of_everything_by_other_names(official, tmp_path, name):
    zipped(official, tmp_path / name, within="DRIVE-master/data")
    check_official(find_drive(tmp_path))


def test_an_archive_by_a_name_that_tells_nothing_is_named(official, tmp_path):
    archive = zipped(official, tmp_path / "download.zip", within="")
    check_official(find_drive(archive))
    with pytest.raises(
        DataError, match=r"holds download.zip, not called as .*: name the archive itself, or "
    ):
        find_drive(tmp_path)


def test_archive_is_unpacked_once_and_mended(archives, private):
    first = find_drive(archives / "training.zip").training[0].image
    stamp = first.stat().st_mtime_ns
    assert find_drive(archives / "training.zip").training[0].image.stat().st_mtime_ns == stamp
    first.write_bytes(b"cut off")
    assert find_drive(archives / "training.zip").training[0].image.stat().st_size > 1000
    assert [entry.name for entry in (private / "archives").iterdir()] == [
        first.parents[2].name
    ]  # no leavings


def test_contents_decide_whether_a_copy_is_whole(archives):
    first = find_drive(archives / "training.zip").training[0].image
    whole = first.read_bytes()
    spoiled = bytearray(whole)
    spoiled[len(whole) // 2] ^= 0xFF
    first.write_bytes(spoiled)  # of the same size
    assert find_drive(archives / "training.zip").training[0].image.read_bytes() == whole


# -------------------------------------------------------------------------------------------- what goes first


def test_fall_back_says_so_in_one_line(painted, capsys):
    find_drive()
    assert capsys.readouterr().out == FALLBACK + "\n"


def test_embedded_by_name_says_nothing(painted, monkeypatch, capsys):
    assert find_drive("embedded").root == painted
    monkeypatch.setenv("DRIVE_UNET_DATA", "embedded")
    assert find_drive().root == painted
    assert capsys.readouterr().out == ""


def test_data_folder_here_or_above(painted, official, tmp_path, monkeypatch, capsys):
    place = tmp_path / "data" / "DRIVE"
    shutil.copytree(official, place)
    (tmp_path / "notebooks" / "deeper").mkdir(parents=True)
    for here in (tmp_path, tmp_path / "notebooks", tmp_path / "notebooks" / "deeper"):
        monkeypatch.chdir(here)
        assert find_drive().root.samefile(place)
    assert capsys.readouterr().out == ""


def test_variable_goes_before_data_folder_and_argument_before_both(painted, official, tmp_path, monkeypatch):
    shutil.copytree(official, tmp_path / "data" / "DRIVE")
    shutil.copytree(official, tmp_path / "variable")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DRIVE_UNET_DATA", str(tmp_path / "variable"))
    assert find_drive().root == tmp_path / "variable"
    assert find_drive(official).root == official
    assert find_drive("embedded").root == painted
    monkeypatch.setenv("DRIVE_UNET_DATA", " ")
    assert find_drive().root.samefile(tmp_path / "data" / "DRIVE")


def test_home_is_understood(official, monkeypatch):
    monkeypatch.setenv("HOME", str(official.parent))
    monkeypatch.setenv("USERPROFILE", str(official.parent))
    check_official(find_drive(f"~{os.sep}DRIVE"))


def test_empty_data_folder_is_not_passed_over(painted, tmp_path, monkeypatch):
    (tmp_path / "data" / "DRIVE").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="is empty: put DRIVE's training.zip"):
        find_drive()
