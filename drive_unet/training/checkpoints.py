"""What a run leaves behind: its checkpoint to go on from, and the settings that it must go on with."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from drive_unet.data.dataset import DRIVEDataset
from drive_unet.data.painted import PaintedStream
from drive_unet.errors import DataError
from drive_unet.files import sweep, write_atomically
from drive_unet.models import SegmentationModel
from drive_unet.training.provenance import versions

BEST, LAST, BEFORE = "best.safetensors", "last.pt", "previous.pt"
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
    model: SegmentationModel,
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


class Checkpoints:
    """The two checkpoints of a run: the last one, and the one before it in case that is damaged.

    Each holds all that the run goes on from: weights and their average, optimiser, schedule, scaler, history
    (whose length is the position, which decides every random number that follows), best score and weights,
    settings, the notes of the weights that it started from, and versions. They are read without running any
    code that they may hold.

    Args:
        folder: of the run; None keeps nothing.
        parts: what has a state, by name.
        settings: see `settings_of`.
    """

    def __init__(self, folder: Path | None, parts: dict[str, Any], settings: dict[str, Any]) -> None:
        self.folder, self.parts, self.settings = folder, parts, settings
        self.notes = dict(parts["model"].notes)
        self.intact = True  # whether the last one may take the place of the one before
        self.finished = 0  # steps of a run that had ended, and is to go on for more

    def begin(self, overwrite: bool) -> None:
        """Remove what killed runs left unfinished, and a run that is to be replaced."""
        if self.folder is None:
            return
        sweep(self.folder, seconds=3600)
        if overwrite:
            for name in (LAST, BEFORE):
                (self.folder / name).unlink(missing_ok=True)

    def save(self, state: dict[str, Any], run: dict) -> None:
        """Write the last checkpoint; whoever is killed here leaves the older one whole.

        Raises:
            DataError: if it cannot be written, as on a full disk; the older one is whole.
        """
        if self.folder is None:
            return
        saved = {name: part.state_dict() for name, part in self.parts.items()} | {"state": state}
        words = {"run": run, "settings": self.settings, "notes": self.notes, "versions": versions()}
        content = BytesIO()
        torch.save(saved | {name: json.dumps(value) for name, value in words.items()}, content)
        with written_into(self.folder):
            write_atomically(
                self.folder / LAST,
                lambda file: file.write(content.getbuffer()),
                durable=True,
                keep=self.folder / BEFORE if self.intact else None,
            )
        self.intact = True

    def load(self) -> tuple[dict[str, Any], dict] | None:
        """Put the last good checkpoint into the parts; its state and its run, or None where there is none.

        Raises:
            ValueError: if all are damaged, or belong to a run with other settings, which are named.
        """
        paths = [self.folder / name for name in (LAST, BEFORE)] if self.folder else []
        damage: ValueError | None = None
        for path in filter(Path.is_file, paths):
            try:
                saved = _read(path)
            except ValueError as error:
                damage = damage or error
                self.intact = False
                continue
            state, run = self._taken(path, saved)
            if damage is not None:
                steps = run["history"][-1]["step"]
                words = f"training goes on from the one before, {path}, at step {steps}"
                warnings.warn(f"{damage}; {words}", stacklevel=3)
            return state, run
        if damage is not None:
            raise ValueError(f"{damage}; delete it or train without resume") from damage.__cause__
        return None

    def _taken(self, path: Path, saved: dict[str, Any]) -> tuple[dict[str, Any], dict]:
        earlier, now = saved["settings"], json.loads(json.dumps(self.settings))
        differing = [key for key in now if earlier.get(key) != now[key]]
        model = self.parts["model"]
        trained = {key: value for key, value in model.notes.get("training", {}).items() if key != "run"}
        if differing == ["start"] and json.loads(json.dumps(trained)) == earlier:
            differing = []  # the network is what this very run made of the one it started from
            model.notes = self.notes = saved["notes"]
        if differing == ["steps"] and len(saved["run"]["history"]) == earlier["steps"] < now["steps"]:
            differing, self.finished = [], earlier["steps"]
        if differing:
            named = "; ".join(
                f"{_WORDS.get(key, key)} was {_short(earlier.get(key))}, is {_short(now[key])}"
                for key in differing
            )
            raise ValueError(f"{path} belongs to another run ({named}); use its settings or another folder")
        self.settings = earlier | {"steps": now["steps"]}
        changed = [
            f"{key} {saved['versions'].get(key)}"
            for key, value in versions().items()
            if saved["versions"].get(key) != value
        ]
        if changed:
            warnings.warn(
                f"{path} was written with {', '.join(changed)}; training goes on, but need not end "
                "exactly as it would have there",
                stacklevel=4,
            )
        try:
            kept = self.parts.keys() & saved.keys()  # fp16's scaler need not be there
            for name in kept - ({"schedule"} if self.finished else set()):
                self.parts[name].load_state_dict(saved[name])
        except Exception as error:  # each kind of part raises its own
            raise ValueError(
                f"{path} does not fit this network or optimiser ({_short(error)}); delete it or train "
                "without resume"
            ) from error
        return saved["state"], saved["run"]


def _read(path: Path) -> dict[str, Any]:
    """A checkpoint's contents.

    Raises:
        ValueError: if it is damaged, were it by a single bit, or holds anything but numbers and words.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # PyTorch does not look at the checksums that it writes
            if (member := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"{member} is not as it was written")
        saved = torch.load(path, map_location="cpu", weights_only=True)
        for name in ("run", "settings", "notes", "versions"):
            saved[name] = json.loads(saved[name])
            saved[name].keys()
        saved["state"].keys()
        return saved | {"run": {**saved["run"], "history": list(saved["run"]["history"])}}
    except Exception as error:  # a cut-off pickle raises many kinds
        raise ValueError(f"{path} cannot be read ({type(error).__name__})") from error


@contextmanager
def written_into(folder: Path) -> Iterator[None]:
    """Tell in words why a run's folder cannot be written.

    Raises:
        DataError: for an OSError.
    """
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written ({error.strerror or error}): make room or give yourself permission "
            f"there, then go on with resume; the checkpoint that it holds is whole"
        ) from error


def left_by_a_run(folder: Path) -> list[str]:
    """What an earlier run left in a folder, by names below it; what can be gone on with comes first."""
    names = (LAST, f"member-*/{LAST}", BEFORE, f"member-*/{BEFORE}", BEST)
    return [name for name in names if any(folder.glob(name))]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
