"""Broken files of every kind that the package reads: whatever is in them, it says so in its own words.

`python tests/fuzz_inputs.py --minutes 10` changes valid files at random and reads them; `--atheris`
guides it by the code that a change reaches, for images alone. `test_hostile_input.py` does a little of
it. What breaks is written into the folder `--keep`.
"""

from __future__ import annotations

import argparse
import inspect
import io
import json
import os
import random
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from builders import disc, palette, photograph, png_of_16_bits, tree, write_dicom
from PIL import Image
from safetensors.torch import save

from drive_unet.data.archives import unpack
from drive_unet.data.reading import read_image, read_mask, read_prediction
from drive_unet.errors import DataError
from drive_unet.models import UNet
from drive_unet.training.checkpoints import Checkpoints

SECONDS = 20.0  # that one small input may take; more is a hang


def images() -> dict[str, bytes]:
    """Small valid images of every format and depth that is read, by their endings."""
    small = (24, 26)
    picture = Image.fromarray(photograph(1, small))
    deep = Image.fromarray((np.arange(24 * 26).reshape(small) * 100).astype(np.uint16))
    forms = {
        ".png": (picture, {}),
        ".gif": (palette(tree(1, small)), {}),
        ".tif": (picture, {"compression": "tiff_lzw"}),
        ".deflate.tif": (picture, {"compression": "tiff_deflate"}),
        ".jpg": (picture, {}),
        ".bmp": (Image.fromarray((disc(small) * 255).astype(np.uint8)), {}),
        ".ppm": (picture, {}),
        ".webp": (picture, {}),
        ".jp2": (picture, {}),
        ".deep.png": (deep, {}),
        ".deep.tif": (deep, {}),
        ".alpha.png": (picture.convert("RGBA"), {}),
    }
    result = {}
    for suffix, (form, options) in forms.items():
        content = io.BytesIO()
        kind = {".jpg": "JPEG", ".tif": "TIFF", ".jp2": "JPEG2000"}.get("." + suffix.rsplit(".", 1)[1])
        form.save(content, kind or suffix.rsplit(".", 1)[1].upper(), **options)
        result[suffix] = content.getvalue()
    import tifffile  # 16-bit colour, which Pillow cannot write

    content = io.BytesIO()
    tifffile.imwrite(content, (photograph(1, small).astype(np.uint16) << 8), photometric="rgb")
    result[".colour.tif"] = content.getvalue()
    result[".colour.png"] = png_of_16_bits(photograph(1, small).astype(np.uint16) << 8)
    with tempfile.TemporaryDirectory() as folder:
        for suffix, deflated in ((".dcm", False), (".deflate.dcm", True)):
            path = write_dicom(Path(folder) / f"x{suffix}", photograph(1, small), deflated=deflated)
            result[suffix] = path.read_bytes()
    return result


def archive() -> bytes:
    """A small valid zip archive with images in folders."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, picture in zip(("images/21.png", "labels/21.gif"), images().values(), strict=False):
            opened.writestr(name, picture)
    return content.getvalue()


def weights() -> tuple[dict[str, torch.Tensor], dict]:
    """Tensors and configuration of a tiny network."""
    model = UNet(widths=(2, 3))
    with tempfile.TemporaryDirectory() as folder:
        path = model.save_pretrained(Path(folder) / "x.safetensors")
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            config = json.loads(file.metadata()["config"])
            state = {key: file.get_tensor(key).clone() for key in file.keys()}
    return state, config


def checkpoint() -> bytes:
    """A small valid checkpoint of a training."""
    content = io.BytesIO()
    words = {"run": {"history": [{"step": 1}]}, "settings": {"steps": 1}, "notes": {}, "versions": {}}
    words = {name: json.dumps(value) for name, value in words.items()}
    torch.save({"model": torch.nn.Linear(2, 2).state_dict(), "state": {"best": None}, **words}, content)
    return content.getvalue()


# ------------------------------------------------------------------------------- what is done with each


def named(path: Path, error: Exception) -> None:
    """Raise unless a message names the file."""
    if str(path) not in str(error):
        raise AssertionError(f"the message names no file: {error}") from error


def read_picture(content: bytes, suffix: str, folder: Path) -> None:
    """Read it as a photograph, as a label and as a prediction."""
    path = folder / f"21{suffix}"
    path.write_bytes(content)
    for read in (read_image, read_mask, read_prediction):
        try:
            result = read(path)
        except DataError as error:
            named(path, error)
        else:
            assert result.ndim in (2, 3) and result.dtype in (np.uint8, bool, np.float32)


def read_archive(content: bytes, suffix: str, folder: Path) -> None:
    """Unpack it; nothing may be written outside the cache."""
    path = folder / "training.zip"
    path.write_bytes(content)
    before = set(folder.iterdir())
    try:
        unpack(path)
    except DataError as error:
        named(path, error)
    assert set(folder.iterdir()) - before <= {folder / "cache"}


def read_weights(content: bytes, suffix: str, folder: Path) -> None:
    """Load it as a network; one that loads must work."""
    path = folder / "x.safetensors"
    path.write_bytes(content)
    try:
        model = UNet.from_pretrained(path)
    except (ValueError, FileNotFoundError) as error:
        named(path, error)
    else:
        channels = model.arguments["in_channels"]
        assert model(torch.zeros(1, channels, 16, 16)).shape[-2:] == (16, 16)


def read_checkpoint(content: bytes, suffix: str, folder: Path) -> None:
    """Go on from it."""
    (folder / "last.pt").write_bytes(content)
    (folder / "previous.pt").unlink(missing_ok=True)
    linear = torch.nn.Linear(2, 2)
    linear.notes = {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of other versions
            Checkpoints(folder, {"model": linear}, {"steps": 1}).load()
    except ValueError as error:
        named(folder / "last.pt", error)


def targets() -> dict[str, tuple[Callable[[bytes, str, Path], None], bytes, str]]:
    """By name what reads a file, a valid one, and its ending."""
    result = {f"image{suffix}": (read_picture, content, suffix) for suffix, content in images().items()}
    state, config = weights()
    result["archive"] = (read_archive, archive(), ".zip")
    result["weights"] = (read_weights, save(state, {"config": json.dumps(config)}), ".safetensors")
    result["checkpoint"] = (read_checkpoint, checkpoint(), ".pt")
    return result


def changed(content: bytes, draw: random.Random) -> bytes:
    """A file with some bytes changed, cut out, doubled or cut off, most often near its beginning."""
    result = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        if not result:
            break
        place = min(int(draw.expovariate(1 / 64)), len(result) - 1)
        place = draw.choice((place, draw.randrange(len(result))))
        kind = draw.randrange(6)
        if kind < 3:
            result[place] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256), result[place] ^ 1))
        elif kind == 3:
            del result[place : place + draw.choice((1, 4, 100))]
        elif kind == 4:
            result[place:place] = result[place : place + draw.choice((1, 4, 100))]
        else:
            del result[place:]
    return bytes(result)


def campaign(minutes: float, seed: int, keep: Path, shown: bool = True) -> tuple[Counter, list[str]]:
    """Change and read files for so long; how many of each, and what broke."""
    draw, counts, faults = random.Random(seed), Counter(), []
    known, end = targets(), time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["DRIVE_UNET_CACHE"] = str(folder / "cache")
        while time.monotonic() < end:
            target = draw.choice(list(known))
            read, content, suffix = known[target]
            broken = changed(content, draw)
            begun = time.monotonic()
            counts[target] += 1
            try:
                read(broken, suffix, folder)
                if time.monotonic() - begun > SECONDS:
                    raise TimeoutError(f"took {time.monotonic() - begun:.0f} s")
            except Exception as error:
                faults.append(f"{target}: {type(error).__name__}: {error}")
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{target}-{len(faults)}{suffix}").write_bytes(broken)
                if shown:
                    traceback.print_exc()
    return counts, faults


def guided(minutes: float, keep: Path) -> None:
    """The same on decoding alone, guided by atheris; it ends the process."""
    import atheris

    known = list(images().items())
    keep.mkdir(parents=True, exist_ok=True)
    seeds = keep / "seeds"
    seeds.mkdir(exist_ok=True)
    for number, (_, content) in enumerate(known):
        (seeds / f"{number}").write_bytes(bytes([number]) + content)
    folder = Path(tempfile.mkdtemp())

    def one(content: bytes) -> None:
        if content:
            read_picture(content[1:], known[content[0] % len(known)][0], folder)

    Image.init()  # all of its readers
    for name, module in list(sys.modules.items()):
        if name.startswith(("PIL.", "drive_unet.data", "drive_unet.preprocessing")) or name == __name__:
            for part in vars(module).values():
                functions = vars(part).values() if inspect.isclass(part) else [part]
                for function in filter(inspect.isfunction, functions):
                    atheris.instrument_func(function)
    options = [f"-max_total_time={int(60 * minutes)}", "-timeout=20", "-rss_limit_mb=6000", "-max_len=8192"]
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={keep}/", str(seeds)], one)
    atheris.Fuzz()


def main() -> int:
    """Fuzz for so many minutes; returns 0 if nothing broke."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--atheris", action="store_true", help="guide it by atheris, decoding alone")
    parser.add_argument("--keep", type=Path, default=Path("fuzzed"), help="folder for what breaks")
    options = parser.parse_args()
    if options.atheris:
        guided(options.minutes, options.keep)
    counts, faults = campaign(options.minutes, options.seed, options.keep)
    print(f"{sum(counts.values())} inputs: {dict(sorted(counts.items()))}\n{len(faults)} findings")
    print("\n".join(faults[:50]))
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
