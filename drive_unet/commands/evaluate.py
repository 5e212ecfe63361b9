"""Behind ``drive-unet evaluate``: scores of weights or predictions, and what the weights had seen."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from drive_unet.data.dataset import DRIVEDataset
from drive_unet.data.drive import folds
from drive_unet.data.find import OWN, DriveFolder, find_dataset
from drive_unet.data.pairing import images, listed, match
from drive_unet.data.reading import read_prediction
from drive_unet.errors import DataError
from drive_unet.evaluation.evaluator import Evaluation, compare, evaluate, evaluate_second_observer
from drive_unet.evaluation.tables import text_table
from drive_unet.inference import predict_all, segment
from drive_unet.metrics.exact import SCORES
from drive_unet.models import SegmentationModel, UNet
from drive_unet.training.loop import BEST
from drive_unet.training.provenance import seen


@dataclass(frozen=True)
class Scored:
    """An evaluation, and which of its photographs the weights were trained on; None if nobody knows."""

    evaluation: Evaluation
    seen: list[str] | None

    @property
    def trained_on_these(self) -> bool | str | None:
        """Whether the weights were trained on these photographs: True, False, "partially"; None: unknown."""
        if self.seen is None or not self.seen:
            return None if self.seen is None else False
        return True if len(self.seen) == len(self.evaluation.names) else "partially"

    @property
    def marked(self) -> Evaluation:
        """The evaluation, with a name that tells whether the weights were trained on these photographs."""
        words = {True: ", trained on these", "partially": f", trained on {len(self.seen or ())} of these"}
        return replace(
            self.evaluation, name=self.evaluation.name + words.get(self.trained_on_these or False, "")
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything, for `json.dump`."""
        return {**self.evaluation.to_dict(), "trained_on_these": self.trained_on_these, "seen": self.seen}


# ---------------------------------------------------------------------- the command


def run(options: argparse.Namespace) -> None:
    """Score what the options of ``drive-unet evaluate`` name, and print a table or JSON."""
    if options.predictions and (options.weights or options.tta):
        raise ValueError("finished predictions take neither --weights nor --tta: leave them out")
    with redirect_stdout(sys.stderr):  # where DRIVE was not found, it says so; JSON stays alone
        found = find_dataset(options.data)
    split, photographs = _labelled(found, options.split)
    if options.predictions:
        groups = _of_predictions(options, photographs)
    else:
        groups = [_of_weights(options, photographs, found.kind == OWN)]
    if options.json:
        print(json.dumps(_as_json(found, split, photographs, groups), indent=1))
        return
    print(f"{len(photographs)} photographs, {source(found)} {split}: {listed(photographs.names, 20)}\n")
    if len(groups[0]) > 1:
        print("\n\n".join(fold_table(group, photographs) for group in groups))
    else:
        rows = [scored.marked for group in groups for scored in group]
        print(compare([*rows, evaluate_second_observer(photographs)]))
    print("\n".join(dict.fromkeys(caution(group) for group in groups)))


def source(found: DriveFolder) -> str:
    """The data's name in words: "DRIVE", "embedded", or that of one's own folder."""
    return found.root.resolve().name if found.kind == OWN else found.kind


def load(found: DriveFolder, split: str) -> DRIVEDataset:
    """The photographs of a split, "train" or "test"; labels of one's own may have smoothed edges."""
    pairs = found.training if split == "train" else found.test
    return DRIVEDataset.from_pairs(pairs, smooth=found.kind == OWN)


def _labelled(found: DriveFolder, split: str | None) -> tuple[str, DRIVEDataset]:
    split = split or ("test" if found.has_test_labels else "train")
    pairs = found.training if split == "train" else found.test
    if not pairs:
        raise DataError(f"{found.root} holds no {split} photographs: try the other --split")
    if pairs[0].vessels is None:
        raise DataError(
            f"the {len(pairs)} {split} photographs in {found.root} have no vessel labels (the official "
            "download withholds them); score training photographs instead: --split train --folds 5"
        )
    return split, load(found, split)


# ---------------------------------------------------------------------- networks


def score(
    model: SegmentationModel,
    photographs: DRIVEDataset,
    *,
    name: str,
    own: bool = False,
    tta: bool = False,
    threshold: float | None = None,
    device: str | torch.device | None = None,
) -> Scored:
    """Score a network, with a progress bar.

    Args:
        model: the network.
        photographs: with labels.
        name: for the tables.
        own: photographs of any camera, which are brought to the scale that the network knows, see `segment`.
        tta: average over four flips.
        threshold: 0..1; by default the network's own.
        device: where to compute; by default where the model is.
    """
    if own:
        samples = tqdm(photographs.subset(photographs.names), desc="predicting", unit="image")
        maps = [
            segment(model, sample, tta=tta, fov=sample.fov[0].numpy() > 0, device=device).probability
            for sample in samples
        ]
    else:
        maps = predict_all(model, photographs, tta=tta, device=device, progress=True)
    evaluation = evaluate(
        maps,
        photographs,
        threshold=model.threshold_for(tta) if threshold is None else threshold,
        threshold_from="the network's own" if threshold is None else "given",
        name=name + (", 4 flips averaged" if tta else ""),
    )
    return Scored(evaluation, seen(model.notes, photographs))


def network(weights: str | None) -> UNet:
    """The network of packaged weights, a file or a run's folder; of the default weights for "default"."""
    return UNet.from_pretrained() if weights in (None, "default") else UNet.from_pretrained(weights)


def device_of(name: str | None) -> torch.device:
    """The device of this name; by default a GPU if there is one, else the CPU.

    Raises:
        ValueError: if it is unknown or absent.
    """
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=name).cpu()
        return torch.device(name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"--device {name} cannot be used ({shorten(str(error), 100)})") from error


def fold_folder(run_folder: Path, fold: int) -> Path:
    """Where ``drive-unet train --folds`` keeps the network that has not seen this fold."""
    return run_folder / f"fold-{fold}"


def _of_weights(options: argparse.Namespace, photographs: DRIVEDataset, own: bool) -> list[Scored]:
    settings = {"own": own, "tta": options.tta, "threshold": options.threshold}
    settings["device"] = device_of(options.device)
    networks = _cross_validation(options, photographs)
    if networks is None:
        parts = _parts(photographs, options.folds)
        networks = [(network(options.weights), part) for part in parts]
    name = str(options.weights or "default")
    return [score(model, part, name=name, **settings) for model, part in networks]


def _parts(photographs: DRIVEDataset, k: int | None) -> list[DRIVEDataset]:
    """The k folds' held-out photographs; all in one without k."""
    if k is None:
        return [photographs]
    return [photographs.subset(held_out) for _, held_out in folds(photographs.names, k)]


def _cross_validation(
    options: argparse.Namespace, photographs: DRIVEDataset
) -> list[tuple[UNet, DRIVEDataset]] | None:
    """The networks of a run of ``train --folds``, each with what it has not seen; None for others."""
    folder = Path(options.weights or "default")
    if not fold_folder(folder, 0).is_dir() or (folder / BEST).is_file():
        return None
    count = len(list(folder.glob("fold-*")))
    if options.folds not in (None, count):
        raise ValueError(f"{folder} holds {count} folds, not the {options.folds} of --folds")
    networks = [UNet.from_pretrained(fold_folder(folder, fold)) for fold in range(count)]
    known = [seen({"trained_on": _last(model)}, photographs) or [] for model in networks]
    parts = [[name for name in photographs.names if name not in names] for names in known]
    if any(known) and sorted(sum(parts, [])) != sorted(photographs.names):
        raise DataError(
            f"the {count} networks in {folder} were trained on some of these photographs, but not so that "
            "each was held out once: score the data that they were trained on, when all folds are finished"
        )
    return [(model, photographs.subset(part)) for model, part in zip(networks, parts, strict=True)]


def _last(model: UNet) -> dict[str, Any]:
    """The record of the training that held out a fold, without that of the weights it started from."""
    return {**model.notes.get("trained_on", {"fingerprints": []}), "before": None}


# ---------------------------------------------------------------------- finished predictions


def _of_predictions(options: argparse.Namespace, photographs: DRIVEDataset) -> list[list[Scored]]:
    """Segmentations and maps of probability, a group each, if both are there."""
    folder = Path(options.predictions)
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: name the one that holds the predictions")
    files = images(folder)
    probable = [file for file in files if file.stem.lower().endswith("_probability")]
    groups = []
    for kind, chosen in (("", [file for file in files if file not in probable]), ("probability", probable)):
        found = match(photographs.names, chosen)
        if not found:
            continue
        lacking = [name for name in photographs.names if name not in found]
        if lacking:
            raise DataError(
                f"{folder} lacks the predictions of {listed(lacking)} ({len(lacking)} of {len(photographs)})"
            )
        maps = {name: read_prediction(found[name]) for name in photographs.names}
        if kind or any(one.dtype != bool for one in maps.values()):
            maps = {name: one.astype(np.float32) for name, one in maps.items()}
        name = f"{options.predictions} {kind}".rstrip()
        groups.append(
            [
                Scored(
                    evaluate([maps[n] for n in part.names], part, threshold=options.threshold, name=name),
                    None,
                )
                for part in _parts(photographs, options.folds)
            ]
        )
    if not groups:
        raise DataError(
            f"{folder} holds no predictions of these photographs, such as {photographs.names[0]}_vessels.png"
        )
    return groups


# ---------------------------------------------------------------------- what is printed


def over_folds(evaluations: Sequence[Evaluation]) -> tuple[dict[str, float], dict[str, float]]:
    """Mean and sample standard deviation (n - 1) over folds, by score."""
    values = {key: [evaluation.pooled[key] for evaluation in evaluations] for key in SCORES}
    spread = {key: float(np.std(v, ddof=1)) if len(v) > 1 else float("nan") for key, v in values.items()}
    return {key: float(np.mean(v)) for key, v in values.items()}, spread


def _known(values: dict[str, float]) -> dict[str, float | None]:
    """The same for JSON, which has no nan."""
    return {key: None if np.isnan(value) else value for key, value in values.items()}


def fold_table(group: Sequence[Scored], photographs: DRIVEDataset) -> str:
    """A row a fold, mean and spread, the second observer where there is one; and how they were taken."""
    rows, evaluations = [], [scored.evaluation for scored in group]
    for fold, scored in enumerate(group):
        mark = scored.marked.name.removeprefix(scored.evaluation.name)
        threshold = scored.evaluation.threshold
        cells = [*_cells(scored.evaluation.pooled), "-" if threshold is None else f"{threshold:.3f}"]
        rows.append([f"fold {fold}: {listed(scored.evaluation.names, 4)}{mark}", *cells])
    for label, values in zip(("mean", "± sd over folds"), over_folds(evaluations), strict=True):
        rows.append([label, *_cells(values), ""])
    observer = [evaluate_second_observer(photographs.subset(e.names)) for e in evaluations]
    if None not in observer:
        rows.append(["second observer, mean", *_cells(over_folds(observer)[0]), "-"])
    sources = ", or ".join(dict.fromkeys(e.threshold_from for e in evaluations))
    return (
        f"{evaluations[0].name}\n{text_table(['', *SCORES, 'threshold'], rows)}\n"
        "Inside the field of view, at native size, pixels pooled over the photographs of a fold, clDice "
        f"averaged over them; thresholds: {sources}."
    )


def caution(group: Sequence[Scored]) -> str:
    """Whether the weights were trained on what they are scored on, in a sentence."""
    known = [name for scored in group for name in scored.seen or ()]
    if known:
        names = listed(known, 20)
        return f"These weights were trained on {names}: scores there say nothing of other photographs."
    if any(scored.seen is None for scored in group):
        return "Whether these photographs were used for training is not recorded."
    if len(group) > 1:
        return "Each photograph is scored by networks that have not seen it."
    return "These weights were not trained on these photographs."


def _cells(values: dict[str, float]) -> list[str]:
    return ["-" if np.isnan(values[key]) else f"{values[key]:.4f}" for key in SCORES]


def _as_json(
    found: DriveFolder, split: str, photographs: DRIVEDataset, groups: Sequence[Sequence[Scored]]
) -> dict[str, Any]:
    observer = evaluate_second_observer(photographs)
    result: dict[str, Any] = {
        "data": source(found),
        "split": split,
        "evaluations": [scored.to_dict() for group in groups for scored in group],
        "second_observer": observer and observer.to_dict(),
    }
    if len(groups[0]) > 1:
        result["over_folds"] = []
        for group in groups:
            mean, spread = over_folds([scored.evaluation for scored in group])
            name = group[0].evaluation.name
            result["over_folds"].append({"name": name, "mean": _known(mean), "std": _known(spread)})
    return result
