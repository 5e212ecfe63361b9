"""Copies of DRIVE that cannot be used: one sentence names the file and the remedy, and nothing is touched."""

from __future__ import annotations

import io
import os
import shutil
import stat
import struct
import warnings
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event

import numpy as np
import pytest
import tifffile
from builders import SIZE, disc, grey, palette, photograph, tree, write_files, write_split, zipped
from PIL import Image

from drive_unet.data import DRIVEDataset, archives, load_drive, read_image, read_mask
from drive_unet.data.find import find_dataset, find_drive
from drive_unet.data.reading import read_prediction
from drive_unet.errors import DataError

AS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path_factory) -> Path:
    """A cache of the test's own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("DRIVE_UNET_CACHE", str(folder))
    monkeypatch.delenv("DRIVE_UNET_DATA", raising=False)
    return folder


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in [folder, *folder.rglob("*")]
    }


def refused(call, *words: str, untouched: Path | None = None) -> str:
    """The message with which a call is refused: one sentence that holds the words and ends in a remedy."""
    before = snapshot(untouched) if untouched else None
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing may reach stderr
        with pytest.raises(DataError) as caught:
            call()
    message = str(caught.value)
    for word in words:
        assert word in message, f"{word!r} is not in {message!r}"
    assert "\n" not in message
    assert ": " in message, f"no remedy in {message!r}"
    assert ". " not in message, f"more than one sentence: {message!r}"
    assert not message.endswith(".")
    assert before is None or snapshot(untouched) == before
    return message


# ----------------------------------------------------------------------------------------------- wrong places


def test_path_that_does_not_exist(tmp_path):
    refused(lambda: find_drive(tmp_path / "DRIVEE"), str(tmp_path / "DRIVEE"), "does not exist", '"embedded"')


def test_wrong_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("DRIVE_UNET_DATA", str(tmp_path / "nowhere"))
    refused(load_drive, "DRIVE_UNET_DATA", str(tmp_path / "nowhere"), "does not exist", '"embedded"')


def test_home_of_nobody():
    refused(lambda: find_drive("~no_such_user_here/DRIVE"), "~no_such_user_here")


def test_empty_folder(tmp_path):
    refused(lambda: load_drive(tmp_path), str(tmp_path), "is empty", "training.zip", untouched=tmp_path)
    (tmp_path / ".DS_Store").write_bytes(b"litter")
    refused(lambda: load_drive(tmp_path), "is empty")


def test_folder_of_something_else(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    refused(lambda: find_drive(tmp_path), str(tmp_path), "neither folders named training and test")


def test_file_of_something_else(tmp_path):
    (tmp_path / "DRIVE.rar").write_bytes(b"Rar!")
    refused(lambda: find_drive(tmp_path / "DRIVE.rar"), "DRIVE.rar", "neither a folder nor a zip archive")


@pytest.mark.parametrize(
    "name", ["stare-images.tar", "labels-ah/im0001.ah.ppm.gz", "FIVES A Fundus Image.rar"]
)
def test_archives_of_a_kind_that_is_not_read_are_named(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"packed")
    refused(lambda: find_dataset(tmp_path), str(tmp_path), Path(name).name, "unpack them", untouched=tmp_path)
    refused(lambda: find_dataset(tmp_path / name), name, "neither a folder nor a zip archive", "unpack it")


def test_one_part_is_named(root):
    refused(lambda: find_drive(root / "training"), str(root / "training"), "one part of DRIVE only")


def test_test_and_testing(root):
    shutil.copytree(root / "test", root / "testing")
    refused(lambda: find_drive(root), "test and testing", "leave only the right one")


# -------------------------------------------------------------------------------- partial and mismatched sets


@pytest.mark.parametrize("split", ["training", "test"])
def test_empty_images(root, split):
    shutil.rmtree(root / split / "images")
    refused(lambda: find_drive(root), str(root / split / "images"), "holds no images")
    (root / split / "images").mkdir()
    refused(lambda: find_drive(root), str(root / split / "images"), "holds no images", untouched=root)


def test_missing_image(root):
    (root / "training" / "images" / "25_training.tif").unlink()
    refused(lambda: find_drive(root), "training", "images", "lacks 25_training", untouched=root)


def test_missing_photograph_with_all_its_files(root):
    for file in (root / "test").rglob("07_*"):
        file.unlink()
    refused(lambda: find_drive(root), "lacks 07_test of DRIVE's 20 test pictures")


def test_missing_image_of_a_folder_of_one_s_own(root):
    (root / "training" / "images" / "25_training.tif").unlink()
    folder = root / "training"
    refused(
        lambda: DRIVEDataset(folder / "images", folder / "1st_manual"),
        "25_manual1.gif",
        "lacks the photographs that",
    )


def test_half_of_the_labels(root):
    for number in range(31, 41):
        (root / "training" / "1st_manual" / f"{number}_manual1.gif").unlink()
    refused(
        lambda: find_drive(root), "1st_manual lacks the vessel labels of 31_training.tif, 32_", "10 of 20"
    )


def test_no_labels_at_all(root):
    shutil.rmtree(root / "training" / "1st_manual")
    refused(lambda: find_drive(root), str(root / "training" / "1st_manual"), "no vessel labels")


def test_some_test_labels(root):
    write_split(root / "test", "test", range(1, 6))
    refused(lambda: find_drive(root), "test", "lacks the vessel labels of 06_test.tif", "15 of 20")


def test_one_missing_mask(root):
    (root / "training" / "mask" / "33_training_mask.gif").unlink()
    refused(lambda: find_drive(root), "mask lacks the field-of-view masks of 33_training.tif", "1 of 20")


def test_image_that_exists_twice(root):
    images = root / "training" / "images"
    shutil.copy(images / "21_training.tif", images / "21_training (1).tif")
    refused(
        lambda: find_drive(root), "picture 21 twice", "21_training.tif", "21_training (1).tif", untouched=root
    )


def test_label_that_exists_twice(root):
    Image.fromarray(tree()).save(root / "training" / "1st_manual" / "21_manual1.png")
    refused(lambda: find_drive(root), "picture 21 twice", "21_manual1.gif", "21_manual1.png")


def test_name_without_a_number(root):
    images = root / "training" / "images"
    (images / "21_training.tif").rename(images / "twenty-one.tif")
    refused(lambda: find_drive(root), "twenty-one.tif", "no number")


def test_copy_of_80_renumbered_files(tmp_path):
    write_split(tmp_path / "training", "training", range(20, 100))
    refused(
        lambda: find_drive(tmp_path),
        str(tmp_path / "training"),
        "80 files",
        "flipped and renumbered",
        "official",
    )


@pytest.mark.parametrize("count", [4, 80])
def test_photographs_of_another_set_in_folders_named_as_drive_s(tmp_path, count):
    files = {f"train/image/{n}.png": photograph(n) for n in range(count)}
    files |= {f"train/1st_manual/{n}.png": tree(n) for n in range(count)}
    write_files(tmp_path, files | {"test/image/0.png": photograph(99)})
    refused(lambda: find_dataset(tmp_path), "0.png, 1.png", "call their folders images and labels", "train")
    (tmp_path / "train" / "1st_manual").rename(tmp_path / "train" / "labels")
    assert len(find_dataset(tmp_path / "train").training) == count


def test_test_pictures_among_the_training_pictures(root):
    write_split(root / "training", "training", [1, 2])
    refused(lambda: find_drive(root), "01_training.tif and 02_training.tif", "numbered 21 to 40")


@pytest.mark.parametrize("layout", ["AV_groundTruth/training", "training"])
def test_rite(tmp_path, layout):
    for folder in ("images", "av", "vessel"):
        (tmp_path / layout / folder).mkdir(parents=True)
    refused(lambda: find_drive(tmp_path), "is RITE, not DRIVE", "download DRIVE")


# ---------------------------------------------------------------------------------------------- damaged files


@pytest.mark.parametrize("keep", [0, 5, 200, 2000, -40])
def test_truncated_tiff(root, keep):
    image = root / "training" / "images" / "28_training.tif"
    Image.fromarray(photograph(28, (300, 310))).save(image, compression="tiff_lzw")
    image.write_bytes(image.read_bytes()[:keep])
    refused(lambda: load_drive(root), str(image), "download the file again", untouched=root)


@pytest.mark.parametrize("suffix", [".gif", ".png", ".tif", ".bmp", ".jpg"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_any_file_cut_off_anywhere(tmp_path, suffix, share):
    path = tmp_path / f"21{suffix}"
    Image.fromarray(photograph(1, (200, 210))).save(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    refused(lambda: read_image(path), str(path), "again")


def test_a_palette_with_more_transparencies_than_colours(tmp_path):
    content = io.BytesIO()
    picture = palette(tree())
    picture.save(content, "PNG", transparency=bytes(2))
    before, after = content.getvalue().split(b"\0\0\0\2tRNS")
    chunk = b"tRNS" + bytes(300)
    broken = before + struct.pack(">I", 300) + chunk + struct.pack(">I", zlib.crc32(chunk)) + after[6:]
    (tmp_path / "21.png").write_bytes(broken)
    for read in (read_image, read_mask, read_prediction):
        refused(lambda read=read: read(tmp_path / "21.png"), "21.png", "damaged")


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><title>Log in</title>", b"II*\0" + b"\xff" * 64])
def test_no_image_at_all(root, content):
    label = root / "training" / "1st_manual" / "30_manual1.gif"
    label.write_bytes(content)
    refused(lambda: load_drive(root), str(label), "again", untouched=root)


def test_missing_file(tmp_path):
    refused(lambda: read_mask(tmp_path / "21_manual1.gif"), "21_manual1.gif", "does not exist")
    refused(lambda: read_image(tmp_path), str(tmp_path), "folder" if os.name != "nt" else "")


def test_label_of_another_size(root):
    label = root / "training" / "1st_manual" / "22_manual1.gif"
    grey(255)(tree(size=(40, 44))).save(label)
    height, width = SIZE
    refused(
        lambda: load_drive(root), str(label), "44x40", "22_training.tif", f"{width}x{height}", untouched=root
    )


def test_mask_of_another_size(root):
    mask = root / "test" / "mask" / "03_test_mask.gif"
    grey(255)(disc((64, 64))).save(mask)
    refused(lambda: load_drive(root), str(mask), "64x64", "03_test.tif")


def test_labels_exchanged_with_fov_masks(root):
    folder = root / "training"
    for one, other in (("mask", "hold"), ("1st_manual", "mask"), ("hold", "1st_manual")):
        (folder / one).rename(folder / other)
    message = refused(
        lambda: load_drive(root), "1st_manual", "shows the field of view, not vessels", untouched=root
    )
    assert "exchange 1st_manual and mask" in message


def test_the_article_s_mistake(root):
    """Labels read from DRIVE's folder `mask`, which are the fields of view."""
    folder = root / "training"
    refused(
        lambda: DRIVEDataset(folder / "images", folder / "mask"),
        "21_training_mask.gif shows the field of view, not vessels",
        str(folder / "1st_manual"),
    )


def test_the_article_s_folder_that_does_not_exist(root):
    folder = root / "training"
    refused(
        lambda: DRIVEDataset(folder / "images", folder / "masks"),
        str(folder / "masks"),
        "does not exist",
        str(folder / "1st_manual"),
    )


def test_labels_where_fov_masks_belong(root):
    folder = root / "training"
    refused(
        lambda: DRIVEDataset(folder / "images", folder / "1st_manual", fov_dir=folder / "1st_manual"),
        "21_manual1.gif does not show a field of view",
    )


def test_inverted_labels(root):
    label = root / "training" / "1st_manual" / "21_manual1.gif"
    grey(255)(~tree(21)).save(label)
    refused(lambda: load_drive(root), str(label), "dark on white", "invert")


def test_black_fov_mask(root):
    mask = root / "test" / "mask" / "02_test_mask.gif"
    grey(255)(np.zeros(SIZE, dtype=bool)).save(mask)
    refused(lambda: load_drive(root), str(mask), "all black")


def test_black_photograph_without_a_mask(tmp_path):
    folder = write_split(tmp_path / "training", "training", [21, 22], fov=False)
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(folder / "images" / "21_training.tif")
    refused(lambda: load_drive(tmp_path, k=2), "21_training.tif", "replace")


def test_values_that_are_no_brightness(tmp_path):
    for name, levels in (("nan", np.nan), ("negative", -3.0)):
        image = photograph(1)[..., 1].astype(np.float32)
        image[0, 0] = levels
        Image.fromarray(image).save(tmp_path / f"{name}.tif")
        refused(lambda name=name: read_image(tmp_path / f"{name}.tif"), f"{name}.tif", "export it")


def test_a_sound_file_of_a_kind_that_is_not_read_is_not_called_damaged(tmp_path):
    tifffile.imwrite(tmp_path / "float.tif", photograph(1).astype(np.float32) / 255, photometric="rgb")
    refused(lambda: read_image(tmp_path / "float.tif"), "float32, 3 a pixel", "export it in whole")
    (tmp_path / "cut.tif").write_bytes((tmp_path / "float.tif").read_bytes()[:-100])
    refused(lambda: read_image(tmp_path / "cut.tif"), "cut.tif", "cut off")


def test_label_that_is_not_turned_as_its_photograph(tmp_path):
    write_split(tmp_path, "training", [21])
    label = tmp_path / "1st_manual" / "21_manual1.gif"
    with Image.open(label) as picture:
        picture.transpose(Image.Transpose.ROTATE_90).save(label)
    refused(
        lambda: DRIVEDataset(tmp_path / "images", tmp_path / "1st_manual"), "21_manual1.gif", "turned as the"
    )


@pytest.mark.parametrize(
    ("photographed", "labelled"),
    [("12_left", "12_right"), ("12_links", "12_rechts"), ("12_sin", "12_dex"), ("12_a", "12_b")],
)
def test_a_label_of_the_other_eye(tmp_path, photographed, labelled):
    for folder, name in (("images", photographed), ("labels", labelled)):
        (tmp_path / folder).mkdir()
        grey(255)(tree()).save(tmp_path / folder / f"{name}.png")
    refused(lambda: find_dataset(tmp_path), f"lacks the vessel labels of {photographed}.png")


@pytest.mark.parametrize("which", [0, 1])
def test_dataset_folders_that_do_not_exist(root, which):
    folders = [root / "training" / "images", root / "training" / "1st_manual"]
    folders[which] = root / "training" / "imagse"
    refused(lambda: DRIVEDataset(*folders), str(root / "training" / "imagse"), "does not exist")
    folders[which].mkdir()
    refused(lambda: DRIVEDataset(*folders), str(root / "training" / "imagse"), "holds no images")


# ------------------------------------------------------------------------------------------------ permissions


def test_unreadable_folder(root, monkeypatch):
    """The super-user may read anything, so the refusal is played."""
    images = root / "training" / "images"
    iterdir = Path.iterdir

    def guarded(self):
        if self == images:
            raise PermissionError(13, "Permission denied", str(self))
        return iterdir(self)

    monkeypatch.setattr(Path, "iterdir", guarded)
    refused(lambda: find_drive(root), str(images), "Permission denied", "give yourself permission")
    refused(lambda: DRIVEDataset(images), str(images), "Permission denied", "give yourself permission")


def test_unreadable_file(root, monkeypatch):
    label = root / "training" / "1st_manual" / "29_manual1.gif"
    open_image = Image.open

    def guarded(path, *args, **kwargs):
        if Path(path) == label:
            raise PermissionError(13, "Permission denied", str(path))
        return open_image(path, *args, **kwargs)

    monkeypatch.setattr(Image, "open", guarded)
    refused(lambda: load_drive(root), str(label), "Permission denied", "give yourself permission")


@pytest.mark.skipif(AS_ROOT or os.name == "nt", reason="permissions do not bind this user")
@pytest.mark.parametrize("what", ["training", "training/images", "training/images/21_training.tif"])
def test_real_permissions(root, what):
    mode = (root / what).stat().st_mode
    (root / what).chmod(0)
    try:
        refused(lambda: load_drive(root), str(root / what), "permission")
    finally:
        (root / what).chmod(mode)


# --------------------------------------------------------------------------------------------------- archives


@pytest.fixture
def archive(official, tmp_path) -> Path:
    """The official training.zip, to spoil."""
    return zipped(official / "training", tmp_path / "training.zip")


def refused_archive(archive: Path, cache: Path, *words: str) -> None:
    """The archive is refused by its name, and nothing was written, neither to the cache nor beside it."""
    refused(lambda: load_drive(archive), str(archive), *words, untouched=archive.parent)
    refused(lambda: load_drive(archive.parent), str(archive), *words, untouched=archive.parent)
    assert [path for path in cache.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    "name",
    [
        "../evil.gif",
        "training/../../evil.gif",
        "training/images/../../../evil.tif",
        "/etc/evil.gif",
        "C:/evil.gif",
        "..\\evil.gif",
        "\\\\server\\share\\evil.gif",
        "../evil.txt",
    ],
)
def test_archive_that_reaches_outside(archive, cache, name):
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr(zipfile.ZipInfo(name), b"evil")
    refused_archive(archive, cache, "a path outside", "evil")
    assert not list(cache.parent.glob("evil*"))


def test_archive_with_a_link(archive, cache):
    member = zipfile.ZipInfo("training/images/41_training.tif")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr(member, "/etc/passwd")
    refused_archive(archive, cache, "41_training.tif", "a link")


def test_bomb(archive, cache, monkeypatch):
    monkeypatch.setattr(archives, "_RATIO_COUNTS_FROM", 10 << 20)  # a smaller bomb is made sooner
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as opened:
        with opened.open("training/images/bomb.tif", "w") as member:
            for _ in range(30):
                member.write(bytes(1 << 20))
    refused_archive(archive, cache, "would unpack to", "as no dataset does")


def test_archive_too_large(archive, cache, monkeypatch):
    monkeypatch.setattr(archives, "MAX_BYTES", 50_000)
    refused_archive(archive, cache, "would unpack to")


def test_large_archives_are_no_bombs(archive, cache):
    """HRF's 75 MB unpack to more than 1 GB, with masks that shrink to a hundredth; FIVES is larger still."""
    with zipfile.ZipFile(archive) as opened:
        for member, size in ((opened.infolist()[0], 6 * 1024**3), (opened.infolist()[1], 2)):
            member.file_size = size
        assert archives._vetted(_sized(archive, 75 * 1024**2), opened)
        with pytest.raises(DataError, match="as no dataset does"):
            archives._vetted(_sized(archive, 42 * 1024), opened)


class _sized:
    """A path to a file of another size than it has."""

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.st_size = path, size

    def stat(self) -> _sized:
        return self

    def __str__(self) -> str:
        return str(self.path)


def test_full_disk(archive, cache, monkeypatch):
    usage = shutil.disk_usage(cache)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: usage._replace(free=10_000))
    refused_archive(archive, cache, "would unpack to", "left", "DRIVE_UNET_CACHE")


def test_archive_cut_off(archive, cache):
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    refused_archive(archive, cache, "not a complete zip archive", "download it again")


def test_web_page_saved_as_archive(archive, cache):
    archive.write_bytes(b"<!DOCTYPE html><title>Sign in to continue</title>")
    refused_archive(archive, cache, "not a complete zip archive", "web page")


def test_archive_with_a_damaged_member(archive, cache):
    content = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as opened:
        member = opened.getinfo("training/images/21_training.tif")
    for position in range(member.header_offset + 200, member.header_offset + 260):
        content[position] ^= 0xFF
    archive.write_bytes(content)
    refused_archive(archive, cache, "download it again")


def test_archive_with_a_password(archive, cache):
    content = archive.read_bytes()
    content = content.replace(b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00")
    archive.write_bytes(content)
    with zipfile.ZipFile(archive) as opened:
        assert opened.infolist()[0].flag_bits & 1
    refused_archive(archive, cache, "password")


def test_archive_of_an_archive(archive, cache, tmp_path):
    outer = tmp_path / "outer" / "DRIVE.zip"
    outer.parent.mkdir()
    with zipfile.ZipFile(outer, "w") as opened:
        opened.write(archive, "training.zip")
    refused_archive(outer, cache, "holds no images", "unpack it once")


def test_archive_of_something_else(tmp_path):
    archive = tmp_path / "training.zip"
    Image.fromarray(photograph()).save(tmp_path / "cat.png")
    with zipfile.ZipFile(archive, "w") as opened:
        opened.write(tmp_path / "cat.png", "pictures/cat.png")
    refused(lambda: find_drive(archive), str(archive), "neither training/images nor test/images")


def test_two_different_archives_of_one_split(archive, official, tmp_path):
    zipped(
        write_split(tmp_path / "other", "training", range(21, 41)),
        tmp_path / "training (1).zip",
        within="training",
    )
    shutil.rmtree(tmp_path / "other")
    write_split(tmp_path / "third", "training", range(21, 24))
    zipped(tmp_path / "third", tmp_path / "training (2).zip", within="training")
    shutil.rmtree(tmp_path / "third")
    refused(lambda: find_drive(tmp_path), "two different archives of the training pictures")


def test_unreadable_archive(archive, monkeypatch):
    open_path = Path.open

    def guarded(self, *args, **kwargs):
        if self == archive:
            raise PermissionError(13, "Permission denied", str(self))
        return open_path(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", guarded)
    refused(lambda: find_drive(archive), str(archive), "Permission denied")


def test_cache_that_cannot_be_written(archive, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"not a folder")
    monkeypatch.setenv("DRIVE_UNET_CACHE", str(tmp_path / "file"))
    refused(lambda: find_drive(archive), str(archive), "DRIVE_UNET_CACHE")


def test_partial_set_in_an_archive(root, tmp_path):
    (root / "training" / "1st_manual" / "21_manual1.gif").unlink()
    archive = zipped(root / "training", tmp_path / "training.zip")
    refused(lambda: find_drive(archive), "lacks the vessel labels of 21_training.tif")


def test_reading_in_threads_leaves_the_warnings_of_the_process_as_they_were(tmp_path, monkeypatch):
    """The second file is opened while the first is, and finished after it."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png")
    both_open, first_done, open_file = Barrier(2, timeout=60), Event(), Image.open

    def opened(file, *more):
        both_open.wait()
        if Path(file).name == "b.png":
            assert first_done.wait(60)
        return open_file(file, *more)

    monkeypatch.setattr(Image, "open", opened)
    before = list(warnings.filters)
    with ThreadPoolExecutor(2) as pool:
        first, second = (pool.submit(read_image, tmp_path / name) for name in ("a.png", "b.png"))
        first.result(60)
        first_done.set()
        second.result(60)
    assert warnings.filters == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_process_that_is_forked_while_a_file_is_read_warns_as_usual(tmp_path, monkeypatch):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    reading, forked, open_file = Event(), Event(), Image.open

    def opened(file, *more):
        reading.set()
        assert forked.wait(60)
        return open_file(file, *more)

    monkeypatch.setattr(Image, "open", opened)
    before = list(warnings.filters)
    with ThreadPoolExecutor(1) as pool:
        picture = pool.submit(read_image, tmp_path / "a.png")
        assert reading.wait(60)
        child = os.fork()
        if child == 0:
            forked.set()
            read_image(tmp_path / "a.png")  # it silences and puts back for itself
            os._exit(int(warnings.filters != before))
        forked.set()
        picture.result(60)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert warnings.filters == before
