"""Behind ``drive-unet demo``, ``train``, ``predict`` and ``synthesize``; `scoring` is behind ``evaluate``."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from drive_unet import presets, scoring, synthetic
from drive_unet.data import DRIVEDataset, folds, load_drive
from drive_unet.decoding import check_fov, read_image, read_mask
from drive_unet.errors import DataError
from drive_unet.evaluation import compare, evaluate, evaluate_second_observer
from drive_unet.inference import predict_all, segment
from drive_unet.locate import OWN, find_labelled
from drive_unet.models import UNet
from drive_unet.pairing import images, listed, match
from drive_unet.provenance import versions
from drive_unet.training import BEST, LAST, fit, processes

# ---------------------------------------------------------------------- demo


def demo(options: argparse.Namespace) -> None:
    """Make the whole trip: data, a short training, scores, figures."""
    import matplotlib
    import torch

    matplotlib.use("Agg")
    from skimage.data import retina

    from drive_unet import plots

    out: Path = options.out
    drive = load_drive(options.data, seed=options.seed)
    print(drive.describe())
    out.mkdir(parents=True, exist_ok=True)
    plots.use_style()

    torch.manual_seed(options.seed)
    model = UNet()
    run = fit(
        model,
        drive.train,
        drive.validation,
        steps=options.steps,
        validate_every=60,
        seed=options.seed,
        out=out,
    )
    print(run)

    scored = drive.evaluation
    probabilities = predict_all(model, scored, progress=True)
    result = evaluate(probabilities, scored, threshold=model.threshold, name="U-Net, this run")
    rows = [result]
    if (observer := evaluate_second_observer(scored)) is not None:
        rows.append(observer)
    print(compare(rows))
    result.to_csv(out / "scores.csv")

    order = sorted(range(len(scored)), key=lambda index: result.per_image[index]["Dice"])
    figures = {"data": plots.show_sample(drive.train[0]), "training": run.plot()}
    for name, index in (("worst", order[0]), ("best", order[-1])):
        sample = scored[index]
        inside = probabilities[index] * sample.fov[0].numpy()  # the network was never trained outside
        figures[name] = plots.visualize_segmentation(
            sample.image, sample.vessels, inside, threshold=model.threshold
        )
    photograph = retina()
    found = segment(model, photograph)
    figures["another_camera"] = plots.hero(photograph, found.vessels)
    for name, figure in figures.items():
        figure.savefig(out / f"{name}.png")
    print(f"{len(figures)} figures, scores.csv and the checkpoint are in {out}")


# ---------------------------------------------------------------------- train


def train(options: argparse.Namespace) -> None:
    """Train by a preset, on all photographs or on all but a fold, and say where the weights are."""
    if options.preset not in presets.PRESETS:
        raise ValueError(f"--preset {options.preset}: choose from {', '.join(presets.PRESETS)}")
    if options.fold is not None and not options.fold < (options.folds or 0):
        raise ValueError(f"--fold {options.fold} needs --folds, and is less than it")
    process = processes()
    with process.main_process_first():  # painted photographs are painted once
        found = find_labelled(options.data)
    if not found.training:
        raise DataError(f"{found.root} holds test photographs only, from which nothing can be learned")
    photographs = scoring.load(found, "train")

    runs: list[tuple[Path, DRIVEDataset, DRIVEDataset | None]] = [(options.out, photographs, None)]
    if options.folds:
        splits = [[photographs.subset(part) for part in s] for s in folds(photographs.names, options.folds)]
        runs = [(scoring.fold_folder(options.out, fold), *split) for fold, split in enumerate(splits)]
        if options.fold is not None:
            runs = [(options.out, *splits[options.fold])]
    for folder, *_ in runs:
        _refuse_to_overwrite(folder, options.resume)
    results = []
    for folder, learned_from, held_out in runs:
        if process.is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            print(
                f"{folder}: {options.preset}, trained on {len(learned_from)} photographs, "
                f"{scoring.source(found)}: {listed(learned_from.names, 40)}"
            )
        model, run = presets.train(
            options.preset,
            learned_from,
            steps=options.steps,
            seed=options.seed,
            out=folder,
            resume=options.resume,
            mixed_precision=options.mixed_precision,
            num_workers=options.workers,
        )
        if not process.is_main_process:
            continue
        # Nothing else of what the first weights say about themselves holds for these: neither data nor terms.
        model.notes = {key: model.notes[key] for key in ("trained_on", "training")}
        model.notes["trained_on"]["source"] = scoring.source(found)
        model.notes |= {
            "data": f"{len(learned_from)} photographs, {scoring.source(found)}",
            "threshold": "best Dice on the photographs learned from",
            "preset": options.preset,
            "seed": options.seed,
            "versions": versions(),
        }
        weights = model.save_pretrained(folder / BEST)
        print(f"{run}\nweights: {weights}")
        if held_out is not None:
            own = found.kind == OWN
            rows = [
                scoring.score(model, held_out, name=str(options.out), own=own, tta=tta)
                for tta in (False, True)
            ]
            results.append(rows)
            observer = evaluate_second_observer(held_out)
            print(f"\nOn the fold held out:\n{compare([*(row.marked for row in rows), observer])}")
            print(f"{scoring.caution(rows[:1])}\n")
    if not process.is_main_process:
        return
    out = shlex.quote(str(options.out))
    if len(results) > 1:
        print("\n\n".join(scoring.fold_table(group, photographs) for group in zip(*results, strict=True)))
        data = f" --data {shlex.quote(options.data)}" if options.data else ""
        print(f"\nScore them again: drive-unet evaluate --weights {out} --split train{data}")
        out = shlex.quote(str(runs[0][0]))
    print(f"Use it: drive-unet predict PHOTOGRAPHS --weights {out} --out predictions")


def _refuse_to_overwrite(folder: Path, resume: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: name another --out, a folder")
    kept = [name for name in (LAST, f"member-*/{LAST}", BEST) if any(folder.glob(name))]
    if kept and not resume:
        raise ValueError(
            f"{folder} holds {kept[0]} of an earlier run: go on with --resume, or name another --out"
        )
    if kept == [BEST]:
        raise ValueError(f"{folder} holds {BEST}, but no {LAST} to go on from: name another --out")


# ---------------------------------------------------------------------- predict


def predict(options: argparse.Namespace) -> int:
    """Segment photographs, each for itself; returns 1 if one of them could not be, else 0."""
    files, faults = _photographs(options.paths)
    _refuse_collisions(files, options.out)
    masks = {}
    if options.mask:
        if not options.mask.is_dir():
            raise DataError(
                f"{options.mask} is no folder: name the one that holds the masks of the field of view"
            )
        masks = match([file.stem for file in files], images(options.mask))
        lacking = [file for file in files if file.stem not in masks]
        if lacking:
            raise DataError(f"{options.mask} lacks the masks of {listed(lacking)}")
    device = scoring.device_of(options.device)
    model = scoring.network(options.weights)
    for fault in faults:
        _complain(fault)
    for file in files:
        try:
            image = read_image(file)
            fov = _fov(masks[file.stem], image) if masks else None
            found = segment(
                model, image, tta=options.tta, threshold=options.threshold, fov=fov, device=device
            )
        except (ValueError, OSError) as error:
            faults.append(f"{error}" if file.name in str(error) else f"{file}: {error}")
            _complain(faults[-1])
            continue
        options.out.mkdir(parents=True, exist_ok=True)
        vessels, probability = _outputs(file, options.out)
        Image.fromarray(found.vessels.astype(np.uint8) * 255).save(vessels)
        Image.fromarray((found.probability * 65535).round().astype(np.uint16)).save(probability)
        share = found.vessels.sum() / max(found.fov.sum(), 1)
        print(f"{file}: {share:.1%} of the field of view is vessel, {vessels}", flush=True)
    return 1 if faults else 0


def _photographs(paths: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The files that are named or lie in folders that are named, each once; and what is wrong with others."""
    files: dict[Path, Path] = {}
    faults = []
    for path in paths:
        if not path.exists():
            faults.append(f"{path} does not exist: correct the path")
        inside = images(path) if path.is_dir() else [path] if path.exists() else []
        if path.is_dir() and not inside:
            faults.append(f"{path} holds no images: name the folder that holds the files themselves")
        for file in inside:
            files.setdefault(file.resolve(), file)
    return list(files.values()), faults


def _outputs(file: Path, out: Path) -> tuple[Path, Path]:
    return out / f"{file.stem}_vessels.png", out / f"{file.stem}_probability.png"


def _refuse_collisions(files: Sequence[Path], out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file: name another --out, a folder")
    sources = {file.resolve() for file in files}
    stems: dict[str, Path] = {}
    for file in files:
        other = stems.setdefault(file.stem.casefold(), file)
        if other is not file:
            raise ValueError(
                f"{other} and {file} would both be written as {file.stem}_vessels.png: rename one, or "
                "predict them into two folders"
            )
        for target in _outputs(file, out):
            if target.resolve() in sources:
                raise ValueError(f"{target} would be written over, but is to be read: name another --out")


def _fov(path: Path, image: np.ndarray) -> np.ndarray:
    """The mask of a photograph's field of view, (H, W) bool."""
    mask = read_mask(path)
    if mask.shape != image.shape[:2]:
        sizes = [f"{shape[1]}x{shape[0]}" for shape in (mask.shape, image.shape)]
        raise DataError(f"{path} is {sizes[0]} (width x height), but its photograph is {sizes[1]}")
    check_fov(path, mask)
    return mask


def _complain(fault: str) -> None:
    print(f"drive-unet: {fault}", file=sys.stderr, flush=True)


# ---------------------------------------------------------------------- synthesize


def synthesize(options: argparse.Namespace) -> None:
    """Paint photographs, and say where they are and what to do with them."""
    folder = synthetic.synthesize(options.folder, options.images, seed=options.seed, workers=options.workers)
    print(f"{options.images} painted photographs with labels are in {folder}")
    print(f"Learn from them: drive-unet train --data {shlex.quote(str(folder))} --out RUN")
