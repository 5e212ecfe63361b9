"""What a run leaves behind: its checkpoint to go on from, and the settings that it must go on with."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from drive_unet.data.dataset import DRIVEDataset
from drive_unet.data.painted import PaintedStream
from drive_unet.errors import DataError
from drive_unet.files import nearest, write_atomically
from drive_unet.models import SegmentationModel, vetted_notes
from drive_unet.training.descriptions import UNTOLD, content_of, described
from drive_unet.training.provenance import versions

BEST, LAST, BEFORE = "best.safetensors", "last.pt", "previous.pt"
PATIENCE = 6.0  # seconds: workers of a killed run, which may hold its folder with it, look for it every five
_INSTEAD = "replace the run with overwrite, or name another folder"  # of going on
_WORDS = {  # what errors call the settings
    "patches_a_step": "patches a step",
    "lr": "learning rate",
    "weight_decay": "weight decay",
    "patch_size": "patch size",
    "stretches": "eyes at once and patches of each",
    "images": "names of the photographs",
    "pixels": "pixels of the photographs",
    "labels": "vessel labels",
    "fovs": "fields of view",
    "validation": "validation set",
    "validation_labels": "vessel labels of the validation set",
    "validation_fovs": "fields of view of the validation set",
    "validate_every": "steps between validations",
    "precision": "mixed precision",
    "loss_content": "code and values of the loss",
    "transform_content": "code and values of the transform",
    "arguments": "network",
    "frozen": "frozen weights",
    "start": "weights that it started from",
}


def settings_of(
    model: SegmentationModel,
    train: DRIVEDataset,
    validation: DRIVEDataset | None,
    loss: Callable,
    **numbers: float | str | None,
) -> dict[str, Any]:
    """All that decides how a run goes, in JSON types: a checkpoint is gone on with only if it is the same.

    Names alone do not tell DRIVE from the embedded set, so photographs are told by their pixels, and masks by
    theirs; nor one lambda from another, so a loss and a transform are told by what they hold (`content_of`).
    """
    before = json.dumps(getattr(model, "notes", {}).get("trained_on"), sort_keys=True)
    labels, fovs = masks_of(train)
    validated = (None, None) if validation is None else masks_of(validation)
    if isinstance(train, PaintedStream):  # whose eyes these do not change, but the order of their patches
        numbers |= {"stretches": f"{train.at_once} x {train.reuse}"}
    return numbers | {
        "loss": described(loss),
        "loss_content": content_of(loss),
        "transform": described(train.transform),
        "transform_content": content_of(train.transform),
        "images": list(train.names) if len(train) <= 1000 else len(train),
        "pixels": train.identity,
        "labels": labels,
        "fovs": fovs,
        "validation": None if validation is None else validation.identity,
        "validation_labels": validated[0],
        "validation_fovs": validated[1],
        "preprocessing": asdict(model.preprocessing),
        "arguments": getattr(model, "arguments", None) or type(model).__name__,
        "frozen": [name for name, weight in model.named_parameters() if not weight.requires_grad],
        "start": hashlib.sha256(before.encode()).hexdigest()[:16],
    }


def masks_of(photographs: DRIVEDataset) -> tuple[str, str]:
    """16 hexadecimal digits of all vessel labels, and of all fields of view.

    Of a stream, whose recipe decides them, they are its identity.
    """
    if isinstance(photographs, PaintedStream):
        return photographs.identity, photographs.identity
    hashed = hashlib.sha256(), hashlib.sha256()
    for index in range(len(photographs)):
        stored = photographs.stored(index)
        for each, mask in zip(hashed, (stored.vessels, stored.fov), strict=True):
            each.update(f"{tuple(mask.shape)}".encode() + np.packbits(mask.numpy() > 0).tobytes())
    return hashed[0].hexdigest()[:16], hashed[1].hexdigest()[:16]


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
            also = f", nor can {BEFORE}" if all(map(Path.is_file, paths)) else ""
            raise ValueError(f"{damage}{also}: {_INSTEAD}") from damage.__cause__
        return None

    def _taken(self, path: Path, saved: dict[str, Any]) -> tuple[dict[str, Any], dict]:
        earlier, now = saved["settings"], json.loads(json.dumps(self.settings))
        if missing := [_WORDS.get(key, key) for key in now if key not in earlier]:
            raise ValueError(
                f"{path} does not tell {', '.join(missing)}: another version of drive_unet wrote it, or it "
                f"is damaged; finish the run with that version, or {_INSTEAD}"
            )
        differing = [key for key in now if earlier[key] != now[key] or str(now[key] or "").startswith(UNTOLD)]
        model = self.parts["model"]
        trained = {key: value for key, value in model.notes.get("training", {}).items() if key != "run"}
        if {*differing} - {"steps"} == {"start"} and json.loads(json.dumps(trained)) == earlier:
            differing.remove("start")  # the network is what this very run made of the one it started from
            model.notes = self.notes = saved["notes"]
        if differing == ["steps"] and len(saved["run"]["history"]) == earlier["steps"] < now["steps"]:
            differing, self.finished = [], earlier["steps"]
        if differing:
            words = _differences(differing, earlier, now)
            raise ValueError(f"{path} belongs to another run ({words}); use its settings or another folder")
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
            best, own = saved["state"]["best"], model.state_dict()
            if best and any(best[key].shape != value.shape for key, value in own.items()):
                raise ValueError("its best weights have other sizes")
            for name in self.parts.keys() - ({"schedule"} if self.finished else set()):
                self.parts[name].load_state_dict(saved[name])
        except Exception as error:  # each kind of part raises its own
            raise ValueError(
                f"{path} does not fit this network or optimiser ({_short(error)}): {_INSTEAD}"
            ) from error
        return saved["state"], saved["run"]


def _differences(differing: list[str], earlier: dict[str, Any], now: dict[str, Any]) -> str:
    """Settings that differ, in words; what a loss or a transform holds only where its words are the same."""
    told = [key for key in differing if key.removesuffix("_content") not in {*differing} - {key}]
    words = [
        f"{_WORDS.get(key, key)} was {_short(earlier[key])}, is {_short(now[key])}"
        + (", which a `description`, the same each time, would vouch for" if "_content" in key else "")
        for key in told
    ]
    return "; ".join(words)


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
        _vet(saved)
        vetted_notes(saved["notes"])
        return saved
    except Exception as error:  # a cut-off pickle raises many kinds
        raise ValueError(f"{path} cannot be read ({type(error).__name__})") from error


_RUN = {"history": list, "best_step": int, "best_dice": int | float | None, "threshold": int | float}
_RUN |= {"seconds": int | float, "stopped_early": bool, "folder": type(None)}
_STATE = {"stale": int, "best": dict | None, "thresholds": list | None}
_ROW = {"step": int, "loss": int | float, "lr": int | float}
_SCORED = {"dice": int | float, "threshold": int | float}  # in the rows of steps that were validated


def _vet(saved: dict[str, Any]) -> None:
    """Raise for a checkpoint whose run, state and history are not what `Checkpoints.save` writes."""
    history, thresholds = saved["run"]["history"], saved["state"]["thresholds"]
    for record, kinds in [(saved["run"], _RUN), (saved["state"], _STATE)] + [
        (row, _ROW | (_SCORED if "dice" in row else {})) for row in history
    ]:
        wrong = [key for key in record.keys() | kinds if not isinstance(record[key], kinds[key])]
        if wrong:
            raise TypeError(f"{', '.join(wrong)} of another kind")
    if not history or [row["step"] for row in history] != list(range(1, len(history) + 1)):
        raise ValueError("steps are missing")
    if [type(value) for value in thresholds or ()] != ([] if saved["state"]["best"] is None else [float] * 2):
        raise ValueError("two thresholds belong to the best weights, and none without them")


@contextmanager
def written_into(folder: Path) -> Iterator[None]:
    """Tell in words why a run's folder cannot be written.

    Raises:
        DataError: for an OSError.
    """
    try:
        yield
    except OSError as error:
        held = any(name.endswith(".pt") for name in left_by_a_run(folder))
        then = "go on with resume; the checkpoint that it holds is whole" if held else "begin again"
        raise DataError(
            f"{folder} cannot be written ({error.strerror or error}): make room or give yourself permission "
            f"there, then {then}"
        ) from error


@contextmanager
def alone_in(folder: Path | None) -> Iterator[None]:
    """Hold a run's folder, which is made, for this call; the system lets go of it for a killed process.

    Args:
        folder: of the run; None, as of all processes but the first, holds nothing.

    Raises:
        DataError: if another run writes into it, or it cannot be written.
    """
    if folder is None:
        yield
        return
    lock = FileLock(folder.resolve() / ".lock", timeout=PATIENCE, is_singleton=True)
    with written_into(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout as error:
            raise DataError(
                f"another training writes into {folder}: wait until it is done, or name another folder"
            ) from error
    try:
        yield
    finally:
        if lock.lock_counter == 1 and os.name != "nt":  # where an open file cannot be removed
            (folder / ".lock").unlink(missing_ok=True)
        lock.release()


def left_by_a_run(folder: Path, *more: str) -> list[str]:
    """What an earlier run left in a folder, by names below it; what can be gone on with comes first.

    Args:
        folder: of the run, or of those of its members.
        more: names of other files that a run of this kind writes.
    """
    names = [LAST, f"member-*/{LAST}", BEFORE, f"member-*/{BEFORE}", BEST]
    names += [place for name in more for place in (name, f"member-*/{name}")]
    found = [sorted(folder.glob(name)) for name in names]
    return [paths[0].relative_to(folder).as_posix() for paths in found if paths]


def refuse_both(resume: bool, overwrite: bool) -> None:
    """Raise a ValueError for a run that is to be gone on with and to be replaced."""
    if resume and overwrite:
        raise ValueError("resume goes on with the run in out, and overwrite throws it away: give one of them")


def refuse_to_replace(
    folder: Path,
    *more: str,
    resume: bool = False,
    members: int = 1,
    training: str = "this training",
    ways: tuple[str, str, str] = ("resume=True", "overwrite=True", "folder"),
) -> None:
    """Raise for a folder that holds what nobody has said may be replaced.

    Args:
        folder: of a run that is to begin, or with `resume` to go on.
        more: as for `left_by_a_run`.
        resume: accept a run that can be gone on with.
        members: networks of the run; several keep their checkpoints in folders of their own.
        training: what the caller calls the run that is to begin or go on.
        ways: what the caller calls resuming, overwriting and the folder.

    Raises:
        ValueError: the message names what would be lost, and the ways on.
    """
    going_on, overwriting, place = ways
    if not nearest(folder.absolute()).is_dir():
        raise ValueError(f"{nearest(folder)} is a file, where a run needs a folder: name another {place}")
    kept = left_by_a_run(folder, *more)
    resumable = bool(kept) and kept[0].endswith(".pt")
    if resumable and not resume:
        raise ValueError(
            f"{folder} holds {kept[0]} of an earlier run: go on with {going_on}, replace it with "
            f"{overwriting}, or name another {place}"
        )
    other = [name for name in kept if name.endswith(".pt") and name.startswith("member-") != (members > 1)]
    if other:
        one, several = "one network", "several, each in a folder of its own"
        was, is_now = (one, several) if members > 1 else (several, one)
        raise ValueError(
            f"{folder} holds {other[0]} of a run of {was}, and {training} is of {is_now}: go on as it was "
            f"begun, replace it with {overwriting}, or name another {place}"
        )
    if kept and not resumable:
        raise ValueError(
            f"{folder} holds {kept[0]}, but no {LAST} to go on from: replace it with {overwriting}, or name "
            f"another {place}"
        )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
