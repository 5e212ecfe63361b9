"""Behind ``drive-unet submit``: predictions of the test photographs as the zip that a challenge takes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from drive_unet.data.dataset import DRIVEDataset
from drive_unet.data.find import find_dataset
from drive_unet.errors import DataError
from drive_unet.evaluation.finished import finished_predictions
from drive_unet.evaluation.submission import UNCERTAIN, submission_files, write_submission


def run(options: argparse.Namespace) -> None:
    """Check the predictions that the options name, and write the zip."""
    dataset = find_dataset(options.data)
    pairs = dataset.test
    if not pairs:
        raise DataError(f"{dataset.root} holds no test photographs, which a challenge asks for")
    if options.out.exists():
        raise DataError(f"{options.out} exists: move it elsewhere, or name another --out")
    photographs = DRIVEDataset.from_pairs(pairs, smooth=dataset.smooth)
    files = finished_predictions(Path(options.predictions), photographs)
    recorded = files.recorded(photographs.names)
    cut: Any
    if files.finished and options.threshold is None:
        cut, words = 0.5, "the segmentations in the folder"
    elif not files.ranked:
        raise DataError(f"{options.predictions} holds finished segmentations: leave --threshold out")
    elif options.threshold is not None:
        cut, words = options.threshold, f"probabilities cut at {options.threshold:g}, as given"
    elif recorded is not None:
        cut, words = recorded, "probabilities cut where drive-unet predict recorded it"
    else:
        cut, words = 0.5, "probabilities cut at 0.5, for no threshold is recorded"
    predictions = files.of(photographs.names)
    if options.threshold is not None:
        predictions = (prediction._replace(vessels=None) for prediction in predictions)
    written = write_submission(options.out, submission_files(predictions, pairs, cut))
    print(f"{written}: {len(pairs)} pictures, {words}; read back and checked\n{UNCERTAIN}")
