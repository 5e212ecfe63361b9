"""Networks and devices as the options of commands name them, and their scores."""

from __future__ import annotations

import hashlib
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch

from drive_unet.data.dataset import DRIVEDataset
from drive_unet.errors import DataError
from drive_unet.evaluation.evaluator import evaluate
from drive_unet.evaluation.folds import Scored
from drive_unet.models import SegmentationModel, UNet
from drive_unet.training.checkpoints import BEST
from drive_unet.training.provenance import seen


def network(weights: str | None) -> UNet:
    """The network of packaged weights, a file or a run's folder; of the default weights for "default"."""
    return UNet.from_pretrained() if weights in (None, "default") else UNet.from_pretrained(weights)


def fingerprint(model: SegmentationModel) -> str:
    """16 hexadecimal digits of all that predictions depend on: weights, thresholds, preprocessing."""
    known = hashlib.sha256(f"{model.preprocessing} {model.threshold} {model.threshold_single}".encode())
    for name, value in sorted(model.state_dict().items()):
        known.update(name.encode() + value.cpu().double().numpy().tobytes())
    return known.hexdigest()[:16]


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


def score(
    model: SegmentationModel,
    photographs: DRIVEDataset,
    *,
    name: str,
    tta: bool = False,
    threshold: float | None = None,
    device: str | torch.device | None = None,
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
    )
    return Scored(evaluation, seen(model.notes, photographs))


def cross_validation(
    weights: str | None, k: int | None, photographs: DRIVEDataset
) -> list[tuple[UNet, DRIVEDataset]] | None:
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
