"""What is wrong with the files of one photograph: every fault of each, not the first alone."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from drive_unet.data.by_names import SPLITS
from drive_unet.data.decoding import decode, grey_levels
from drive_unet.data.drive_copies import DRIVE, NUMBERS, is_drives
from drive_unet.data.known import Known, checksum, is_known_label, photograph_of
from drive_unet.data.pairing import LABELS, VESSELS, Pair
from drive_unet.data.reading import check_fov, check_vessels, read_image, read_mask
from drive_unet.errors import DataError
from drive_unet.preprocessing.fov import detect_fov

ERROR, WARNING, NOTE = "error", "warning", "note"
# The brightness of what is labelled, in standard deviations of the photograph without its shading: -0.67 or
# less in DRIVE's training photographs and painted ones, within 0.15 of 0 for labels of another photograph.
_CONTRAST = -0.3
OWN_LABEL = "put the label there that was drawn on this photograph"
_AGREEMENT = 0.9  # of a field of view with the one that the photograph shows: .99 in DRIVE
_OUTSIDE = 0.02  # share of the vessels outside the field of view: at most .003 in DRIVE
_USUAL = (0.01, 0.35)  # share of the field of view that vessels take: .09 to .17 in DRIVE
_WIDTH = 600  # pixels to which photographs are thinned out for the comparison with their labels


@dataclass
class Finding:
    """One thing about one or more files.

    Attributes:
        level: "error" (unusable so), "warning" (usable, and scores may be wrong) or "note".
        code: a word for programs, such as "label-is-fov".
        what: what is the matter, as the end of a sentence that begins with the files.
        do: what to do about it; "" for notes.
        files: the files that it is about; empty for the whole set.
    """

    level: str
    code: str
    what: str
    do: str = ""
    files: list[Path] = field(default_factory=list)


@dataclass
class Inspected:
    """The files of one photograph, and what was found in them.

    Attributes:
        pair: the files.
        split: "training" or "test".
        size: (height, width) of the photograph; None if it cannot be read.
        encodings: by kind ("image", "vessels", "fov", "second") format, mode and levels in words.
        mark: checksum of the photograph's pixels.
        known: which known photograph it is.
        own: by kind ("vessels", "fov") whether a known photograph has its dataset's own mask.
        owner: which other known photograph the vessel labels were drawn on, by their pixels.
        masks: what was read, while the files are inspected.
        findings: in the order of the files.
        thin: the thinned-out photograph without its shading and its label, for comparisons with others.
        contrast: see the function of that name.
    """

    pair: Pair
    split: str
    size: tuple[int, int] | None = None
    encodings: dict[str, str] = field(default_factory=dict)
    mark: str = ""
    known: Known | None = None
    own: dict[str, bool | None] = field(default_factory=dict)
    owner: Known | None = None
    masks: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    findings: list[Finding] = field(default_factory=list)
    thin: tuple[np.ndarray, np.ndarray, np.ndarray] | None = field(default=None, repr=False)
    contrast: float = -1.0

    def add(self, level: str, code: str, what: str, do: str, path: Path) -> None:
        self.findings.append(Finding(level, code, what, do, [path]))

    def refused(self, code: str, error: DataError, path: Path) -> None:
        """A finding of what a reader says, without the path that it begins with."""
        self.findings.append(told(code, error, path))


def told(code: str, error: DataError, path: Path) -> Finding:
    """An error of the readers, "PATH fault: remedy", as a finding; PATH may lie below the one given.

    What it says of a path that does not exist stays whole, and so does what begins otherwise.
    """
    words = str(error).split(" ")
    beginnings = [" ".join(words[:count]) for count in range(len(words), 0, -1)]  # names may hold spaces
    file = next((Path(b) for b in beginnings if os.path.lexists(b) and Path(b).is_relative_to(path)), path)
    what, _, do = str(error).removeprefix(f"{file} ").rpartition(": ")
    files = [file] if str(error).startswith(f"{file} ") else []
    return Finding(ERROR, code, what or do, do if what else "", files)


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Errors, then warnings, then notes, each in their order."""
    return sorted(findings, key=lambda finding: (ERROR, WARNING, NOTE).index(finding.level))


def inspect(pair: Pair, split: str, smooth: bool, keep: bool = True) -> Inspected:
    """Read the files of one photograph, and see whether each is what it is taken for and fits the others.

    Args:
        pair: the files.
        split: "training" or "test".
        smooth: see `drive_unet.data.reading.read_mask`.
        keep: the thinned-out photograph, 1.4 MB, also where its label fits.
    """
    result = Inspected(pair, split)
    try:
        image = read_image(pair.image)
    except DataError as error:
        result.refused("unreadable", error, pair.image)
        return result
    result.size = image.shape[:2]
    result.encodings["image"] = _encoding(pair.image, levels=False)
    result.mark, result.known = checksum(image), photograph_of(image)
    if (image == image[..., :1]).all():
        do = "take the colour photograph if there is one"
        result.add(WARNING, "grey", "is grey, not in colour", do, pair.image)
    for kind, path in (("vessels", pair.vessels), ("second", pair.second), ("fov", pair.fov)):
        if path is not None:
            _mask(result, kind, path, image, smooth)
    _together(result, image)
    if result.known is not None and not result.known.turned:
        for kind in ("vessels", "fov"):
            if kind in result.masks:
                result.own[kind] = is_known_label(result.masks[kind], result.known, kind)
        if result.own.get("vessels") is False:
            result.owner = _owner(result.masks["vessels"], result.known)
    result.masks.clear()
    if not keep and result.contrast < _CONTRAST:
        result.thin = None
    return result


def _owner(vessels: np.ndarray, photograph: Known) -> Known | None:
    """The photograph of the same dataset on which these labels were drawn; None where it is not on record."""
    if photograph.dataset == DRIVE.name:
        names = [(split, f"{number:02d}") for split, numbers in NUMBERS.items() for number in numbers]
    else:
        names = [("", f"{number:02d}_{kind}") for number in range(1, 16) for kind in ("dr", "g", "h")]
    others = (Known(photograph.dataset, *name) for name in names)
    return next((other for other in others if is_known_label(vessels, other)), None)


def _mask(result: Inspected, kind: str, path: Path, image: np.ndarray, smooth: bool) -> None:
    """Read one mask of a photograph, and check it by itself."""
    coloured = result.pair.coloured and kind == "vessels"
    try:
        result.encodings[kind] = _encoding(path, levels=not coloured)
        mask = read_mask(path, smooth=smooth, coloured=coloured)
    except DataError as error:
        result.refused("levels" if kind in result.encodings else "unreadable", error, path)
        if kind not in result.encodings:
            return
        try:
            mask = read_mask(path, smooth=True)  # so that the rest is known as well
        except DataError:
            mask = None
    shape = grey_levels(decode(path)).shape if mask is None else mask.shape
    if shape != image.shape[:2]:
        height, width = shape
        sizes = f"{width}x{height} (width x height), its photograph {image.shape[1]}x{image.shape[0]}"
        turned = shape == image.shape[1::-1]
        result.add(
            ERROR,
            "turned" if turned else "resized",
            f"is {sizes}: it was {'turned' if turned else 'resized, or belongs to another photograph'}",
            "use the file that was made for this photograph, as it was made",
            path,
        )
    if mask is None or shape != image.shape[:2]:
        return
    try:
        (check_fov if kind == "fov" else check_vessels)(path, mask)
    except DataError as error:
        finding = told("no-fov" if kind == "fov" else "no-vessels", error, path)
        if "shows the field of view" in finding.what:
            finding.code = "label-is-fov"
        elif "dark on white" in finding.what:
            finding.code = "inverted"
        elif kind == "fov" and _shows_vessels(image, mask):
            finding = _misplaced(result.pair, path)
        result.findings.append(finding)
        return
    if kind != "fov" and not mask.any():
        do = "draw the vessels, or leave the photograph out"
        result.add(WARNING, "empty", "marks no vessel at all", do, path)
    result.masks[kind] = mask


def _shows_vessels(image: np.ndarray, mask: np.ndarray) -> bool:
    """Whether a mask marks what is darker than its surroundings in a photograph, as its vessels are."""
    try:
        return contrast(*_thinned(image, mask, detect_fov(image))) < _CONTRAST
    except ValueError:  # no field of view: `_together` says so
        return False


def _misplaced(pair: Pair, path: Path) -> Finding:
    """Vessel labels in a folder of masks: many copies call labels so."""
    folder = path.parent
    what = f"shows vessels: {folder.name} is read as the folder of field-of-view masks"
    if pair.vessels is not None:
        do = f"exchange {pair.vessels.parent.name} and {folder.name} if they were mixed up, or remove it"
    else:
        split = folder.parent.name.lower() in chain.from_iterable(SPLITS.values())
        drives = split and is_drives(pair.image.parent)
        do = f"rename the folder {folder.name} to {VESSELS[0] if drives else LABELS[0]}"
    return Finding(ERROR, "fov-is-label", what, do, [path])


def _together(result: Inspected, image: np.ndarray) -> None:
    """Whether photograph, vessels and field of view fit each other."""
    vessels, fov = result.masks.get("vessels"), result.masks.get("fov")
    try:
        shown = detect_fov(image)
    except ValueError as error:
        level = ERROR if fov is None else WARNING
        what = f"shows no field of view ({str(error).rstrip('.')})"
        do = "replace or remove it" if fov is None else "look at it"
        result.add(level, "dark", what, do, result.pair.image)
        shown = None
    if fov is not None and shown is not None:
        agreement = np.count_nonzero(fov & shown) / np.count_nonzero(fov | shown)
        if agreement < _AGREEMENT:
            result.add(
                WARNING,
                "fov-disagrees",
                f"agrees by {agreement:.0%} only with the field of view that the photograph shows",
                "put the photograph's own mask there, or none, and it is found in the photograph",
                result.pair.fov,
            )
    inside = fov if fov is not None else shown
    if vessels is None or inside is None or not vessels.any():
        return
    outside = np.count_nonzero(vessels & ~inside) / np.count_nonzero(vessels)
    if outside > _OUTSIDE:
        what = f"has {outside:.0%} of its vessels outside the field of view, where nothing is scored"
        do = "see whether label, mask and photograph belong together"
        result.add(WARNING, "vessels-outside", what, do, result.pair.vessels)
    share = float(vessels[inside].mean())
    if not _USUAL[0] <= share <= _USUAL[1]:
        what = f"marks {share:.1%} of the field of view as vessels, where 9 % to 17 % are usual"
        do = "see whether it is a label of vessels, and of all of them"
        result.add(WARNING, "share", what, do, result.pair.vessels)
    result.thin = _thinned(image, vessels, inside)
    result.contrast = contrast(*result.thin)


def _thinned(
    image: np.ndarray, vessels: np.ndarray, fov: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A photograph without its shading (h, w) float16, its vessels, its field of view; some 600 px wide."""
    step = max(1, round(image.shape[1] / _WIDTH))
    green, vessels, fov = (plane[::step, ::step] for plane in (image[..., 1], vessels, fov))
    spread = max(fov.any(axis=0).sum() / 60, 1.5)
    weight = ndimage.gaussian_filter(fov.astype(np.float32), spread)
    shading = ndimage.gaussian_filter(green * fov.astype(np.float32), spread) / np.maximum(weight, 1e-3)
    flat = (green - shading) * fov
    flat /= max(float(flat[fov].std()), 1e-6)
    return flat.astype(np.float16), np.ascontiguousarray(vessels), np.ascontiguousarray(fov)


def contrast(flat: np.ndarray, vessels: np.ndarray, fov: np.ndarray) -> float:
    """How much brighter a photograph is where a label says vessel, in its standard deviations; 0 for none."""
    inside, beside = flat[vessels & fov], flat[~vessels & fov]
    if not len(inside) or not len(beside):
        return 0.0
    return float(inside.mean(dtype=np.float64) - beside.mean(dtype=np.float64))


def compare_labels(inspected: list[Inspected]) -> None:
    """Add a finding where vessels are drawn where a photograph is not dark, and whose label it may be.

    It is an error where the label is found to be that of another photograph.
    """
    labelled = [part for part in inspected if part.thin is not None]
    for part in labelled:
        flat, vessels, fov = part.thin
        if part.contrast < _CONTRAST or part.owner is not None:
            continue
        views = {"mirrored": vessels[:, ::-1], "upside down": vessels[::-1]}
        views["turned by 180 degrees"] = vessels[::-1, ::-1]
        fits = [(contrast(flat, view, fov), f"is {words}", WARNING) for words, view in views.items()]
        fits += [
            (contrast(other.thin[0], vessels, other.thin[2]), f"fits {other.pair.image.name}", ERROR)
            for other in labelled
            if other is not part and other.thin[1].shape == vessels.shape
        ]
        best, why, level = min(fits)
        if best >= _CONTRAST:
            why, level = "", WARNING
        part.add(
            level,
            "mismatched",
            f"marks vessels where its photograph is not darker{why and f', and {why}'}",
            OWN_LABEL,
            part.pair.vessels,
        )


def _encoding(path: Path, levels: bool) -> str:
    """Format, mode and, of masks, the levels of a file, in words."""
    picture = decode(path)
    with Image.open(path) as opened:
        words = f"{opened.format} {opened.mode}"
    return f"{words} {_levels(grey_levels(picture))}" if levels else words


def _levels(grey: np.ndarray) -> str:
    values: list[Any] = np.unique(grey).tolist()
    if len(values) > 4:
        return f"{len(values)} levels"
    return "{" + ", ".join(f"{int(value) if value == int(value) else value}" for value in values) + "}"
