"""Painted datasets on disk: DRIVE's layout or a plain one, a manifest against damage, a place in a cache."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from PIL import Image
from tqdm import auto, std

from drive_unet.errors import DataError

MANIFEST = "manifest.json"
FINISHED = "finished.jsonl"  # of a set that is not complete yet: what it is, then a line an eye
MOST = 999_999  # eyes of a plain set: its files are numbered with six digits
PLAIN = 2_000_000  # added to the numbers of a plain set, so that it repeats no eye of the embedded one


def cores() -> int:
    """Threads that paint by default: the number of cores, at most 8."""
    return min(os.cpu_count() or 1, 8)


def _save(picture: Image.Image, path: Path, form: str, **options) -> None:
    """Write a picture, complete or not at all.

    It is encoded in memory, so that libtiff gets no open file: threads that wrote TIFFs with Pillow 10.0
    ended in "Bad file descriptor".
    """
    encoded = BytesIO()
    picture.save(encoded, form, **options)
    _put(path, encoded.getvalue())


def _put(path: Path, content: bytes) -> None:
    """Write a file, complete or not at all."""
    unfinished = path.with_name(f".{path.name}-{os.getpid()}")
    unfinished.write_bytes(content)
    os.replace(unfinished, path)


def _save_mask(mask: np.ndarray, path: Path) -> None:
    """A (H, W) bool mask as greyscale GIF of {0, 255}, as DRIVE's first observer and FOV masks are."""
    _save(Image.fromarray(mask.astype(np.uint8) * np.uint8(255)), path, "GIF", optimize=False)


def _save_palette_mask(mask: np.ndarray, path: Path) -> None:
    """A (H, W) bool mask as palette GIF with indices {0, 1}, whose colours read as {3, 253} in grey."""
    picture = Image.frombytes("P", mask.shape[::-1], mask.astype(np.uint8).tobytes())
    picture.putpalette([3, 3, 3, 253, 253, 253])
    _save(picture, path, "GIF", optimize=False)


def image_seed(seed: int, number: int) -> int:
    """The seed by which image `number` of the dataset with seed `seed` is painted."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0])


def _write_as_drive(paint: Callable, seed: int, root: Path, part: str, number: int) -> list[str]:
    """Paint image `number` and write its files under `root` in DRIVE's layout; their relative names."""
    fundus = paint(image_seed(seed, number))
    base = f"{number:02d}"
    names = [f"{part}/images/{base}_{part}.tif"]
    _save(Image.fromarray(fundus.image), _new(root, names[0]), "TIFF", compression="tiff_lzw")
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
        _save(Image.fromarray(picture), _new(root, name), "PNG", compress_level=4)
    names.append(f"eyes/{number:06d}.json")
    record = {"seed": own_seed, **fundus.eye._asdict()}
    text = json.dumps(record, indent=1, default=lambda place: [round(float(value), 2) for value in place])
    _put(_new(root, names[-1]), (text + "\n").encode())
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
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def _key(job: tuple) -> str:
    """What tells one eye of a set from another: its number, and the split in DRIVE's layout."""
    return " ".join(str(part) for part in job[1:])


def _paint_one(job: tuple, paint: Callable, seed: int, root: Path) -> dict[str, dict]:
    writer, *which = job
    return {name: _fingerprint(root / name) for name in writer(paint, seed, root, *which)}


def _paint_all(
    root: Path,
    paint: Callable,
    version: int,
    jobs: list[tuple],
    seed: int,
    workers: int | None,
    progress: bool,
    finished: Mapping[str, dict[str, dict]] | None = None,
    keep: Callable[[str, dict[str, dict]], None] | None = None,
) -> None:
    """Write what is not `finished` of a set into the folder `root`, and the manifest of it all.

    The files' fingerprints of each eye are given to `keep` as soon as it is there.
    """
    eyes = dict(finished or {})

    def done(key: str, future: Future) -> None:
        eyes[key] = future.result()
        if keep is not None:
            keep(key, eyes[key])

    in_notebook = auto.notebook_tqdm is not std.tqdm
    shown = progress and (in_notebook or sys.stderr.isatty())  # a bar would fill a log
    with ThreadPoolExecutor(workers or cores()) as pool:
        waiting = {
            pool.submit(_paint_one, job, paint, seed, root): key
            for job in jobs
            if (key := _key(job)) not in eyes
        }
        try:
            with auto.tqdm(
                total=len(jobs), initial=len(eyes), desc="painting eyes", unit="image", disable=not shown
            ) as bar:
                for future in as_completed(waiting):
                    done(waiting[future], future)
                    bar.update()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            for future, key in waiting.items():
                if key not in eyes and not future.cancelled() and future.exception() is None:
                    done(key, future)
            raise
    files = {name: eyes[key][name] for key in eyes for name in eyes[key]}
    manifest = {"generator": "drive_unet.painter", "version": version, "seed": seed}
    manifest["files"] = dict(sorted(files.items()))
    _put(root / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())


def write(
    folder: str | Path,
    paint: Callable,
    version: int,
    jobs: list[tuple],
    *,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
    overwrite: bool = False,
) -> Path:
    """Paint a dataset into `folder`, which appears complete or not at all.

    What is finished when the painting is interrupted stays in a folder beside it (`unfinished`), and the next
    call for a set of this version and seed, of as many eyes or more, goes on with it. Where the very set is
    there already, nothing is done.

    Args:
        folder: new or empty.
        paint: makes a `Fundus` of a seed.
        version: of the painter.
        jobs: from `as_drive` or `plainly`.
        seed, workers, progress: see `painting.synthesize`.
        overwrite: replace another painted set, and what was left unfinished of one; never any other file.

    Raises:
        DataError: if something else is there, finished eyes would be lost, another call paints into this
            folder, or it cannot be written.
    """
    folder = Path(folder).expanduser().resolve()
    work, root = unfinished(folder), unfinished(folder) / "set"
    images = {_image(job) for job in jobs}
    if intact(folder, version, seed) and {name for name in _listed(folder) if "images/" in name} == images:
        return folder
    _refuse_what_is_there(folder, overwrite)
    eyes: dict[str, dict[str, dict]] | None = None  # None: what lies in `work` is not ours to remove
    with ExitStack() as held:
        try:
            work.mkdir(parents=True, exist_ok=True)
            held.enter_context(_alone(work, folder))
            header = {"generator": "drive_unet.painter", "version": version, "seed": seed}
            eyes = _begun(work, header, set(map(_key, jobs)), overwrite)
            _clear(root, {name for files in eyes.values() for name in files})
            lines = [header, *([key, files] for key, files in eyes.items())]
            _put(work / FINISHED, "".join(json.dumps(line) + "\n" for line in lines).encode())
            with (work / FINISHED).open("a", encoding="utf-8") as record:

                def keep(key: str, files: dict[str, dict]) -> None:
                    eyes[key] = files
                    record.write(json.dumps([key, files]) + "\n")
                    record.flush()

                _paint_all(root, paint, version, jobs, seed, workers, progress, dict(eyes), keep)
            _move_in(work, folder)
            eyes.clear()
        except OSError as error:
            kept = f"; {len(eyes)} finished eyes are kept in {work}" if eyes else ""
            raise DataError(
                f"cannot write the painted dataset to {folder} ({error.strerror or error}); "
                f"name a folder that can be written{kept}"
            ) from error
        finally:
            if eyes == {}:  # all in place, or none painted
                shutil.rmtree(work, ignore_errors=True)
    if eyes == {} and os.name == "nt":  # where an open file, the lock, is not removed
        shutil.rmtree(work, ignore_errors=True)
    return folder


@contextmanager
def _alone(work: Path, folder: Path) -> Iterator[None]:
    """Hold the folder of unfinished eyes for this call alone; the system lets go of it for a killed process.

    Raises:
        DataError: if another call paints there.
    """
    lock = FileLock(work / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise DataError(
            f"another process is painting into {folder}: wait until it is done, or name another folder"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _move_in(work: Path, folder: Path) -> None:
    """Put a complete set in its place, the manifest last."""
    root = work / "set"
    if not folder.exists():
        os.replace(root, folder)
        return
    (work / "replaced").mkdir()  # the folder is perhaps the one that a terminal is in, so it stays
    for entry in list(folder.iterdir()):  # of a painted set, or the folder is empty
        os.replace(entry, work / "replaced" / entry.name)
    for entry in sorted(root.iterdir(), key=lambda entry: entry.name == MANIFEST):
        os.replace(entry, folder / entry.name)


def unfinished(folder: str | Path) -> Path:
    """Where the finished eyes of a set are kept until it is complete: a hidden folder beside its own."""
    folder = Path(folder).expanduser().resolve()
    return folder.with_name(f".{folder.name}.unfinished")


def _image(job: tuple) -> str:
    """The relative name of the photograph that a job writes."""
    writer, *which = job
    if writer is _write_plainly:
        return f"images/{which[0]:06d}.png"
    return f"{which[0]}/images/{which[1]:02d}_{which[0]}.tif"


def _listed(folder: Path) -> set[str]:
    """The relative names of the files that the manifest in a folder lists; none where there is none."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return {MANIFEST, *manifest["files"]} if manifest["generator"] == "drive_unet.painter" else set()
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()


def _refuse_what_is_there(folder: Path, overwrite: bool) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    listed = _listed(folder) if folder.is_dir() else set()
    if not overwrite or not listed:
        more = ", or replace the painted set in it with --overwrite (overwrite=True)" if listed else ""
        raise DataError(
            f"{folder} exists and is not an empty folder; name a new folder for the painted dataset{more}"
        )
    for path in sorted(folder.rglob("*")):
        if not path.is_dir() and path.relative_to(folder).as_posix() not in listed:
            raise DataError(
                f"{path} is no file of the painted set in {folder} and would be lost; move it elsewhere, or "
                "name a new folder"
            )


def _begun(work: Path, header: dict, wanted: set[str], overwrite: bool) -> dict[str, dict[str, dict]]:
    """The eyes wanted that an interrupted call left whole in `work`, see `_finished`.

    Raises:
        DataError: if some would be lost that are not wanted now, and may not be.
    """
    eyes = _finished(work, header, overwrite)
    surplus = eyes.keys() - wanted
    if surplus and not overwrite:
        raise DataError(
            f"{work} holds {len(surplus)} finished eyes of a larger set, which would be lost: ask for as "
            "many photographs as before to go on with them, or drop them with --overwrite (overwrite=True)"
        )
    return {key: files for key, files in eyes.items() if key in wanted}


def _finished(work: Path, header: dict, overwrite: bool) -> dict[str, dict[str, dict]]:
    """The eyes, each its files' fingerprints by name, that an interrupted call left whole in `work`.

    Raises:
        DataError: if they are of another version or seed, and are not to be overwritten.
    """
    eyes: dict[str, dict[str, dict]] = {}
    root = work / "set"
    root.mkdir(parents=True, exist_ok=True)
    if not (work / FINISHED).is_file():
        return eyes
    first, *lines = (work / FINISHED).read_bytes().split(b"\n")
    if _parsed(first) != header:
        if overwrite:
            return eyes
        raise DataError(
            f"{work} holds eyes that another call left unfinished, not of seed {header['seed']} and version "
            f"{header['version']} of the painter: ask for what it did to go on with them, remove that "
            "folder, or name another one"
        )
    for line in lines:
        try:
            key, files = _parsed(line)
            if all(_fingerprint(root / name) == mark for name, mark in files.items()):
                eyes[key] = files
        except (OSError, ValueError, TypeError, AttributeError):
            continue  # a line that was not written to its end, or a file that is not there any more
    return eyes


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _clear(root: Path, names: set[str]) -> None:
    """Remove whatever is not named from an unfinished set."""
    for path in root.rglob("*"):
        if path.is_file() and path.relative_to(root).as_posix() not in names:
            path.unlink()


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
