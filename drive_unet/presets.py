"""Whole trainings by name: everything that fixes one but the photographs and the seed.

`benchmarks/RESULTS.md` says what each preset reaches and how it was found.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch

from drive_unet.augmentation import training_transform
from drive_unet.data.dataset import DRIVEDataset
from drive_unet.data.painted import PaintedStream
from drive_unet.losses import combine
from drive_unet.models import UNet
from drive_unet.preprocessing.fov import width_of
from drive_unet.preprocessing.prepare import Preprocessing
from drive_unet.training.averages import mean_weights
from drive_unet.training.checkpoints import BEST, alone_in, refuse_both, refuse_to_replace, written_into
from drive_unet.training.history import TABLE, make_way, write_history
from drive_unet.training.loop import TrainingRun, fit, refuse_unlabelled
from drive_unet.training.processes import processes, refuse_seed
from drive_unet.training.provenance import trained_on
from drive_unet.training.thresholds import best_threshold


@dataclass(frozen=True)
class Preset:
    """A recipe: the network, where its weights start, and the budget.

    Attributes:
        description: one line for a list of presets.
        start: weights to start from, as `UNet.from_pretrained` takes them, or None for random ones; the
            network is theirs.
        network: arguments of `UNet` where it starts from random weights.
        steps, batch_size, patch_size, lr, average: as for `drive_unet.fit`.
        loss: weights by name, as for `drive_unet.combine`.
        members: how many networks are trained, with one seed after the other, from the same first weights;
            the mean of their weights is kept (a "model soup", Wortsman et al., arXiv 2203.05482).
    """

    description: str
    start: str | Path | None = None
    network: dict[str, Any] | None = None
    steps: int = 1600
    batch_size: int = 8
    patch_size: int = 256
    lr: float = 1e-2
    average: float = 0.0
    loss: tuple[tuple[str, float], ...] = (("bce", 1.0), ("dice", 0.5))
    members: int = 1

    def model(self, seed: int = 0) -> UNet:
        """The network before its training; random weights depend on the seed alone."""
        if self.start:
            model = UNet.from_pretrained(self.start)
            if not model.notes.get("trained_on"):
                warnings.warn(
                    f"{self.start} does not tell what it was trained on: if it has seen photographs that are "
                    "scored later, nothing will say so",
                    stacklevel=3,
                )
            # Its other notes will not hold any more.
            model.notes = {key: model.notes[key] for key in ("trained_on",) if model.notes.get(key)}
            return model
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return UNet(**self.network or {})


PRESETS = {
    "laptop": Preset("two CPU cores, within ten minutes", start="synthetic-fast", steps=1000),
    "gpu": Preset(
        "one GPU, meant for a minute; unmeasured", start="synthetic-fast", steps=1000, batch_size=16
    ),
    "best": Preset("two such networks averaged", start="synthetic-fast", steps=1000, members=2),
}
GPU_WORKERS = 8  # processes that cut and colour patches where a GPU does the rest


def train(
    preset: str | Preset,
    photographs: DRIVEDataset,
    *,
    held_out: DRIVEDataset | None = None,
    start: str | Path | None = None,
    steps: int | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    mixed_precision: str | None = None,
    num_workers: int | None = None,
    progress: bool = True,
) -> tuple[UNet, TrainingRun]:
    """Train by a preset on all photographs given, and choose the two thresholds.

    The last weights are kept: nothing is chosen on the way, so none need be held out.

    Args:
        preset: a name in `PRESETS`, or a `Preset`.
        photographs: what to learn from, with labels.
        held_out: labelled photographs that the thresholds are chosen on, and nothing else; by default those
            learned from, which with networks of this size costs little.
        start: weights to go on from (fine-tuning) in place of the preset's: a packaged name, a file or a
            run's folder. The network, and the scale that it works at, are theirs.
        steps: a budget other than the preset's.
        seed, out, resume, overwrite, mixed_precision, progress: as for `drive_unet.fit`.
        num_workers: by default up to 8 where there is a GPU to be fed, else 0.

    Returns:
        The network, in evaluation mode, and the run.

    Raises:
        ValueError: for an unknown preset, a `PaintedStream`, or an ``out`` that holds a ``history.csv`` of no
            run that is gone on with, or the run of a preset with one member where this one has several, or
            the other way round; otherwise as `drive_unet.fit`.
    """
    refuse_both(resume, overwrite)
    named = "this preset"
    if isinstance(preset, str):
        if preset not in PRESETS:
            raise ValueError(f"there is no preset {preset!r}; choose from {', '.join(PRESETS)}")
        preset, named = PRESETS[preset], f"the preset {preset!r}"
    if isinstance(photographs, PaintedStream):
        raise ValueError(
            "a stream would have to be painted whole to choose thresholds on: train on it with fit, or give "
            "this function painted_dataset(range(100))"
        )
    refuse_unlabelled({"training": photographs} | ({} if held_out is None else {"held-out": held_out}))
    preset = replace(preset, steps=preset.steps if steps is None else steps, start=start or preset.start)
    if preset.steps < 1:
        raise ValueError(f"steps must be 1 or more, not {preset.steps}")
    seed = refuse_seed(seed)
    out = Path(out).expanduser() if out else None
    if out is not None and not overwrite:
        refuse_to_replace(out, TABLE, resume=resume, members=preset.members, training=named)
    if num_workers is None:
        num_workers = min(GPU_WORKERS, os.cpu_count() or 1) if torch.cuda.is_available() else 0
    patches = photographs.subset(photographs.names, training_transform(preset.patch_size))
    models, runs = [preset.model(seed + member) for member in range(preset.members)], []
    own = out if processes().is_main_process else None
    with alone_in(own):
        if overwrite and own is not None:
            make_way(own, overwrite)
        for member, model in enumerate(models):
            if preset.start:  # learned at a scale of its own, which stays
                model.preprocessing = replace(model.preprocessing, surround=None)
            else:
                model.preprocessing = Preprocessing(fov_width=fov_width(photographs))
            run = fit(
                model,
                patches,
                steps=preset.steps,
                batch_size=preset.batch_size,
                lr=preset.lr,
                average=preset.average,
                loss=combine(**dict(preset.loss)),
                seed=seed + member,
                out=out / f"member-{member}" if out and preset.members > 1 else out,
                resume=resume,
                overwrite=overwrite,
                mixed_precision=mixed_precision,
                num_workers=num_workers,
                progress=progress,
            )
            if run.folder and processes().is_main_process:
                with written_into(run.folder):
                    write_history(run, run.folder)
            runs.append(run)
        model = mean_weights(models)
        choose_thresholds(model, held_out or photographs)
        if held_out:
            model.notes["trained_on"] = trained_on(held_out, before=model.notes["trained_on"])
        if own is not None:
            with written_into(own):
                model.save_pretrained(own / BEST)
    return model, replace(runs[0], seconds=sum(run.seconds for run in runs), folder=out)


def choose_thresholds(model: UNet, *cameras: DRIVEDataset) -> None:
    """Set ``model.threshold`` and ``model.threshold_single`` to what gives the best pooled Dice there.

    Of several cameras it is the mean of what is best for each: pooled, the one with most pixels would decide.
    """
    model.threshold = fmean(best_threshold(model, part, tta=True)[1] for part in cameras)
    model.threshold_single = fmean(best_threshold(model, part, tta=False)[1] for part in cameras)


def fov_width(photographs: DRIVEDataset) -> int:
    """The median width of the fields of view, in pixels; of large sets, of some fifty photographs."""
    fovs = photographs.fovs[:: max(1, len(photographs) // 50)]
    return int(median(width_of(fov) or 540 for fov in fovs))
