"""Finished predictions in a folder, of whatever program: which file is of which photograph, and its kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from drive_unet.data.dataset import DRIVEDataset
from drive_unet.data.pairing import images, listed, match
from drive_unet.data.reading import read_prediction
from drive_unet.errors import DataError


def finished_predictions(folder: Path, photographs: DRIVEDataset) -> dict[str, list[np.ndarray]]:
    """The predictions in a folder that belong to these photographs.

    Args:
        folder: of image files, paired with the photographs by number or name, see `match`.
        photographs: all of which must have a prediction; files of others are left out.

    Returns:
        Maps (H, W) in the photographs' order, bool or float32 0..1: of the files named `*_probability` under
        "probability", of the others under "", where there are any.

    Raises:
        DataError: if there is no such folder, or it lacks a photograph's prediction, or holds none at all.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: name the one that holds the predictions")
    files = images(folder)
    probable = [file for file in files if file.stem.lower().endswith("_probability")]
    groups = {}
    for kind, chosen in (("", [file for file in files if file not in probable]), ("probability", probable)):
        matched = match(photographs.names, chosen)
        if not matched:
            continue
        lacking = [name for name in photographs.names if name not in matched]
        if lacking:
            raise DataError(
                f"{folder} lacks the predictions of {listed(lacking)} ({len(lacking)} of {len(photographs)})"
            )
        maps = [read_prediction(matched[name]) for name in photographs.names]
        if kind or any(prediction.dtype != bool for prediction in maps):
            maps = [prediction.astype(np.float32) for prediction in maps]
        groups[kind] = maps
    if not groups:
        raise DataError(
            f"{folder} holds no predictions of these photographs, such as {photographs.names[0]}_vessels.png"
        )
    return groups
