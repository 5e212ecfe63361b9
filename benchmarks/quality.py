"""The verdicts of `assess` on sound photographs, on the same spoiled on purpose, and on other pictures.

The table has a column for the photographs in even places of each folder and one for the others. Limits are
chosen on the first: where fewest are wrong, in the middle of the widest gap. They are printed below the table
beside those of the package, which the verdicts use. Painted photographs had no part in that.

    python benchmarks/quality.py DRIVE/training/images DRIVE/test/images HRF/images

What is measured, not where the limits lie, was thought of with all photographs at hand: the second column
flatters a little for that.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import skimage.data
from PIL import Image
from scipy import ndimage

from drive_unet.data import read_image
from drive_unet.data.pairing import images
from drive_unet.painter.painting import paint
from drive_unet.preprocessing import assess, detect_fov, quality
from drive_unet.preprocessing.fov import width_of
from drive_unet.preprocessing.quality import BLURRED, BRIGHT, CUT_OFF, DARK, NO_FUNDUS, Quality

OTHERS = ("astronaut", "chelsea", "coffee", "page")
AS_IT_IS, SOUND = "as it is", ""  # what was done to a photograph; the reason that must be told of a sound one
LIMITS = {  # what is measured: the limit's name, and what it tells from sound photographs
    "complete": ("_COMPLETE", CUT_OFF),
    "sharpness": ("_SHARP", BLURRED),
    "highlights": ("_DIM", DARK),
    "glare": ("_GLARE", "four times the light"),
    "full": ("_FULL", "four times the values"),
}
GREY = {"grey_highlights": "_GREY_DIM"}  # of which the darkest sound photograph is the limit


class Judged(NamedTuple):
    """What `assess` said of a photograph, and whether it should."""

    half: int
    name: str
    what: str
    reason: str
    verdict: Quality

    @property
    def right(self) -> bool:
        return self.reason in self.verdict.reasons if self.reason else self.verdict.good


def spoiled(image: np.ndarray) -> Iterator[tuple[str, str, np.ndarray]]:
    """What was done to a photograph, the reason that must be told, and what came of it."""
    yield AS_IT_IS, "", image
    yield "blurred by 1 % of the FOV", BLURRED, blurred(image, 0.01)
    for linear in (True, False):
        kind = "light" if linear else "values"
        yield f"a quarter of the {kind}", DARK, exposed(image, -2, linear)
        yield f"four times the {kind}", BRIGHT, exposed(image, 2, linear)
    for side in ("left", "right", "top", "bottom"):
        yield f"{side} half missing", CUT_OFF, cut(image, side)
    yield "right half black", CUT_OFF, cut(image, "right", level=0)
    for side, level in (("left", 128), ("right", 64), ("top", 128), ("bottom", 200), ("left", 255)):
        yield f"{side} half even, {level}", CUT_OFF, cut(image, side, level)
    for name, weights in (("luminance", (0.299, 0.587, 0.114)), ("green", (0, 1, 0))):
        grey = np.repeat(np.round(image @ np.array(weights)).astype(np.uint8)[..., None], 3, axis=2)
        yield f"{name} alone", "", grey
        yield f"{name}, a quarter of the values", DARK, exposed(grey, -2, False)


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


def cut(image: np.ndarray, side: str, level: int | None = None) -> np.ndarray:
    """A photograph without one half of its frame, or with that half under one grey level."""
    height, width = image.shape[:2]
    gone = {
        "left": np.s_[:, : width // 2],
        "right": np.s_[:, width // 2 :],
        "top": np.s_[: height // 2],
        "bottom": np.s_[height // 2 :],
    }
    if level is not None:
        image = image.copy()
        image[gone[side]] = level
        return image
    kept = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}[side]
    return np.ascontiguousarray(image[gone[kept]])


def judged(half: int, name: str, image: np.ndarray) -> list[Judged]:
    """A photograph as it is and spoiled in every way."""
    return [Judged(half, name, what, reason, assess(picture)) for what, reason, picture in spoiled(image)]


def limit(sound: np.ndarray, bad: np.ndarray) -> float:
    """Where fewest of the sound (N,) and the bad (M,) are on the wrong side, amid the widest such gap."""
    if np.median(sound) < np.median(bad):
        return -limit(-sound, -bad)
    values = np.unique(np.r_[sound, bad])
    middles = (values[1:] + values[:-1]) / 2
    wrong = np.array([(sound < middle).sum() + (bad >= middle).sum() for middle in middles])
    best = np.flatnonzero(wrong == wrong.min())
    return float(middles[best[np.diff(values)[best].argmax()]])


def chosen(records: list[Judged]) -> dict[str, float]:
    """The limits, by the name of what is measured, that the first half's photographs choose."""

    def of(measure: str, kind: str) -> np.ndarray:
        rows = [row for row in records if row.half == 0 and kind in (row.what, row.reason)]
        return np.array([row.verdict.values[measure] for row in rows if measure in row.verdict.values])

    limits = {
        measure: limit(of(measure, AS_IT_IS), of(measure, against))
        for measure, (_, against) in LIMITS.items()
    }
    return limits | {measure: float(of(measure, SOUND).min(initial=1)) for measure in GREY}


def main(arguments: list[str] | None = None) -> None:
    """Print a table, the limits, and what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folders", metavar="DIR", nargs="+", type=Path, help="folders of sound photographs")
    parser.add_argument("--width", type=int, default=1200, help="larger photographs are reduced to this")
    options = parser.parse_args(arguments)
    records: list[Judged] = []
    for folder in options.folders:
        for number, file in enumerate(images(folder)):
            records += judged(number % 2, str(file), _reduced(read_image(file), options.width))
    records += judged(0, "skimage retina", skimage.data.retina())
    painted = []
    for seed in range(10):
        painted += judged(2, f"painted {seed}", paint(seed, ((584, 565), (960, 999))[seed % 2]).image)
    print(f"{'':32}{'chosen on':14}{'reported on':14}painted")
    for what in dict.fromkeys(row.what for row in records):
        halves = [
            [row.right for row in records + painted if (row.half, row.what) == (h, what)] for h in range(3)
        ]
        print(f"{what:32}" + "  ".join(f"{sum(half):>4} of {len(half):<4}" for half in halves))
    print()
    names = {measure: name for measure, (name, _) in LIMITS.items()} | GREY
    for measure, value in chosen(records).items():
        print(f"{measure:12} {value:.3f} chosen, {getattr(quality, names[measure]):.3f} in the package")
    missed = [
        f"{row.name}, {row.what}: {row.verdict} {row.verdict.values}"
        for row in records + painted
        if not row.right
    ]
    pictures = {name: np.asarray(getattr(skimage.data, name)()) for name in OTHERS}
    pictures |= {"black": np.zeros((500, 600), np.uint8), "white": np.full((500, 600), 255, np.uint8)}
    print()
    for name, picture in pictures.items():
        picture = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
        verdict = assess(np.ascontiguousarray(picture[..., :3]))
        print(f"{name:32}{verdict}")
        if NO_FUNDUS not in verdict.reasons:
            missed.append(f"{name}: {verdict}")
    print("\n".join(["", "wrong:", *missed] if missed else ["", "none is wrong"]))


def _reduced(image: np.ndarray, width: int) -> np.ndarray:
    factor = image.shape[1] // width
    return np.asarray(Image.fromarray(image).reduce(factor)) if factor > 1 else image


if __name__ == "__main__":
    main()
