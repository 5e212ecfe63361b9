"""Input that means harm, or is broken in ways that nobody thought of: never a crash, always a file's name."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import stat
import struct
import zipfile
from pathlib import Path

import fuzz_inputs
import numpy as np
import pytest
import torch
from builders import photograph, png_of_16_bits, tree, write_files, write_split
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from drive_unet.commands.main import main
from drive_unet.data import DRIVEDataset, read_image
from drive_unet.data.archives import unpack
from drive_unet.data.find import find_dataset
from drive_unet.errors import DataError
from drive_unet.models import UNet
from drive_unet.preprocessing import Preprocessing
from drive_unet.training import fit

FEW = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TARGETS = fuzz_inputs.targets()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DRIVE_UNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DRIVE_UNET_DATA", raising=False)


# ----------------------------------------------------------------------------------------------- fuzz


@pytest.mark.filterwarnings("ignore")  # of Pillow on odd metadata, which decoding silences one by one
@pytest.mark.parametrize("target", TARGETS)
@FEW
@given(seed=st.integers(0, 2**32))
def test_changed_files_are_read_or_refused_in_words(target, tmp_path, seed):
    read, content, suffix = TARGETS[target]
    read(fuzz_inputs.changed(content, random.Random(seed)), suffix, tmp_path)


@FEW
@given(content=st.binary(max_size=300))
def test_any_bytes_are_refused_in_words(tmp_path, content):
    for read, _, suffix in (
        TARGETS["image.png"],
        TARGETS["archive"],
        TARGETS["weights"],
        TARGETS["checkpoint"],
    ):
        read(content, suffix, tmp_path)


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
STATE, CONFIG = fuzz_inputs.weights()
PLACES = [(key,) for key in CONFIG]
PLACES += [(part, key) for part in ("arguments", "preprocessing") for key in CONFIG[part]]


@settings(FEW, max_examples=30)
@given(place=st.sampled_from(PLACES), value=anything, unknown=st.booleans())
def test_configurations_of_weights_are_vetted(tmp_path, place, value, unknown):
    config = json.loads(json.dumps(CONFIG))
    part = config
    for key in place[:-1]:
        part = part[key]
    part["unknown" if unknown else place[-1]] = value
    fuzz_inputs.read_weights(save(STATE, {"config": json.dumps(config)}), ".safetensors", tmp_path)


@pytest.mark.parametrize(
    ("part", "key", "value", "words"),
    [
        ("preprocessing", "fov_width", "wide", "fov_width is 'wide', no number from 1"),
        ("preprocessing", "colour", 3, "unknown key 'colour'"),
        ("preprocessing", "tolerance", float("nan"), "tolerance is nan"),
        (None, "threshold", 2, "threshold is 2, no number from 0 to 1"),
        ("arguments", "stem", 0, "do not fit"),
        ("arguments", "widths", [10**7, 10**7], "do not fit"),
        ("arguments", "layers", 3, "do not fit"),
    ],
)
def test_what_is_wrong_in_a_configuration_is_named(tmp_path, part, key, value, words):
    config = json.loads(json.dumps(CONFIG))
    (config[part] if part else config)[key] = value
    path = tmp_path / "x.safetensors"
    path.write_bytes(save(STATE, {"config": json.dumps(config)}))
    with pytest.raises(ValueError, match=f"x.safetensors.*{words}"):
        UNet.from_pretrained(path)


class _Code:
    def __reduce__(self):
        return os.mkdir, (os.environ["WOULD_BE_MADE"],)


@pytest.mark.parametrize("name", ["best.safetensors", "pickled.safetensors"])
def test_weights_that_hold_code_do_not_run_it(tmp_path, monkeypatch, name):
    monkeypatch.setenv("WOULD_BE_MADE", str(tmp_path / "made"))
    torch.save({"weights": _Code()}, tmp_path / name)
    with pytest.raises(ValueError, match="is damaged or was not written by save_pretrained"):
        UNet.from_pretrained(tmp_path / name)
    assert not (tmp_path / "made").exists()


# ---------------------------------------------------------------------------------------- large things


def test_pictures_of_gigapixels_are_refused_before_they_are_decoded(tmp_path):
    for name, size in (("vast.png", (60_000, 60_000)), ("large.png", (16_000, 9_000))):
        content = io.BytesIO()
        Image.new("1", (8, 8)).save(content, "PNG")
        header = bytearray(content.getvalue())
        header[16:24] = size[0].to_bytes(4, "big") + size[1].to_bytes(4, "big")
        import zlib

        header[29:33] = zlib.crc32(bytes(header[12:29])).to_bytes(4, "big")
        (tmp_path / name).write_bytes(header)
        with pytest.raises(DataError, match=name):
            read_image(tmp_path / name)


def test_a_program_in_postscript_is_never_run(tmp_path, monkeypatch):
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *parts: pytest.fail("it was run"))
    Image.fromarray(photograph(1)).save(tmp_path / "21.eps")
    (tmp_path / "21.eps").rename(tmp_path / "21.png")
    with pytest.raises(DataError, match="21.png holds PostScript, not pixels: save it as PNG"):
        read_image(tmp_path / "21.png")


def test_a_damaged_png_of_16_bit_colour_does_not_end_the_process(tmp_path):
    """libpng's own way out, which torchvision takes with this, is a segmentation fault."""
    whole = png_of_16_bits(np.zeros((40, 40, 3), np.uint16))
    (tmp_path / "21.png").write_bytes(whole.replace(b"\x78\x9c", b"\x78\x00", 1))
    with pytest.raises(DataError, match="21.png is cut off or damaged"):
        read_image(tmp_path / "21.png")


@pytest.mark.parametrize("lie", [(32997, 100_000), (322, 16)], ids=["depth", "a tile for all"])
def test_a_tiff_whose_sizes_differ_is_refused_at_once(tmp_path, lie):
    """A hundred thousand pictures in depth, or more tiles than there are: with tiles of a pixel, hours."""
    rows = [(256, 40), (257, 40), (258, 16), (259, 1), (262, 2), (273, 8), (277, 3), (278, 40), (279, 9600)]
    rows += [lie] + ([(323, 16), (324, 8), (325, 9600)] if lie[0] == 322 else [])
    head = struct.pack("<4sI", b"II*\0", 9608) + bytes(9600) + struct.pack("<H", len(rows))
    tail = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(rows)]
    after = 9608 + 2 + 12 * len(rows) + 4
    tail[2] = struct.pack("<HHII", 258, 3, 3, after)
    (tmp_path / "21.tif").write_bytes(head + b"".join(tail) + bytes(4) + struct.pack("<3H", 16, 16, 16))
    with pytest.raises(DataError, match=r"21\.tif is damaged, its sizes differ"):
        read_image(tmp_path / "21.tif")


@pytest.mark.skipif(os.name == "nt", reason="a file with holes")
def test_a_file_of_gigabytes_that_is_no_picture(tmp_path):
    with (tmp_path / "21.tif").open("wb") as file:
        file.truncate(8 * 1024**3)
    with pytest.raises(DataError, match="21.tif is no image"):
        read_image(tmp_path / "21.tif")


# ---------------------------------------------------------------------------------------------- paths


@pytest.mark.parametrize("name", ["with space", "Ünïcödé 眼底", "a'quote\"s", "semi;colon&and", "-dash"])
def test_paths_of_any_name(tmp_path, name, monkeypatch, capsys):
    root = tmp_path / name
    files = {f"images/{name} {n}.png": photograph(n) for n in range(2)}
    files |= {f"labels/{name} {n}.png": tree(n) for n in range(2)}
    write_files(root, files)
    (tmp_path / "link").symlink_to(root, target_is_directory=True)
    for place in (root, tmp_path / "link"):
        assert [pair.name for pair in find_dataset(place).training] == [f"{name} 0", f"{name} 1"]
    assert main(["check-data", str(tmp_path / "link")]) == 0
    capsys.readouterr()


def test_the_home_folder_is_meant_by_its_sign(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    folder = write_split(tmp_path / "eyes", "training", [21, 22])
    eyes = DRIVEDataset("~/eyes/images", "~/eyes/1st_manual")
    assert len(eyes) == 2 and folder.exists()
    model = UNet(widths=(2, 3))
    model.preprocessing = Preprocessing(tolerance=100)
    fit(model, eyes, steps=1, batch_size=1, patch_size=16, out="~/run", progress=False)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "last.pt",
        "best.safetensors",
        "train.log",
    }
    assert UNet.from_pretrained("~/run").arguments["widths"] == [2, 3]
    model.save_pretrained("~/mine.safetensors")
    assert (tmp_path / "mine.safetensors").is_file()
    assert not Path("~").exists()


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
def test_links_that_lead_in_circles_do_not_hang(tmp_path, capsys):
    root = write_split(tmp_path / "DRIVE" / "training", "training", [21, 22]).parent
    (root / "training" / "images" / "circle").symlink_to(root, target_is_directory=True)
    (root / "training" / "images" / "23_training.tif").symlink_to(root / "nowhere.tif")
    assert main(["check-data", str(root)]) in (0, 1, 2)
    assert "Verdict" in capsys.readouterr().out


# --------------------------------------------------------------------------------------- the commands


def no_such(folder):
    return folder / "nowhere"


def empty(folder):
    (folder / "empty").mkdir()
    return folder / "empty"


def text(folder):
    (folder / "notes.png").write_text("no picture")
    return folder / "notes.png"


def broken_zip(folder):
    (folder / "training.zip").write_bytes(b"PK\3\4" + b"\0" * 40)
    return folder / "training.zip"


def evil_zip(folder):
    with zipfile.ZipFile(folder / "training.zip", "w") as opened:
        opened.writestr(zipfile.ZipInfo("../evil.png"), b"evil")
    return folder / "training.zip"


def linked_zip(folder):
    member = zipfile.ZipInfo("training/images/21_training.tif")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(folder / "training.zip", "w") as opened:
        opened.writestr(member, "/etc/passwd")
    return folder / "training.zip"


def truncated(folder):
    root = write_split(folder / "cut" / "training", "training", [21, 22]).parent
    file = root / "training" / "images" / "21_training.tif"
    file.write_bytes(file.read_bytes()[:300])
    return root


def unlabelled(folder):
    root = write_split(folder / "bare" / "training", "training", [21, 22]).parent
    shutil.rmtree(root / "training" / "1st_manual")
    return root


COMMANDS = {
    "demo": lambda bad, out: ["demo", "--data", bad, "--out", out, "--steps", 1],
    "train": lambda bad, out: ["train", "--data", bad, "--out", out, "--steps", 1],
    "evaluate": lambda bad, out: ["evaluate", "--data", bad, "--weights", "fast"],
    "evaluate predictions": lambda bad, out: ["evaluate", bad, "--data", bad],
    "predict": lambda bad, out: ["predict", bad, "--out", out, "--weights", "fast"],
    "predict with weights": lambda bad, out: ["predict", bad, "--out", out, "--weights", bad],
    "check-data": lambda bad, out: ["check-data", bad],
    "synthesize": lambda bad, out: ["synthesize", bad, "--images", 1],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_tells_of_every_broken_input_in_a_line(command, tmp_path, capsys):
    spoiled = (no_such, empty, text, broken_zip, evil_zip, linked_zip, truncated, unlabelled)
    for number, spoil in enumerate(spoiled):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        bad, out = spoil(folder), folder / "out"
        if command == "synthesize" and spoil in (no_such, empty):
            continue  # the very folders that it takes
        if command == "predict" and spoil in (truncated, unlabelled):
            bad = bad / "training" / "images" / "21_training.tif"
            if spoil is unlabelled:
                continue  # a photograph without a label is all that it wants
        code = main([str(part) for part in COMMANDS[command](bad, out)])
        shown = capsys.readouterr()
        assert code != 0, (command, spoil.__name__)
        told = shown.out if command == "check-data" else shown.err
        lines = [line for line in told.splitlines() if "drive-unet: " in line or command == "check-data"]
        assert lines and "Traceback" not in shown.err + shown.out, (command, spoil.__name__, shown)
        assert str(folder) in told or bad.name in told, (command, spoil.__name__, told)
        assert not (tmp_path / "evil.png").exists() and not (tmp_path.parent / "evil.png").exists()


@pytest.mark.filterwarnings("default")
def test_a_warning_is_one_line_of_the_command(tmp_path, monkeypatch, capsys):
    import warnings

    from drive_unet.commands import main as command_line

    def warned(options):
        warnings.warn("the last one is damaged", stacklevel=1)

    monkeypatch.setattr(command_line, "_later", lambda *names: warned)
    assert main(["check-data", str(tmp_path)]) == 0
    assert capsys.readouterr().err == "drive-unet: the last one is damaged\n"


def test_pixels_never_leave_their_range(tmp_path):
    Image.fromarray(np.full((20, 20), np.inf, np.float32)).save(tmp_path / "inf.tif")
    with pytest.raises(DataError, match="inf.tif holds values that are not numbers"):
        read_image(tmp_path / "inf.tif")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_member_is_the_archive_s_fault_and_not_the_cache_s(tmp_path, method):
    path = tmp_path / "training.zip"
    with zipfile.ZipFile(path, "w", method) as opened:
        opened.writestr("training/images/21_training.tif", np.random.default_rng(0).bytes(5000))
    content = bytearray(path.read_bytes())
    content[300:400] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"training\.zip is not a complete zip archive"):
        unpack(path)


def test_a_member_whose_name_is_no_text_is_damage(tmp_path):
    path = tmp_path / "training.zip"
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("training/images/21_training.tif", b"")
    content = bytearray(path.read_bytes())
    content[7] |= 8  # its name is UTF-8, says the member's own header
    content[30] = 0xA6
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"training\.zip is not a complete zip archive"):
        unpack(path)


def test_a_file_that_is_a_folder_as_well_is_refused(tmp_path):
    path = tmp_path / "training.zip"
    with zipfile.ZipFile(path, "w") as opened:
        for name in ("labels/21.gif", "labels/21.gif/x.tif"):
            opened.writestr(name, b"x")
    with pytest.raises(DataError, match="as a file and as a folder"):
        unpack(path)
