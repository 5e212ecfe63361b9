"""What a run leaves behind: its checkpoint to go on from, and the settings that it must go on with."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from drive_unet.data.dataset import DRIVEDataset
from drive_unet.data.painted import PaintedStream
from drive_unet.files import write_atomically

BEST, LAST = "best.safetensors", "last.pt"
_WORDS = {  # what errors call the settings
    "patches_a_step": "patches a step",
    "lr": "learning rate",
    "weight_decay": "weight decay",
    "patch_size": "patch size",
    "images": "names of the photographs",
    "pixels": "pixels of the photographs",
    "labels": "vessel labels",
    "validation": "validation set",
    "validation_labels": "vessel labels of the validation set",
    "validate_every": "steps between validations",
    "arguments": "network",
    "start": "weights that it started from",
}


def settings_of(
    model: nn.Module,
    train: DRIVEDataset,
    validation: DRIVEDataset | None,
    loss: Callable,
    **numbers: float,
) -> dict[str, Any]:
    """All that decides how a run goes, in JSON types: a checkpoint is gone on with only if it is the same.

    Names alone do not tell DRIVE from the embedded set, so photographs are told by their pixels.
    """
    before = json.dumps(getattr(model, "notes", {}).get("trained_on"), sort_keys=True)
    return numbers | {
        "loss": described(loss),
        "transform": described(train.transform),
        "images": list(train.names) if len(train) <= 1000 else len(train),
        "pixels": train.identity,
        "labels": labels_of(train),
        "validation": None if validation is None else validation.identity,
        "validation_labels": None if validation is None else labels_of(validation),
        "preprocessing": asdict(model.preprocessing),
        "arguments": getattr(model, "arguments", None) or type(model).__name__,
        "start": hashlib.sha256(before.encode()).hexdigest()[:16],
    }


def labels_of(photographs: DRIVEDataset) -> str:
    """16 hexadecimal digits of all vessel labels; of a stream, whose recipe decides them, its identity."""
    if isinstance(photographs, PaintedStream):
        return photographs.identity
    hashed = hashlib.sha256()
    for vessels in photographs.vessels:
        hashed.update(f"{vessels.shape}".encode() + np.packbits(vessels).tobytes())
    return hashed.hexdigest()[:16]


def described(function: Callable | None) -> str | None:
    """A loss or a transform in words: its own `description`, what it prints as, or its name."""
    if function is None:
        return None
    if hasattr(function, "description"):
        return function.description
    if isinstance(function, nn.Module):
        return re.sub(r" at 0x[0-9a-f]+", "", repr(function))
    if isinstance(function, partial):
        given = [*map(repr, function.args), *(f"{key}={value!r}" for key, value in function.keywords.items())]
        return f"{described(function.func)}({', '.join(given)})"
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', '')}.{name}"


def save(folder: Path, parts: dict[str, Any], state: dict[str, Any], run: dict, settings: dict) -> None:
    """Write the checkpoint; a run that is stopped here leaves the older one whole."""
    saved = {name: part.state_dict() for name, part in parts.items()}
    saved |= {"state": state, "run": json.dumps(run), "settings": json.dumps(settings)}
    write_atomically(folder / LAST, lambda file: torch.save(saved, file), durable=True)


def left_by_a_run(folder: Path) -> list[str]:
    """What an earlier run left in a folder, by names below it; the checkpoint to go on from comes first."""
    return [name for name in (LAST, f"member-*/{LAST}", BEST) if any(folder.glob(name))]


def load(folder: Path, parts: dict[str, Any], settings: dict[str, Any]) -> tuple[dict[str, Any], dict]:
    """Put a checkpoint's contents into `parts`; its state and its run.

    Raises:
        ValueError: if it cannot be read, or belongs to a run with other settings, which are named.
    """
    path = folder / LAST
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        earlier, run = json.loads(saved["settings"]), json.loads(saved["run"])
    except Exception as error:  # a cut-off pickle raises many kinds
        raise ValueError(
            f"{path} cannot be read ({type(error).__name__}); delete it or train without resume"
        ) from error
    now = json.loads(json.dumps(settings))
    differing = [key for key in now if earlier.get(key) != now[key]]
    if differing:
        named = "; ".join(
            f"{_WORDS.get(key, key)} was {_short(earlier.get(key))}, is {_short(now[key])}"
            for key in differing
        )
        raise ValueError(f"{path} belongs to another run ({named}); use its settings or another folder")
    for name in parts.keys() & saved.keys():  # fp16's scaler need not be there
        parts[name].load_state_dict(saved[name])
    return saved["state"], run


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
