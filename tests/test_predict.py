"""Photographs of one's own on the command line: formats, folders, bad input, resuming, sharing, overlap."""

import csv
import errno
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import arteries_and_veins, disc, photograph, tree, write_dicom, write_files
from PIL import Image

import drive_unet
from drive_unet import UNet, segment
from drive_unet.commands import predict as command
from drive_unet.commands import threads
from drive_unet.commands.main import main
from drive_unet.commands.photographs import OUTLINE
from drive_unet.data import read_image
from drive_unet.data.decoding import SPECIAL, decode
from drive_unet.errors import DataError
from drive_unet.inference import Segmenter, predict_flips
from drive_unet.measurement import calibrated_weights, measure, measure_flips, packaged_calibration
from drive_unet.outputs import RECORD

SIZE = (58, 60)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of tiny weights."""
    torch.manual_seed(0)
    return UNet(widths=(8, 8)).save_pretrained(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture
def predict(weights, tmp_path, capsys):
    """Run the command into tmp_path / "out": the exit code, and what it says."""

    def run(*arguments, out=tmp_path / "out"):
        capsys.readouterr()
        words = ["predict", *map(str, arguments), "--out", str(out), "--weights", str(weights)]
        return main(words), capsys.readouterr()

    return run


@pytest.fixture
def eyes(tmp_path):
    """A folder of three photographs."""
    return write_files(tmp_path / "in", {f"eye {number}.png": photograph(number) for number in range(3)})


def rows(folder):
    with (folder / "summary.csv").open(newline="", encoding="utf-8") as file:
        return {Path(row["photograph"]).name: row for row in csv.DictReader(file)}


def pictures(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


def interrupt_at(monkeypatch, number, error=KeyboardInterrupt):
    """Have the photograph of this number raise when it is prepared, before the others that follow."""
    prepare, calls = Segmenter.prepare, []

    def stopping(self, image, fov=None):
        calls.append(image)
        if len(calls) > number:
            raise error
        return prepare(self, image, fov)

    monkeypatch.setattr(Segmenter, "prepare", stopping)


# ------------------------------------------------------------------------------------------------ formats

RED_FREE = photograph(3)[..., 1]
FORMATS = {
    "colour.jpg": lambda: Image.fromarray(photograph(3)),
    "grey.png": lambda: Image.fromarray(RED_FREE),
    "grey16.png": lambda: Image.fromarray(RED_FREE.astype(np.uint16) * 257),
    "grey16.tif": lambda: Image.fromarray(RED_FREE.astype(np.uint16) * 257),
    "transparent.png": lambda: Image.fromarray(photograph(3)).convert("RGBA"),
    "printed.tif": lambda: Image.fromarray(photograph(3)).convert("CMYK"),
    "printed.jpg": lambda: Image.fromarray(photograph(3)).convert("CMYK"),
    "palette.gif": lambda: Image.fromarray(photograph(3)).quantize(200),
    "new.webp": lambda: Image.fromarray(photograph(3)),
    "wavelets.jp2": lambda: Image.fromarray(photograph(3)),
    "old.bmp": lambda: Image.fromarray(photograph(3)),
}


def test_every_format_is_predicted_as_python_does_it(predict, weights, tmp_path):
    for name, make in FORMATS.items():
        path = tmp_path / name.replace(".", "") / name  # each in a folder of its own: two have one name
        path.parent.mkdir()
        make().save(path)
    turned = Image.fromarray(np.rot90(photograph(3, (58, 80))))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    code, _ = predict(tmp_path, "--recursive")
    assert code == 0
    network = UNet.from_pretrained(weights)
    for name in FORMATS:
        expected = segment(network, tmp_path / name.replace(".", "") / name)
        written = tmp_path / "out" / name.replace(".", "") / f"{Path(name).stem}_vessels.png"
        np.testing.assert_array_equal(np.asarray(Image.open(written)) > 0, expected.vessels)
    with Image.open(tmp_path / "out" / "turned_vessels.png") as picture:
        assert picture.size == (80, 58)
    assert len(rows(tmp_path / "out")) == len(FORMATS) + 1


def test_dicom_of_any_name_is_read(predict, tmp_path):
    pydicom = pytest.importorskip("pydicom")
    folder = tmp_path / "in"
    folder.mkdir()
    write_dicom(folder / "IM0001", photograph(3))  # without an ending, as they come
    write_dicom(folder / "left.dcm", RED_FREE.astype(np.uint16) * 16, "MONOCHROME2", 12)
    write_dicom(folder / "right.dcm", 4095 - RED_FREE.astype(np.uint16) * 16, "MONOCHROME1", 12)
    np.testing.assert_array_equal(read_image(folder / "IM0001"), photograph(3))
    for name in ("left", "right"):
        assert np.abs(read_image(folder / f"{name}.dcm")[..., 0].astype(int) - RED_FREE).max() <= 1
    assert predict(folder)[0] == 0
    assert set(rows(tmp_path / "out")) == {"IM0001", "left.dcm", "right.dcm"}
    odd = pydicom.dcmread(folder / "left.dcm")
    odd.PixelData += bytes(4)  # of which pydicom warns
    odd.save_as(folder / "odd.dcm")
    assert np.array_equal(read_image(folder / "odd.dcm"), read_image(folder / "left.dcm"))
    (folder / "torn.dcm").write_bytes((folder / "left.dcm").read_bytes()[:600])
    code, said = predict(folder / "torn.dcm")
    assert code == 1 and "torn.dcm is a DICOM file without a picture that can be read" in said.err


def test_dicom_of_too_many_pixels_is_refused_before_it_is_decoded(predict, tmp_path, monkeypatch):
    path = write_dicom(tmp_path / "bomb.dcm", np.zeros((9000, 9000), np.uint8), "MONOCHROME2", deflated=True)
    assert path.stat().st_size < 100_000
    pixels = pytest.importorskip("pydicom.pixels")
    monkeypatch.setattr(pixels, "pixel_array", lambda *arguments, **options: pytest.fail("it was decoded"))
    code, said = predict(path)
    assert code == 1 and "bomb.dcm has more than 80 megapixels" in said.err


def test_dicom_without_pydicom_says_what_to_install(predict, tmp_path, monkeypatch):
    write_dicom(tmp_path / "eye.dcm", photograph(3))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    code, said = predict(tmp_path / "eye.dcm")
    assert code == 1 and "pip install 'drive-unet[dicom]'" in said.err


# ------------------------------------------------------------------------------------------------ folders


def test_the_tree_is_kept_and_nothing_is_left_out_in_silence(predict, tmp_path):
    root = write_files(
        tmp_path / "in",
        {
            "top.png": photograph(1),
            "clinic a/left.png": photograph(2),
            "clinic b/left.png": photograph(3),
            "clinic b/left_1stHO.png": tree(3),
            "clinic b/left_AVmanual.png": arteries_and_veins(tree(3)),
            "clinic b/drawn.png": tree(3),
            "clinic b/coloured.png": arteries_and_veins(tree(3)),
        },
    )
    (root / "notes.txt").write_text("seen on Monday")
    for name in (".DS_Store", "._top.png", ".hidden.png"):
        (root / name).write_text("litter")
    code, said = predict(root)
    assert code == 0 and set(pictures(tmp_path / "out")) == {"top_vessels.png", "top_probability.png"}
    assert "notes.txt, no pictures by their names" in said.err
    assert "left out 3 files or folders such as .DS_Store, hidden by their names" in said.err
    assert "not looked into clinic a and clinic b; --recursive does that" in said.err

    out = tmp_path / "tree"
    code, said = predict(root, "--recursive", out=out)
    names = ("top", "clinic a/left", "clinic b/left")
    assert set(pictures(out)) == {
        f"{name}_{kind}.png" for name in names for kind in ("vessels", "probability")
    }
    table = rows(out)
    assert code == 0 and [row["status"] for row in table.values()].count("done") == 2  # two of one name
    assert "left_1stHO.png and left_AVmanual.png, labels or predictions by their names" in said.err
    reasons = {name: row["reason"] for name, row in table.items() if row["status"] == "left out"}
    for name in ("left_1stHO.png", "left_AVmanual.png"):
        assert reasons.pop(name) == "a label or a prediction by its name"
    assert reasons.pop("notes.txt") == "no picture by its name"
    assert set(reasons) == {"drawn.png", "coloured.png"}
    for name in ("drawn.png", "coloured.png"):
        assert reasons[name] == "drawn in a few colours as labels are, no photograph"
        assert sum(name in line and "drawn in a few colours" in line for line in said.err.splitlines()) == 1
    code, said = predict(root / "clinic b" / "drawn.png", out=tmp_path / "none")
    assert code == 1 and "drawn in a few colours" in said.err and "0 of 0" in said.out


def test_former_outputs_are_left_out_by_their_names_and_by_what_they_show(predict, tmp_path):
    down, right = np.ogrid[: SIZE[0], : SIZE[1]]
    wide = disc() & ((down % 24 < 5) | (right % 24 < 5))
    sure = np.linspace(0.5, 0.9, SIZE[1])
    thin, thick = ((65535 * (0.002 * disc() + sure * lit)).astype(np.uint16) for lit in (tree(1), wide))
    overlay = photograph(1)
    overlay[10:12, 5:55] = OUTLINE
    files = {"top.png": photograph(1), "top_probability.png": thick, "01.png": thin, "02.png": thick}
    root = write_files(tmp_path / "in", files | {"03.png": overlay})
    code, said = predict(root)
    assert code == 0 and set(pictures(tmp_path / "out")) == {"top_vessels.png", "top_probability.png"}
    reasons = {name: row["reason"] for name, row in rows(tmp_path / "out").items()}
    assert reasons["top_probability.png"] == "a label or a prediction by its name"
    for name in ("01.png", "02.png"):
        assert reasons[name] == "dark but for vessels as maps of probabilities are, no photograph"
    assert reasons["03.png"] == "drawn on as overlays of this command are, no photograph"
    assert all(f"{name}.png left out" in said.err for name in ("01", "02", "03"))


def test_a_file_is_opened_once(predict, eyes, monkeypatch):
    opened, open_file = [], Image.open
    monkeypatch.setattr(Image, "open", lambda file, *more: opened.append(file) or open_file(file, *more))
    predict(eyes / "eye 1.png")
    assert opened == [eyes / "eye 1.png"]


@pytest.mark.parametrize("ending", ["tif", "gif", "webp"])
def test_pictures_in_a_file_are_counted_while_the_first_is_read(tmp_path, ending):
    first, second = (Image.fromarray(photograph(number)) for number in (1, 2))
    first.save(tmp_path / f"alone.{ending}")
    first.save(tmp_path / f"both.{ending}", save_all=True, append_images=[second])
    alone, both = (decode(tmp_path / f"{name}.{ending}") for name in ("alone", "both"))
    assert (alone.pages, both.pages) == (1, 2)
    near = np.abs(np.asarray(alone.image.convert("RGB")) - np.asarray(both.image.convert("RGB"), float))
    assert near.mean() < 5, "it is the first"


def test_a_file_whose_later_pictures_are_cut_off_is_read_for_its_first(tmp_path):
    first, *others = (Image.fromarray(photograph(number)) for number in (1, 2, 3))
    first.save(tmp_path / "all.tif", save_all=True, append_images=others)
    whole = (tmp_path / "all.tif").read_bytes()
    for share in (0.4, 0.5, 0.6, 0.8):
        (tmp_path / "cut.tif").write_bytes(whole[: int(share * len(whole))])
        np.testing.assert_array_equal(np.asarray(decode(tmp_path / "cut.tif").image), photograph(1))


def test_what_was_left_out_and_is_predicted_by_its_name_has_one_row(predict, tmp_path):
    files = {"top.png": photograph(1), "left_seg.png": photograph(2)}
    root = write_files(tmp_path / "in", files)
    predict(root)
    assert rows(tmp_path / "out")["left_seg.png"]["status"] == "left out"
    predict(root / "left_seg.png")
    with (tmp_path / "out" / "summary.csv").open(newline="", encoding="utf-8") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["done", "done"]


def test_a_path_that_does_not_exist_has_a_row_until_it_does(predict, eyes, tmp_path):
    code, said = predict(eyes / "eye 1.png", eyes / "gone.png")
    row = rows(tmp_path / "out")["gone.png"]
    assert code == 1 and "1 of 2" in said.out and row["status"] == "failed"
    assert "does not exist: correct the path" in row["reason"]
    Image.fromarray(photograph(4)).save(eyes / "gone.png")
    assert predict(eyes / "eye 1.png", eyes / "gone.png", "--resume")[0] == 0
    with (tmp_path / "out" / "summary.csv").open(newline="", encoding="utf-8") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["done", "done"]


def test_the_table_says_where_the_field_of_view_is_from(predict, tmp_path):
    write_files(tmp_path / "in", {"eye.png": photograph(3)})
    write_files(tmp_path / "masks", {"eye_mask.png": disc()})
    for options, source in (((), "photograph"), (("--mask", tmp_path / "masks"), "eye_mask.png")):
        out = tmp_path / source
        assert predict(tmp_path / "in", *options, out=out)[0] == 0
        assert source in rows(out)["eye.png"]["fov_from"]


def test_what_of_a_file_was_not_looked_at_is_told(predict, tmp_path):
    pages = [Image.fromarray(photograph(number)) for number in (3, 4)]
    (tmp_path / "in").mkdir()
    pages[0].save(tmp_path / "in" / "eye.tif", save_all=True, append_images=pages[1:])
    code, said = predict(tmp_path / "in")
    assert code == 0 and "the first of 2 pictures in its file" in said.out
    assert rows(tmp_path / "out")["eye.tif"]["reason"] == "the first of 2 pictures in its file"
    write_files(tmp_path / "single", {"eye.png": photograph(3)})
    code, said = predict(tmp_path / "single", "--micrometres-per-pixel", 8, out=tmp_path / "other")
    assert code == 0 and "pictures in its file" not in said.out and "which --measure makes" in said.err


def test_an_empty_path_is_refused(predict, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        predict("")
    assert "a path is empty" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_masks_follow_the_tree(predict, tmp_path):
    left = disc() & (np.arange(SIZE[1]) < 30)
    write_files(tmp_path / "in", {f"{part}/eye.png": photograph(3) for part in "ab"})
    write_files(tmp_path / "masks", {"a/eye.png": left, "B/Eye_mask.png": disc() & ~left})
    code, _ = predict(tmp_path / "in", "--recursive", "--mask", tmp_path / "masks", "--outputs", "fov")
    assert code == 0
    for part, mask in (("a", left), ("b", disc() & ~left)):
        written = np.asarray(Image.open(tmp_path / "out" / part / "eye_fov.png")) > 0
        np.testing.assert_array_equal(written, mask)


# ------------------------------------------------------------------------------------------------- outputs


def test_outputs_can_be_chosen(predict, weights, eyes, tmp_path):
    code, _ = predict(eyes / "eye 1.png", "--outputs", "fov,centreline,vessels", "--overlay")
    kinds = ("centreline", "fov", "overlay", "vessels")
    assert code == 0 and list(pictures(tmp_path / "out")) == [f"eye 1_{kind}.png" for kind in kinds]
    drawn = {kind: np.asarray(Image.open(tmp_path / "out" / f"eye 1_{kind}.png")) for kind in kinds}
    result = segment(UNet.from_pretrained(weights), eyes / "eye 1.png")
    np.testing.assert_array_equal(drawn["fov"] > 0, result.fov)
    assert not (drawn["centreline"] > 0)[~result.vessels].any() and drawn["centreline"].any()
    changed = (drawn["overlay"] != photograph(1)).any(axis=2)
    assert changed.any() and not changed[result.vessels].any()  # no pixel of a vessel is hidden
    with pytest.raises(SystemExit):
        predict(eyes, "--outputs", "vessels,nonsense")


def test_measurements_are_those_of_python(predict, weights, eyes, tmp_path):
    code, _ = predict(eyes / "eye 1.png", "--measure", "--micrometres-per-pixel", 8)
    network = UNet.from_pretrained(weights)
    result = segment(network, eyes / "eye 1.png")
    expected = measure(
        result.vessels, result.fov, result.probability, threshold=network.threshold_single, scale=8
    ).as_dict()
    row = rows(tmp_path / "out")["eye 1.png"]
    assert code == 0 and {"calibre_mean", "tortuosity", "micrometres_per_pixel"} <= set(expected)
    for key, value in expected.items():
        assert float(row[key] or "nan") == pytest.approx(value, rel=1e-5, nan_ok=True), key
    assert predict(eyes / "eye 2.png")[0] == 0
    prepared = rows(tmp_path / "out")
    assert prepared["eye 2.png"]["calibre_mean"] == ""
    assert predict(eyes, "--resume", "--measure")[0] == 0  # what is there was not measured yet
    assert all(row["area_density"] for row in rows(tmp_path / "out").values())
    code, said = predict(eyes, "--resume", "--measure", "--micrometres-per-pixel", 10)
    assert code == 0 and "earlier" not in said.out
    assert {row["micrometres_per_pixel"] for row in rows(tmp_path / "out").values()} == {"10"}
    assert "3 of them earlier" in predict(eyes, "--resume", "--measure", "--micrometres-per-pixel", 10)[1].out


def test_with_flips_each_measurement_has_the_interval_of_python(predict, eyes, tmp_path, capsys):
    words = ["predict", str(eyes / "eye 1.png"), "--measure", "--out", str(tmp_path / "out")]
    assert main([*words, "--weights", "fast", "--tta"]) == 0
    row, network = rows(tmp_path / "out")["eye 1.png"], UNet.from_pretrained("fast")
    fov = segment(network, eyes / "eye 1.png").fov
    expected = measure_flips(
        predict_flips(network, eyes / "eye 1.png"),
        network.threshold_for(tta=True),
        fov,
        calibration=packaged_calibration("fast"),
    ).as_dict()
    assert {"calibre_mean_low", "calibre_mean_high", "calibre_mean_fov"} <= set(expected)
    for key, value in expected.items():
        assert float(row[key] or "nan") == pytest.approx(value, rel=1e-4, abs=1e-6, nan_ok=True), key
    assert predict(eyes / "eye 1.png", "--measure", "--tta", out=tmp_path / "own")[0] == 0
    assert "calibre_mean_low" not in rows(tmp_path / "own")["eye 1.png"]  # no factors are known for one's own
    with pytest.raises(SystemExit):
        main(["predict", "--help"])
    assert "needs --tta and packaged weights" in " ".join(capsys.readouterr().out.split())
    packaged = {file.stem for file in Path(drive_unet.__file__).parent.glob("weights/*.safetensors")}
    assert set(calibrated_weights()) == packaged


def test_measurements_of_a_much_reduced_photograph_come_with_one_warning(predict, tmp_path):
    large = {f"{number}.png": photograph(number, (1300, 1310)) for number in (3, 4)}
    folder = write_files(tmp_path / "in", large)
    code, said = predict(folder, "--measure")
    assert code == 0 and said.err.count("\n") == 1 and "one to two pixels of that too wide" in said.err
    scales = [float(row["network_scale"]) for row in rows(tmp_path / "out").values()]
    assert len(scales) == 2 and max(scales) < 0.5
    assert not predict(folder, out=tmp_path / "unmeasured")[1].err
    larger = write_files(tmp_path / "larger", {"5.png": photograph(5, (1900, 1910))})
    said = predict(larger, "--measure", "--weights", "synthetic", out=tmp_path / "at 810 pixels")[1]
    assert "one to two pixels of that too wide" in said.err


def test_the_camera_s_angle_decides_the_scale(predict, weights, tmp_path):
    network, image = UNet.from_pretrained(weights), photograph(3, (290, 300))
    widths = {}
    for degrees in (None, 45, 30, 60):
        run = Segmenter(network, field_of_view=degrees)
        widths[degrees] = int(run.prepare(image).fov.any(dim=1).sum())
    assert widths[None] == widths[45] == pytest.approx(540, abs=3)
    assert (widths[30], widths[60]) == (pytest.approx(360, abs=3), pytest.approx(720, abs=3))
    Image.fromarray(image).save(tmp_path / "eye.png")
    assert predict(tmp_path / "eye.png", "--field-of-view", 30)[0] == 0
    expected = segment(network, tmp_path / "eye.png", field_of_view=30).vessels
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "eye_vessels.png")) > 0, expected)
    code, said = predict(tmp_path / "eye.png", "--field-of-view", 60)
    assert code == 1 and "differs in field_of_view" in said.err


@pytest.mark.parametrize("degrees", ["1e9", "1e-9", "4.9", "201"])
def test_an_angle_that_no_camera_has_is_refused(predict, eyes, tmp_path, degrees):
    code, said = predict(eyes, "--field-of-view", degrees)
    assert code == 1 and not (tmp_path / "out").exists()
    assert f"field_of_view {float(degrees):g} is no angle" in said.err and said.err.count("\n") == 1


def test_batches_and_single_photographs_agree(predict, tmp_path):
    folder = write_files(
        tmp_path / "in", {f"{n}.png": photograph(n, SIZE if n % 3 else (70, 72)) for n in range(5)}
    )
    assert predict(folder)[0] == 0 and predict(folder, "--batch", 3, out=tmp_path / "batched")[0] == 0
    for name in pictures(tmp_path / "out"):
        single, batched = (np.asarray(Image.open(tmp_path / out / name)) for out in ("out", "batched"))
        assert np.abs(single.astype(int) - batched).max() <= (255 if "vessels" in name else 2)
        assert (single != batched).mean() < (0.01 if "vessels" in name else 1)


# -------------------------------------------------------------------------------------------------- resuming


def test_an_interrupted_run_says_how_to_go_on_and_does(predict, eyes, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(command, "_ahead", lambda pool, function, items, most: map(function, items))
        interrupt_at(patch, 1)
        code, said = predict(eyes)
    assert code == 130 and "--resume goes on" in said.err and "interrupted" in said.err
    assert not [path for path in (tmp_path / "out").iterdir() if path.suffix == ".part"]
    whole = tmp_path / "whole"
    assert predict(eyes, out=whole)[0] == 0

    prepared, prepare = [], Segmenter.prepare
    monkeypatch.setattr(
        Segmenter, "prepare", lambda self, *given: prepared.append(1) or prepare(self, *given)
    )
    before = len(pictures(tmp_path / "out")) // 2
    code, said = predict(eyes, "--resume")
    assert code == 0 and len(prepared) == 3 - before and "3 of 3" in said.out
    assert pictures(tmp_path / "out") == pictures(whole)
    assert len(rows(tmp_path / "out")) == 3
    prepared.clear()
    assert predict(eyes, "--resume")[0] == 0 and not prepared

    Image.fromarray(photograph(9)).save(eyes / "eye 1.png")  # another photograph of that name
    code, said = predict(eyes, "--resume")
    assert code == 1 and "differs in photograph" in said.err and not prepared
    (tmp_path / "out" / "eye 2_vessels.png").write_bytes(b"touched")
    Image.fromarray(photograph(7)).save(eyes / "new.png")
    code, said = predict(eyes, "--resume")
    assert code == 1 and "2 of 4 photographs are predicted, 1 of them earlier" in said.out
    assert len(prepared) == 1 and said.err.count("\n") == 2
    table = rows(tmp_path / "out")
    assert table["new.png"]["status"] == table["eye 0.png"]["status"] == "done"
    assert table["eye 1.png"]["status"] == table["eye 2.png"]["status"] == "failed"
    assert "differs in photograph" in table["eye 1.png"]["reason"]
    assert "was changed after it had been written" in table["eye 2.png"]["reason"]
    assert predict(eyes, "--overwrite")[0] == 0
    (tmp_path / "out" / "eye 2_vessels.png").unlink()
    prepared.clear()
    assert predict(eyes, "--resume")[0] == 0 and len(prepared) == 1
    code, said = predict(eyes, "--resume", "--tta")
    assert code == 1 and "differs in flips" in said.err


def test_a_summary_of_ones_own_is_not_replaced(predict, eyes, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "summary.csv").write_text("mine")
    code, said = predict(eyes)
    assert code == 1 and "summary.csv exists, and nothing says" in said.err
    assert (tmp_path / "out" / "summary.csv").read_text() == "mine"


# ------------------------------------------------------------------------------------------------- bad input


def test_whatever_is_wrong_with_a_photograph_is_a_line_and_a_row(predict, tmp_path, monkeypatch):
    folder = write_files(tmp_path / "in", {"good.png": photograph(3), "other.png": photograph(4)})
    (folder / "text.png").write_text("this is no picture")
    (folder / "empty.jpg").write_bytes(b"")
    Image.fromarray(photograph(3)).save(folder / "torn.jpg")
    (folder / "torn.jpg").write_bytes((folder / "torn.jpg").read_bytes()[:500])
    Image.fromarray(np.full((1, 1, 3), 90, np.uint8)).save(folder / "dot.png")
    Image.new("1", (20_000, 20_000)).save(folder / "huge.png")
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(folder / "black.png")
    Image.fromarray(np.full((40, 40), np.nan, np.float32)).save(folder / "nan.tif")
    (folder / "link.png").symlink_to(folder / "nowhere.png")
    code, said = predict(folder)
    expected = {
        "link.png": "cannot be read (No such file or directory)",
        "text.png": "is no image",
        "empty.jpg": "is no image",
        "torn.jpg": "is cut off or damaged",
        "dot.png": "is 1x1 px, too small",
        "huge.png": "more than 80 megapixels",
        "black.png": "is black",
        "nan.tif": "not numbers",
    }
    lines, table = said.err.splitlines(), rows(tmp_path / "out")
    assert code == 1 and len(lines) == len(expected)
    for name, words in expected.items():
        assert sum(name in line and words in line for line in lines) == 1, (name, lines)
        assert table[name]["status"] == "failed" and words in table[name]["reason"]
    assert {name for name, row in table.items() if row["status"] == "done"} == {"good.png", "other.png"}
    assert len(pictures(tmp_path / "out")) == 4 and "2 of 10 photographs" in said.out


@pytest.mark.parametrize("batch", [1, 2])
def test_weights_that_are_no_numbers_are_named_and_write_nothing(eyes, tmp_path, capsys, batch):
    model = UNet(widths=(4, 6))
    torch.nn.init.constant_(model.head.bias, float("nan"))
    weights, out = model.save_pretrained(tmp_path / "nan.safetensors"), tmp_path / "out"
    words = ["predict", eyes, "--out", out, "--weights", weights, "--batch", batch]
    assert main([*map(str, words)]) == 1
    said, table = capsys.readouterr(), rows(out)
    assert len(said.err.splitlines()) == 3 and not pictures(out)
    for photograph_, line in zip(sorted(table), said.err.splitlines(), strict=True):
        assert photograph_ in line and str(weights) in line and "not a number" in line
        assert table[photograph_]["status"] == "failed"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_pipes_and_devices_are_refused_and_the_others_go_on(predict, eyes, tmp_path):
    os.mkfifo(eyes / "pipe.png")
    for named, refused, done in ((eyes, eyes / "pipe.png", 3), (Path(os.devnull), os.devnull, 0)):
        code, said = predict(named, out=tmp_path / f"out {done}")
        assert code == 1 and said.err.splitlines()[0] == f"drive-unet: {refused} {SPECIAL}"
        assert len(pictures(tmp_path / f"out {done}")) == 2 * done
    with pytest.raises(DataError, match="pipe.png is no file but a pipe"):
        read_image(eyes / "pipe.png")


def test_folders_without_photographs(predict, tmp_path):
    (tmp_path / "in").mkdir()
    code, said = predict(tmp_path / "in")
    assert code == 1 and "holds no photographs" in said.err and said.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_written_is_a_line_and_the_others_go_on(predict, eyes, tmp_path):
    code, _ = predict(eyes / "eye 1.png")
    (tmp_path / "out" / "eye 0_vessels.png").mkdir(parents=True)
    code, said = predict(eyes, "--overwrite")
    assert code == 1 and said.err.count("\n") == 1 and "eye 0_vessels.png cannot be written" in said.err
    assert rows(tmp_path / "out")["eye 0.png"]["status"] == "failed"
    assert rows(tmp_path / "out")["eye 2.png"]["status"] == "done"


def test_a_full_disk_ends_it_with_a_line(predict, eyes, tmp_path, monkeypatch):
    save, calls = Image.Image.save, []

    def full(self, *given, **settings):
        calls.append(1)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(self, *given, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full)
        code, said = predict(eyes)
    assert code == 1 and "No space left on device" in said.err and "--resume goes on" in said.err
    assert said.err.strip().count("\n") == 0
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]
    assert predict(eyes, "--resume")[0] == 0 and len(pictures(tmp_path / "out")) == 6


def test_a_record_of_endless_brackets_is_none_of_ours(predict, eyes, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / RECORD).write_text("[" * 100_000 + "\n")
    code, said = predict(eyes)
    assert code == 1 and f"{tmp_path / 'out' / RECORD} is no record of drive-unet's" in said.err


def test_a_torn_record_loses_no_entry(predict, eyes, tmp_path):
    predict(eyes / "eye 1.png")
    with (tmp_path / "out" / RECORD).open("a") as record:
        record.write('{"file": "eye')
    assert predict(eyes)[0] == 0
    assert predict(eyes, "--resume")[0] == 0


# ------------------------------------------------------------------------------------- processes and threads


def test_processes_share_the_photographs(predict, eyes, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    names = []
    for rank in (1, 0):
        monkeypatch.setenv("RANK", f"{rank}")
        assert predict(eyes)[0] == 0
        names.append({name for name in pictures(tmp_path / "out") if "vessels" in name})
    assert names == [{"eye 1_vessels.png"}, {f"eye {number}_vessels.png" for number in range(3)}]
    assert len(rows(tmp_path / "out")) == 3


def test_processes_that_joined_part_again(monkeypatch):
    calls = []
    for name in ("init", "destroy"):
        monkeypatch.setattr(
            f"torch.distributed.{name}_process_group", lambda *_, n=name, **__: calls.append(n)
        )
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    with ExitStack() as ending:
        command._join(2, ending)
        assert calls == ["init"]
    assert calls == ["init", "destroy"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the launcher needs POSIX")
def test_two_processes_of_a_launcher_predict_no_photograph_twice(weights, eyes, tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    words = [
        "-m",
        "drive_unet",
        "predict",
        str(eyes),
        "--out",
        str(tmp_path / "out"),
        "--weights",
        str(weights),
    ]
    alone = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    ended = subprocess.run([*launcher, *words], env=alone, capture_output=True, text=True, timeout=200)
    assert ended.returncode == 0, ended.stderr
    for number in range(3):
        assert ended.stdout.count(f"eye {number}_vessels.png") == 1
    assert "3 of 3 photographs are predicted" in ended.stdout
    assert {row["status"] for row in rows(tmp_path / "out").values()} == {"done"}


@pytest.mark.parametrize("words", ["train --out runs", "evaluate", "demo --out demo"])
def test_other_commands_leave_busy_cores_alone_too(words, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "free", lambda: 3)
    chosen = []
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    assert main([*words.split(), "--data", "nowhere"]) == 1
    assert chosen == [3] and "nowhere" in capsys.readouterr().err


def test_threads_are_as_many_as_cores_are_idle(monkeypatch):
    def seen(busy, own, cores=8, quota=None):
        monkeypatch.setattr(threads, "_AT_START", threads._Snapshot(100.0, 1.0, 10.0))
        monkeypatch.setattr(threads, "_snapshot", lambda: threads._Snapshot(100.0 + busy, 1.0 + own, 12.0))
        monkeypatch.setattr(threads, "allowed", lambda: cores)
        monkeypatch.setattr(os, "cpu_count", lambda: 8)
        return threads.free()

    assert seen(busy=2.0, own=2.0) == 8  # nobody else
    assert seen(busy=12.0, own=2.0) == 3  # five cores of others over two seconds
    assert seen(busy=16.0, own=1.0) == 1
    assert seen(busy=2.0, own=2.0, cores=2) == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert seen(busy=2.0, own=2.0) == 2
