"""Arteries and veins apart, where labels know them: HRF's and LES-AV's colours, and painted eyes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from drive_unet.data.archives import is_image
from drive_unet.data.find import DriveFolder
from drive_unet.data.pairing import images

_FOLDER = re.compile(r"arteries[-_]?(?:and[-_]?)?veins|av[-_]?(?:manual|labels)?", re.IGNORECASE)


class _Colours(Mapping):
    """Pixels of arteries and of veins by photograph, read when they are asked for."""

    def __init__(self, files: dict[str, Path]) -> None:
        self.files = files

    def __getitem__(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        with Image.open(self.files[name]) as picture:
            colours = np.asarray(picture.convert("RGB")) > 127
        crossing = colours[..., 1]
        return colours[..., 0] | crossing, colours[..., 2] | crossing

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)


def arteries_and_veins(dataset: DriveFolder, names: Iterable[str]) -> Mapping | None:
    """The colours of arteries (red) and veins (blue) of these photographs; None where there are none.

    Args:
        dataset: where they are from.
        names: of the photographs.

    Returns:
        By name the pixels of arteries and of veins, (H, W) bool each; crossings, green, are in both.
    """
    files: dict[str, Path] = {}
    wanted = set(names)
    for pair in (*dataset.training, *dataset.test):
        if pair.name not in wanted:
            continue
        beside = [pair.vessels] if pair.coloured else _beside(pair.image)
        if beside and beside[0] is not None:
            files[pair.name] = beside[0]
    return _Colours(files) if files else None


def _beside(photograph: Path) -> list[Path]:
    """Coloured labels of a photograph in a folder beside its own, as HRF and painted sets have them."""
    root = photograph.parent.parent
    folders = [f for f in root.iterdir() if f.is_dir() and _FOLDER.fullmatch(f.name)] if root.is_dir() else []
    stems = {photograph.stem.lower(), f"{photograph.stem.lower()}_avmanual"}
    return [
        file
        for folder in folders
        for file in images(folder)
        if is_image(file.name) and file.stem.lower() in stems
    ]
