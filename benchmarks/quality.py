"""The verdicts of `assess` on sound photographs, on the same spoiled on purpose, and on other pictures.

The table has a column for the photographs in even places of each folder and one for the others, so that
limits can be chosen on the one half and reported on the other. Today's were chosen on most photographs
of both halves: the second column flatters too.

    python benchmarks/quality.py DRIVE/training/images DRIVE/test/images HRF/images
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image
from scipy import ndimage

from drive_unet.data import read_image
from drive_unet.data.pairing import images
from drive_unet.painter.painting import paint
from drive_unet.preprocessing import assess, detect_fov
from drive_unet.preprocessing.fov import width_of
from drive_unet.preprocessing.quality import BLURRED, BRIGHT, CUT_OFF, DARK, NO_FUNDUS

OTHERS = ("astronaut", "chelsea", "coffee", "page")


def spoiled(image: np.ndarray) -> Iterator[tuple[str, str, np.ndarray]]:
    """What was done to a photograph, the reason that must be told, and what came of it."""
    yield "as it is", "", image
    yield "blurred by 1 % of the FOV", BLURRED, blurred(image, 0.01)
    for linear in (True, False):
        kind = "light" if linear else "values"
        yield f"a quarter of the {kind}", DARK, exposed(image, -2, linear)
        yield f"four times the {kind}", BRIGHT, exposed(image, 2, linear)
    for side in ("left", "right", "top", "bottom"):
        yield f"{side} half missing", CUT_OFF, cut(image, side)
    yield "right half black", CUT_OFF, cut(image, "right", black=True)


def blurred(image: np.ndarray, share: float) -> np.ndarray:
    """A photograph out of focus: sigma is this share of the field of view's width."""
    sigma = share * width_of(detect_fov(image))
    return np.stack([ndimage.gaussian_filter(image[..., channel], sigma) for channel in range(3)], axis=-1)


def exposed(image: np.ndarray, stops: float, linear: bool) -> np.ndarray:
    """A photograph exposed by so many stops more: of the light, or of the values as they are coded (sRGB)."""
    values = image.astype(np.float32) / 255
    if linear:
        values = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    values = (values * np.float32(2) ** stops).clip(0, 1)
    if linear:
        values = np.where(values <= 0.0031308, values * 12.92, 1.055 * values ** (1 / 2.4) - 0.055)
    return np.round(values * 255).astype(np.uint8)


def cut(image: np.ndarray, side: str, black: bool = False) -> np.ndarray:
    """A photograph without one half of its frame, or with that half black."""
    height, width = image.shape[:2]
    gone = {
        "left": np.s_[:, : width // 2],
        "right": np.s_[:, width // 2 :],
        "top": np.s_[: height // 2],
        "bottom": np.s_[height // 2 :],
    }
    if black:
        image = image.copy()
        image[gone[side]] = 0
        return image
    kept = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}[side]
    return np.ascontiguousarray(image[gone[kept]])


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folders", metavar="DIR", nargs="*", type=Path, help="folders of sound photographs")
    parser.add_argument("--width", type=int, default=1200, help="larger photographs are reduced to this")
    options = parser.parse_args()
    counts: dict[str, list[Counter]] = {}
    missed = []
    for folder in options.folders:
        for number, file in enumerate(images(folder)):
            image = _reduced(read_image(file), options.width)
            missed += _judge(counts, number % 2, str(file), image)
    missed += _judge(counts, 0, "skimage retina", skimage.data.retina())
    for seed in range(10):
        missed += _judge(counts, 1, f"painted {seed}", paint(seed, ((584, 565), (960, 999))[seed % 2]).image)
    print(f"{'':32}chosen on  reported on")
    for what, halves in counts.items():
        cells = [f"{half['right']:>4} of {half['all']:<4}" for half in halves]
        print(f"{what:32}{cells[0]}  {cells[1]}")
    pictures = {name: np.asarray(getattr(skimage.data, name)()) for name in OTHERS}
    pictures |= {"black": np.zeros((500, 600), np.uint8), "white": np.full((500, 600), 255, np.uint8)}
    for name, picture in pictures.items():
        picture = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
        verdict = assess(np.ascontiguousarray(picture[..., :3]))
        print(f"{name:32}{verdict}")
        if NO_FUNDUS not in verdict.reasons:
            missed.append(f"{name}: {verdict}")
    print("\n".join(["", "wrong:", *missed] if missed else ["", "none is wrong"]))


def _judge(counts: dict[str, list[Counter]], half: int, name: str, image: np.ndarray) -> list[str]:
    missed = []
    for what, reason, picture in spoiled(image):
        verdict = assess(picture)
        right = reason in verdict.reasons if reason else verdict.good
        count = counts.setdefault(what, [Counter(), Counter()])[half]
        count["all"] += 1
        count["right"] += right
        if not right:
            missed.append(f"{name}, {what}: {verdict} {verdict.values}")
    return missed


def _reduced(image: np.ndarray, width: int) -> np.ndarray:
    factor = image.shape[1] // width
    return np.asarray(Image.fromarray(image).reduce(factor)) if factor > 1 else image


if __name__ == "__main__":
    main()
