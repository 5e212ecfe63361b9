"""Behind ``drive-unet evaluate``: scores of weights or of finished predictions, and how far to trust them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drive_unet.commands.networks import device_of, fold_folder, network
from drive_unet.commands.scoring import Folds, cross_validation, score
from drive_unet.commands.threads import choose
from drive_unet.data.dataset import DRIVEDataset
from drive_unet.data.drive import folds
from drive_unet.data.find import DriveFolder, find_dataset
from drive_unet.data.pairing import listed, person
from drive_unet.errors import DataError
from drive_unet.evaluation.evaluator import (
    Evaluation,
    compare,
    evaluate,
    evaluate_second_observer,
    join,
    over_seeds,
)
from drive_unet.evaluation.finished import FinishedPredictions, finished_predictions
from drive_unet.evaluation.folds import Scored, caution, fold_table, held_out_parts
from drive_unet.evaluation.guarding import Guard, guards, sentences
from drive_unet.evaluation.kinds import arteries_and_veins
from drive_unet.evaluation.results import result
from drive_unet.evaluation.tables import detail_tables
from drive_unet.outputs import refuse_to_replace
from drive_unet.training.checkpoints import BEST
from drive_unet.training.provenance import seen

RUNS = Path("drive-unet-folds")  # where networks of a cross-validation are kept, unless told otherwise


@dataclass(frozen=True)
class Predictor:
    """What is scored: the folds, one by one, and all of them together."""

    parts: list[Scored]
    evaluation: Evaluation


def run(options: argparse.Namespace) -> None:
    """Score what the options of ``drive-unet evaluate`` name, and print tables or JSON."""
    if options.predictions and (options.weights or options.tta):
        raise ValueError("finished predictions take neither --weights nor --tta: leave them out")
    refuse_to_replace([options.csv, options.report], options.overwrite)
    choose()
    with redirect_stdout(sys.stderr):  # where DRIVE was not found, it says so; JSON stays alone
        dataset = find_dataset(options.data)
        split, photographs = labelled(dataset, options.split)
        predictor = _of_predictions if options.predictions else _of_weights
        scored = predictor(options, dataset, photographs)
        against = _against(options, dataset, photographs)
    observer = evaluate_second_observer(photographs, thorough=True)
    suspicions = guards(
        scored.evaluation,
        photographs,
        dataset.kind,
        training=training_of(dataset, split),
        seen=[name for part in scored.parts for name in part.seen or ()],
    )
    everything = result(
        scored.evaluation,
        data=dataset.title,
        split=split,
        guards=suspicions,
        observer=observer,
        parts=[part.to_dict() for part in scored.parts] if len(scored.parts) > 1 else (),
        against=against,
    )
    if options.csv:
        scored.evaluation.to_csv(options.csv)
    if options.report:
        from drive_unet.evaluation.reporting import report  # here: it loads Matplotlib

        report(options.report, scored.evaluation, photographs, result=everything, observer=observer)
    if options.json:
        print(json.dumps(everything, indent=1, allow_nan=False))
        return
    print(f"{len(photographs)} photographs, {dataset.title} {split}: {listed(photographs.names, 20)}\n")
    print(_text(scored, observer, against, photographs, suspicions, everything))
    for path in (options.csv, options.report):
        if path:
            print(f"Written: {path}")


def labelled(dataset: DriveFolder, split: str | None) -> tuple[str, DRIVEDataset]:
    """The split to score, by default the test if it has labels, and its photographs.

    Raises:
        DataError: if there are none, or they have no labels.
    """
    split = split or ("test" if dataset.has_test_labels else "train")
    pairs = dataset.training if split == "train" else dataset.test
    if not pairs:
        raise DataError(f"{dataset.root} holds no {split} photographs: try the other --split")
    if pairs[0].vessels is None:
        raise DataError(
            f"the {len(pairs)} {split} photographs in {dataset.root} have no vessel labels (the official "
            "download withholds them); score training photographs instead: --split train --folds 5"
        )
    return split, DRIVEDataset.from_pairs(pairs, smooth=dataset.smooth)


def scored_files(
    folder: str, photographs: DRIVEDataset, threshold: float | None, *, kinds: Any = None
) -> tuple[Evaluation, FinishedPredictions]:
    """The evaluation of a folder of predictions, thorough, and its files."""
    files = finished_predictions(Path(folder), photographs)
    scored = evaluate(files, photographs, threshold=threshold, name=str(folder), thorough=True, kinds=kinds)
    return scored, files


def _of_predictions(
    options: argparse.Namespace, dataset: DriveFolder, photographs: DRIVEDataset
) -> Predictor:
    kinds = arteries_and_veins(dataset, photographs.names)
    whole, files = scored_files(options.predictions, photographs, options.threshold, kinds=kinds)
    parts = [
        Scored(whole.only(part.names), files.seen(part.names))
        for part in held_out_parts(photographs, options.folds)
    ]
    return Predictor(parts, whole)


def _of_weights(options: argparse.Namespace, dataset: DriveFolder, photographs: DRIVEDataset) -> Predictor:
    settings = {"tta": options.tta, "threshold": options.threshold, "device": device_of(options.device)}
    settings |= {"thorough": True, "kinds": arteries_and_veins(dataset, photographs.names)}
    weights = options.weights
    if weights is None and _cross_validates(options, dataset, photographs):
        weights, networks = _trained_folds(options, dataset, photographs)
    else:
        networks = cross_validation(weights, options.folds, photographs)
    if networks is None:
        model = network(weights)
        networks = [(model, part) for part in held_out_parts(photographs, options.folds)]
    name = str(weights or "default")
    parts = [score(model, part, name=name, **settings) for model, part in networks]
    each = [part.evaluation for part in parts]
    if len(each) > 1 and sorted(sum((e.names for e in each), [])) != sorted(photographs.names):
        return Predictor(parts, over_seeds(each))  # every network scored all of them
    return Predictor(parts, join(each))


def _cross_validates(options: argparse.Namespace, dataset: DriveFolder, photographs: DRIVEDataset) -> bool:
    """Whether networks are to be trained fold by fold: asked for, or nothing else could be believed."""
    if options.folds is not None:
        return True
    if options.split is not None or dataset.has_test_labels:
        return False
    return bool(seen(network(None).notes, photographs))


def _trained_folds(
    options: argparse.Namespace, dataset: DriveFolder, photographs: DRIVEDataset
) -> tuple[str, Folds | None]:
    """The folder of networks trained on all but a fold each, and these; those that are there are kept."""
    from drive_unet.commands import train  # here: trainings are rare
    from drive_unet.commands.main import parser

    count = options.folds or min(5, len({person(name) for name in photographs.names}))
    folds(photographs.names, count)  # refuses what cannot be, before anything is announced
    folder = options.runs / f"{dataset.title}-{options.preset}-{count}"
    if all((fold_folder(folder, fold) / BEST).is_file() for fold in range(count)):
        networks = cross_validation(str(folder), count, photographs) or []
        if not networks or any(len(part) == len(photographs) for _, part in networks):
            raise DataError(
                f"the networks in {folder} were trained on other photographs than these: name another folder "
                "with --runs"
            )
        return str(folder), networks
    print(
        f"Cross-validation: {count} networks are trained by the preset {options.preset}, each without the "
        f"photographs that it is scored on, in {folder}; the same command goes on where it was stopped. To "
        "score a network instead, name it by --weights.",
        flush=True,
    )
    words = ["train", "--preset", options.preset, "--out", str(folder), "--folds", str(count), "--resume"]
    words += [] if options.data is None else ["--data", str(options.data)]
    train.run(parser().parse_args(words))
    return str(folder), cross_validation(str(folder), count, photographs)


def _against(
    options: argparse.Namespace, dataset: DriveFolder, photographs: DRIVEDataset
) -> Evaluation | None:
    """The other predictor's evaluation, a folder of predictions or weights; None without --against."""
    if not options.against:
        return None
    folder = Path(options.against)
    if folder.is_dir() and not any(folder.rglob("*.safetensors")):
        return scored_files(options.against, photographs, None)[0]
    other = argparse.Namespace(**{**vars(options), "weights": options.against, "threshold": None})
    return _of_weights(other, dataset, photographs).evaluation


def training_of(dataset: DriveFolder, split: str) -> DRIVEDataset | None:
    """The training photographs, where others are scored; None else."""
    if split == "train" or not dataset.training:
        return None
    return DRIVEDataset.from_pairs(dataset.training, smooth=dataset.smooth)


def _text(
    scored: Predictor,
    observer: Evaluation | None,
    against: Evaluation | None,
    photographs: DRIVEDataset,
    suspicions: Sequence[Guard],
    everything: dict[str, Any],
) -> str:
    marked = Scored(scored.evaluation, scored.parts[0].seen if len(scored.parts) == 1 else None).marked
    blocks = [fold_table(scored.parts, photographs)] if len(scored.parts) > 1 else []
    blocks.append(str(compare([marked, *filter(None, (against, observer))])))
    blocks.append(detail_tables(everything))
    blocks.append("\n".join(filter(None, (caution(scored.parts), sentences(suspicions)))))
    return "\n\n".join(block for block in blocks if block)
