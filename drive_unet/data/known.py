"""Photographs and labels that are known by the checksums of their decoded pixels, however they are called.

The checksums stand in `known_pixels.json`, made by `scripts/list_known_pixels.py` from genuine copies; no
pixel can be had from them. HRF comes as JPEG, which decoders round differently: where its photographs are not
known, that alone says nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

import numpy as np

TABLE = "known_pixels.json"


class Known(NamedTuple):
    """What a file shows.

    Attributes:
        dataset: "DRIVE" or "HRF".
        split: "training", "test", or "" where a dataset knows none.
        name: of the photograph there, such as "21" or "01_h".
        turned: whether it lies there otherwise: mirrored, or turned by right angles.
    """

    dataset: str
    split: str
    name: str
    turned: bool = False


def checksum(pixels: np.ndarray) -> str:
    """16 hexadecimal digits of the pixels of an image, uint8, or a mask (H, W) bool, and of their shape."""
    hashed = hashlib.sha256(f"{pixels.shape}".encode())
    hashed.update(np.packbits(pixels).data if pixels.dtype == bool else np.ascontiguousarray(pixels).data)
    return hashed.hexdigest()[:16]


def photograph_of(image: np.ndarray) -> Known | None:
    """Which known photograph this (H, W, 3) uint8 is, seen through mirrors and right angles; None for none.

    A copy that was resized, or compressed again with loss, has other pixels and is not known.
    """
    known, sizes = _photographs(), _sizes()
    height, width = image.shape[:2]
    if (height, width) not in sizes and (width, height) not in sizes:
        return None
    for turned, view in enumerate(_views(image)):
        if (match := known.get(checksum(view))) is not None:
            return match._replace(turned=turned > 0)
    return None


def is_known_label(mask: np.ndarray, photograph: Known, kind: str = "vessels") -> bool | None:
    """Whether a mask (H, W) bool is the dataset's own for a photograph; None where that is not on record.

    Args:
        mask: as read.
        photograph: as `photograph_of` gives it, not turned.
        kind: "vessels", the first observer's, or "fov".
    """
    listed = _table()[photograph.dataset].get(kind, {})
    mark = listed.get(_key(photograph))
    return None if mark is None else checksum(mask) == mark


def count_of(dataset: str, split: str) -> int:
    """How many photographs of a dataset's split are known by their pixels."""
    return sum(match[:2] == (dataset, split) for match in _photographs().values())


def _views(image: np.ndarray) -> Iterator[np.ndarray]:
    """The eight ways in which a picture can lie, the one as it lies first."""
    for mirrored in (image, image[:, ::-1]):
        for quarters in range(4):
            yield np.rot90(mirrored, quarters)


def _key(photograph: Known) -> str:
    return f"{photograph.split}/{photograph.name}" if photograph.split else photograph.name


@cache
def _table() -> dict[str, dict[str, Any]]:
    """By dataset: "size" (height, width), and by kind the checksums by split and name."""
    text = resources.files("drive_unet.data").joinpath(TABLE).read_text(encoding="utf-8")
    return json.loads(text)


@cache
def _sizes() -> frozenset[tuple[int, int]]:
    return frozenset((height, width) for height, width in (dataset["size"] for dataset in _table().values()))


@cache
def _photographs() -> dict[str, Known]:
    """The known photographs by their checksums."""
    result: dict[str, Known] = {}
    for dataset, parts in _table().items():
        for key, mark in parts["image"].items():
            split, _, name = key.rpartition("/")
            result[mark] = Known(dataset, split, name)
    return result
