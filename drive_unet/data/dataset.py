"""Photographs with their labels: decoding, the dataset, the split into folds, and `load_drive` for it all."""

from __future__ import annotations

import hashlib
import operator
import random
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torch.utils.data._utils.collate import default_collate_fn_map
from torchvision import tv_tensors
from tqdm.auto import tqdm

from drive_unet.data.find import DriveFolder, find_drive
from drive_unet.data.pairing import FOV, Pair, child, images, listed, pair_folders
from drive_unet.data.reading import Photograph, read_image, read_mask, read_photograph
from drive_unet.errors import DataError
from drive_unet.painter.eye import AS_USUAL, Ingredients
from drive_unet.painter.painting import Fundus, paint

__all__ = ["DRIVEDataset", "Drive", "Sample", "folds", "load_drive", "read_image", "read_mask"]


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


def painted_photograph(eye: Fundus) -> Photograph:
    """What a dataset keeps of a painted eye."""
    return Photograph(
        torch.from_numpy(np.ascontiguousarray(eye.image.transpose(2, 0, 1))),
        torch.from_numpy(eye.vessels[None].astype(np.uint8)),
        torch.from_numpy(eye.fov[None].astype(np.uint8)),
        eye.second_observer,
    )


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
    def painted(
        cls, seeds: Iterable[int], *, mix: Ingredients = AS_USUAL, progress: bool = False
    ) -> DRIVEDataset:
        """The painted eyes of these seeds, in memory alone; about half a second each.

        The embedded dataset's eyes have other, far larger seeds than any that is written by hand. For more
        eyes than memory holds, see `drive_unet.data.painted.PaintedStream`.
        """
        seeds = list(seeds)
        with ThreadPoolExecutor() as pool:
            photographs = list(
                tqdm(
                    pool.map(lambda seed: painted_photograph(paint(seed, mix=mix)), seeds),
                    total=len(seeds),
                    desc="painting",
                    unit="image",
                    disable=not progress,
                )
            )
        return cls._of([f"painted-{seed}" for seed in seeds], photographs, None)

    @classmethod
    def _of(cls, names: list[str], photographs: list[Photograph], transform: Callable | None) -> DRIVEDataset:
        dataset = cls.__new__(cls)
        dataset._fill(names, photographs, transform)
        return dataset

    def _fill(self, names: list[str], photographs: list[Photograph], transform: Callable | None) -> None:
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


# ------------------------------------------------------------------------------------------- splits and DRIVE


def folds(names: Iterable[str], k: int = 5, seed: int = 0) -> list[tuple[list[str], list[str]]]:
    """Split photographs into k folds, each held out once.

    Args:
        names: of the photographs; their order does not matter.
        k: number of folds, 2 to the number of photographs.
        seed: 0 deals the sorted names out in turn, so that fold 0 of DRIVE holds out 21, 26, 31, 36; any
            other seed shuffles them first.

    Returns:
        k pairs (training names, held-out names), sorted. The held-out parts are disjoint and cover all names.

    Raises:
        ValueError: if k does not fit, or a name occurs twice.
    """
    ordered = sorted(names)
    if len(set(ordered)) != len(ordered):
        raise ValueError(f"a name occurs twice among {', '.join(ordered)}: name each photograph once")
    if len(ordered) < 2:
        raise ValueError(f"{len(ordered)} photographs cannot be split: folds need two or more")
    if not 2 <= k <= len(ordered):
        raise ValueError(
            f"k={k} folds cannot be made of {len(ordered)} photographs: choose k from 2 to {len(ordered)}"
        )
    if seed:
        random.Random(seed).shuffle(ordered)
    held_out = [sorted(ordered[fold::k]) for fold in range(k)]
    return [(sorted(set(ordered) - set(part)), part) for part in held_out]


@dataclass(frozen=True)
class Drive:
    """DRIVE, ready for training and scoring: disjoint datasets and where they come from.

    Attributes:
        train: what the network learns from.
        validation: training photographs held out to choose a checkpoint and a threshold on.
        evaluation: what scores are computed on, used for no choice at all: the test photographs where they
            have labels, else another part held out of the training photographs.
        test: the test photographs, with labels or without.
        source: "DRIVE" or "embedded".
    """

    train: DRIVEDataset
    validation: DRIVEDataset
    evaluation: DRIVEDataset
    test: DRIVEDataset
    source: str

    def describe(self) -> str:
        """Which photographs serve for what, and why, in two or three sentences."""
        origin = "the embedded painted dataset" if self.source == "embedded" else "DRIVE"
        split = (
            f"Training on {len(self.train)} photographs of {origin}; checkpoint and threshold are chosen on "
            f"{len(self.validation)} held-out ones, {listed(self.validation.names, 20)}."
        )
        if self.test.has_labels:
            return f"{split} Scores are computed on the {len(self.test)} test photographs."
        why = (
            f"The {len(self.test)} test photographs have no vessel labels (the official download withholds "
            "them)"
            if len(self.test)
            else "There are no test photographs"
        )
        return (
            f"{split} {why}, so scores are computed on {len(self.evaluation)} more training photographs "
            f"that nothing else has seen, {listed(self.evaluation.names, 20)}."
        )


def load_drive(
    root: str | Path | None = None,
    *,
    fold: int = 0,
    k: int = 5,
    seed: int = 0,
    transform: Callable | None = None,
) -> Drive:
    """Find DRIVE and load it, with one fold of the training photographs held out for validation.

    Where the test photographs have no labels, as in today's official download, the next fold is held out as
    well, to compute scores on: nothing is scored on the photographs that a checkpoint or a threshold was
    chosen on.

    Args:
        root: see `find_drive`.
        fold: which of the k folds to hold out, 0 to k - 1.
        k, seed: see `folds`.
        transform: for the training photographs only.

    Raises:
        DataError: see `find_drive` and `DRIVEDataset`.
        ValueError: if there is no such fold.
    """
    if not 0 <= fold < k:
        raise ValueError(f"there is no fold {fold}: with k={k} folds, choose 0 to {k - 1}")
    found: DriveFolder = find_drive(root)
    if not found.training:
        raise DataError(
            f"{found.root} holds test photographs only, from which nothing can be learned: put training.zip "
            "beside it and name the folder that holds both"
        )
    splits = folds((pair.name for pair in found.training), k, seed)
    everything = DRIVEDataset.from_pairs(found.training)
    train, validation = splits[fold]
    test = DRIVEDataset.from_pairs(found.test)
    evaluation = test
    if not test.has_labels:
        if k < 3:
            raise ValueError(
                f"k={k} leaves nothing to train on: without test labels two folds are held out, so choose k "
                "of 3 or more"
            )
        scored = splits[(fold + 1) % k][1]
        train = [name for name in train if name not in scored]
        evaluation = everything.subset(scored)
    return Drive(
        everything.subset(train, transform), everything.subset(validation), evaluation, test, found.kind
    )
