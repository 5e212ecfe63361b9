"""Predictions as a challenge takes them: one zip of black-and-white PNGs, checked before it is written."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from drive_unet.data.pairing import Pair
from drive_unet.data.reading import read_image
from drive_unet.errors import DataError
from drive_unet.evaluation.records import Prediction
from drive_unet.files import write_atomically

UNCERTAIN = (
    "Not certain: the challenge's page tells the format only to those who are logged in. This zip holds a "
    "PNG for each test photograph, named as the photograph is, of its size, 0 for background and 255 for "
    "vessel, at the top of the zip. Compare that with the page before you hand it in."
)


def submission_files(
    predictions: Iterable[Prediction], pairs: Iterable[Pair], threshold: float | Iterable[float]
) -> dict[str, np.ndarray]:
    """The black-and-white pictures of a submission by their file names, checked.

    Args:
        predictions: for each photograph in turn.
        pairs: the photographs.
        threshold: 0..1, for probabilities; or one for each.

    Raises:
        DataError: if one has not the size of its photograph, or calls nothing, or most of it, vessel.
    """
    pairs = list(pairs)
    given: Any = threshold
    cuts: list[float] = [given] * len(pairs) if np.ndim(given) == 0 else list(given)
    files: dict[str, np.ndarray] = {}
    for pair, prediction, cut in zip(pairs, predictions, cuts, strict=True):
        probability, vessels = prediction
        drawn = probability >= cut if vessels is None else vessels
        shape = read_image(pair.image).shape[:2]
        if drawn.shape != shape:
            raise DataError(
                f"the prediction of {pair.image.name} is {drawn.shape[1]}x{drawn.shape[0]}, the photograph "
                f"{shape[1]}x{shape[0]}: bring it back to native size first"
            )
        share = float(drawn.mean())
        if not 0 < share < 0.5:
            raise DataError(
                f"the prediction of {pair.image.name} calls {share:.0%} of the frame vessel, where about 9% "
                "is: vessels are white on black; check the threshold too"
            )
        files[f"{pair.image.stem}.png"] = drawn
    return files


def write_submission(path: Path, files: dict[str, np.ndarray]) -> Path:
    """Write the zip, complete or not at all, and return its path; equal pictures give equal bytes.

    Raises:
        DataError: if something is there already.
    """
    if path.exists():
        raise DataError(f"{path} exists: move it elsewhere, or name another --out")

    def write(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name, drawn in sorted(files.items()):
                buffer = io.BytesIO()
                Image.fromarray(drawn.astype(np.uint8) * np.uint8(255)).save(buffer, "PNG")
                archive.writestr(zipfile.ZipInfo(name), buffer.getvalue())
        file.flush()
        check_submission(Path(file.name), files)

    write_atomically(path, write)
    return path


def check_submission(path: Path, files: dict[str, np.ndarray]) -> None:
    """Read a zip back: it holds these pictures and no others, in black and white.

    Raises:
        DataError: naming the first difference.
    """
    with zipfile.ZipFile(path) as archive:
        if sorted(archive.namelist()) != sorted(files):
            raise DataError(f"{path} does not hold the pictures that were to be written: write it again")
        for name, drawn in files.items():
            with archive.open(name) as file, Image.open(file) as picture:
                if picture.mode != "L" or not np.array_equal(np.asarray(picture), drawn * np.uint8(255)):
                    raise DataError(f"{name} in {path} is not what was to be written: write it again")
