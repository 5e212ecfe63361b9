"""A dataset as a whole: its folds, and which photographs serve for what."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from drive_unet.data.dataset import DRIVEDataset
from drive_unet.data.find import DriveFolder, called, find_dataset
from drive_unet.data.pairing import listed, person
from drive_unet.errors import DataError


def folds(names: Iterable[str], k: int = 5, seed: int = 0) -> list[tuple[list[str], list[str]]]:
    """Split photographs into k folds, each held out once.

    The two eyes of one person, as far as the names tell them (`Image_01L`, `Image_01R`), stay together: they
    are alike, and scores on one would flatter a network that has seen the other.

    Args:
        names: of the photographs; their order does not matter.
        k: number of folds, 2 to the number of photographs, or of persons where names tell the eyes apart.
        seed: 0 deals the sorted names out in turn, so that fold 0 of DRIVE holds out 21, 26, 31, 36; any
            other seed shuffles them first.

    Returns:
        k pairs (training names, held-out names), sorted. The held-out parts are disjoint and cover all names.

    Raises:
        ValueError: if k does not fit, or a name occurs twice.

    Example:
        >>> folds(["21", "22", "23", "24"], 2)
        [(['22', '24'], ['21', '23']), (['21', '23'], ['22', '24'])]
    """
    ordered = sorted(names)
    if len(set(ordered)) != len(ordered):
        raise ValueError(f"a name occurs twice among {', '.join(ordered)}: name each photograph once")
    if len(ordered) < 2:
        raise ValueError(f"{len(ordered)} photographs cannot be split: folds need two or more")
    persons: dict[str, list[str]] = {}
    for name in ordered:
        persons.setdefault(person(name), []).append(name)
    if not 2 <= k <= len(persons):
        of = f" of {len(persons)} persons" if len(persons) < len(ordered) else ""
        remedy = f"choose k from 2 to {len(persons)}" if len(persons) > 1 else "add photographs of others"
        raise ValueError(f"k={k} folds cannot be made of {len(ordered)} photographs{of}: {remedy}")
    groups = list(persons.values())
    if seed:
        random.Random(seed).shuffle(groups)
    held_out = [sorted(sum(groups[fold::k], [])) for fold in range(k)]
    return [(sorted(set(ordered) - set(part)), part) for part in held_out]


@dataclass(frozen=True)
class Drive:
    """DRIVE or another dataset, ready for training and scoring: disjoint parts and where they come from.

    Attributes:
        training: what the network learns from.
        validation: training photographs held out to choose a checkpoint and a threshold on.
        held_out: what scores are computed on, used for no choice at all: the test photographs where they
            have labels, else another part held out of the training photographs.
        test: the test photographs, with labels or without.
        source: "DRIVE" or the name of another layout, see `DriveFolder.kind`; "embedded", "own".
    """

    training: DRIVEDataset
    validation: DRIVEDataset
    held_out: DRIVEDataset
    test: DRIVEDataset
    source: str
    latest: ClassVar[str | None] = None  # source of the latest one; see widgets.measured

    def __post_init__(self) -> None:
        Drive.latest = self.source

    def describe(self) -> str:
        """Which photographs serve for what, and why, in two or three sentences."""
        split = (
            f"Training on {len(self.training)} photographs of {called(self.source)}; checkpoint and "
            f"threshold are chosen on {len(self.validation)} held-out ones, "
            f"{listed(self.validation.names, 20)}."
        )
        if self.test.has_labels:
            return f"{split} Scores are computed on the {len(self.test)} test photographs."
        withheld = " (the official download withholds them)" if self.source == "DRIVE" else ""
        why = (
            f"The {len(self.test)} test photographs have no vessel labels{withheld}"
            if len(self.test)
            else "There are no test photographs"
        )
        return (
            f"{split} {why}, so scores are computed on {len(self.held_out)} more training photographs "
            f"that nothing else has seen, {listed(self.held_out.names, 20)}."
        )


def load_drive(
    root: str | Path | None = None,
    *,
    fold: int = 0,
    k: int = 5,
    seed: int = 0,
    transform: Callable | None = None,
) -> Drive:
    """Find DRIVE or another dataset and load it, with one fold held out for validation.

    Where the test photographs have no labels, as in today's official download, or the dataset has no
    official test, as HRF, the next fold is held out as well, to compute scores on: nothing is scored on the
    photographs that a checkpoint or a threshold was chosen on.

    Args:
        root: see `find_dataset`.
        fold: which of the k folds to hold out, 0 to k - 1.
        k, seed: see `folds`.
        transform: for the training photographs only.

    Raises:
        DataError: see `find_dataset` and `DRIVEDataset`.
        ValueError: if there is no such fold.
    """
    if not 0 <= fold < k:
        raise ValueError(f"there is no fold {fold}: with k={k} folds, choose 0 to {k - 1}")
    folder: DriveFolder = find_dataset(root)
    if not folder.training:
        raise DataError(
            f"{folder.root} holds test photographs only, from which nothing can be learned: put training.zip "
            "beside it and name the folder that holds both"
        )
    try:
        splits = folds((pair.name for pair in folder.training), k, seed)
    except ValueError as error:
        raise ValueError(f"{folder.root}: {error}") from error
    everything = DRIVEDataset.from_pairs(folder.training, smooth=folder.smooth)
    train, validation = splits[fold]
    test = DRIVEDataset.from_pairs(folder.test, smooth=folder.smooth)
    held_out = test
    if not test.has_labels:
        if k < 3:
            raise ValueError(
                f"k={k} leaves nothing to train on: without test labels two folds are held out, so choose k "
                "of 3 or more"
            )
        scored = splits[(fold + 1) % k][1]
        kept = set(scored)
        train = [name for name in train if name not in kept]
        held_out = everything.subset(scored)
    return Drive(
        everything.subset(train, transform), everything.subset(validation), held_out, test, folder.kind
    )
