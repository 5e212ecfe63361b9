"""Painted datasets on disk: DRIVE's layout or a plain one, a manifest against damage, a place in a cache."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from drive_unet.errors import DataError

MANIFEST = "manifest.json"
PLAIN = 2_000_000  # added to the numbers of a plain set, so that it repeats no eye of the embedded one


def cores() -> int:
    """Threads that paint by default: the number of cores, at most 8."""
    return min(os.cpu_count() or 1, 8)


def _save_mask(mask: np.ndarray, path: Path) -> None:
    """A (H, W) bool mask as greyscale GIF of {0, 255}, as DRIVE's first observer and FOV masks are."""
    Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(path, "GIF", optimize=False)


def _save_palette_mask(mask: np.ndarray, path: Path) -> None:
    """A (H, W) bool mask as palette GIF with indices {0, 1}, whose colours read as {3, 253} in grey."""
    picture = Image.frombytes("P", mask.shape[::-1], mask.astype(np.uint8).tobytes())
    picture.putpalette([3, 3, 3, 253, 253, 253])
    picture.save(path, "GIF", optimize=False)


def image_seed(seed: int, number: int) -> int:
    """The seed by which image `number` of the dataset with seed `seed` is painted."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0])


def _write_as_drive(paint: Callable, seed: int, root: Path, part: str, number: int) -> list[str]:
    """Paint image `number` and write its files under `root` in DRIVE's layout; their relative names."""
    fundus = paint(image_seed(seed, number))
    base = f"{number:02d}"
    names = [f"{part}/images/{base}_{part}.tif"]
    Image.fromarray(fundus.image).save(_new(root, names[0]), "TIFF", compression="tiff_lzw")
    names.append(f"{part}/1st_manual/{base}_manual1.gif")
    _save_mask(fundus.vessels, _new(root, names[-1]))
    names.append(f"{part}/mask/{base}_{part}_mask.gif")
    _save_mask(fundus.fov, _new(root, names[-1]))
    if part == "test":
        names.append(f"test/2nd_manual/{base}_manual2.gif")
        _save_palette_mask(fundus.second_observer, _new(root, names[-1]))
    return names


def _write_plainly(paint: Callable, seed: int, root: Path, number: int) -> list[str]:
    """Paint image `number` and write all that is known of it under `root`; the files' relative names."""
    own_seed = image_seed(seed, PLAIN + number)
    fundus = paint(own_seed)
    crossing = fundus.arteries & fundus.veins
    pictures = {
        "images": fundus.image,
        "labels": fundus.vessels,
        "fov": fundus.fov,
        "second_observer": fundus.second_observer,
        "arteries_veins": np.stack([fundus.arteries & ~crossing, crossing, fundus.veins & ~crossing], -1),
        "centreline": fundus.centreline,
        "calibre": np.rint(fundus.calibre * 100).astype(np.uint16),
    }
    names = [f"{folder}/{number:06d}.png" for folder in pictures]
    for name, picture in zip(names, pictures.values(), strict=True):
        if picture.dtype == bool:
            picture = picture.astype(np.uint8) * np.uint8(255)
        Image.fromarray(picture).save(_new(root, name), "PNG", compress_level=4)
    names.append(f"eyes/{number:06d}.json")
    record = {"seed": own_seed, **fundus.eye._asdict()}
    text = json.dumps(record, indent=1, default=lambda place: [round(float(value), 2) for value in place])
    _new(root, names[-1]).write_text(text + "\n", encoding="utf-8")
    return names


def _new(root: Path, name: str) -> Path:
    """The path of a file below `root`, whose folder exists now."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def as_drive(training: int = 20, test: int = 20) -> list[tuple]:
    """What `write` is to write for DRIVE's layout: photographs from 21 on, and test photographs from 1 on."""
    if not (0 <= training <= 79 and 0 <= test <= 20):
        raise ValueError(
            f"training={training}, test={test}: up to 79 training and 20 test images have numbers "
            "in DRIVE's scheme; ask for fewer, or for any number with synthesize"
        )
    numbers = [("training", 21 + i) for i in range(training)] + [("test", 1 + i) for i in range(test)]
    return [(_write_as_drive, *number) for number in numbers]


def plainly(images: int) -> list[tuple]:
    """What `write` is to write for a plain set: folders of PNG files, numbered from 1 on."""
    return [(_write_plainly, number) for number in range(1, images + 1)]


def _fingerprint(path: Path) -> dict:
    content = path.read_bytes()
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def intact(folder: Path, version: int, seed: int) -> bool:
    """Whether the dataset in `folder` is of this version and seed and every file is as it was written."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if (manifest["version"], manifest["seed"]) != (version, seed):
            return False
        known = manifest["files"]
        return len(known) > 0 and all(_fingerprint(folder / name) == known[name] for name in known)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _paint_all(root: Path, paint, version, jobs, seed, workers, progress) -> None:
    """Write a whole set with its manifest into the empty folder `root`."""
    names: list[str] = []
    with ThreadPoolExecutor(workers or cores()) as pool:
        waiting = [pool.submit(writer, paint, seed, root, *which) for writer, *which in jobs]
        try:
            for job in tqdm(waiting, desc="painting eyes", unit="image", disable=not progress):
                names += job.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    files = {name: _fingerprint(root / name) for name in sorted(names)}
    manifest = {"generator": "drive_unet.painter", "version": version, "seed": seed, "files": files}
    (root / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def write(
    folder: str | Path,
    paint: Callable,
    version: int,
    jobs: list[tuple],
    *,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Paint a dataset into `folder`, complete or not at all; `jobs` are from `as_drive` or `plainly`."""
    folder = Path(folder).expanduser().resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(
            f"{folder} exists and is not an empty folder; name a new folder for the painted dataset"
        )
    work = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        root = work / "set"
        root.mkdir()
        _paint_all(root, paint, version, jobs, seed, workers, progress)
        if folder.exists():  # perhaps the one that a terminal is in, so it stays
            for entry in sorted(root.iterdir(), key=lambda entry: entry.name == MANIFEST):
                os.replace(entry, folder / entry.name)
        else:
            os.replace(root, folder)
    except OSError as error:
        raise DataError(
            f"cannot write the painted dataset to {folder} ({error.strerror or error}); "
            "name a folder that can be written"
        ) from error
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)
    return folder


def cached(cache: Path, paint: Callable, version: int, *, seed: int = 0, progress: bool = True) -> Path:
    """The painted set in the folder `cache`, made or remade where needed; see `painting.make_embedded`."""
    folder = cache / f"embedded-v{version}-seed{seed}"
    if intact(folder, version, seed):
        return folder
    work = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in folder.parent.glob(f".{folder.name}-*"):  # by a process that was killed
            if time.time() - left.stat().st_mtime > 24 * 3600:
                shutil.rmtree(left, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        (work / "set").mkdir()
        _paint_all(work / "set", paint, version, as_drive(), seed, None, progress)
        for _ in range(3):  # another process may put its own set here at the same moment
            if intact(folder, version, seed):
                break
            try:
                if folder.exists():
                    os.replace(folder, work / f"damaged-{os.urandom(4).hex()}")
                os.replace(work / "set", folder)
                break
            except OSError:
                if not intact(folder, version, seed) and not (work / "set").is_dir():
                    raise
        if not intact(folder, version, seed):
            raise OSError(f"{folder.name} could not be put in place")
    except OSError as error:
        raise DataError(
            f"cannot write the embedded dataset to the cache folder {folder.parent} "
            f"({error.strerror or error}); set the environment variable DRIVE_UNET_CACHE to a folder "
            "that can be written"
        ) from error
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)
    return folder
