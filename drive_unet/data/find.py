"""Where a dataset lies and what it is: finding a copy, however it was downloaded and unpacked."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from drive_unet.data.archives import is_junk, unpack
from drive_unet.data.by_names import by_names, image_files
from drive_unet.data.drive_copies import (
    DEPTH,
    DRIVE,
    add_archives,
    inner_folder,
    is_drives,
    is_painted,
    mixed_splits,
    read_split,
    unpacked_splits,
    zipped_splits,
    zips,
)
from drive_unet.data.layouts import EMBEDDED, NAMED, OWN, PUBLISHED
from drive_unet.data.pairing import (
    IMAGES,
    LABELS,
    OWN_FOV,
    OWN_SECOND,
    VESSELS,
    Pair,
    child,
    folders,
    images,
    listed,
    match,
    pair_folders,
)
from drive_unet.errors import DataError

__all__ = ["EMBEDDED", "FALLBACK", "OWN", "VARIABLE", "DriveFolder", "Pair", "find_dataset", "find_drive"]

VARIABLE = "DRIVE_UNET_DATA"
FALLBACK = (
    "DRIVE was not found: the embedded painted dataset is used instead (the README says how to place DRIVE)."
)

_PACKED = frozenset({".7z", ".bz2", ".gz", ".rar", ".tar", ".tgz", ".xz"})

_shown: set[str] = set()  # whose terms were printed


@dataclass(frozen=True)
class DriveFolder:
    """A copy of DRIVE or of another dataset that was found and checked.

    Attributes:
        root: the folder or archive that was named or found.
        kind: the name of its layout, "DRIVE" or one of `drive_unet.data.layouts`; "embedded" for a painted
            set, or "own" for photographs with labels of somebody's own.
        training: the training photographs, sorted, and those of datasets that know no split; empty if only
            the test archive was given.
        test: the test photographs, sorted; empty if only the training archive was given, or without a split.
    """

    root: Path
    kind: str
    training: tuple[Pair, ...]
    test: tuple[Pair, ...]

    @property
    def has_test_labels(self) -> bool:
        """Whether there are test photographs, with vessel labels."""
        return bool(self.test) and all(pair.vessels is not None for pair in self.test)

    @property
    def labelled(self) -> tuple[Pair, ...]:
        """All photographs with vessel labels, of both parts."""
        return tuple(pair for pair in (*self.training, *self.test) if pair.vessels is not None)

    @property
    def smooth(self) -> bool:
        """Whether labels may have smoothed edges: everywhere but in DRIVE and what is painted as DRIVE is."""
        return self.kind not in (DRIVE.name, EMBEDDED)

    @property
    def title(self) -> str:
        """The data's name for tables and records: that of its layout, or of one's own folder."""
        return self.root.resolve().name if self.kind == OWN else self.kind


def find_dataset(root: str | Path | None = None) -> DriveFolder:
    """Find a dataset, check that it is complete, and pair its files.

    Takes `root`, else what the environment variable DRIVE_UNET_DATA names, else `data/DRIVE` in the working
    folder or a parent of it. Where there is none of these it prints one line and takes the embedded set.
    Nothing is written but into the cache, where archives are unpacked. The terms of a published dataset are
    printed to stderr, once in a process.

    Args:
        root: "embedded"; or a folder, or a zip archive as downloaded, or a folder that holds one of these. It
            may hold DRIVE (`training` and `test` or `testing`, their archives, or all its files side by
            side), another dataset of `drive_unet.data.layouts`, or photographs of one's own: subfolders
            `images` and `labels`, and if there are any `fov` or `mask` for masks of the field of view and
            `second_observer` or `2nd_manual` for the labels of a second observer, paired by number or name
            (see `pair_folders`). "~" stands for the home folder.

    Returns:
        The copy. The test photographs' `vessels` are None where there are no labels, as in the official
        download of DRIVE since 2019.

    Raises:
        DataError: if what was named does not exist, cannot be read, is no dataset that is known, is only a
            part of it, or holds files that do not belong together.
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
        dataset = _collect(path)
    except OSError as error:
        where = error.filename if error.filename is not None else place
        raise DataError(
            f"{where} cannot be read ({error.strerror or error}): give yourself permission to read this and "
            "all that is in it"
        ) from error
    except RuntimeError as error:  # "~name" of a user who does not exist
        raise DataError(f"{origin}{place}, a path that cannot be resolved: write it out in full") from error
    for layout in PUBLISHED:
        if layout.name == dataset.kind and layout.name not in _shown:
            _shown.add(layout.name)
            print(f"{layout.name}, terms of use: {layout.terms}", file=sys.stderr)
    return dataset


def find_drive(root: str | Path | None = None) -> DriveFolder:
    """Find DRIVE or the embedded set that stands in for it, and nothing else; see `find_dataset`.

    Raises:
        DataError: see `find_dataset`, and for every other dataset.
    """
    dataset = find_dataset(root)
    if dataset.kind not in (DRIVE.name, EMBEDDED):
        raise DataError(
            f"{dataset.root} is {called(dataset.kind)}, but DRIVE is wanted: name the folder of DRIVE, or "
            "find it with find_dataset"
        )
    return dataset


def _nearby() -> Path | None:
    """`data/DRIVE` in the working folder or in the nearest parent that has it."""
    here = Path.cwd()
    return next(
        (place for folder in (here, *here.parents) if os.path.exists(place := folder / "data" / "DRIVE")),
        None,
    )


def called(kind: str) -> str:
    """A layout's name in a sentence."""
    return {OWN: "a folder of one's own", EMBEDDED: "the embedded painted dataset"}.get(kind, kind)


def _collect(path: Path) -> DriveFolder:
    """The dataset at an existing path."""
    if not path.is_file():
        return _descend(path, path)
    if path.suffix.lower() != ".zip":
        raise DataError(
            f"{path} is neither a folder nor a zip archive: unpack it if it is packed otherwise, and name "
            "the folder with the dataset's files"
        )
    dataset = _look_inside(unpack(path), path)
    return dataset or _drive(path, zipped_splits(path))


def _descend(folder: Path, root: Path) -> DriveFolder:
    """The dataset in a folder, in its archives, or in the one subfolder that may hold it."""
    for _ in range(DEPTH):
        dataset = _look(folder, root)
        if dataset is not None:
            return dataset
        splits = unpacked_splits(folder)
        if not splits:
            dataset = next(filter(None, (_look_inside(unpack(file), root) for file in zips(folder))), None)
            if dataset is not None:
                return dataset
        if len(splits) < 2:
            splits = add_archives(folder, splits) or mixed_splits(folder)
        if splits:
            return _drive(root, splits)
        inner = inner_folder(folder)
        if inner is None:
            break
        folder = inner
    if all(is_junk(entry.name) for entry in root.iterdir()):
        raise DataError(
            f"{root} is empty: put DRIVE's training.zip and test.zip there as downloaded, or name another "
            "folder"
        )
    archives = sorted(entry for entry in root.iterdir() if entry.suffix.lower() == ".zip")
    if archives:
        raise DataError(
            f"{root} holds {listed(archives)}, not called as the archives of known datasets are: name the "
            "archive itself, or call those of DRIVE's parts training.zip and test.zip"
        )
    within = (entry for place in (root, *folders(root)) for entry in sorted(place.iterdir()))
    packed = [entry for entry in within if entry.suffix.lower() in _PACKED]
    if packed:
        raise DataError(
            f"{root} holds {listed(packed, 4)}, packed in a way that is not read here, as STARE and FIVES "
            "are published: unpack them, and what is packed inside them, and name the folder"
        )
    raise DataError(
        f"{root} holds neither folders named training and test nor the archives training.zip and test.zip, "
        f"as DRIVE does, nor the files of {listed(layout.name for layout in NAMED)}, nor folders named "
        "images and labels: name the folder that does"
    )


def _look_inside(tree: Path, root: Path) -> DriveFolder | None:
    """The dataset in an unpacked archive, if it is none of DRIVE's."""
    folder: Path | None = tree
    for _ in range(DEPTH):
        dataset = _look(folder, root)
        folder = inner_folder(folder)
        if dataset is not None or folder is None:
            return dataset
    return None


def _look(folder: Path, root: Path) -> DriveFolder | None:
    """The dataset in a folder itself, if it is none of DRIVE's."""
    files = image_files(folder)
    for layout in NAMED:
        pairs = by_names(layout, folder, files)
        if pairs is not None:
            return DriveFolder(root, layout.name, pairs["training"], pairs["test"])
    image_dir = child(folder, IMAGES)
    if image_dir is None or child(folder, VESSELS):
        return None
    label_dir = child(folder, LABELS)
    if label_dir is None and is_drives(image_dir):
        return None
    if label_dir is None:
        raise DataError(
            f"{folder} holds {image_dir.name}, but no folder named labels: put the vessel labels there"
        )
    remedy = "add what is missing, or move what is too much elsewhere"
    own = pair_folders(image_dir, label_dir, child(folder, OWN_FOV), remedy=remedy)
    second_dir = child(folder, OWN_SECOND)
    if second_dir is not None:  # a second observer may have drawn some of them only
        second = match([pair.name for pair in own], images(second_dir))
        own = tuple(replace(pair, second=second.get(pair.name)) for pair in own)
    return DriveFolder(root, OWN, own, ())


def _drive(root: Path, splits: dict[str, Path]) -> DriveFolder:
    """The copy of DRIVE in the folders of its splits."""
    painted = any(is_painted(folder.parent) for folder in splits.values())
    shared = len(splits) > len({*splits.values()})
    pairs = {split: read_split(folder, split, painted, shared) for split, folder in splits.items()}
    kind = EMBEDDED if painted else DRIVE.name
    return DriveFolder(root, kind, pairs.get("training", ()), pairs.get("test", ()))
