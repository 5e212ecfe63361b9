"""From image files to arrays: photographs, and labels made exactly two-valued from every encoding in use."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from drive_unet.data.decoding import Picture, decode, grey_levels, white, with_alpha
from drive_unet.data.pairing import Pair
from drive_unet.errors import DataError
from drive_unet.preprocessing.fov import box

# Grey pixels per bright one: at most .1 in vessel labels kept as JPEG of quality 50, .5 or more in those that
# were resized smoothly, 1 or more in most photographs.
_BETWEEN = 0.15
# The same for labels with smoothed edges: at most 1.1 in those halved in size and then kept as JPEG. Of their
# greys at most .01 have grey all around them, in a photograph .99, in labels of the classes 0, 1, 2 .3.
_SMOOTH, _AREA = 1.25, 0.05


def read_image(path: str | Path) -> np.ndarray:
    """Read a colour photograph.

    Cameras save 10, 12 or 14 bits in files of 16. Such a file is scaled by the depth that it states itself (a
    TIFF's BitsPerSample or MaxSampleValue, a PNG's sBIT), else by the smallest usual one, 8, 10, 12, 14 or 16
    bits, that holds its brightest value, or by this value where none does; floating-point files by 1, 255 or
    65535 likewise.

    Args:
        path: an image file that Pillow reads, and 16-bit colour as PNG or TIFF; alpha is dropped, grey
            becomes three equal channels; turned upright as its EXIF orientation says.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        DataError: if the file is missing, damaged or no image, or holds values that are no brightness.
    """
    return as_photograph(path, decode(path))


def as_photograph(path: str | Path, picture: Picture) -> np.ndarray:
    """A decoded file as a photograph (H, W, 3) uint8, see `read_image`."""
    if picture.deep is not None:
        levels = picture.deep[..., :3] if picture.deep.shape[-1] > 2 else picture.deep[..., :1]
    elif picture.image.mode.startswith(("I", "F")):  # 16-bit grey and the like, which convert() would clip
        levels = np.asarray(picture.image)[..., None]
    else:
        return np.array(with_alpha(picture.image).convert("RGB"))
    scaled = levels * (255.0 / white(path, levels, picture.full))
    return np.repeat(np.round(scaled).astype(np.uint8), 3 // levels.shape[-1], axis=2)


def read_mask(path: str | Path, *, smooth: bool = False, coloured: bool = False) -> np.ndarray:
    """Read a two-valued image: vessel labels or a field-of-view mask, in whatever encoding it comes.

    The threshold is half-way between the darkest and the brightest grey level that occur. DRIVE's second
    observer is a palette image whose background has grey level 3, so that `> 0` would make a vessel of every
    pixel.

    Args:
        path: an image file; grey of 1, 8 or 16 bits, palette, RGB, with or without alpha; {0, 1} or {0, 255};
            turned upright as its EXIF orientation says.
        smooth: accept edges of any grey, as resizing, antialiasing and strong JPEG compression leave them.
        coloured: arteries and veins are drawn in red, blue and, where they cross, green on black: whatever is
            brighter than half in one of the three is vessel.

    Returns:
        (H, W) bool. An image of a single level is True if that is 1 or in the upper half of its format's
        range.

    Raises:
        DataError: if the file is missing, damaged or no image, or has more than two levels at heart, as a
            photograph has, and a smoothly resized label unless `smooth`.
    """
    picture = decode(path)
    if coloured:
        return np.asarray((np.asarray(with_alpha(picture.image).convert("RGB")) > 127).any(axis=2))
    grey = grey_levels(picture)
    low, high = float(grey.min()), float(grey.max())
    if not np.isfinite(high - low):
        raise DataError(
            f"{path} holds values that are not numbers: export the labels again as black and white"
        )
    if low == high:
        return np.full(grey.shape, high >= white(path, grey, picture.full) / 2)
    level = (grey.astype(np.float32) - low) / (high - low)
    mask = level >= 0.5
    between = (level > 0.15) & (level < 0.85)
    share = np.count_nonzero(between) / min(np.count_nonzero(mask), mask.size - np.count_nonzero(mask))
    if smooth and share > _BETWEEN and (share > _SMOOTH or _area(between) > _AREA):
        raise DataError(
            f"{path} holds {len(np.unique(grey))} grey levels where labels have two, and not at edges only, "
            "as a photograph or a label of several classes does: draw vessels white and all else black"
        )
    if not smooth and share > _BETWEEN:
        raise DataError(
            f"{path} holds {len(np.unique(grey))} grey levels where labels have two, as a photograph does, "
            "or a label that was resized with smoothing: use the original black-and-white file"
        )
    return mask


def _area(mask: np.ndarray) -> float:
    """Which share of a mask's pixels has the mask all around it: 0 for lines of one or two pixels."""
    from scipy import ndimage  # here: few labels need it

    return np.count_nonzero(ndimage.binary_erosion(mask, np.ones((3, 3)))) / np.count_nonzero(mask)


def read_prediction(path: str | Path) -> np.ndarray:
    """Read a finished prediction: a segmentation, or a map of probabilities.

    Args:
        path: an image file; grey of 8 or 16 bits, whose full range stands for 0..1, floating-point grey in
            0..1, or a two-valued image in whatever encoding.

    Returns:
        (H, W) bool if the image has one or two levels, else (H, W) float32 in 0..1.

    Raises:
        DataError: if the file is missing, damaged, no image or in colour, or holds other values.
    """
    picture = decode(path)
    grey = grey_levels(picture)
    if picture.image.mode not in ("1", "L") and not picture.image.mode.startswith(("I", "F")):
        colours = np.asarray(with_alpha(picture.image).convert("RGB"))
        if (colours != colours[..., :1]).any():
            raise DataError(f"{path} is in colour: predictions are grey, vessels white, or probabilities")
    full = (
        1.0 if grey.dtype == bool or grey.dtype.kind == "f" else 255.0 if grey.dtype == np.uint8 else 65535.0
    )
    low, high = grey.min(), grey.max()
    if not (low >= 0 and high <= full):  # nan compares false
        raise DataError(f"{path} holds {high:g}, but predictions lie in 0..{full:g}: scale them to it")
    if ((grey == low) | (grey == high)).all():
        return grey >= (0.5 if high <= 1 else full / 2)
    return (grey / full).astype(np.float32)


def solidity(mask: np.ndarray) -> float:
    """How much of its bounding box a mask fills: about .1 for vessels, .79 for a disc, 0 for an empty one."""
    return float(mask[box(mask)].mean())


def check_vessels(path: Path, mask: np.ndarray) -> None:
    """Raise for a field-of-view mask or an inverted label where vessels are expected: both fill the frame."""
    filled = float(mask.mean())
    if filled <= 0.3 or solidity(mask) <= 0.5:
        return
    corners = int(mask[0, 0]) + int(mask[0, -1]) + int(mask[-1, 0]) + int(mask[-1, -1])
    if corners >= 3 and filled < 0.99:
        raise DataError(
            f"{path} marks {filled:.0%} of the frame, corners included, as vessels, so it seems to be drawn "
            "dark on white: invert the labels"
        )
    if path.parent.name.lower() in ("1st_manual", "2nd_manual"):
        remedy = f"exchange {path.parent.name} and mask if they were mixed up, or download the archive again"
    else:
        remedy = f"DRIVE keeps the vessel labels in {path.parent.parent / '1st_manual'}, so name that folder"
    raise DataError(
        f"{path} shows the field of view, not vessels (it fills {filled:.0%} of the frame, vessels about "
        f"9%): {remedy}"
    )


def check_fov(path: Path, mask: np.ndarray) -> None:
    """Raise for vessels or nothing at all where a field of view is expected, which is one filled area."""
    if not mask.any():
        raise DataError(
            f"{path} is all black, but marks the field of view: download it again, or remove the folder "
            f"{path.parent.name}, so that the field of view is found in the photographs"
        )
    if solidity(mask) < 0.5:
        raise DataError(
            f"{path} does not show a field of view, which is one filled area (it marks {mask.mean():.0%} of "
            "the frame): put the right masks there, or none, and the field of view is found in the "
            "photographs"
        )


class Decoded(NamedTuple):
    """A decoded photograph, kept in memory: uint8 tensors (3, H, W) and (1, H, W)."""

    image: torch.Tensor
    vessels: torch.Tensor | None
    fov: torch.Tensor
    second: np.ndarray | None  # (H, W) bool


def as_tensors(
    image: np.ndarray, vessels: np.ndarray | None, fov: np.ndarray, second: np.ndarray | None
) -> Decoded:
    """A photograph (H, W, 3) uint8 and its masks (H, W) bool as they are kept."""
    return Decoded(
        torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
        None if vessels is None else torch.from_numpy(vessels.astype(np.uint8)[None]),
        torch.from_numpy(fov.astype(np.uint8)[None]),
        second,
    )


def read_photograph(pair: Pair, *, smooth: bool = False) -> Decoded:
    """Decode the files of one photograph and check that they belong together.

    Args:
        pair: the files.
        smooth: accept labels with smoothed edges, see `read_mask`.

    Raises:
        DataError: if a file is missing or damaged, has another size than the photograph, or is not what it is
            taken for.
    """
    image = read_image(pair.image)
    vessels, fov, second = (
        None if path is None else read_mask(path, smooth=smooth, coloured=coloured)
        for path, coloured in ((pair.vessels, pair.coloured), (pair.fov, False), (pair.second, False))
    )
    for path, mask in ((pair.vessels, vessels), (pair.fov, fov), (pair.second, second)):
        if mask is not None and mask.shape != image.shape[:2]:
            turned = ", unscaled" if mask.shape != image.shape[1::-1] else ", turned as the photograph is"
            raise DataError(
                f"{path} is {mask.shape[1]}x{mask.shape[0]} (width x height), but its photograph "
                f"{pair.image.name} is {image.shape[1]}x{image.shape[0]}: use the file that was made for "
                f"this photograph{turned}"
            )
    for path, mask in ((pair.vessels, vessels), (pair.second, second)):
        if mask is not None:
            check_vessels(path, mask)
    if fov is None:
        from drive_unet.preprocessing.fov import detect_fov  # here: few copies need it; loads scikit-image

        try:
            fov = detect_fov(image)
        except ValueError as error:
            raise DataError(f"{pair.image} shows no field of view ({error}): replace or remove it") from error
    else:
        check_fov(pair.fov, fov)
    return as_tensors(image, vessels, fov, second)
