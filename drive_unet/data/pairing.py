"""Which files belong to one photograph: pairing by number, and refusals that name what is missing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from drive_unet.data.archives import is_image, is_junk
from drive_unet.errors import DataError

# Folder names, lower case: DRIVE's own first, then those of common copies.
IMAGES = ("images", "image")
VESSELS = ("1st_manual", "1st_manuals")
FOV = ("mask", "masks")
SECOND = ("2nd_manual", "2nd_manuals")
# Those of somebody's own photographs, beside `images`.
LABELS = ("labels", "label")
OWN_FOV = ("fov", "fovs", *FOV)

NUMBERS = {"training": range(21, 41), "test": range(1, 21)}
_SAMPLE = 10  # photographs; fewer are a sample that somebody chose, more are a copy of DRIVE that lost some
_AGAIN = "copy the missing files from the official archive, or download it again"


@dataclass(frozen=True)
class Pair:
    """The files of one photograph.

    Attributes:
        name: the number, "21"; in folders that are not DRIVE's, what the file names have in common.
        image: the photograph.
        vessels: the first observer's vessel labels; None where there are none.
        fov: the mask of the field of view; None where there is none.
        second: the second observer's vessel labels; None where there are none.
    """

    name: str
    image: Path
    vessels: Path | None = None
    fov: Path | None = None
    second: Path | None = None


def folders(folder: Path) -> list[Path]:
    """The subfolders, sorted by name, without litter."""
    return sorted(child for child in folder.iterdir() if not is_junk(child.name) and child.is_dir())


def images(folder: Path) -> list[Path]:
    """The image files in a folder, sorted by name, without litter."""
    return sorted(child for child in folder.iterdir() if is_image(child.name) and child.is_file())


def child(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The subfolder that has one of these lower-case names in any case; earlier names win."""
    found = {entry.name.lower(): entry for entry in folders(folder)}
    return next((found[name] for name in names if name in found), None)


def listed(names: Iterable[object], most: int = 8) -> str:
    """File names as a phrase: "a, b and c", or the first few "and 12 more"."""
    texts = [name.name if isinstance(name, Path) else str(name) for name in names]
    if len(texts) > most:
        return f"{', '.join(texts[:most])} and {len(texts) - most} more"
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def read_split(folder: Path, split: str, painted: bool) -> tuple[Pair, ...]:
    """The photographs of one split of DRIVE, checked for completeness.

    Args:
        folder: the split's folder, with `images`, and as far as they exist `1st_manual`, `mask`,
            `2nd_manual`.
        split: "training", which must have labels, or "test", which need not.
        painted: painted by `drive_unet.painter.painting`, so that there may be any number of photographs.

    Raises:
        DataError: if files are missing, exist twice, or are not those of this split.
    """
    image_dir = child(folder, IMAGES)
    if image_dir is None or not images(image_dir):
        raise DataError(
            f"{image_dir or folder / IMAGES[0]} holds no images such as "
            f"{NUMBERS[split][0]:02d}_{split}.tif: {_AGAIN}"
        )
    if not painted:
        _check_numbers(image_dir, split, {int(_number(file)): file for file in images(image_dir)})
    vessel_dir, fov_dir, second_dir = (child(folder, names) for names in (VESSELS, FOV, SECOND))
    if split == "training" and with_images(vessel_dir) is None:
        raise DataError(
            f"{vessel_dir or folder / VESSELS[0]} holds no vessel labels such as 21_manual1.gif, without "
            f"which nothing can be learned: {_AGAIN}"
        )
    return _by_key(image_dir, with_images(vessel_dir), with_images(fov_dir), with_images(second_dir), _number)


def pair_folders(
    image_dir: Path,
    vessel_dir: Path | None = None,
    fov_dir: Path | None = None,
    second_dir: Path | None = None,
    remedy: str = _AGAIN,
) -> tuple[Pair, ...]:
    """Pair the images of any folder with their labels: by number if every image has one, else by name.

    The number is what a file's name begins with. Names agree if they are equal without endings such as
    `_mask`, `_vessels` or `_manual1`. The remedy is what errors advise where a file is missing.

    Raises:
        DataError: if a folder or a file is missing, or two files claim the same place.
    """
    for folder in (image_dir, vessel_dir, fov_dir, second_dir):
        if folder is not None and not folder.is_dir():
            labels = image_dir.parent / VESSELS[0]
            hint = f", such as {labels}" if folder == vessel_dir and labels.is_dir() else ""
            fault = "is not a folder" if folder.exists() else "does not exist"
            raise DataError(f"{folder} {fault}: name the folder that holds the image files{hint}")
        if folder is not None and not images(folder):
            raise DataError(f"{folder} holds no images: name the folder that holds the files themselves")
    numbers = [_leading(file.stem) for file in images(image_dir)]
    numbered = None not in numbers and len(set(numbers)) == len(numbers)
    return _by_key(image_dir, vessel_dir, fov_dir, second_dir, _number if numbered else _stem, remedy)


def match(names: Iterable[str], files: Iterable[Path]) -> dict[str, Path]:
    """Which file belongs to which photograph, for those that have one.

    Args:
        names: of the photographs, such as "21", "21_training" or "left eye".
        files: each belongs to the name that its own is without an ending such as `_mask` or `_vessels`, else
            to the name that begins with the same number; others are left out.

    Raises:
        DataError: if two files belong to one photograph.
    """
    names = list(names)
    numbers = [_leading(name) for name in names]
    numbered = {n: name for n, name in zip(numbers, names, strict=True) if numbers.count(n) == 1}
    numbered.pop(None, None)
    found: dict[str, Path] = {}
    for file in files:
        name = next((stem for stem in (file.stem, _stem(file)) if stem in names), None)
        name = name or numbered.get(_leading(file.stem))
        if name in found:
            raise DataError(
                f"{found[name]} and {file.name} both belong to photograph {name}: move one of them elsewhere"
            )
        if name is not None:
            found[name] = file
    return found


def _by_key(
    image_dir: Path,
    vessel_dir: Path | None,
    fov_dir: Path | None,
    second_dir: Path | None,
    key: Callable[[Path], str],
    remedy: str = _AGAIN,
) -> tuple[Pair, ...]:
    """Pair four folders, of which all but the first may be None, by a key of the file's name."""
    photographs = _index(image_dir, key)
    others = []
    for folder, what in (
        (vessel_dir, "vessel labels"),
        (fov_dir, "field-of-view masks"),
        (second_dir, "second labels"),
    ):
        files = {} if folder is None else _index(folder, key)
        lacking = sorted(photographs.keys() - files.keys())
        if folder is not None and lacking:
            raise DataError(
                f"{folder} lacks the {what} of {listed(photographs[name] for name in lacking)} "
                f"({len(lacking)} of {len(photographs)}): {remedy}"
            )
        surplus = sorted(files.keys() - photographs.keys())
        if surplus:
            raise DataError(
                f"{image_dir} lacks the photographs that belong to {listed(files[name] for name in surplus)} "
                f"in {folder}: {remedy}"
            )
        others.append(files)
    return tuple(
        Pair(name, photographs[name], *(files.get(name) for files in others)) for name in sorted(photographs)
    )


def _index(folder: Path, key: Callable[[Path], str]) -> dict[str, Path]:
    """The images of a folder by key, each key once."""
    found: dict[str, Path] = {}
    for file in images(folder):
        name = key(file)
        if name in found:
            raise DataError(
                f"{folder} holds picture {name} twice, as {found[name].name} and {file.name}: "
                "move one of them elsewhere"
            )
        found[name] = file
    return found


def _leading(stem: str) -> int | None:
    """The number that a file's name starts with: 21_training, 21-mask, 21."""
    match = re.match(r"(\d{1,6})(?![A-Za-z0-9])", stem)
    return int(match[1]) if match else None


def _number(file: Path) -> str:
    number = _leading(file.stem)
    if number is None:
        raise DataError(
            f"{file} has no number at the start of its name, as 21_training.tif has: give it its number "
            "back, or move it elsewhere"
        )
    return f"{number:02d}"


def _stem(file: Path) -> str:
    return re.sub(
        r"[-_ .](manual\d?|masks?|fov|vessels?|labels?|gt|seg(mentation)?|prob(ability)?|pred(iction)?"
        r"|1stho|2ndho|ah|vk)$",
        "",
        file.stem,
        flags=re.IGNORECASE,
    )


def with_images(folder: Path | None) -> Path | None:
    """The folder, or None if it is missing or holds no images."""
    return folder if folder is not None and images(folder) else None


def _check_numbers(image_dir: Path, split: str, found: dict[int, Path]) -> None:
    """Raise unless the pictures' numbers are those of DRIVE's split, all or a small sample of them."""
    expected = NUMBERS[split]
    span = f"{expected[0]:02d} to {expected[-1]}"
    foreign = [file for number, file in sorted(found.items()) if number not in expected]
    if split == "training" and len(found) > 60 and foreign:
        raise DataError(
            f"{image_dir} holds {len(found)} files, a copy in circulation whose pictures were flipped and "
            "renumbered, so that its 21_training.tif is another picture than DRIVE's: download the official "
            "archive"
        )
    if foreign:
        raise DataError(
            f"{image_dir} holds {listed(foreign)}, but DRIVE's {split} pictures are numbered {span}: "
            "this copy was renumbered or mixed up, so download the official archives"
        )
    missing = [f"{number:02d}_{split}" for number in expected if number not in found]
    if missing and len(found) >= _SAMPLE:
        raise DataError(
            f"{image_dir} lacks {listed(missing, 20)} of DRIVE's {len(expected)} {split} pictures: {_AGAIN}"
        )
