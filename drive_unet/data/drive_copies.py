"""Copies of DRIVE in every form in circulation: its splits, unpacked or zipped, and their checks."""

from __future__ import annotations

import json
import re
from itertools import chain
from pathlib import Path

from drive_unet.data.archives import unpack
from drive_unet.data.by_names import SPLITS
from drive_unet.data.layouts import LAYOUTS, PUBLISHED, Layout, is_archive
from drive_unet.data.pairing import (
    AGAIN,
    FOV,
    IMAGES,
    KINDS,
    SECOND,
    VESSELS,
    Pair,
    child,
    folders,
    images,
    listed,
    number_of,
    pair_by,
    pair_up,
    unique,
)
from drive_unet.errors import DataError

DEPTH = 4  # nested folders, DRIVE/DRIVE/..., that are looked into
DRIVE = next(layout for layout in LAYOUTS if layout.name == "DRIVE")
NUMBERS = {"training": range(21, 41), "test": range(1, 21)}
_NAMES = {  # by which DRIVE's files tell what they are, and all but the labels of which split
    "image": r"(\d\d)_(training|test)",
    "vessels": r"(\d\d)_manual1",
    "fov": r"(\d\d)_(training|test)_mask",
    "second": r"(\d\d)_manual2",
}
_FOLDERS = (*IMAGES, *VESSELS, *FOV, *SECOND)
_OF_NUMBER = {number: split for split, numbers in NUMBERS.items() for number in numbers}
_SAMPLE = 10  # photographs; fewer are a sample that somebody chose, more are a copy of DRIVE that lost some


def read_split(folder: Path, split: str, painted: bool, shared: bool = False) -> tuple[Pair, ...]:
    """The photographs of one split of DRIVE, checked for completeness.

    Args:
        folder: the split's folder, with `images`, and as far as they exist `1st_manual`, `mask`,
            `2nd_manual`, or one in which these or both splits lie mixed, see `mixed_splits`.
        split: "training", which must have labels, or "test", which need not.
        painted: painted by `drive_unet.painter.painting`, so that there may be any number of photographs.
        shared: the folder is that of both splits; else photographs of the other one are out of place.

    Raises:
        DataError: if files are missing, exist twice, or are not those of this split.
    """
    if split in mixed_splits(folder):
        return _read_mixed(folder, split, shared)
    image_dir = child(folder, IMAGES)
    if image_dir is None or not images(image_dir):
        raise DataError(
            f"{image_dir or folder / IMAGES[0]} holds no images such as "
            f"{NUMBERS[split][0]:02d}_{split}.tif: {AGAIN}"
        )
    if not painted:
        _check_numbers(image_dir, split, {number_of(file)[0]: file for file in images(image_dir)})
    vessel_dir, fov_dir, second_dir = (child(folder, names) for names in (VESSELS, FOV, SECOND))
    if split == "training" and not (vessel_dir and images(vessel_dir)):
        raise DataError(
            f"{vessel_dir or folder / VESSELS[0]} holds no vessel labels such as 21_manual1.gif, without "
            f"which nothing can be learned: {AGAIN}"
        )
    return pair_by(number_of, _number, image_dir, vessel_dir, fov_dir, second_dir, AGAIN)


def _number(file: Path) -> str:
    return f"{number_of(file)[0]:02d}"


def mixed_splits(folder: Path) -> dict[str, Path]:
    """The splits in a folder where DRIVE's files of several kinds, or of both splits, lie side by side.

    That is one with photographs and with labels or masks in itself, of one split or of both, or one whose
    `images` holds both splits.
    """
    kinds = files_by_name(folder)
    splits = {split: folder for split in SPLITS if kinds["image"][split]}
    if child(folder, IMAGES):
        return splits if len(splits) > 1 else {}
    return splits if any(kinds[kind][split] for kind in ("vessels", "fov") for split in splits) else {}


def files_by_name(folder: Path) -> dict[str, dict[str, list[Path]]]:
    """DRIVE's files in a folder, and in its subfolders of a kind, by kind and split, told by their names."""
    kinds: dict[str, dict[str, list[Path]]] = {kind: {split: [] for split in SPLITS} for kind in _NAMES}
    places = [folder, *(entry for entry in folders(folder) if entry.name.lower() in _FOLDERS)]
    for file in (file for place in places for file in images(place)):
        for kind, pattern in _NAMES.items():
            if match := re.fullmatch(pattern, file.stem, re.IGNORECASE):
                word = match[2] if match.lastindex == 2 else _OF_NUMBER.get(int(match[1]), "training")
                kinds[kind][word.lower()].append(file)
    return kinds


def _read_mixed(folder: Path, split: str, shared: bool) -> tuple[Pair, ...]:
    """The photographs of one split of DRIVE in a folder that mixes kinds or splits."""
    found = files_by_name(folder)
    kinds = {
        kind: unique(folder, ((number_of(file), file) for file in files[split]))
        for kind, files in found.items()
    }
    photographs = found["image"][split] if shared else [*chain(*found["image"].values())]
    _check_numbers(folder, split, {number_of(file)[0]: file for file in photographs})
    if split == "training" and not kinds["vessels"]:
        raise DataError(
            f"{folder} holds no vessel labels such as 21_manual1.gif, without which nothing can be learned: "
            f"{AGAIN}"
        )
    return pair_up(folder, kinds["image"], [kinds[kind] for kind in KINDS], _number)


def _check_numbers(image_dir: Path, split: str, present: dict[int, Path]) -> None:
    """Raise unless the pictures' numbers are those of DRIVE's split, all or a small sample of them."""
    expected = NUMBERS[split]
    span = f"{expected[0]:02d} to {expected[-1]}"
    foreign = [file for number, file in sorted(present.items()) if number not in expected]
    if foreign and not is_drives(image_dir):
        raise DataError(
            f"{image_dir} holds {listed(foreign)}, but DRIVE's {split} pictures are numbered {span}: if they "
            f"are not DRIVE's, call their folders images and labels and name {image_dir.parent}, else "
            "download the official archives"
        )
    if split == "training" and len(present) > 60 and foreign:
        raise DataError(
            f"{image_dir} holds {len(present)} files, a copy in circulation whose pictures were flipped and "
            "renumbered, so that its 21_training.tif is another picture than DRIVE's: download the official "
            "archive"
        )
    if foreign:
        raise DataError(
            f"{image_dir} holds {listed(foreign)}, but DRIVE's {split} pictures are numbered {span}: "
            "this copy was renumbered or mixed up, so download the official archives"
        )
    missing = [f"{number:02d}_{split}" for number in expected if number not in present]
    if missing and len(present) >= _SAMPLE:
        raise DataError(
            f"{image_dir} lacks {listed(missing, 20)} of DRIVE's {len(expected)} {split} pictures: {AGAIN}"
        )


def is_drives(image_dir: Path) -> bool:
    """Whether the photographs in a folder are called as DRIVE's are: 21_training, 01_test."""
    return any(re.match(r"\d\d_(training|test)\b", file.stem, re.IGNORECASE) for file in images(image_dir))


def is_painted(path: Path) -> bool:
    """Whether `drive_unet.painter.painting` painted this folder."""
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        return manifest["generator"] == "drive_unet.painter"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def zips(folder: Path, layouts: tuple[Layout, ...] = PUBLISHED) -> list[Path]:
    """The zip archives in a folder that may be those of a published dataset, by their names."""
    files = (file for file in sorted(folder.iterdir()) if file.suffix.lower() == ".zip")
    return [file for file in files if is_archive(file.stem, layouts)]


def inner_folder(folder: Path) -> Path | None:
    """The one subfolder that may hold the dataset: the only one, or the only one called as a dataset is.

    Raises:
        DataError: if several datasets lie side by side.
    """
    inner = folders(folder)
    if len(inner) > 1:
        names = {layout.name.lower() for layout in PUBLISHED}
        inner = [entry for entry in inner if entry.name.lower() in names and any(entry.iterdir())]
    if len(inner) > 1:
        raise DataError(f"{folder} holds several datasets, {listed(inner)}: name the folder of one of them")
    return inner[0] if inner else None


def unpacked_splits(folder: Path) -> dict[str, Path]:
    """The splits that lie unpacked in a folder."""
    _refuse_rite(folder)
    splits: dict[str, Path] = {}
    for split, names in SPLITS.items():
        candidates = [entry for entry in folders(folder) if entry.name.lower() in names]
        if len(candidates) > 1:
            raise DataError(f"{folder} holds both {listed(candidates)}: leave only the right one there")
        if candidates:
            splits[split] = _unwrapped(candidates[0], split)
    part = child(folder, IMAGES) and (child(folder, VESSELS) or child(folder, FOV))
    if not splits and part and not mixed_splits(folder):
        raise DataError(
            f"{folder} is one part of DRIVE only: name the folder that holds both training and test"
        )
    return splits


def _unwrapped(folder: Path, split: str) -> Path:
    """The folder of a split itself, which some unpackers wrap in another of the same name."""
    for _ in range(DEPTH):
        _refuse_rite(folder)
        inner = [entry for entry in folders(folder) if entry.name.lower() in SPLITS[split]]
        if child(folder, IMAGES) or len(inner) != 1:
            break
        folder = inner[0]
    return folder


def add_archives(folder: Path, unpacked: dict[str, Path]) -> dict[str, Path]:
    """The splits found unpacked, and those that lie beside them as archives."""
    result = dict(unpacked)
    for archive in zips(folder, (DRIVE,)):
        for split, inside in zipped_splits(archive).items():
            if split in unpacked:
                continue
            if result.setdefault(split, inside) != inside:
                raise DataError(
                    f"{folder} holds two different archives of the {split} pictures, one of them "
                    f"{archive.name}: leave only the right one there"
                )
    return result


def zipped_splits(archive: Path) -> dict[str, Path]:
    """The splits in an archive, from its copy in the cache."""
    folder: Path | None = unpack(archive)
    for _ in range(DEPTH):
        # Some archives hold images, 1st_manual and mask with no folder around them: file names tell the
        # split.
        inside = child(folder, IMAGES)
        names = [file.stem.lower() for file in images(inside)] if inside else []
        splits = {split: folder for split in SPLITS if any(f"_{split}" in name for name in names)}
        splits = splits or ({} if inside else unpacked_splits(folder) or mixed_splits(folder))
        if splits:
            return splits
        folder = inner_folder(folder)
        if folder is None:
            break
    raise DataError(f"{archive} holds neither training/images nor test/images: download the official archive")


def is_rite(folder: Path) -> bool:
    """Whether a folder holds RITE, which is often passed off as DRIVE."""
    names = {entry.name.lower() for entry in folders(folder)}
    return any(name.startswith("av_groundtruth") for name in names) or {"av", "vessel"} <= names


def _refuse_rite(folder: Path) -> None:
    if is_rite(folder):
        raise DataError(
            f"{folder} is RITE, not DRIVE: its training labels were modified and its test labels are the "
            "second observer's, so that its scores do not compare: download DRIVE itself"
        )
