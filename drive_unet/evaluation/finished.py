"""Finished predictions in a folder, of whatever program: which file is of which photograph, and its kind."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from drive_unet.data.dataset import DRIVEDataset
from drive_unet.data.pairing import folded, images, listed, match
from drive_unet.data.reading import read_prediction
from drive_unet.errors import DataError
from drive_unet.evaluation.records import Prediction
from drive_unet.outputs import facts

_PROBABILITY = re.compile(r"[-_ .](?:prob(?:s|ability|abilities)?|probmap|soft)$", re.IGNORECASE)

# What `drive-unet predict` and others write beside them.
_NO_PREDICTION = re.compile(r"[-_ .](?:overlay|fov|fov_mask|centreline|skeleton)$", re.IGNORECASE)


@dataclass(frozen=True)
class FinishedPredictions:
    """The prediction files of photographs, read one after the other.

    Args:
        folder: where they lie.
        segmentations: by photograph, black and white; empty where there are none.
        probabilities: by photograph, grey; empty where there are none.
    """

    folder: Path
    segmentations: dict[str, Path]
    probabilities: dict[str, Path]

    @property
    def finished(self) -> bool:
        """Whether there are segmentations, which need no threshold."""
        return bool(self.segmentations)

    @property
    def ranked(self) -> bool:
        """Whether there are probabilities, which rank pixels."""
        return bool(self.probabilities)

    @property
    def files(self) -> list[Path]:
        """All files, each once."""
        return [*self.segmentations.values(), *self.probabilities.values()]

    def recorded(self, names: Iterable[str]) -> list[float] | None:
        """Where ``drive-unet predict`` cut the maps of these photographs, by its record beside them.

        Returns:
            A threshold for each; None if one of them has none, or its file was changed since.
        """
        if not self.ranked:
            return None
        known = self._facts
        cuts = [known.get(self.probabilities[name].name, {}).get("threshold") for name in names]
        return None if None in cuts else cuts

    @cached_property
    def _facts(self) -> dict[str, dict[str, Any]]:
        """What is on record of the files, read once: each file is hashed for it."""
        return facts(self.folder)

    def seen(self, names: Iterable[str]) -> list[str] | None:
        """Those of these photographs that the network had learned from, by the record beside the files.

        Returns:
            Their names; None if of one of them nothing is recorded.
        """
        known, learned = self._facts, []
        for name in names:
            files = (group[name].name for group in (self.segmentations, self.probabilities) if name in group)
            marks = [known.get(file, {}).get("learned_from") for file in files]
            if None in marks:
                return None
            learned += [name] if any(marks) else []
        return learned

    def of(self, names: Iterable[str]) -> Iterator[Prediction]:
        """The predictions of these photographs, each read when it is its turn.

        Raises:
            DataError: if a file cannot be read, or both files of a photograph differ in size.
        """
        for name in names:
            vessels = probability = None
            if name in self.segmentations:
                vessels = read_prediction(self.segmentations[name])
            if name in self.probabilities:
                probability = read_prediction(self.probabilities[name]).astype(np.float32)
            if vessels is not None and probability is not None and vessels.shape != probability.shape:
                raise DataError(
                    f"{self.segmentations[name].name} and {self.probabilities[name].name} in {self.folder} "
                    "differ in size: write both at the photograph's own"
                )
            yield Prediction(probability, vessels)


def finished_predictions(folder: Path, photographs: DRIVEDataset) -> FinishedPredictions:
    """The predictions in a folder that belong to these photographs.

    Args:
        folder: of image files, paired with the photographs by number or name (see `match`), wherever in the
            file's name that stands. Those named `*_probability` or `*_prob` are maps of probability, beside
            segmentations; without such an ending a file's grey levels tell which of both it is.
        photographs: all of which must have a prediction; files of others are left out.

    Raises:
        DataError: if there is no such folder, or it lacks a photograph's prediction, or holds none at all, or
            a prediction has not the size of its photograph.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: name the one that holds the predictions")
    files = [file for file in images(folder) if not _NO_PREDICTION.search(file.stem)]
    probable = [file for file in files if _PROBABILITY.search(file.stem)]
    rest = [file for file in files if file not in probable]
    segmentations, probabilities = (_complete(folder, photographs, part) for part in (rest, probable))
    if not segmentations and not probabilities:
        folders = (path for path in sorted(folder.rglob("*")) if path.is_dir())
        deeper = next((path for path in folders if match(photographs.names, images(path))), None)
        raise DataError(
            f"{folder} holds no predictions of these photographs, such as {photographs.names[0]}_vessels.png"
            + (f": {deeper} has files of their names" if deeper else "")
        )
    if not all(read_prediction(file).dtype == bool for file in segmentations.values()):
        if probabilities:
            raise DataError(
                f"{folder} holds maps of grey levels twice, as {next(iter(segmentations.values())).name} and "
                f"{next(iter(probabilities.values())).name}: move one kind elsewhere"
            )
        segmentations, probabilities = {}, segmentations
    for name, vessels in zip(photographs.names, photographs.vessels, strict=True):
        for group in (segmentations, probabilities):
            if name in group and vessels is not None:
                _check_size(group[name], name, vessels.shape)
    return FinishedPredictions(folder, segmentations, probabilities)


def _complete(folder: Path, photographs: DRIVEDataset, files: Sequence[Path]) -> dict[str, Path]:
    """The files by photograph; all of these, or none."""
    matched = match(photographs.names, files)
    lacking = [name for name in photographs.names if name not in matched]
    if lacking:  # the name stands elsewhere in the file's, as in pred_01_test.png
        matched |= _inside(lacking, [file for file in files if file not in matched.values()])
        lacking = [name for name in lacking if name not in matched]
    if matched and lacking:
        raise DataError(
            f"{folder} lacks the predictions of {listed(lacking)} ({len(lacking)} of {len(photographs)})"
        )
    return matched


def _inside(names: Sequence[str], files: Sequence[Path]) -> dict[str, Path]:
    matched: dict[str, Path] = {}
    for name in names:
        digits = rf"0*{int(name)}" if name.isdecimal() else re.escape(folded(name))
        pattern = re.compile(rf"(?<![a-z0-9]){digits}(?![a-z0-9])")
        hits = [file for file in files if pattern.search(folded(file.stem))]
        if len(hits) > 1:
            raise DataError(
                f"{hits[0].name} and {hits[1].name} may both belong to photograph {name}: name its file "
                f"{name}.png, or move the other elsewhere"
            )
        if hits:
            matched[name] = hits[0]
    files = list(matched.values())
    for file in files:
        if files.count(file) > 1:
            owners = [name for name in matched if matched[name] == file]
            raise DataError(f"{file.name} may belong to photographs {listed(owners)}: name it after one")
    return matched


def _check_size(file: Path, name: str, shape: tuple[int, ...]) -> None:
    with Image.open(file) as picture:
        width, height = picture.size
    if (height, width) != shape and (width, height) != shape:  # a note of orientation may turn it
        raise DataError(
            f"The prediction for image {name} is {height}x{width}, the photograph {shape[0]}x{shape[1]}; "
            f"bring {file.name} back to native size first."
        )
