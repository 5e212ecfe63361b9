"""Behind ``drive-unet train``: a preset on all photographs, or on all but a fold."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from drive_unet import presets
from drive_unet.commands.networks import device_of, fold_folder
from drive_unet.commands.scoring import score
from drive_unet.commands.threads import choose
from drive_unet.data.dataset import DRIVEDataset
from drive_unet.data.drive import folds
from drive_unet.data.find import find_dataset
from drive_unet.data.pairing import listed
from drive_unet.errors import DataError
from drive_unet.evaluation.evaluator import compare, evaluate_second_observer
from drive_unet.evaluation.folds import caution, fold_table
from drive_unet.models import UNet
from drive_unet.outputs import refuse_files_for_folders
from drive_unet.training.checkpoints import BEST, alone_in, left_by_a_run, refuse_to_replace, written_into
from drive_unet.training.history import CURVE, TABLE, draw_history, make_way
from drive_unet.training.processes import processes, refuse_seed
from drive_unet.training.provenance import versions

WAYS = ("--resume", "--overwrite", "--out")  # what the errors of a training in Python call otherwise


def run(options: argparse.Namespace) -> None:
    """Train by a preset, on all photographs or on all but a fold, and say where the weights are."""
    if options.preset not in presets.PRESETS:
        raise ValueError(f"--preset {options.preset}: choose from {', '.join(presets.PRESETS)}")
    if options.fold is not None and not options.fold < (options.folds or 0):
        raise ValueError(f"--fold {options.fold} needs --folds, and is less than it")
    refuse_seed(options.seed)
    if options.start:
        UNet.from_pretrained(options.start)  # what is wrong with it is said before anything is written
    choose()
    try:
        with _computing_on(options.device):
            _train(options)
    except KeyboardInterrupt as stopped:
        raise KeyboardInterrupt(" ".join([*map(str, stopped.args), f"- go on: {_again(options)}"])) from None


def _train(options: argparse.Namespace) -> None:
    process = processes()
    with process.main_process_first():  # painted photographs are painted once
        dataset = find_dataset(options.data)
    if not dataset.training:
        raise DataError(f"{dataset.root} holds test photographs only, from which nothing can be learned")
    photographs = DRIVEDataset.from_pairs(dataset.training, smooth=dataset.smooth)

    runs: list[tuple[Path, DRIVEDataset, DRIVEDataset | None]] = [(options.out, photographs, None)]
    if options.folds:
        splits = [
            (photographs.subset(learned), photographs.subset(held_out))
            for learned, held_out in folds(photographs.names, options.folds)
        ]
        runs = [(fold_folder(options.out, fold), *split) for fold, split in enumerate(splits)]
        if options.fold is not None:
            runs = [(options.out, *splits[options.fold])]
    refuse_files_for_folders(options.out)
    for folder, *_ in runs if not options.overwrite else ():
        members, training = presets.PRESETS[options.preset].members, f"--preset {options.preset}"
        refuse_to_replace(
            folder, TABLE, CURVE, resume=options.resume, members=members, training=training, ways=WAYS
        )
    _make_way_for([folder for folder, *_ in runs], options.out, options.overwrite)
    results = []
    for folder, learned_from, held_out in runs:
        with alone_in(folder if process.is_main_process else None):
            if process.is_main_process:
                print(
                    f"{folder}: {options.preset}, trained on {len(learned_from)} photographs, "
                    f"{dataset.title}: {listed(learned_from.names, 40)}"
                )
            model, run = presets.train(
                options.preset,
                learned_from,
                start=options.start,
                steps=options.steps,
                seed=options.seed,
                out=folder,
                resume=options.resume,
                overwrite=options.overwrite,
                mixed_precision=options.mixed_precision,
                num_workers=options.workers,
            )
            if not process.is_main_process:
                continue
            # Nothing else of what the first weights say of themselves holds for these, neither data nor terms
            model.notes = {key: model.notes[key] for key in ("trained_on", "training")}
            model.notes["trained_on"]["source"] = dataset.title
            model.notes |= {
                "data": f"{len(learned_from)} photographs, {dataset.title}",
                "threshold": "best Dice on the photographs learned from",
                "preset": options.preset,
                "seed": options.seed,
                "versions": versions(),
            }
            with written_into(folder):
                weights = model.save_pretrained(folder / BEST)
                draw_history(folder)
        print(f"{run}\nweights: {weights}; every step: {folder / TABLE}")
        if held_out is not None:
            rows = [score(model, held_out, name=str(options.out), tta=tta) for tta in (False, True)]
            results.append(rows)
            observer = evaluate_second_observer(held_out)
            print(f"\nOn the fold held out:\n{compare([*(row.marked for row in rows), observer])}")
            print(f"{caution(rows[:1])}\n")
    if not process.is_main_process:
        return
    out = shlex.quote(str(options.out))
    if len(results) > 1:
        print("\n\n".join(fold_table(group, photographs) for group in zip(*results, strict=True)))
        data = f" --data {shlex.quote(options.data)}" if options.data else ""
        print(f"\nScore them again: drive-unet evaluate --weights {out} --split train{data}")
        out = shlex.quote(str(runs[0][0]))
    print(f"Use it: drive-unet predict PHOTOGRAPHS --weights {out} --out predictions")


def _make_way_for(folders: list[Path], out: Path, overwrite: bool) -> None:
    """See to it that `out` holds no run but those of these folders: neither other folds nor a run of its own.

    Raises:
        ValueError: if it does, and may not be replaced, or is not known to be a run's.
    """
    for place in (out, *sorted(out.glob("fold-*"))):
        kept = left_by_a_run(place, TABLE, CURVE) if place not in folders else []
        if kept and not (overwrite and kept[0].endswith(".pt")):
            ways = "replace it with --overwrite, or name another --out"
            raise ValueError(
                f"{place} holds {kept[0]}, which would be taken together with this training's: "
                + (ways if not overwrite else "move it elsewhere, or name another --out")
            )
        if kept and processes().is_main_process:
            with alone_in(place):
                make_way(place, overwrite)
            with suppress(OSError):  # something else is in it
                if place != out:
                    place.rmdir()


def _again(options: argparse.Namespace) -> str:
    """The command that goes on with an interrupted run."""
    names = ("data", "preset", "start", "steps", "seed", "folds", "fold", "device", "workers")
    words = ["drive-unet", "train"]
    for name in (*names, "mixed_precision", "out"):
        if (value := getattr(options, name)) is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join([*words, "--resume"])


@contextmanager
def _computing_on(name: str | None) -> Iterator[None]:
    """Have accelerate, which by itself takes the best device there is, take the one of this name."""
    device = device_of(name) if name else None
    if device is None or device.type == "mps":  # taken without a word where there is one
        yield
    elif device.type == "cpu":
        before = os.environ.get("ACCELERATE_USE_CPU")
        os.environ["ACCELERATE_USE_CPU"] = "true"
        try:
            yield
        finally:
            os.environ.pop("ACCELERATE_USE_CPU")
            if before is not None:
                os.environ["ACCELERATE_USE_CPU"] = before
    else:
        with torch.cuda.device(device):
            yield
