"""Behind ``drive-unet evaluate``: scores of weights or of finished predictions."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from drive_unet.commands.networks import device_of, network
from drive_unet.commands.scoring import cross_validation, score
from drive_unet.data.dataset import DRIVEDataset
from drive_unet.data.find import DriveFolder, find_dataset
from drive_unet.data.pairing import listed
from drive_unet.errors import DataError
from drive_unet.evaluation.evaluator import compare, evaluate, evaluate_second_observer
from drive_unet.evaluation.finished import finished_predictions
from drive_unet.evaluation.folds import Scored, caution, fold_table, held_out_parts, over_folds
from drive_unet.evaluation.tables import without_nan


def run(options: argparse.Namespace) -> None:
    """Score what the options of ``drive-unet evaluate`` name, and print a table or JSON."""
    if options.predictions and (options.weights or options.tta):
        raise ValueError("finished predictions take neither --weights nor --tta: leave them out")
    with redirect_stdout(sys.stderr):  # where DRIVE was not found, it says so; JSON stays alone
        dataset = find_dataset(options.data)
    split, photographs = _labelled(dataset, options.split)
    groups = (_of_predictions if options.predictions else _of_weights)(options, photographs)
    if options.json:
        print(json.dumps(_as_json(dataset.title, split, photographs, groups), indent=1))
        return
    print(f"{len(photographs)} photographs, {dataset.title} {split}: {listed(photographs.names, 20)}\n")
    if len(groups[0]) > 1:
        print("\n\n".join(fold_table(group, photographs) for group in groups))
    else:
        rows = [scored.marked for group in groups for scored in group]
        print(compare([*rows, evaluate_second_observer(photographs)]))
    print("\n".join(dict.fromkeys(caution(group) for group in groups)))


def _labelled(dataset: DriveFolder, split: str | None) -> tuple[str, DRIVEDataset]:
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


def _of_weights(options: argparse.Namespace, photographs: DRIVEDataset) -> list[list[Scored]]:
    settings = {"tta": options.tta, "threshold": options.threshold, "device": device_of(options.device)}
    networks = cross_validation(options.weights, options.folds, photographs)
    if networks is None:
        model = network(options.weights)
        networks = [(model, part) for part in held_out_parts(photographs, options.folds)]
    name = str(options.weights or "default")
    return [[score(model, part, name=name, **settings) for model, part in networks]]


def _of_predictions(options: argparse.Namespace, photographs: DRIVEDataset) -> list[list[Scored]]:
    """Segmentations and maps of probability, a group each, if both are there."""
    groups = []
    for kind, maps in finished_predictions(Path(options.predictions), photographs).items():
        by_name = dict(zip(photographs.names, maps, strict=True))
        settings = {"threshold": options.threshold, "name": f"{options.predictions} {kind}".rstrip()}
        groups.append(
            [
                Scored(evaluate([by_name[name] for name in part.names], part, **settings), None)
                for part in held_out_parts(photographs, options.folds)
            ]
        )
    return groups


def _as_json(
    title: str, split: str, photographs: DRIVEDataset, groups: Sequence[Sequence[Scored]]
) -> dict[str, Any]:
    observer = evaluate_second_observer(photographs)
    result: dict[str, Any] = {
        "data": title,
        "split": split,
        "evaluations": [scored.to_dict() for group in groups for scored in group],
        "second_observer": observer and observer.to_dict(),
    }
    if len(groups[0]) > 1:
        result["over_folds"] = []
        for group in groups:
            mean, spread = over_folds([scored.evaluation for scored in group])
            name = group[0].evaluation.name
            result["over_folds"].append({"name": name, "mean": without_nan(mean), "std": without_nan(spread)})
    return result
