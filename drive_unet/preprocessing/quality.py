"""Whether a photograph is good enough for its vessels to be believed, and if not, why.

The verdict stops nothing: it is told, so that a number from a bad photograph is not taken for one from a
good one. The limits of completeness, sharpness and exposure are what `python benchmarks/quality.py` chooses
on one half of the photographs of DRIVE and HRF, as they are and spoiled on purpose; it reports on the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from drive_unet.errors import DataError
from drive_unet.preprocessing.fov import as_uint8_image, box, detect_fov, refuse_other_size
from drive_unet.preprocessing.prepare import rescale, rescale_mask

BLURRED = "blurred"
DARK = "too dark"
BRIGHT = "too bright"
CUT_OFF = "field of view cut off"
NO_FUNDUS = "not a fundus photograph"

_SIDE = 400  # pixels across the field of view, at which everything is measured
_ON_CIRCLE = 0.012  # of the radius; so near to a circle the rim of a field of view runs
_ARC = 0.12  # of a circle, at least, that the rim of a disc follows, however much of it is cut off
_COMPLETE = 0.684  # of its circle, at least, that a field of view fills; HRF's 84 %, a half 50 % or less
_REDDISH, _HUE = 0.8, (-12.0, 35.0)  # share of pixels with red >= green >= blue; degrees around red
_GREY = 0.06  # of saturation, below which a picture has no colour
_ROUGH = 0.055  # relative contrast of structures about 1/40 of the width; a retina has about .03, a cat .07
_FULL, _CLIPPED = 0.933, 0.5  # share of pixels whose brightest channel is full; from which on hues are lost
_SHARP = 0.358  # contrast of the finest structures relative to those four times as wide
_DIM = 0.631  # of the brightest hundredth of a retina, mostly its disc, in the brightest channel
_GREY_DIM = 0.313  # the same without colour, which is darker than red: as little as the darkest sound one has
_MAP = 0.18  # of the brightest hundredth: darker is most of a map of vessels (.02), and of no retina (.34)
_FLAT, _FEW = 5, 0.05  # pixels across of one colour, of which a cover is made; share of the FOV that is none
_DULL = 40  # below it a retina without colour has even places, too, but of several levels
_BLACK, _WHITE = 8, 250  # between them a cover's levels lie: beyond, a photograph may be cut off or clipped;
# white is a cover's where it reaches the edge of the frame
_GLARE, _VEIL = 0.475, 0.55  # what is light where no veil is: exposure lifts green, a veil lifts blue as much


@dataclass(frozen=True)
class Quality:
    """The verdict on a photograph.

    Attributes:
        reasons: what is wrong with it, in words; empty for a good one.
        values: what was measured, by name.
    """

    reasons: tuple[str, ...]
    values: dict[str, float] = field(default_factory=dict, repr=False)

    @property
    def good(self) -> bool:
        """Whether nothing is wrong with it."""
        return not self.reasons

    def __str__(self) -> str:
        return "good" if self.good else f"poor: {', '.join(self.reasons)}"


def assess(image: np.ndarray, fov: np.ndarray | None = None) -> Quality:
    """Judge a photograph: blur, exposure, a field of view that is cut off, and whether it is a fundus at all.

    Args:
        image: (H, W, 3) uint8.
        fov: (H, W) bool, the field of view; None finds it.

    Returns:
        The verdict. A picture that is no fundus photograph has no other reasons, but of one that is all dark
        or all bright both are told.

    Raises:
        DataError: if the image is not uint8 of that shape, or the field of view not of its size.
    """
    image = as_uint8_image(image, "assess", channels=3)
    if fov is not None:
        refuse_other_size(fov, image)
    step = max(1, min(image.shape[:2]) // _SIDE)
    brightness = image[::step, ::step].max(axis=2)
    if brightness.max() - brightness.min() < 8:  # a frame of one colour
        level = float(np.median(brightness)) / 255
        return Quality(
            (NO_FUNDUS, *([DARK] if level < 0.2 else [BRIGHT] if level > 0.9 else [])), {"highlights": level}
        )
    try:
        fov = detect_fov(image) if fov is None else fov
    except DataError:  # nothing is lit, or a speck
        dark = float(np.percentile(brightness, 99)) < 26
        return Quality((NO_FUNDUS, *([DARK] if dark else [])))
    values = _measured(image, fov)
    if is_map(image, fov) or not _is_fundus(values):
        return Quality((NO_FUNDUS,), values)
    reasons = [
        (values["complete"] < _COMPLETE, CUT_OFF),
        (values.get("highlights", 1) < _DIM or values.get("grey_highlights", 1) < _GREY_DIM, DARK),
        (values["glare"] >= _GLARE or values["full"] > _FULL, BRIGHT),
        (values["sharpness"] < _SHARP, BLURRED),
    ]
    return Quality(tuple(reason for wrong, reason in reasons if wrong), values)


def is_map(image: np.ndarray, fov: np.ndarray) -> bool:
    """Whether a picture is a map of vessels or their probabilities: grey, and all but dark where it is lit.

    Args:
        image: (H, W, 3) uint8.
        fov: (H, W) bool, the field of view, of this picture or its photograph.
    """
    step = max(1, min(image.shape[:2]) // _SIDE)
    inside = image[::step, ::step][fov[::step, ::step]]
    if not len(inside) or (inside != inside[:, :1]).any():
        return False
    return bool(np.median(inside[:, 0]) < _MAP * np.percentile(inside[:, 0], 99))


def _is_fundus(values: dict[str, float]) -> bool:
    bright = values["full"] > _CLIPPED
    grey = values["saturation"] < _GREY
    red = values["reddish"] >= _REDDISH and (_HUE[0] <= values["hue"] <= _HUE[1] or bright)
    if values["arc"] >= _ARC:  # a disc
        return red or grey
    return red and not grey and values["roughness"] < _ROUGH  # a crop from within one, if anything


def _measured(image: np.ndarray, fov: np.ndarray) -> dict[str, float]:
    side = max(fov[box(fov)].shape)
    image, fov = rescale(image, _SIDE / side), rescale_mask(fov, _SIDE / side)
    fov = _uncovered(image, fov)
    core = ndimage.binary_erosion(np.pad(fov, 1), iterations=_SIDE // 50)[1:-1, 1:-1]
    core = core if core.any() else fov
    pixels = image.astype(np.float32) / 255
    inside = pixels[core]
    red, green, blue = inside.T
    brightest = inside.max(axis=1)
    hue = np.degrees(np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue))
    arc, complete = _circle(fov)
    saturation = float(np.median((brightest - inside.min(axis=1)) / np.maximum(brightest, 1e-3)))
    highlights = float(np.percentile(brightest, 99))
    bands = _contrasts(pixels[..., 1], fov, core)
    return {
        "arc": arc,
        "complete": complete,
        "highlights" if saturation >= _GREY else "grey_highlights": highlights,
        "glare": float(np.percentile(inside.mean(axis=1), 75))
        - _VEIL * float(np.percentile(inside.min(axis=1), 10)),
        "full": float((brightest > 0.98).mean()),
        "reddish": float(((red >= green) & (green >= blue - 0.02)).mean()),
        "hue": float(np.median(hue)),
        "saturation": saturation,
        "roughness": bands[3],
        "sharpness": bands[0] / max(bands[2], 1e-6),
    }


def _uncovered(image: np.ndarray, fov: np.ndarray) -> np.ndarray:
    """The field of view (H, W) bool without what lies under one even colour."""
    low, high = (find(image, (_FLAT, _FLAT, 1)) for find in (ndimage.minimum_filter, ndimage.maximum_filter))
    flat = fov & (high - low <= 1).all(axis=2)
    white = flat & (image.min(axis=2) >= _WHITE)
    flat &= (image.max(axis=2) > _BLACK) & ~white
    edge = np.zeros_like(white)
    edge[[0, -1]], edge[:, [0, -1]] = white[[0, -1]], white[:, [0, -1]]
    flat |= ndimage.binary_propagation(edge, mask=white)
    if flat.sum() <= _FEW * fov.sum():
        return fov
    colour = np.median(image[flat], axis=0)
    dull = colour.max() < _DULL
    covered = flat & (np.abs(image - colour) <= (0 if dull else 2)).all(axis=2)
    if covered.sum() <= (0.8 * flat.sum() if dull else _FEW * fov.sum()):
        return fov
    seen = ndimage.binary_opening(fov & ~covered, iterations=_FLAT)
    return seen if seen.any() else fov


def _contrasts(green: np.ndarray, fov: np.ndarray, core: np.ndarray) -> list[float]:
    """Relative contrast in the green channel of structures in four bands, each twice as wide as the last."""

    def smooth(sigma: float) -> np.ndarray:
        weight = ndimage.gaussian_filter(fov.astype(np.float32), sigma)
        return ndimage.gaussian_filter(np.where(fov, green, 0), sigma) / np.maximum(weight, 1e-3)

    pictures = [smooth(sigma) for sigma in (0.7, 1.4, 2.8, 5.6, 11.2)]
    level = float(pictures[-1][core].mean()) + 0.02
    return [
        float((fine - coarse)[core].std()) / level
        for fine, coarse in zip(pictures, pictures[1:], strict=False)
    ]


def _circle(fov: np.ndarray) -> tuple[float, float]:
    """How much of a circle the rim follows, and how much of that circle the field of view fills.

    The circle is the one through three points of the rim that most others lie on (RANSAC), of 200 tried. No
    circle, as of a frame that is all field of view, gives 0 and the share of its smallest one around.
    """
    rim = np.argwhere(fov & ~ndimage.binary_erosion(fov, border_value=1)).astype(np.float64)
    height, width = fov.shape
    around = float(fov.sum() / (np.pi / 4 * (height**2 + width**2)))
    if len(rim) < 12:
        return 0.0, around
    generator = np.random.default_rng(0)
    a, b, c = np.moveaxis(rim[generator.integers(0, len(rim), (200, 3))], 1, 0)
    system = 2 * np.stack([b - a, c - a], axis=1)
    right = np.stack([(b**2 - a**2).sum(1), (c**2 - a**2).sum(1)], axis=1)
    sound = np.abs(np.linalg.det(system)) > 1.0
    if not sound.any():
        return 0.0, around
    centres = np.linalg.solve(system[sound], right[sound][..., None])[..., 0]
    radii = np.hypot(*(a[sound] - centres).T)
    likely = (radii > 0.2 * min(height, width)) & (radii < 1.5 * max(height, width))
    if not likely.any():
        return 0.0, around
    centres, radii = centres[likely], radii[likely]
    away = np.hypot(rim[:, 0] - centres[:, :1], rim[:, 1] - centres[:, 1:])
    votes = (np.abs(away - radii[:, None]) < _ON_CIRCLE * radii[:, None]).sum(axis=1)
    best = int(votes.argmax())
    radius = radii[best]
    return float(votes[best] / (2 * np.pi * radius)), float(fov.sum() / (np.pi * radius**2))
