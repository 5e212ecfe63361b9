"""Photographs with their labels: the dataset that training and scoring take."""

from __future__ import annotations

import hashlib
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from drive_unet.data.pairing import FOV, Pair, child, images, listed, pair_folders
from drive_unet.data.reading import Decoded
from drive_unet.data.sample import Sample, finished
from drive_unet.data.store import InMemory, Stored, each, open_photographs, prepare_all
from drive_unet.errors import DataError
from drive_unet.preprocessing.prepare import Preprocessing


def _fov_beside(image_dir: Path, mask_dir: Path | None) -> Path | None:
    """DRIVE's own field-of-view masks beside a folder of images; in other sets, `mask` often means labels."""
    beside = child(image_dir.parent, FOV)
    if beside is None or (mask_dir is not None and beside.resolve() == mask_dir.resolve()):
        return None
    names = [file.stem.lower() for file in images(beside)]
    own = names and all(re.fullmatch(r"\d+_(training|test)_mask", name) for name in names)
    return beside if own else None


class DRIVEDataset(Dataset):
    """Photographs with vessel labels and fields of view.

    Sets of up to 512 MB are decoded once and kept in memory; of larger ones a photograph is decoded when it
    is read, and `prepared` keeps them in the cache folder, ready for training.

    Items are `Sample`s after `transform`, which may be anything from `torchvision.transforms.v2`: image,
    vessels and field of view then move together, the masks by nearest neighbour. It is given the stored
    pixels themselves, uint8 in 0..255, and must not write into them; an image that is uint8 still afterwards
    becomes float32 in 0..1. Where a transform needs floats (as `v2.Normalize` does), let
    `v2.ToDtype(torch.float32, scale=True)` come before.

    Args:
        image_dir: folder of the photographs, such as training/images.
        mask_dir: folder of the vessel labels, such as training/1st_manual; None where there are none.
        transform: called with a Sample of uint8, returns a Sample.
        fov_dir: folder of the field-of-view masks. None takes DRIVE's own (`mask/21_training_mask.gif`) where
            they lie beside `image_dir`, and else finds the field of view in the photographs.
        second_dir: folder of a second observer's vessel labels.

    Attributes:
        names: the photographs' numbers or names, sorted.

    Raises:
        DataError: if files are missing, damaged, of different sizes, or not what they are taken for. In
            sets too large for memory, what a file's header does not tell is raised when it is first read.
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
        photographs = Path(image_dir).expanduser()
        vessels, fov, second = (
            None if folder is None else Path(folder).expanduser()
            for folder in (mask_dir, fov_dir, second_dir)
        )
        try:
            if fov is None and photographs.is_dir():
                fov = _fov_beside(photographs, vessels)
            pairs = pair_folders(photographs, vessels, fov, second)
        except OSError as error:
            raise DataError(
                f"{error.filename or photographs} cannot be read ({error.strerror or error}): give yourself "
                "permission to read this folder"
            ) from error
        self._fill([pair.name for pair in pairs], open_photographs(pairs), transform)

    @classmethod
    def from_pairs(cls, pairs: Iterable[Pair], *, smooth: bool = False) -> DRIVEDataset:
        """The dataset of photographs that `find_drive` paired; it may be empty. `smooth`: see `read_mask`."""
        pairs = list(pairs)
        return cls._of([pair.name for pair in pairs], open_photographs(pairs, smooth=smooth), None)

    @classmethod
    def from_decoded(
        cls, names: Iterable[str], photographs: Iterable[Decoded], transform: Callable | None = None
    ) -> DRIVEDataset:
        """The dataset of photographs that are decoded already, or were never in a file."""
        return cls._of(list(names), [InMemory(decoded) for decoded in photographs], transform)

    @classmethod
    def _of(cls, names: list[str], photographs: Sequence[Stored], transform: Callable | None) -> DRIVEDataset:
        dataset = cls.__new__(cls)
        dataset._fill(names, photographs, transform)
        return dataset

    def _fill(self, names: list[str], photographs: Sequence[Stored], transform: Callable | None) -> None:
        self.names, self._photographs, self.transform = names, photographs, transform

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
        return bool(self._photographs) and all(photograph.has_labels for photograph in self._photographs)

    @property
    def vessels(self) -> Sequence[np.ndarray | None]:
        """The vessels of each photograph, (H, W) bool, or None without labels; read when asked for."""
        return _Masks(self._photographs, "vessels")

    @property
    def fovs(self) -> Sequence[np.ndarray]:
        """The field of view of each photograph, (H, W) bool; read when asked for."""
        return _Masks(self._photographs, "fov")

    @property
    def second_observer(self) -> Sequence[np.ndarray | None]:
        """The second observer's vessels of each photograph, (H, W) bool, or None; read when asked for."""
        return _Masks(self._photographs, "second")

    @property
    def fingerprints(self) -> list[str]:
        """16 hexadecimal digits of the pixels of each photograph as taken; the same for equal photographs.

        They see through other names and other compression without loss. They do not see that a photograph is
        a copy that was resized, turned, or compressed again with loss: its pixels are others.
        """
        return each(lambda photograph: photograph.fingerprint, self._photographs, "reading")

    @property
    def marks(self) -> dict[str, str]:
        """Fingerprints by name: of all photographs, or of those eyes of a stream that were read so far."""
        return dict(zip(self.names, self.fingerprints, strict=True))

    @property
    def identity(self) -> str:
        """16 hexadecimal digits for the whole set in its order, without its transform."""
        return hashlib.sha256("".join(self.fingerprints).encode()).hexdigest()[:16]

    def shared_with(self, other: DRIVEDataset) -> list[str]:
        """The names of those photographs that another set holds too, under whatever name; see `marks`."""
        known = set(other.marks.values())
        return [name for name, mark in self.marks.items() if mark in known]

    def prepared(self, preprocessing: Preprocessing) -> DRIVEDataset:
        """The photographs at the scale that a network works at, ready for training; itself if they are.

        Sets too large for memory are kept, rescaled, in the cache folder (about 1.5 MB a photograph at
        DRIVE's scale) and mapped from there by any number of processes; what is there need not be decoded
        again. Delete the folder `prepared` in it whenever you like.

        Args:
            preprocessing: the network's record, ``model.preprocessing``.

        Raises:
            DataError: if a photograph is not as it should be, or the cache folder cannot be written.
        """
        photographs = prepare_all(self._photographs, preprocessing)
        if all(map(operator.is_, photographs, self._photographs)):
            return self
        return DRIVEDataset._of(self.names, photographs, self._transform)

    def order(self, length: int, seed: int) -> Tensor:
        """Indices (length,) int64 of the photographs for `length` patches: each once, shuffled, and again."""
        shuffle = torch.Generator().manual_seed(seed)
        rounds = range(-(-length // len(self)))
        return torch.cat([torch.randperm(len(self), generator=shuffle) for _ in rounds])[:length]

    def stored(self, index: int) -> Decoded:
        """A photograph as it was taken, without the transform; shared with the dataset, to be read only.

        Args:
            index: of the photograph.

        Returns:
            image (3, H, W) and vessels and fov (1, H, W) uint8, second (H, W) bool; None what there is not.
        """
        return self._photographs[index].read()

    def __len__(self) -> int:
        return len(self._photographs)

    def __getitem__(self, index: int) -> Sample:
        from torchvision import tv_tensors  # here: scoring files does without, see `Sample`

        photograph = self._photographs[index]
        image, vessels, fov, _ = photograph.read()
        stored = [part for part in (image, vessels, fov) if part is not None]
        sample = Sample(
            tv_tensors.Image(image),
            None if vessels is None else tv_tensors.Mask(vessels),
            tv_tensors.Mask(fov),
            tv_tensors.wrap(photograph.levels.as_subclass(Tensor).clone(), like=photograph.levels),
        )
        if self._transform is not None:
            before = [part._version for part in stored]  # counts writing, into views of it as well
            sample = self._transform(sample)
            if before != [part._version for part in stored]:
                raise TypeError(
                    f"the transform wrote into the stored photograph {self.names[index]}, which is damaged "
                    "now: load the dataset again, with a transform that changes a copy (inplace=False)"
                )
        return finished(sample, stored) if isinstance(sample, Sample) else sample

    def __repr__(self) -> str:
        labels = "with" if self.has_labels else "without"
        names = self.names if len(self) <= 100 else [self.names[0], "to", self.names[-1]]
        return f"DRIVEDataset({len(self)} photographs {labels} vessel labels: {' '.join(names)})"

    def subset(self, photographs: Iterable[str | int], transform: Callable | None = None) -> DRIVEDataset:
        """The dataset of some of the photographs; what is decoded is shared, not copied.

        Args:
            photographs: names, or indices, in the order wanted.
            transform: of the new dataset; it does not inherit this one's.

        Raises:
            ValueError: if there is no such photograph.
        """
        indices = self._indices(photographs)
        return DRIVEDataset._of(
            [self.names[i] for i in indices], [self._photographs[i] for i in indices], transform
        )

    def __add__(  # type: ignore[override]  # with a dataset of another kind it has nothing in common
        self, other: DRIVEDataset
    ) -> DRIVEDataset:
        """The photographs of both, without a transform; what is decoded is shared, not copied."""
        return DRIVEDataset._of([*self.names, *other.names], [*self._photographs, *other._photographs], None)

    def _indices(self, keys: Iterable[str | int]) -> list[int]:
        numbers = {name: at for at, name in reversed(list(enumerate(self.names)))}  # of a name the first

        def index(key: str | int) -> int:
            if isinstance(key, str) and key not in numbers:
                known = listed(self.names, 40) if self.names else "none"
                raise ValueError(f"there is no photograph named {key!r}: the names are {known}")
            at = numbers[key] if isinstance(key, str) else operator.index(key)
            if not -len(self) <= at < len(self):
                raise ValueError(f"there is no photograph with index {at}: there are {len(self)}")
            return at % len(self)

        return list(map(index, keys))


class _Masks(Sequence[Any]):
    """One kind of mask of all photographs, each read when it is asked for, so that few are in memory."""

    def __init__(self, photographs: Sequence[Stored], kind: str) -> None:
        self.photographs, self.kind = photographs, kind

    def __len__(self) -> int:
        return len(self.photographs)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        mask = getattr(self.photographs[index].read(), self.kind)
        if mask is None:
            return None
        return mask[0].numpy() > 0 if isinstance(mask, Tensor) else np.array(mask)

    def __iter__(self) -> Iterator[np.ndarray | None]:
        return map(self.__getitem__, range(len(self)))

    def __repr__(self) -> str:
        return f"<{self.kind} of {len(self)} photographs>"
