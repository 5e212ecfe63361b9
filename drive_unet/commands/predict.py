"""Behind ``drive-unet predict``: photographs in, masks out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from drive_unet.commands.networks import device_of, network
from drive_unet.data.pairing import images, listed, match
from drive_unet.data.reading import check_fov, read_image, read_mask
from drive_unet.errors import DataError
from drive_unet.inference import segment


def run(options: argparse.Namespace) -> int:
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
    device = device_of(options.device)
    model = network(options.weights)
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
    mask = read_mask(path, smooth=True)
    if mask.shape != image.shape[:2]:
        sizes = [f"{shape[1]}x{shape[0]}" for shape in (mask.shape, image.shape)]
        raise DataError(f"{path} is {sizes[0]} (width x height), but its photograph is {sizes[1]}")
    check_fov(path, mask)
    return mask


def _complain(fault: str) -> None:
    print(f"drive-unet: {fault}", file=sys.stderr, flush=True)
