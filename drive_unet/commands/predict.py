"""Behind ``drive-unet predict``: photographs in, masks out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from drive_unet.commands.faults import complain, in_a_line
from drive_unet.commands.networks import device_of, fingerprint, network
from drive_unet.commands.outputs import Outputs, digest
from drive_unet.data.pairing import IMAGES, OWN_FOV, child, images, listed, match
from drive_unet.data.reading import check_fov, read_image, read_mask
from drive_unet.errors import DataError
from drive_unet.inference import segment


def run(options: argparse.Namespace) -> int:
    """Segment photographs, each for itself; returns 1 if one of them could not be, else 0."""
    files, faults = _photographs(options.paths)
    outputs = Outputs(options.out, options.overwrite)
    _refuse_collisions(files, options.out)
    masks = _masks(files, options.mask)
    device = device_of(options.device)
    model = network(options.weights)
    settings = {"weights": fingerprint(model), "flips": options.tta, "threshold": options.threshold}
    made_of = {}
    for file in files:  # all of them before the first is written
        try:
            made_of[file] = _made_of(file, masks.get(file), settings)
        except OSError:
            continue  # is told below, when it is read
        outputs.check(_outputs(file), made_of[file])
    for fault in faults:
        complain(fault)
    for file in files:
        try:
            image = read_image(file)
            fov, where = _fov(masks.get(file), image, given=options.mask is not None)
            result = segment(
                model, image, tta=options.tta, threshold=options.threshold, fov=fov, device=device
            )
            vessels = Image.fromarray(result.vessels.astype(np.uint8) * 255)
            probability = Image.fromarray((result.probability * 65535).round().astype(np.uint16))
            for name, picture in zip(_outputs(file), (vessels, probability), strict=True):
                outputs.save(name, made_of[file], picture.save)
        except Exception as error:  # whatever is wrong with one photograph, the others go on
            fault = in_a_line(error)
            faults.append(fault if file.name in fault else f"{file}: {fault}")
            complain(faults[-1], error, options.debug)
            continue
        share = result.vessels.sum() / max(result.fov.sum(), 1)
        written = options.out / _outputs(file)[0]
        print(f"{file}: {share:.1%} of the field of view{where} is vessel, {written}", flush=True)
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


def _outputs(file: Path) -> tuple[str, str]:
    return f"{file.stem}_vessels.png", f"{file.stem}_probability.png"


def _made_of(file: Path, mask: Path | None, settings: dict[str, Any]) -> dict[str, Any]:
    """What a prediction is made of, for its record."""
    return {"photograph": digest(file), "mask": None if mask is None else digest(mask), **settings}


def _refuse_collisions(files: Sequence[Path], out: Path) -> None:
    sources = {file.resolve() for file in files}
    stems: dict[str, Path] = {}
    for file in files:
        earlier = stems.setdefault(file.stem.casefold(), file)
        if earlier is not file:
            raise ValueError(
                f"{earlier} and {file} would both be written as {file.stem}_vessels.png: rename one, or "
                "predict them into two folders"
            )
        for name in _outputs(file):
            if (out / name).resolve() in sources:
                raise ValueError(f"{out / name} would be written over, but is to be read: name another --out")


def _masks(files: Sequence[Path], folder: Path | None) -> dict[Path, Path]:
    """The mask of the field of view of each photograph that has one: in the folder given, or beside it."""
    if folder is not None:
        if not folder.is_dir():
            raise DataError(f"{folder} is no folder: name the one that holds the masks of the field of view")
        matched = match([file.stem for file in files], images(folder))
        lacking = [file for file in files if file.stem not in matched]
        if lacking:
            raise DataError(f"{folder} lacks the masks of {listed(lacking)}")
        return {file: matched[file.stem] for file in files}
    masks: dict[Path, Path] = {}
    for parent in dict.fromkeys(file.parent for file in files):
        beside = child(parent.resolve().parent, OWN_FOV) if parent.resolve().name.lower() in IMAGES else None
        if beside is not None:
            inside = {file.stem: file for file in files if file.parent == parent}
            with suppress(DataError):  # of files that do not pair one by one: they were not meant for it
                masks |= {inside[stem]: mask for stem, mask in match(inside, images(beside)).items()}
    return masks


def _fov(path: Path | None, image: np.ndarray, given: bool) -> tuple[np.ndarray | None, str]:
    """A photograph's field of view, (H, W) bool, None where it is to be found; and its source in words.

    What lies beside a photograph and is no field of view, such as vessel labels in a folder named mask, was
    not meant as one; only what was given must be.
    """
    if path is None:
        return None, ""
    try:
        mask = read_mask(path, smooth=True)
        if mask.shape != image.shape[:2]:
            sizes = [f"{shape[1]}x{shape[0]}" for shape in (mask.shape, image.shape)]
            raise DataError(f"{path} is {sizes[0]} (width x height), but its photograph is {sizes[1]}")
        check_fov(path, mask)
    except DataError:
        if given:
            raise
        return None, f" (found in it, for {path} shows none)"
    return mask, "" if given else f" (of {path})"
