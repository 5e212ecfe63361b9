"""Masks of the field of view that lie beside photographs, in fov/ or mask/ next to images/."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np

from drive_unet.data.pairing import IMAGES, OWN_FOV, child, images, match
from drive_unet.data.reading import check_fov, read_mask
from drive_unet.errors import DataError


def masks_beside(photographs: Iterable[Path]) -> dict[Path, Path]:
    """The mask of each photograph that has one beside it; paired by name or number, as folders are.

    Which mask a photograph has does not depend on which others are asked about.
    """
    masks: dict[Path, Path] = {}
    by_folder: dict[Path, list[Path]] = {}
    for photograph in photographs:
        by_folder.setdefault(photograph.parent, []).append(photograph)
    for parent, group in by_folder.items():
        folder = parent.resolve()
        beside = child(folder.parent, OWN_FOV) if folder.name.lower() in IMAGES else None
        if beside is None:
            continue
        stems = {photograph.stem for photograph in (*images(folder), *group)}
        with suppress(DataError):  # of files that do not pair one by one: they were not meant for it
            matched = match(sorted(stems), images(beside))
            masks |= {each: matched[each.stem] for each in group if each.stem in matched}
    return masks


def read_fov(path: Path, image: np.ndarray) -> np.ndarray:
    """A mask of the field of view, (H, W) bool, after a check that it may be that of this photograph.

    Raises:
        DataError: if the file cannot be read, has another size, or shows no field of view.
    """
    mask = read_mask(path, smooth=True)
    if mask.shape != image.shape[:2]:
        sizes = [f"{shape[1]}x{shape[0]}" for shape in (mask.shape, image.shape)]
        raise DataError(f"{path} is {sizes[0]} (width x height), but its photograph is {sizes[1]}")
    check_fov(path, mask)
    return mask


def fov_beside(photograph: Path, image: np.ndarray) -> np.ndarray | None:
    """The field of view, (H, W) bool, by the mask beside a photograph; None where there is none.

    What lies there and is no field of view, such as vessel labels in a folder named mask, was not meant as
    one.
    """
    path = masks_beside([photograph]).get(photograph)
    if path is not None:
        with suppress(DataError):
            return read_fov(path, image)
    return None
