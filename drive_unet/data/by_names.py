"""Datasets that are known by the names of their files, one row of `layouts` each: recognised and paired."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from drive_unet.data.archives import is_image, is_junk
from drive_unet.data.layouts import Layout
from drive_unet.data.pairing import Pair, pair_up, unique
from drive_unet.errors import DataError

SPLITS = {"training": ("training", "train"), "test": ("test", "testing")}  # and what their folders are called
_SPLIT_OF = {name: split for split, names in SPLITS.items() for name in names}
_KINDS = ("image", "vessels", "colours", "fov", "second")
Kinds = dict[str, dict[str, dict[str, Path]]]
_DEPTH = 3  # train/Original/1_A.png
_MOST = 100_000  # images below a folder; a dataset has fewer, a whole disk more


def image_files(folder: Path) -> dict[str, Path]:
    """The images in a folder and, as deep as any layout goes, below it, by their paths from there.

    Raises:
        DataError: if there are absurdly many.
    """
    files: dict[str, Path] = {}
    for file in _walk(folder, _DEPTH):
        files[file.relative_to(folder).as_posix()] = file
        if len(files) > _MOST:
            raise DataError(
                f"{folder} holds more than {_MOST:,} images: name the folder of the dataset itself"
            )
    return files


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if is_junk(entry.name):
            continue
        if entry.is_dir():
            if depth > 1:
                yield from _walk(entry, depth - 1)
        elif is_image(entry.name):
            yield entry


def by_names(layout: Layout, folder: Path, files: dict[str, Path]) -> dict[str, tuple[Pair, ...]] | None:
    """The photographs of a layout by split, "training" and "test"; None if the files are not of this layout.

    Photographs without a split are all for training. Those of the test may be without labels.

    Args:
        layout: the layout, with a pattern for its photographs.
        folder: where its files lie.
        files: see `image_files`.

    Raises:
        DataError: if a photograph lacks a file that others have, a file its photograph, or one exists twice.
    """
    kinds = files_by_kind(layout, folder, files)
    if kinds is None:
        return None
    pairs: dict[str, tuple[Pair, ...]] = {}
    for split in SPLITS:
        photographs = kinds["image"][split]
        vessels, coloured = labels_of(kinds, split)
        if photographs and split == "training" and not vessels:
            raise DataError(
                f"{folder} holds the training photographs of {layout.name}, but no vessel labels of "
                "them: put them there, or download the dataset again"
            )
        masks = (vessels, kinds["fov"][split], kinds["second"][split])
        image_dir = next(iter(photographs.values())).parent if photographs else folder
        remedy = f"add what is missing, or download {layout.name} again"
        pairs[split] = tuple(
            replace(pair, coloured=coloured)
            for pair in pair_up(image_dir, photographs, masks, lambda file: file.stem, remedy)
        )
    return pairs


def files_by_kind(layout: Layout, folder: Path, files: dict[str, Path]) -> Kinds | None:
    """The files of a layout by kind, such as "image", by split, and by what those of a photograph share.

    Returns:
        None where no photograph and no label belong together: the files are not of this layout.
    """
    kinds = {kind: _matching(getattr(layout, kind), folder, files) for kind in _KINDS}
    together = (kinds["image"][split].keys() & labels_of(kinds, split)[0].keys() for split in SPLITS)
    return kinds if any(together) else None


def labels_of(kinds: Kinds, split: str) -> tuple[dict[str, Path], bool]:
    """The labels of a split, plain ones rather than coloured ones, and whether they are coloured."""
    plain, coloured = kinds["vessels"][split], kinds["colours"][split]
    return (plain, False) if plain or not coloured else (coloured, True)


def _matching(pattern: str, folder: Path, files: dict[str, Path]) -> dict[str, dict[str, Path]]:
    """The files of a pattern, by split and by what the files of a photograph have in common."""
    whole = re.compile(rf"(?:({'|'.join(_SPLIT_OF)})/)?(?:{pattern})", re.IGNORECASE)
    matches = [(whole.fullmatch(name), file) for name, file in files.items()] if pattern else []
    result: dict[str, dict[str, Path]] = {}
    for split in SPLITS:
        result[split] = unique(
            folder,
            (
                (match[2].lower(), file)
                for match, file in matches
                if match and _SPLIT_OF[(match[1] or "training").lower()] == split
            ),
        )
    return result
