"""Where DRIVE lies: finding a copy, however it was downloaded and unpacked."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from drive_unet.data.archives import is_junk, unpack
from drive_unet.data.pairing import (
    FOV,
    IMAGES,
    LABELS,
    OWN_FOV,
    VESSELS,
    Pair,
    child,
    folders,
    images,
    listed,
    pair_folders,
    read_split,
)
from drive_unet.errors import DataError

__all__ = ["EMBEDDED", "FALLBACK", "OWN", "VARIABLE", "DriveFolder", "Pair", "find_drive", "find_labelled"]

VARIABLE = "DRIVE_UNET_DATA"
EMBEDDED = "embedded"
OWN = "own"
FALLBACK = (
    "DRIVE was not found: the embedded painted dataset is used instead (the README says how to place DRIVE)."
)

_SPLITS = {"training": ("training", "train"), "test": ("test", "testing")}
# training.zip, also as browsers rename second downloads, "training (1).zip", and what Kaggle calls all its
# archives.
_ARCHIVE = re.compile(r"(train(ing)?|test(ing)?|drive|archive)([ _-]*(\(\d+\)|\d+|copy))?")
_DEPTH = 4  # nested folders, DRIVE/DRIVE/..., that are looked into


@dataclass(frozen=True)
class DriveFolder:
    """A copy of DRIVE that was found and checked.

    Attributes:
        root: the folder or archive that was named or found.
        kind: "DRIVE", "embedded" for a painted set, or "own" for photographs with labels of somebody's own.
        training: the training photographs, sorted; empty if only the test archive was given.
        test: the test photographs, sorted; empty if only the training archive was given.
    """

    root: Path
    kind: str
    training: tuple[Pair, ...]
    test: tuple[Pair, ...]

    @property
    def has_test_labels(self) -> bool:
        """Whether there are test photographs, with vessel labels."""
        return bool(self.test) and all(pair.vessels is not None for pair in self.test)


def find_drive(root: str | Path | None = None) -> DriveFolder:
    """Find DRIVE, check that it is complete, and pair its files.

    Takes `root`, else what the environment variable DRIVE_UNET_DATA names, else `data/DRIVE` in the working
    folder or a parent of it. Where there is none of these it prints one line and takes the embedded set.
    Nothing is written but into the cache, where archives are unpacked.

    Args:
        root: "embedded"; or a folder that holds `training` and `test` (or `testing`), unpacked or as the
            downloaded training.zip and test.zip, or that holds such a folder; or one such archive.

    Returns:
        The copy. The test photographs' `vessels` are None where there are no labels, as in the official
        download since 2019.

    Raises:
        DataError: if what was named does not exist, cannot be read, is not DRIVE, is only a part of it, or
            holds files that do not belong together.
    """
    variable = os.environ.get(VARIABLE, "").strip()
    place = root if root is not None else variable or _nearby()
    if place is None:
        print(FALLBACK)
        place = EMBEDDED
    if str(place) == EMBEDDED:
        from drive_unet.data.painted import embedded_folder  # here: it loads PyTorch

        return _collect(embedded_folder())
    origin = f"The environment variable {VARIABLE} names " if root is None and variable else ""
    try:
        path = Path(place).expanduser()
        if not path.exists():
            fault = f"{origin}{path}, which does not exist" if origin else f"{path} does not exist"
            raise DataError(
                f'{fault}: correct the path, or say "{EMBEDDED}" to use the embedded painted dataset'
            )
        return _collect(path)
    except OSError as error:
        where = error.filename if error.filename is not None else place
        raise DataError(
            f"{where} cannot be read ({error.strerror or error}): give yourself permission to read this and "
            "all that is in it"
        ) from error
    except RuntimeError as error:  # "~name" of a user who does not exist
        raise DataError(f"{origin}{place}, a path that cannot be resolved: write it out in full") from error


def find_labelled(root: str | Path | None = None) -> DriveFolder:
    """Find DRIVE, see `find_drive`, or photographs of one's own with vessel labels.

    Args:
        root: as for `find_drive`; or a folder with the subfolders `images` and `labels`, and `fov` or `mask`
            for masks of the field of view if there are any, paired by number or name (see `pair_folders`).

    Returns:
        What was found; photographs of one's own are all for training, and their kind is "own".

    Raises:
        DataError: see `find_drive` and `pair_folders`.
    """
    path = None if root is None or str(root) == EMBEDDED else Path(root)
    image_dir = child(path, IMAGES) if path is not None and path.is_dir() else None
    if image_dir is None or child(path, VESSELS):
        return find_drive(root)
    label_dir = child(path, LABELS)
    if label_dir is None:
        raise DataError(
            f"{path} holds {image_dir.name}, but no folder named labels: put the vessel labels there"
        )
    remedy = "add what is missing, or move what is too much elsewhere"
    pairs = pair_folders(image_dir, label_dir, child(path, OWN_FOV), remedy=remedy)
    return DriveFolder(path, OWN, pairs, ())


def _nearby() -> Path | None:
    """`data/DRIVE` in the working folder or in the nearest parent that has it."""
    here = Path.cwd()
    return next(
        (place for folder in (here, *here.parents) if os.path.exists(place := folder / "data" / "DRIVE")),
        None,
    )


def _collect(path: Path) -> DriveFolder:
    """The copy at an existing path."""
    splits = _splits(path)
    painted = any(_is_painted(folder.parent) for folder in splits.values())
    pairs = {split: read_split(folder, split, painted) for split, folder in splits.items()}
    return DriveFolder(
        path, EMBEDDED if painted else "DRIVE", pairs.get("training", ()), pairs.get("test", ())
    )


def _is_painted(path: Path) -> bool:
    """Whether `drive_unet.painter.painting` painted this folder."""
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        return manifest["generator"] == "drive_unet.painter"
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _splits(path: Path) -> dict[str, Path]:
    """The folders of the splits, one or two of "training" and "test", that a path leads to."""
    if path.is_file():
        if path.suffix.lower() != ".zip":
            raise DataError(
                f"{path} is neither a folder nor a zip archive: name the folder that holds training and test"
            )
        return _zipped(path)
    folder = path
    for _ in range(_DEPTH):
        found = _unpacked(folder)
        if len(found) < 2:
            found = _add_archives(folder, found)
        if found:
            return found
        folder = _inner(folder)
        if folder is None:
            break
    if all(is_junk(entry.name) for entry in path.iterdir()):
        raise DataError(
            f"{path} is empty: put DRIVE's training.zip and test.zip there as downloaded, or name another "
            "folder"
        )
    raise DataError(
        f"{path} holds neither folders named training and test nor the archives training.zip and test.zip: "
        "name the folder that does"
    )


def _inner(folder: Path) -> Path | None:
    """The one subfolder that may hold the dataset: the only one, or the only one called DRIVE."""
    inner = folders(folder)
    if len(inner) > 1:
        inner = [entry for entry in inner if entry.name.lower() == "drive"]
    return inner[0] if len(inner) == 1 else None


def _unpacked(folder: Path) -> dict[str, Path]:
    """The splits that lie unpacked in a folder."""
    _refuse_rite(folder)
    found: dict[str, Path] = {}
    for split, names in _SPLITS.items():
        candidates = [entry for entry in folders(folder) if entry.name.lower() in names]
        if len(candidates) > 1:
            raise DataError(f"{folder} holds both {listed(candidates)}: leave only the right one there")
        if candidates:
            found[split] = _unwrapped(candidates[0], split)
    if not found and child(folder, IMAGES) and (child(folder, VESSELS) or child(folder, FOV)):
        raise DataError(
            f"{folder} is one part of DRIVE only: name the folder that holds both training and test"
        )
    return found


def _unwrapped(folder: Path, split: str) -> Path:
    """The folder of a split itself, which some unpackers wrap in another of the same name."""
    for _ in range(_DEPTH):
        _refuse_rite(folder)
        inner = [entry for entry in folders(folder) if entry.name.lower() in _SPLITS[split]]
        if child(folder, IMAGES) or len(inner) != 1:
            break
        folder = inner[0]
    return folder


def _add_archives(folder: Path, found: dict[str, Path]) -> dict[str, Path]:
    """The splits found unpacked, and those that lie beside them as archives."""
    result = dict(found)
    for archive in sorted(folder.iterdir()):
        if archive.suffix.lower() != ".zip" or not _ARCHIVE.fullmatch(archive.stem.lower()):
            continue
        for split, inside in _zipped(archive).items():
            if split in found:
                continue
            if result.setdefault(split, inside) != inside:
                raise DataError(
                    f"{folder} holds two different archives of the {split} pictures, one of them "
                    f"{archive.name}: leave only the right one there"
                )
    return result


def _zipped(archive: Path) -> dict[str, Path]:
    """The splits in an archive, from its copy in the cache."""
    folder: Path | None = unpack(archive)
    for _ in range(_DEPTH):
        # Some archives hold images, 1st_manual and mask with no folder around them: file names tell the
        # split.
        inside = child(folder, IMAGES)
        names = [file.stem.lower() for file in images(inside)] if inside else []
        found = {split: folder for split in _SPLITS if any(f"_{split}" in name for name in names)}
        found = found or ({} if inside else _unpacked(folder))
        if found:
            return found
        folder = _inner(folder)
        if folder is None:
            break
    raise DataError(f"{archive} holds neither training/images nor test/images: download the official archive")


def _refuse_rite(folder: Path) -> None:
    """Raise for RITE, which is often passed off as DRIVE."""
    names = {entry.name.lower() for entry in folders(folder)}
    if any(name.startswith("av_groundtruth") for name in names) or {"av", "vessel"} <= names:
        raise DataError(
            f"{folder} is RITE, not DRIVE: its training labels were modified and its test labels are the "
            "second observer's, so that its scores do not compare: download DRIVE itself"
        )
