"""Scores of networks, and of those of a cross-validation on what each has not seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from drive_unet.commands.networks import fold_folder
from drive_unet.data.dataset import DRIVEDataset
from drive_unet.errors import DataError
from drive_unet.evaluation.evaluator import Kinds, evaluate
from drive_unet.evaluation.folds import Scored
from drive_unet.models import SegmentationModel, UNet
from drive_unet.training.checkpoints import BEST
from drive_unet.training.provenance import seen

Folds = list[tuple[UNet, DRIVEDataset]]  # networks, each with what it has not seen


def score(
    model: SegmentationModel,
    photographs: DRIVEDataset,
    *,
    name: str,
    tta: bool = False,
    threshold: float | None = None,
    device: str | torch.device | None = None,
    thorough: bool = False,
    kinds: Kinds | None = None,
) -> Scored:
    """Score a network by `evaluate`, with a progress bar, and look up what it was trained on."""
    evaluation = evaluate(
        model,
        photographs,
        threshold=threshold,
        tta=tta,
        name=name + (", 4 flips averaged" if tta else ""),
        device=device,
        progress=True,
        thorough=thorough,
        kinds=kinds,
    )
    return Scored(evaluation, seen(model.notes, photographs))


def cross_validation(weights: str | None, k: int | None, photographs: DRIVEDataset) -> Folds | None:
    """The networks of a run of ``train --folds``, each with what it has not seen; None for others."""
    folder = Path(weights or "default")
    if not fold_folder(folder, 0).is_dir() or (folder / BEST).is_file():
        return None
    count = len(list(folder.glob("fold-*")))
    if k not in (None, count):
        raise ValueError(f"{folder} holds {count} folds, not the {k} of --folds")
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
