"""Networks and devices as the options of commands name them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from textwrap import shorten

import torch

from drive_unet.models import SegmentationModel, UNet


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
