"""Which of the files that a command was given are photographs, and what is made of the others."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from drive_unet.data.archives import is_junk
from drive_unet.data.beside import masks_beside
from drive_unet.data.decoding import SPECIAL, is_special
from drive_unet.data.dicom import is_dicom
from drive_unet.data.pairing import folded, folders, images, listed, match
from drive_unet.errors import DataError

# Endings by which published sets and this package name the labels, masks and predictions of photographs.
_LABEL = re.compile(
    r".*[-_ .](?:1stho|2ndho|avmanual|manual\d?|masks?|fov|ah|vk|vessels?|labels?|gt|seg(?:mentation)?"
    r"|prob(?:ability)?|pred(?:iction)?|overlay|centreline)",
    re.IGNORECASE | re.DOTALL,
)
_NO_PICTURES = frozenset({"BUFR", "EPS", "FITS", "GRIB", "HDF5", "MPEG", "WMF"})  # in which Pillow shows none
_LABELS, _NO_PICTURE = "labels or predictions by their names", "no pictures by their names"
_REASONS = {_LABELS: "a label or a prediction by its name", _NO_PICTURE: "no picture by its name"}
_COLOURS = 8  # a picture of so few is drawn; a photograph has hundreds
#: Of the lines around vessels: no retina has it; keeps apart from red under all colour deficiencies.
OUTLINE = (59, 240, 220)


@dataclass(frozen=True)
class Photograph:
    """A photograph to be predicted.

    Attributes:
        path: as it was named, or found in a folder that was named.
        name: of what is made of it, below the folder of the outputs and without an ending: "left", or
            "clinic/left" where the tree is kept.
    """

    path: Path
    name: str

    def output(self, kind: str) -> str:
        """The name of one of its outputs, such as "vessels"."""
        return f"{self.name}_{kind}.png"


@dataclass
class Listing:
    """What was found.

    Attributes:
        photographs: each once, in the order of the names that were given.
        left_out: what was looked at and is no photograph, in words.
        reasons: why a file was left out, file by file; what the command wrote itself is not among them.
        faults: what was named and cannot be used, and why in words.
    """

    photographs: list[Photograph] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    reasons: dict[Path, str] = field(default_factory=dict)
    faults: dict[Path, str] = field(default_factory=dict)


def find_photographs(
    paths: Sequence[Path], *, recursive: bool = False, own: Callable[[Path], bool] = lambda path: False
) -> Listing:
    """The photographs that are named, or lie in folders that are named.

    A file is taken for a photograph if Pillow knows its ending or if it is DICOM; in folders not if its name
    ends as those of labels do (`_1stHO`, `_manual1`, `_mask`, `_vessels`, ...).

    Args:
        paths: files and folders.
        recursive: look into the folders inside folders, and keep their tree in the names.
        own: tells files that the command itself wrote, which are no photographs.
    """
    listing = Listing()
    seen: set[Path] = set()
    for path in paths:
        if not path.exists():
            listing.faults[path] = f"{path} does not exist: correct the path"
        elif is_special(path):
            listing.faults[path] = f"{path} {SPECIAL}"
        elif not path.is_dir():
            _add(listing, seen, path, path.stem)
        else:
            try:
                _look_into(listing, seen, path, recursive, own)
            except OSError as error:
                listing.faults[path] = (
                    f"{error.filename or path} cannot be read ({error.strerror or error}): give yourself "
                    "permission to read this folder"
                )
    return listing


def _look_into(
    listing: Listing, seen: set[Path], folder: Path, recursive: bool, own: Callable[[Path], bool]
) -> None:
    files, deeper, hidden = _files(folder, recursive)
    special = [file for file in files if is_special(file)]
    listing.faults |= {file: f"{file} {SPECIAL}" for file in special}
    by_command = [file for file in files if own(file)]
    others = [file for file in files if file not in {*special, *by_command}]
    pictures = [file for file in others if _is_picture(file)]
    labels = [file for file in pictures if _LABEL.fullmatch(file.stem)]
    photographs = [file for file in pictures if file not in set(labels)]
    for what, parts in (
        ("written by this command before", by_command),
        (_LABELS, labels),
        (_NO_PICTURE, [file for file in others if file not in set(pictures)]),
    ):
        if parts:
            listing.left_out.append(f"{folder}: left out {listed(parts)}, {what}")
        if parts is not by_command:
            listing.reasons |= dict.fromkeys(parts, _REASONS[what])
    if hidden:
        listing.left_out.append(f"{folder}: left out {_counted(hidden)}, hidden by their names")
    if deeper:
        listing.left_out.append(f"{folder}: not looked into {listed(deeper)}; --recursive does that")
    if not photographs:
        listing.faults[folder] = (
            f"{folder} holds no photographs: name the folder that holds the files themselves"
        )
    for file in photographs:
        _add(listing, seen, file, file.relative_to(folder).with_suffix("").as_posix())


def _files(folder: Path, recursive: bool) -> tuple[list[Path], list[Path], list[str]]:
    """The files in a folder, sorted; folders not looked into; the names of an operating system's litter."""
    files, deeper, hidden = [], [], []
    for parent, inside, names in os.walk(folder, onerror=_raise):
        hidden += sorted(filter(is_junk, [*names, *inside]))
        inside[:] = sorted(name for name in inside if not is_junk(name))
        files += [Path(parent, name) for name in sorted(names) if not is_junk(name)]
        if not recursive:
            deeper = [Path(parent, name) for name in inside]
            break
    return files, deeper, hidden


def _counted(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} files or folders such as {names[0]}"


def _raise(error: OSError) -> None:
    raise error


def _is_picture(file: Path) -> bool:
    return file.suffix.lower() in _endings() or (file.is_file() and is_dicom(file))


def _endings() -> frozenset[str]:
    """The endings of picture files that Pillow opens."""
    known = Image.registered_extensions()
    return frozenset(
        ending for ending, kind in known.items() if kind in Image.OPEN and kind not in _NO_PICTURES
    )


def _add(listing: Listing, seen: set[Path], file: Path, name: str) -> None:
    if (resolved := file.resolve()) not in seen:
        seen.add(resolved)
        listing.photographs.append(Photograph(file, name))


def set_aside_collisions(
    photographs: Sequence[Photograph], out: Path, kinds: Iterable[str]
) -> tuple[list[Photograph], dict[Photograph, str]]:
    """Part those whose outputs would be the same files, or would be files that are to be read.

    Args:
        photographs: to be predicted.
        out: folder of the outputs.
        kinds: of the outputs.

    Returns:
        The photographs that can be predicted, and what is wrong with the others.
    """
    sources = {photograph.path.resolve(): photograph.path for photograph in photographs}
    by_name: dict[str, list[Photograph]] = {}
    for photograph in photographs:
        by_name.setdefault(folded(photograph.name), []).append(photograph)
    faults: dict[Photograph, str] = {}
    for same in by_name.values():
        for photograph in same if len(same) > 1 else ():
            twin = next(each for each in same if each is not photograph)
            faults[photograph] = (
                f"{photograph.path} and {twin.path} would both be written as {photograph.name}_*.png, so "
                "neither is: rename one, predict them into two folders, or name the folder above both with "
                "--recursive"
            )
    for photograph in photographs:
        for kind in kinds:
            file = out / photograph.output(kind)
            if file.resolve() in sources:
                faults[photograph] = (
                    f"{photograph.path} would be predicted into {file}, which is a photograph that is to be "
                    "read: name another --out"
                )
    return [photograph for photograph in photographs if photograph not in faults], faults


def find_masks(photographs: Sequence[Photograph], folder: Path | None) -> dict[Photograph, Path]:
    """The mask of the field of view of each photograph that has one: in the folder given, or beside it.

    Raises:
        DataError: if a folder is given and is none, or lacks a mask.
    """
    if folder is None:
        beside = masks_beside(photograph.path for photograph in photographs)
        return {each: beside[each.path] for each in photographs if each.path in beside}
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: name the one that holds the masks of the field of view")
    masks: dict[Photograph, Path] = {}
    by_part: dict[PurePosixPath, list[Photograph]] = {}
    for photograph in photographs:
        by_part.setdefault(PurePosixPath(photograph.name).parent, []).append(photograph)
    for part, group in by_part.items():
        matched = match([photograph.path.stem for photograph in group], images(_place(folder, part)))
        masks |= {each: matched[each.path.stem] for each in group if each.path.stem in matched}
    if lacking := [photograph.path for photograph in photographs if photograph not in masks]:
        raise DataError(f"{folder} lacks the masks of {listed(lacking)}")
    return masks


def _place(folder: Path, part: PurePosixPath) -> Path:
    """The folder inside another that is called as this part of a tree, in any case; else that other."""
    if (folder / part).is_dir():
        return folder / part
    place: Path | None = folder
    for name in part.parts:
        place = next((each for each in folders(place) if folded(each.name) == folded(name)), None)
        if place is None:
            return folder
    return place


def is_drawn(image: np.ndarray) -> bool:
    """Whether a picture (H, W, 3) uint8 was drawn, as labels are: it has two to eight colours.

    A picture of one colour is a photograph that failed, which deserves to be told so.
    """
    small = image[:: max(1, image.shape[0] // 64), :: max(1, image.shape[1] // 64)]
    if len(np.unique(_packed(small))) > _COLOURS:
        return False  # most photographs, at once
    return 2 <= len(np.unique(_packed(image))) <= _COLOURS


def is_outlined(image: np.ndarray) -> bool:
    """Whether a picture (H, W, 3) uint8 is an overlay of this command, with lines of its colour."""
    small = image[:: max(1, image.shape[0] // 256), :: max(1, image.shape[1] // 256)]
    return int((small == OUTLINE).all(axis=2).sum()) > 10


def _packed(image: np.ndarray) -> np.ndarray:
    """Each pixel's colour as one number."""
    red, green, blue = (image[..., channel].astype(np.uint32) for channel in range(3))
    return red << 16 | green << 8 | blue
