"""The data doctor: every kind of copy is recognised, every fault named with its file and a remedy."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from builders import (
    SIZE,
    TEST,
    TRAINING,
    arteries_and_veins,
    disc,
    grey,
    photograph,
    tree,
    write_drive,
    write_files,
    write_split,
    zipped,
)
from PIL import Image, ImageFilter, ImageOps

import drive_unet
from drive_unet.commands.main import main
from drive_unet.data import known
from drive_unet.doctor import copies as doctor

pytestmark = pytest.mark.usefixtures("own_places")

HRF = {
    f"{number:02d}_{kind}": 700 + 10 * number + place
    for number in range(1, 4)
    for place, kind in enumerate(("h", "dr", "g"))
}


@pytest.fixture
def own_places(tmp_path_factory, monkeypatch):
    """A cache of the tests' own, and the builders' photographs for DRIVE's in the table of checksums."""
    monkeypatch.setenv("DRIVE_UNET_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("DRIVE_UNET_DATA", raising=False)
    splits = [
        (split, number) for split, numbers in (("training", TRAINING), ("test", TEST)) for number in numbers
    ]
    table = {
        "size": list(SIZE),
        "image": {f"{split}/{number:02d}": known.checksum(photograph(number)) for split, number in splits},
        "vessels": {f"training/{number:02d}": known.checksum(tree(number)) for number in TRAINING},
        "fov": {f"{split}/{number:02d}": known.checksum(disc()) for split, number in splits},
    }
    hrf = {
        "size": list(SIZE),
        "image": {name: known.checksum(photograph(number)) for name, number in HRF.items()},
        "vessels": {name: known.checksum(tree(number)) for name, number in HRF.items()},
    }
    for function in (known._photographs, known._sizes):
        function.cache_clear()
    monkeypatch.setattr(known, "_table", lambda: {"DRIVE": table, "HRF": hrf})
    yield
    for function in (known._photographs, known._sizes):
        function.cache_clear()


@pytest.fixture(scope="session")
def sample(tmp_path_factory) -> Path:
    """A few photographs of it; tests read it only."""
    folder = tmp_path_factory.mktemp("doctor") / "DRIVE"
    write_split(folder / "training", "training", [21, 22, 23, 25, 28, 29, 30, 31])
    write_split(folder / "test", "test", [3, 5, 7], vessels=False)
    return folder


@pytest.fixture
def few(sample, tmp_path) -> Path:
    """A copy of them to spoil."""
    return Path(shutil.copytree(sample, tmp_path / "DRIVE"))


def checked(root):
    report = drive_unet.check_data(root, progress=False)
    assert json.loads(json.dumps(report.to_dict()))["code"] == report.code
    page = str(report)
    assert page.splitlines()[-1] == f"Verdict: {report.verdict}"
    assert page.splitlines()[-2].startswith("Folder: ") and report.kind in page
    for finding in report.findings:
        assert finding.what in page and (finding.level == "note" or finding.do), finding
    return report


def codes(report, *levels):
    return {finding.code for finding in report.findings if finding.level in (levels or ("error", "warning"))}


def finding(report, code):
    (match,) = [finding for finding in report.findings if finding.code == code]
    return match


# ------------------------------------------------------------------------------------------ what it is


def test_the_official_download_is_fine(official):
    report = checked(official)
    assert (report.kind, report.code, report.folder) == (doctor.OFFICIAL, 0, official)
    assert report.photographs == {"training": 20, "test": 20}
    assert report.labelled == {"training": 20, "test": 0}
    assert report.encodings["vessel labels"] == {"GIF L {0, 255}": 20}
    assert report.encodings["photographs"] == {f"{SIZE[1]}x{SIZE[0]} TIFF RGB": 40}
    assert codes(report, "note") == {"no-test-labels"}


def test_its_archives_are_fine_too(official, tmp_path):
    (tmp_path / "zips").mkdir()
    for split in ("training", "test"):
        zipped(official / split, tmp_path / "zips" / f"{split}.zip")
    report = checked(tmp_path / "zips")
    assert (report.kind, report.code) == (doctor.OFFICIAL, 0)


def test_the_historical_archive_is_told_apart(tmp_path):
    report = checked(write_drive(tmp_path, test_labels=True))
    assert (report.kind, report.code) == (doctor.HISTORICAL, 0)
    assert codes(report, "note") == {"test-labels"}


def test_a_repacked_copy_is_recognised_by_its_pixels(root):
    for file in list(root.rglob("*.tif")):
        with Image.open(file) as picture:
            picture.save(file.with_suffix(".png"))
        file.unlink()
    (root / "test").rename(root / "testing")
    report = checked(root)
    assert (report.kind, report.code) == (doctor.REPACKED, 0)


def test_the_flipped_and_renumbered_mirror(tmp_path):
    training = write_split(tmp_path / "training", "training", range(20, 100))
    for number in range(20, 100):  # twenty pictures, each as it is and in three more ways
        picture = Image.fromarray(photograph(21 + (number - 20) % 20))
        turns = (lambda p: p, ImageOps.mirror, ImageOps.flip, lambda p: p.rotate(180))
        turns[(number - 20) // 20](picture).save(training / "images" / f"{number}_training.tif")
    write_split(tmp_path / "test", "test", TEST, vessels=False)
    report = checked(tmp_path)
    assert (report.kind, report.code, report.folder) == (doctor.MIRROR, 2, None)
    assert {"turned-copies", "renumbered"} <= codes(report, "error")
    assert len(finding(report, "turned-copies").files) == 60
    assert "20_training.tif is DRIVE's training 21" in finding(report, "renumbered").what
    assert finding(report, "refused").level == "note"


def test_a_mirror_whose_training_photographs_alone_were_turned(few):
    for file in (few / "training").rglob("*.*"):
        with Image.open(file) as picture:
            ImageOps.mirror(picture).save(file)
    report = checked(few)
    assert (report.kind, report.code) == (doctor.MIRROR, 2) and codes(report) == {"turned-copies"}


@pytest.mark.parametrize("layout", ["AV_groundTruth/training", "training"])
def test_rite(tmp_path, layout):
    for folder in ("images", "av", "vessel"):
        (tmp_path / layout / folder).mkdir(parents=True)
    report = checked(tmp_path)
    assert (report.kind, report.code) == (doctor.RITE, 2)
    assert "second observer" in finding(report, "rite").what


def test_other_pixels_under_drives_names(root):
    for file in root.rglob("*.tif"):
        Image.fromarray(photograph(int(file.name[:2]) + 300)).save(file)
    report = checked(root)
    assert (report.kind, report.code) == (doctor.CONVERTED, 1)
    assert "converted" in codes(report)


def test_hrf_and_chase_by_names_and_sizes(tmp_path):
    names = ["01_h", "01_dr", "01_g"]
    files = {f"images/{name}.jpg": photograph(number) for number, name in enumerate(names)}
    files |= {f"x/{name}_AVmanual.png": arteries_and_veins(tree(n)) for n, name in enumerate(names)}
    report = checked(write_files(tmp_path / "HRF", files))
    assert (report.kind, report.layout) == ("HRF, 3 of 45 photographs", "HRF")
    assert codes(report) == {"other-size"} and report.code == 1
    eyes = [f"Image_{number:02d}{side}" for number in range(1, 15) for side in "LR"]
    files = {f"{eye}.jpg": photograph(number) for number, eye in enumerate(eyes)}
    files |= {f"{eye}_1stHO.png": tree(number) for number, eye in enumerate(eyes)}
    assert checked(write_files(tmp_path / "CHASE", files)).kind == "CHASE_DB1"


def write_hrf(folder, names=HRF, look=lambda pixels: pixels):
    files = {f"images/{name}.png": look(photograph(HRF[name])) for name in names}
    files |= {f"manual1/{name}.png": look(tree(HRF[name])) for name in names}
    return write_files(folder, files)


def test_hrf_is_known_by_its_pixels_as_drive_is(tmp_path):
    flipped = checked(write_hrf(tmp_path / "flipped", look=np.fliplr))
    assert flipped.code == 2 and len(finding(flipped, "turned-copies").files) == 9
    renumbered = write_hrf(tmp_path / "renumbered")
    for folder in ("images", "manual1"):
        for old, new in (("01_h", "x"), ("02_h", "01_h"), ("x", "02_h")):
            (renumbered / folder / f"{old}.png").rename(renumbered / folder / f"{new}.png")
    report = checked(renumbered)
    assert report.code == 2 and "01_h.png is HRF's 02_h" in finding(report, "renumbered").what
    (flipped.path / "manual1").rename(flipped.path / "labels")
    own = finding(checked(flipped.path), "hrfs-photographs")
    assert own.what.startswith("are from HRF, 9 of them mirrored or turned: scores")


def test_a_refused_copy_of_hrf_stays_hrf(tmp_path):
    folder = write_hrf(tmp_path / "HRF")
    (folder / "manual1" / "02_dr.png").unlink()
    report = checked(folder)
    assert report.kind == "HRF, 9 of 45 photographs" and report.labelled == {"training": 8}
    assert codes(report, "error") == {"lacks-vessels"}
    assert [file.name for file in finding(report, "lacks-vessels").files] == ["02_dr.png"]


def test_words_tell_photographs_of_one_number_apart(tmp_path):
    names = ("01_a", "01_b", "02_a")
    files = {f"images/{name}.png": photograph(number + 500) for number, name in enumerate(names)}
    files |= {f"labels/{name}_mask.png": tree(number + 500) for number, name in enumerate(names[:2])}
    report = checked(write_files(tmp_path / "mine", files))
    assert codes(report) == {"lacks-vessels"} and report.labelled == {"training": 2}


@pytest.mark.parametrize("spoil", ["twice", "test_among_training", "turned_photograph"])
def test_one_photograph_astray_makes_no_mirror(few, spoil):
    globals()[spoil](few)
    report = checked(few)
    assert report.kind == doctor.PART and report.code == 2


def test_painted_and_own_photographs(root, tmp_path):
    (root / "manifest.json").write_text('{"generator": "drive_unet.painter"}')
    assert (checked(root).kind, checked(root).code) == ("the embedded painted dataset", 0)
    own = {f"images/eye {n}.png": photograph(n + 500) for n in range(3)}
    own |= {f"labels/eye {n}.png": tree(n + 500) for n in range(3)}
    report = checked(write_files(tmp_path / "mine", own))
    assert (report.kind, report.code) == ("a folder of one's own", 0)
    shutil.copy(root / "training" / "images" / "21_training.tif", tmp_path / "mine" / "images" / "drives.tif")
    shutil.copy(
        root / "training" / "1st_manual" / "21_manual1.gif", tmp_path / "mine" / "labels" / "drives.gif"
    )
    assert codes(checked(tmp_path / "mine")) == {"drives-photographs"}


def test_nothing_and_nothing_known(tmp_path):
    for place in (tmp_path / "nowhere", tmp_path, tmp_path / "~nobody"):
        report = checked(place)
        assert (report.code, report.folder, report.layout) == (2, None, None)
        assert codes(report) == {"refused"}
    (tmp_path / "pictures").mkdir()
    Image.fromarray(photograph()).save(tmp_path / "pictures" / "cat.png")
    report = checked(tmp_path)
    assert (report.kind, report.code) == (doctor.UNKNOWN, 2)
    (tmp_path / "DRIVE.zip").write_bytes(b"<!DOCTYPE html>")
    assert "not a complete zip archive" in finding(checked(tmp_path / "DRIVE.zip"), "refused").what


# ---------------------------------------------------------------------------------------- what is wrong


def labels(root):
    return root / "training" / "1st_manual"


def label_is_fov(root):
    for file in labels(root).iterdir():
        grey(255)(disc()).save(file)


def resized(root):
    for number in (22, 25):
        file = labels(root) / f"{number}_manual1.gif"
        with Image.open(file) as picture:
            picture.resize((40, 40)).save(file)


def resized_smoothly(root):
    for number in (22, 25):
        file = labels(root) / f"{number}_manual1.gif"
        with Image.open(file) as picture:
            smooth = picture.convert("L").resize((20, 20), Image.Resampling.BICUBIC)
        smooth.filter(ImageFilter.GaussianBlur(2)).save(file)


def turned(root):
    file = labels(root) / "22_manual1.gif"
    with Image.open(file) as picture:
        picture.transpose(Image.Transpose.ROTATE_90).save(file)


def inverted(root):
    grey(255)(~tree(21)).save(labels(root) / "21_manual1.gif")


def unreadable(root):
    file = root / "training" / "images" / "28_training.tif"
    file.write_bytes(file.read_bytes()[:200])


def fov_is_label(root):
    shutil.rmtree(root / "training" / "mask")
    labels(root).rename(root / "training" / "mask")


def mixed_up(root):
    for number in (21, 22):
        grey(255)(tree(number)).save(root / "training" / "mask" / f"{number}_training_mask.gif")


def levels(root):
    Image.fromarray(photograph(22)).convert("L").save(labels(root) / "22_manual1.gif")


def lacks_vessels(root):
    (labels(root) / "30_manual1.gif").unlink()


def surplus(root):
    (root / "training" / "images" / "30_training.tif").unlink()


def twice_named(root):
    Image.fromarray(tree(21)).save(labels(root) / "21_manual1.png")


def no_fov(root):
    grey(255)(tree()).save(root / "test" / "mask" / "03_test_mask.gif")


def no_masks(root):
    shutil.rmtree(root / "training" / "mask")


def turned_photograph(root):
    file = root / "training" / "images" / "21_training.tif"
    Image.fromarray(photograph(21)[:, ::-1]).save(file)


def empty_file(root):
    (root / "test" / "images" / "05_test.tif").write_bytes(b"")


def test_among_training(root):
    shutil.copy(root / "test" / "images" / "07_test.tif", root / "training" / "images" / "25_training.tif")


def renumbered(root):
    images = root / "training" / "images"
    for old, new in ((21, "x"), (22, 21), ("x", 22)):
        (images / f"{old}_training.tif").rename(images / f"{new}_training.tif")


def mismatched(root):
    for old, new in ((21, "x"), (22, 21), ("x", 22)):
        (labels(root) / f"{old}_manual1.gif").rename(labels(root) / f"{new}_manual1.gif")


def all_shifted(root):
    for number in (21, 22, 23, 25, 28, 29, 30, 31):
        grey(255)(tree(number + 4)).save(labels(root) / f"{number}_manual1.gif")


def mirrored(root):
    file = labels(root) / "23_manual1.gif"
    with Image.open(file) as picture:
        ImageOps.mirror(picture).save(file)


def fov_disagrees(root):
    half = disc()
    half[:, : SIZE[1] // 3] = False
    grey(255)(half).save(root / "test" / "mask" / "03_test_mask.gif")


def vessels_outside(root):
    small = disc() & (np.arange(SIZE[1]) > SIZE[1] // 4)
    grey(255)(small).save(root / "training" / "mask" / "21_training_mask.gif")


def empty(root):
    grey(255)(tree(29) & False).save(labels(root) / "29_manual1.gif")


def share(root):
    mask = np.zeros(SIZE, bool)
    mask[29, 29:31] = True
    grey(255)(mask).save(labels(root) / "29_manual1.gif")


def other_vessels(root):
    thick = tree(31) | np.roll(tree(31), 1, axis=0)
    grey(255)(thick).save(labels(root) / "31_manual1.gif")


def twice(root):
    shutil.copy(
        root / "training" / "images" / "21_training.tif", root / "training" / "images" / "22_training.tif"
    )


def double_ending(root):
    file = root / "training" / "images" / "21_training.tif"
    file.rename(file.with_name("21_training.tif.png"))


FAULTS = {  # what is done, the code, the level, how many files are named, what is said or to be done
    label_is_fov: ("label-is-fov", "error", 8, "exchange"),
    resized: ("resized", "error", 2, "40x40"),
    resized_smoothly: ("resized", "error", 2, "20x20"),
    turned: ("turned", "error", 1, "turned"),
    inverted: ("inverted", "error", 1, "invert"),
    unreadable: ("unreadable", "error", 1, "again"),
    fov_is_label: ("fov-is-label", "error", 8, "rename the folder mask to 1st_manual"),
    mixed_up: ("fov-is-label", "error", 2, "exchange 1st_manual and mask"),
    levels: ("levels", "error", 1, "grey levels"),
    lacks_vessels: ("lacks-vessels", "error", 1, "vessel labels"),
    surplus: ("surplus", "error", 2, "no photograph"),
    twice_named: ("twice-named", "error", 2, "elsewhere"),
    no_fov: ("no-fov", "error", 1, "field of view"),
    empty_file: ("empty-file", "error", 1, "again"),
    test_among_training: ("test-among-training", "error", 2, "both|test"),
    renumbered: ("renumbered", "error", 2, "another number"),
    mismatched: ("mismatched", "error", 2, "21_manual1.gif on DRIVE's training 22"),
    all_shifted: ("mismatched", "error", 8, "25_manual1.gif on DRIVE's training 29|and 5 more"),
    mirrored: ("mismatched", "warning", 1, "is mirrored"),
    fov_disagrees: ("fov-disagrees", "warning", 1, "own mask"),
    vessels_outside: ("vessels-outside", "warning", 1, "outside"),
    empty: ("empty", "warning", 1, "no vessel"),
    share: ("share", "warning", 1, "usual"),
    other_vessels: ("other-vessels", "warning", 1, "official"),
    no_masks: ("no-masks", "warning", 8, "scores inside it differ"),
    twice: ("twice", "warning", 2, "one photograph"),
    double_ending: ("double-ending", "warning", 1, "one ending"),
}


def test_faults_of_files_that_lie_side_by_side_are_told_one_by_one(few, tmp_path):
    (few / "training" / "mask" / "25_training_mask.gif").unlink()
    for split in ("training", "test"):
        for file in (few / split).rglob("*.*"):
            write = tmp_path / "mine" / split
            write.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, write)
    flat = tmp_path / "mine" / "training"
    shutil.copy(flat.parent / "test" / "07_test.tif", flat)
    Image.fromarray(tree(21)[:9]).save(flat / "21_manual1.gif")
    report = checked(flat.parent)
    assert report.code == 2
    assert {"lacks-fov", "resized", "test-among-training"} <= codes(report, "error")
    assert finding(report, "lacks-fov").files == [flat / "25_training.tif"]


@pytest.mark.parametrize("spoil", FAULTS, ids=lambda spoil: spoil.__name__)
def test_faults(few, spoil):
    root = few
    spoil(root)
    code, level, count, words = FAULTS[spoil]
    report = checked(root)
    matches = [finding for finding in report.findings if finding.code == code and finding.level == level]
    assert matches, report
    files = {file for finding in matches for file in finding.files}
    assert len(files) == count and all(file.is_relative_to(root) for file in files)
    assert any(re.search(words, f"{finding.what} {finding.do}") for finding in matches), matches
    assert report.code == (2 if level == "error" or codes(report, "error") else 1)
    assert (report.folder is None) == (report.code == 2)


def test_labels_in_a_folder_of_masks_are_told_once(tmp_path):
    files = {f"images/{n}.png": photograph(n + 500) for n in range(1, 9)}
    files |= {f"masks/{n}.png": tree(n + 500) for n in range(1, 9)}
    report = checked(write_files(tmp_path / "mine", files))
    fault = finding(report, "fov-is-label")
    assert codes(report) == {"fov-is-label"} and len(fault.files) == 8
    assert fault.do == "rename the folder masks to labels"
    (tmp_path / "mine" / "masks").rename(tmp_path / "mine" / "labels")
    assert checked(tmp_path / "mine").code == 0


def test_labels_called_masks_of_a_set_that_is_not_drive_s(tmp_path):
    files = {f"train/image/{n}.png": photograph(n + 500) for n in range(8)}
    files |= {f"train/mask/{n}.png": tree(n + 500) for n in range(8)}
    report = checked(write_files(tmp_path / "kaggle", files))
    assert finding(report, "fov-is-label").do == "rename the folder mask to labels"
    (tmp_path / "kaggle" / "train" / "mask").rename(tmp_path / "kaggle" / "train" / "labels")
    assert checked(tmp_path / "kaggle" / "train").code == 0


def test_one_fault_is_one_finding_whatever_its_share(few):
    for number, radius in ((21, 28), (22, 26), (23, 24)):
        y, x = np.mgrid[: SIZE[0], : SIZE[1]]
        grey(255)(np.hypot(y - 29, x - 30) < radius).save(labels(few) / f"{number}_manual1.gif")
    report = checked(few)
    fault = finding(report, "label-is-fov")
    assert re.search(r"it fills \d\d to \d\d% of the frame", fault.what)
    assert "23_manual1.gif show the field of view" in str(report)


def test_a_missing_folder_is_named_whole(few):
    shutil.rmtree(labels(few))
    assert f"error: {labels(few)} holds no vessel labels" in str(checked(few))


def test_exchanged_labels_of_one_s_own_photographs_are_an_error(tmp_path):
    files = {f"images/{n}.png": photograph(n + 500) for n in range(1, 5)}
    files |= {f"labels/{n}.png": tree({1: 2, 2: 1}.get(n, n) + 500) for n in range(1, 5)}
    report = checked(write_files(tmp_path / "mine", files))
    faults = [fault for fault in report.findings if fault.code == "mismatched"]
    assert report.code == 2 and {fault.level for fault in faults} == {"error"}
    assert {fault.files[0].name: fault.what[-5:] for fault in faults} == {"1.png": "2.png", "2.png": "1.png"}


def test_strays_and_capitals_are_notes(few):
    root = few
    (root / "training" / "images" / "Thumbs.db").write_bytes(b"litter")
    file = root / "training" / "images" / "21_training.tif"
    file.rename(file.with_suffix(".TIF"))
    report = checked(root)
    assert report.code == 0 and {"stray", "case"} <= codes(report, "note")
    assert [file.name for file in finding(report, "stray").files] == ["Thumbs.db"]


def test_all_faults_are_told_at_once_and_nothing_is_touched(few):
    root = few
    inverted(root), unreadable(root), resized(root), no_fov(root)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    report = checked(root)
    assert {"inverted", "unreadable", "resized", "no-fov"} <= codes(report, "error")
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_a_turned_photograph_is_known_and_a_changed_one_is_not():
    picture = photograph(33)
    for view in (picture[:, ::-1], picture[::-1], np.rot90(picture), np.rot90(picture[::-1])):
        assert known.photograph_of(np.ascontiguousarray(view)) == ("DRIVE", "training", "33", True)
    assert known.photograph_of(picture) == ("DRIVE", "training", "33", False)
    assert known.photograph_of(picture ^ 1) is None
    assert known.photograph_of(photograph(33, (70, 71))) is None


def test_the_packaged_table_holds_drive_and_hrf():
    text = Path(known.__file__).with_name(known.TABLE).read_text(encoding="utf-8")
    table = json.loads(text)
    assert {name: len(part["image"]) for name, part in table.items()} == {"DRIVE": 40, "HRF": 30}
    marks = [mark for part in table.values() for kind in ("image", "vessels") for mark in part[kind].values()]
    assert len(set(marks)) == len(marks) == 40 + 20 + 30 + 30
    assert all(re.fullmatch("[0-9a-f]{16}", mark) for mark in marks)


# -------------------------------------------------------------------------------------- the command line


def test_the_command_prints_a_page_or_json_and_says_by_its_code(few, tmp_path, capsys):
    assert main(["check-data", str(few)]) == 0
    assert capsys.readouterr().out.rstrip().endswith("Verdict: fine")
    mirrored(few)
    assert main(["check-data", str(few), "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["code"] == 1 and printed["kind"] == doctor.PART
    assert {part["code"]: part["files"] for part in printed["findings"]}["mismatched"] == [
        "training/1st_manual/23_manual1.gif"
    ]
    assert main(["check-data", str(tmp_path / "nowhere")]) == 2
    assert f"{tmp_path / 'nowhere'}" in capsys.readouterr().out


def test_an_archive_that_breaks_is_named_by_itself(tmp_path):
    for name in ("training.zip", "training (1).zip"):
        root = tmp_path / name.removesuffix(".zip")
        root.mkdir()
        (root / name).write_bytes(b"PK\3\4" + b"\0" * 40)
        report = checked(root)
        assert report.to_dict()["findings"][0]["files"] == [name]
        assert f"\nerror: {name} is not a complete zip archive" in str(report)
        alone = checked(root / name)
        assert f"\nerror: {root / name} is not a complete zip archive" in str(alone)


@pytest.mark.parametrize("name", ["x" * 5000, "~nobody_at_all/x", "a\nb"], ids=["long", "home", "lines"])
def test_paths_that_cannot_be_are_a_report_and_the_code_says_unusable(name, capsys):
    report = checked(name)
    assert (report.code, report.folder) == (2, None) and codes(report) == {"refused"}
    assert main(["check-data", name]) == 2
    assert "Traceback" not in "".join(capsys.readouterr())


def test_what_breaks_the_doctor_is_no_warning(few, monkeypatch, capsys):
    from drive_unet.commands import check_data

    def breaks(folder):
        raise RuntimeError("it broke")

    monkeypatch.setattr(check_data, "check_data", breaks)
    assert main(["check-data", str(few)]) == 2
    assert capsys.readouterr().err == "drive-unet: it broke\n"


def test_a_deeply_nested_manifest_is_none(few):
    (few / "manifest.json").write_text("[" * 100_000)
    assert checked(few).code == 0


def test_in_a_notebook_it_shows_itself(few):
    (few / "<b>.db").write_bytes(b"litter")
    shown = drive_unet.check_data(few, progress=False)._repr_html_()
    assert shown.startswith("<pre>") and "Verdict: fine" in shown and "&lt;b&gt;.db" in shown
