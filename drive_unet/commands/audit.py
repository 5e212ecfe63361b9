"""Behind ``drive-unet audit``: one set of predictions by the usual habits, and what each adds."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path

from drive_unet.commands.evaluate import labelled, scored_files, training_of
from drive_unet.data.dataset import DRIVEDataset
from drive_unet.data.find import find_dataset
from drive_unet.data.pairing import listed
from drive_unet.errors import DataError
from drive_unet.evaluation.auditing import audit
from drive_unet.evaluation.evaluator import BY_DEFAULT, Evaluation, evaluate, evaluate_second_observer
from drive_unet.evaluation.finished import finished_predictions
from drive_unet.evaluation.guarding import guards
from drive_unet.evaluation.kinds import arteries_and_veins
from drive_unet.outputs import refuse_to_replace


def run(options: argparse.Namespace) -> None:
    """Audit the folder of predictions that the options name, and print a verdict and a table, or JSON."""
    refuse_to_replace([options.report], options.overwrite)
    with redirect_stdout(sys.stderr):
        dataset = find_dataset(options.data)
        split, photographs = labelled(dataset, options.split)
        kinds = arteries_and_veins(dataset, photographs.names)
        scored, files = scored_files(options.predictions, photographs, options.threshold, kinds=kinds)
    training = training_of(dataset, split)
    seen = files.seen(photographs.names)
    suspicions = guards(scored, photographs, dataset.kind, training=training, seen=seen)
    result = audit(
        files.of(photographs.names),
        photographs,
        scored,
        guards=suspicions,
        from_training=_threshold(options.predictions, training, scored),
        seen=seen or (),
    )
    if options.report:
        from drive_unet.evaluation.reporting import report  # here: it loads Matplotlib

        report(
            options.report,
            scored,
            photographs,
            data=dataset.title,
            split=split,
            guards=suspicions,
            observer=evaluate_second_observer(photographs, thorough=True),
            audit=result,
        )
    if options.json:
        print(json.dumps(result.to_dict(), indent=1, allow_nan=False))
        return
    print(f"{len(photographs)} photographs, {dataset.title} {split}: {listed(photographs.names, 20)}\n")
    print(result)
    if options.report:
        print(f"\nWritten: {options.report}")


def _threshold(folder: str, training: DRIVEDataset | None, scored: Evaluation) -> tuple[float, str] | None:
    """A threshold that was not chosen on these photographs, and where it came from."""
    if scored.ranking is None:
        return None
    if scored.threshold is not None and scored.threshold_from != BY_DEFAULT:
        return scored.threshold, scored.threshold_from
    if training is None:
        return None
    try:
        files = finished_predictions(Path(folder), training)
    except DataError:  # they are not there, which is usual
        return None
    if not files.ranked or not training.has_labels:
        return None
    ranking = evaluate(files, training).ranking
    return ranking.best()[1], "best Dice on the predictions of the training photographs in the same folder"
