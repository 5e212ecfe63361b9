"""Photographs with their labels: the dataset that training and scoring take."""

from __future__ import annotations

import hashlib
import operator
import re
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torch.utils.data._utils.collate import default_collate_fn_map
from torchvision import tv_tensors

from drive_unet.data.pairing import FOV, Pair, child, images, pair_folders
from drive_unet.data.reading import Decoded, read_photograph
from drive_unet.errors import DataError


class Sample(NamedTuple):
    """One photograph as a network gets it.

    Attributes:
        image: (3, H, W) float32 in 0..1, RGB.
        vessels: (1, H, W) uint8 in {0, 1}; None where there are no labels.
        fov: (1, H, W) uint8 in {0, 1}, 1 inside the field of view.
    """

    image: tv_tensors.Image
    vessels: tv_tensors.Mask | None
    fov: tv_tensors.Mask


# --------------------------------------------------------------------------------------------------- datasets


def _fov_beside(image_dir: Path, mask_dir: Path | None) -> Path | None:
    """DRIVE's own field-of-view masks beside a folder of images; in other sets, `mask` often means labels."""
    beside = child(image_dir.parent, FOV)
    if beside is None or (mask_dir is not None and beside.resolve() == mask_dir.resolve()):
        return None
    names = [file.stem.lower() for file in images(beside)]
    own = names and all(re.fullmatch(r"\d+_(training|test)_mask", name) for name in names)
    return beside if own else None


class DRIVEDataset(Dataset):
    """Photographs with vessel labels and fields of view, decoded once and kept in memory.

    Items are `Sample`s after `transform`, which may be anything from `torchvision.transforms.v2`: image,
    vessels and field of view then move together, the masks by nearest neighbour.

    Args:
        image_dir: folder of the photographs, such as training/images.
        mask_dir: folder of the vessel labels, such as training/1st_manual; None where there are none.
        transform: called with a Sample, returns a Sample.
        fov_dir: folder of the field-of-view masks. None takes DRIVE's own (`mask/21_training_mask.gif`) where
            they lie beside `image_dir`, and else finds the field of view in the photographs.
        second_dir: folder of a second observer's vessel labels.

    Attributes:
        names: the photographs' numbers or names, sorted.

    Raises:
        DataError: if files are missing, damaged, of different sizes, or not what they are taken for.
    """

    def __init__(
        self,
        image_dir: str | Path,
        mask_dir: str | Path | None = None,
        transform: Callable | None = None,
        *,
        fov_dir: str | Path | None = None,
        second_dir: str | Path | None = None,
    ) -> None:
        image_dir, mask_dir, fov_dir, second_dir = (
            None if folder is None else Path(folder).expanduser()
            for folder in (image_dir, mask_dir, fov_dir, second_dir)
        )
        try:
            if fov_dir is None and image_dir.is_dir():
                fov_dir = _fov_beside(image_dir, mask_dir)
            pairs = pair_folders(image_dir, mask_dir, fov_dir, second_dir)
        except OSError as error:
            raise DataError(
                f"{error.filename or image_dir} cannot be read ({error.strerror or error}): give yourself "
                "permission to read this folder"
            ) from error
        self._fill([pair.name for pair in pairs], [read_photograph(pair) for pair in pairs], transform)

    @classmethod
    def from_pairs(
        cls, pairs: Iterable[Pair], transform: Callable | None = None, *, smooth: bool = False
    ) -> DRIVEDataset:
        """The dataset of photographs that `find_drive` paired; it may be empty. `smooth`: see `read_mask`."""
        pairs = list(pairs)
        photographs = [read_photograph(pair, smooth=smooth) for pair in pairs]
        return cls._of([pair.name for pair in pairs], photographs, transform)

    @classmethod
    def _of(cls, names: list[str], photographs: list[Decoded], transform: Callable | None) -> DRIVEDataset:
        dataset = cls.__new__(cls)
        dataset._fill(names, photographs, transform)
        return dataset

    def _fill(self, names: list[str], photographs: list[Decoded], transform: Callable | None) -> None:
        self.names = names
        self._photographs = photographs
        self.transform = transform

    @property
    def transform(self) -> Callable | None:
        """What is done to each Sample; it may be exchanged at any time."""
        return self._transform

    @transform.setter
    def transform(self, transform: Callable | None) -> None:
        if type(transform).__module__ == "torchvision.transforms.transforms":
            raise TypeError(
                f"{type(transform).__name__} is from torchvision.transforms, which knows nothing of masks: "
                "take the transform of that name from torchvision.transforms.v2"
            )
        self._transform = transform

    @property
    def has_labels(self) -> bool:
        """Whether there are photographs, all of them with vessel labels."""
        return bool(self._photographs) and all(
            photograph.vessels is not None for photograph in self._photographs
        )

    @property
    def vessels(self) -> list[np.ndarray | None]:
        """The vessels of each photograph as taken, (H, W) bool, or None where there are no labels."""
        return [None if vessels is None else vessels[0].numpy() > 0 for _, vessels, *_ in self._photographs]

    @property
    def fovs(self) -> list[np.ndarray]:
        """The field of view of each photograph as taken, (H, W) bool."""
        return [photograph.fov[0].numpy() > 0 for photograph in self._photographs]

    @property
    def second_observer(self) -> list[np.ndarray | None]:
        """The second observer's vessels of each photograph, (H, W) bool, or None where there are none."""
        return [photograph.second for photograph in self._photographs]

    @cached_property
    def fingerprints(self) -> list[str]:
        """16 hexadecimal digits of each photograph's pixels; the same for equal photographs."""
        return [
            hashlib.sha256(f"{tuple(image.shape)}".encode() + image.numpy().tobytes()).hexdigest()[:16]
            for image, *_ in self._photographs
        ]

    def order(self, length: int, seed: int) -> Tensor:
        """Indices (length,) int64 of the photographs for `length` patches: each once, shuffled, and again."""
        shuffle = torch.Generator().manual_seed(seed)
        rounds = range(-(-length // len(self)))
        return torch.cat([torch.randperm(len(self), generator=shuffle) for _ in rounds])[:length]

    def __len__(self) -> int:
        return len(self._photographs)

    def __getitem__(self, index: int) -> Sample:
        image, vessels, fov, _ = self._photographs[index]
        sample = Sample(
            # By NumPy: where cores are shared, PyTorch's threads wait for each other longer than that takes.
            tv_tensors.Image(torch.from_numpy(np.divide(image.numpy(), np.float32(255), dtype=np.float32))),
            None if vessels is None else tv_tensors.Mask(torch.from_numpy(vessels.numpy().copy())),
            tv_tensors.Mask(torch.from_numpy(fov.numpy().copy())),  # copied: transforms may write into them
        )
        return sample if self._transform is None else self._transform(sample)

    def __repr__(self) -> str:
        labels = "with" if self.has_labels else "without"
        return f"DRIVEDataset({len(self)} photographs {labels} vessel labels: {' '.join(self.names)})"

    def subset(self, which: Iterable[str | int], transform: Callable | None = None) -> DRIVEDataset:
        """The dataset of some of the photographs; what is decoded is shared, not copied.

        Args:
            which: names, or indices, in the order wanted.
            transform: of the new dataset; it does not inherit this one's.

        Raises:
            ValueError: if there is no such photograph.
        """
        indices = [self._index(key) for key in which]
        photographs = [self._photographs[i] for i in indices]
        return DRIVEDataset._of([self.names[i] for i in indices], photographs, transform)

    def _index(self, key: str | int) -> int:
        if isinstance(key, str):
            if key not in self.names:
                raise ValueError(
                    f"there is no photograph named {key!r}: the names are {', '.join(self.names) or 'none'}"
                )
            return self.names.index(key)
        index = operator.index(key)
        if not -len(self) <= index < len(self):
            raise ValueError(f"there is no photograph with index {index}: there are {len(self)}")
        return index % len(self)


def _collate_none(batch: list[None], *, collate_fn_map: dict | None = None) -> None:
    """The batch of what does not exist."""


# Unlabelled photographs have None for vessels; so a plain DataLoader batches them, and has None there too.
default_collate_fn_map.setdefault(type(None), _collate_none)
