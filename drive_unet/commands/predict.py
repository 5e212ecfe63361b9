"""Behind ``drive-unet predict``: photographs in, masks and a table out.

Reading, the network and writing overlap; what is in memory at a time does not depend on how many photographs
there are. Processes that a launcher started together share them.
"""

from __future__ import annotations

import argparse
import csv
import errno
import io
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage
from torch import Tensor
from tqdm import tqdm

from drive_unet.commands.faults import complain, in_a_line
from drive_unet.commands.networks import device_of, fingerprint, network
from drive_unet.commands.photographs import (
    OUTLINE,
    Photograph,
    find_masks,
    find_photographs,
    is_drawn,
    is_outlined,
    set_aside_collisions,
)
from drive_unet.commands.threads import choose
from drive_unet.data.beside import read_fov
from drive_unet.data.decoding import decode
from drive_unet.data.known import checksum
from drive_unet.data.reading import as_photograph
from drive_unet.errors import DataError
from drive_unet.inference import Segmentation, Segmenter, believed
from drive_unet.models import learned_from
from drive_unet.outputs import Outputs, Taken, digest
from drive_unet.preprocessing.fov import detect_fov, width_of
from drive_unet.preprocessing.prepare import Prepared
from drive_unet.preprocessing.quality import Quality, assess, is_map
from drive_unet.progress import bar

if TYPE_CHECKING:
    from drive_unet.measurement.intervals import Calibration  # it loads scikit-image

SUMMARY = "summary.csv"
COLUMNS = (
    "photograph",
    "status",
    "reason",
    "quality",
    "quality_reasons",
    "width",
    "height",
    "fov_width",
    "fov_from",
    "vessel_share",
)
DONE, FAILED, LEFT_OUT = "done", "failed", "left out"
SMALLEST = 16  # pixels along a side
COARSE = 0.5  # of a photograph's size: measured at less, widths are far off
FINE = 1080  # pixels of the field of view's width: weights that see so much are exempt
_MAP = "dark but for vessels as maps of probabilities are, no photograph"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def run(options: argparse.Namespace) -> int:
    """Predict photographs, each for itself; returns 1 if one of them failed or there was none, else 0."""
    with ExitStack() as ending:
        return _run(options, ending)


def _run(options: argparse.Namespace, ending: ExitStack) -> int:
    rank, processes = _rank()
    if options.micrometres_per_pixel and not options.measure and rank == 0:
        complain("--micrometres-per-pixel is noted beside measurements, which --measure makes")
    outputs = Outputs(options.out, options.overwrite)
    listing = find_photographs(options.paths, recursive=options.recursive, own=outputs.wrote)
    kinds = [*dict.fromkeys([*options.outputs, *(["overlay"] if options.overlay else [])])]
    photographs, collisions = set_aside_collisions(listing.photographs, options.out, kinds)
    masks = find_masks(photographs, options.mask)
    if rank == 0:
        for words in listing.left_out:
            complain(words)
        for fault in listing.faults.values():
            complain(fault)
    if not listing.photographs:
        return 1
    device = device_of(options.device or _own_gpu())
    model = network(options.weights)
    command = _Command(
        weights=options.weights or "default",
        segmenter=Segmenter(
            model,
            tta=options.tta,
            threshold=options.threshold,
            field_of_view=options.field_of_view,
            device=device,
        ),
        outputs=outputs,
        kinds=kinds,
        masks=masks,
        mask_given=options.mask is not None,
        settings={
            "weights": fingerprint(model),
            "flips": options.tta,
            "threshold": options.threshold,
            "field_of_view": options.field_of_view,
        },
        overlay="overlay" in kinds,
        measured=options.measure,
        scale=options.micrometres_per_pixel,
        calibration=_calibration(options),
        learned=learned_from(model.notes),
    )
    if options.measure and options.tta and command.calibration is None and rank == 0:
        complain(f"measurements come without intervals: those of {options.weights} are known to nobody")
    share = photographs[rank::processes]
    finished = command.check(share, resume=options.resume)  # all of them before the first is written
    if rank == 0:
        outputs.check([SUMMARY], {"command": "predict"})
        for path, fault in listing.faults.items():
            _tell(outputs, str(path), path, FAILED, fault)
        for photograph, fault in collisions.items():
            complain(fault)
            _tell(outputs, str(photograph.path), photograph.path, FAILED, fault)
        for path, reason in listing.reasons.items():
            _tell(outputs, str(path), path, LEFT_OUT, reason)
    faults = 0 if rank else len(listing.faults) + len(collisions)
    together = _join(processes, ending)
    choose()
    todo = [photograph for photograph in share if photograph not in finished]
    done, left_out, coarse = len(finished), 0, False
    try:
        with bar(total=len(todo), desc="predicting", unit="photograph", shown=rank == 0) as progress:
            for outcome in command.outcomes(todo, options.batch):
                if outcome.left_out:
                    left_out += 1
                    _say(f"drive-unet: {outcome.left_out}", sys.stderr)
                    _tell(outputs, outcome.photograph.name, outcome.photograph.path, LEFT_OUT, outcome.reason)
                elif outcome.fault:
                    faults += 1
                    _say_fault(outcome.fault, outcome.error, options.debug)
                    _tell(outputs, outcome.photograph.name, outcome.photograph.path, FAILED, outcome.fault)
                else:
                    done += 1
                    if not _quiet(todo):
                        _say(outcome.words, sys.stdout)
                    if outcome.poor:
                        _say(outcome.poor, sys.stdout)
                    if outcome.coarse and not coarse:
                        coarse = True
                        _say(f"drive-unet: {outcome.coarse}", sys.stderr)
                progress.update()
    except (KeyboardInterrupt, _CannotGoOn) as stopped:
        if sys.stderr.isatty():
            print(file=sys.stderr)  # below the bar
        why = "interrupted" if isinstance(stopped, KeyboardInterrupt) else str(stopped)
        done = len(finished) + command.written
        complain(f"{why}; {done} of {len(share)} photographs are finished: --resume goes on with the others")
        _summarise(outputs)
        if isinstance(stopped, KeyboardInterrupt):
            raise
        return 1
    done, faults, left_out = together([done, faults, left_out])
    if rank == 0:
        outputs.read()
        _summarise(outputs)
        poor = sum(outputs.rows.get(each.name, {}).get("quality") == "poor" for each in photographs)
        words = f"{done} of {done + faults} photographs are predicted" + (
            f", {len(finished)} of them earlier" if finished and processes == 1 else ""
        )
        words += f", {poor} of poor quality" if poor else ""
        print(f"{words}; {options.out / SUMMARY} has a row for each", flush=True)
    together([0, 0, 0])  # a launcher ends the others where one has ended with a fault
    return 1 if faults or not done else 0


# ------------------------------------------------------------------------------------------ one photograph


class _Loaded(NamedTuple):
    """A photograph that is ready for the network, and what its outputs will need."""

    photograph: Photograph
    prepared: Prepared
    image: np.ndarray | None  # (H, W, 3) uint8, where it is to be drawn on
    fov_from: str
    quality: Quality
    made_of: dict[str, Any]
    learned: bool | None  # whether the weights learned from it; None: not recorded
    rest: str  # what of its file was not looked at, in words


@dataclass
class _Outcome:
    """What came of a photograph in words: what was found, a fault, or the reason why it is none."""

    photograph: Photograph
    words: str = ""
    poor: str = ""
    coarse: str = ""  # what is wrong with measurements at the network's scale
    fault: str = ""
    error: BaseException | None = None
    left_out: str = ""
    reason: str = ""  # of that, without the file


class _Drawn(Exception):
    """A picture that was drawn, not photographed; why it is taken for that."""


class _CannotGoOn(Exception):
    """A fault that all photographs have in common."""


@dataclass
class _Command:
    """What is done to every photograph, in three steps that overlap: `load`, the network, `write`."""

    weights: str  # by name, for what is wrong with them
    segmenter: Segmenter
    outputs: Outputs
    kinds: Sequence[str]
    masks: Mapping[Photograph, Path]
    mask_given: bool
    settings: dict[str, Any]
    overlay: bool
    measured: bool
    scale: float | None
    calibration: Calibration | None = None  # of the intervals of measurements
    learned: frozenset[str] | None = None  # fingerprints of what the weights learned from; None: unknown
    written: int = 0

    def made_of(self, photograph: Photograph) -> dict[str, Any]:
        """What a prediction is made of, for its record."""
        mask = self.masks.get(photograph)
        try:
            parts = {"photograph": digest(photograph.path), "mask": None if mask is None else digest(mask)}
        except OSError as error:
            raise DataError(
                f"{error.filename} cannot be read ({error.strerror or error}): copy the file there, or give "
                "yourself permission to read it"
            ) from error
        return parts | self.settings

    def names(self, photograph: Photograph) -> list[str]:
        return [photograph.output(kind) for kind in self.kinds]

    def check(self, photographs: Iterable[Photograph], resume: bool) -> set[Photograph]:
        """Those that need not be predicted again; Taken if an output must not be replaced.

        When a run is resumed, that is raised only for other settings, which all photographs share; what else
        keeps one from being written is told when its turn comes.
        """
        finished = set()
        for photograph in photographs:
            if not any(os.path.lexists(self.outputs.folder / name) for name in self.names(photograph)):
                continue
            try:
                made_of = self.made_of(photograph)
            except DataError:
                continue  # is told when it is read
            try:
                complete = self.outputs.check(self.names(photograph), made_of)
            except Taken as taken:
                if not resume or taken.unlike & self.settings.keys():
                    raise
                continue
            if complete and resume and self._told(self.outputs.rows.get(photograph.name, {})):
                finished.add(photograph)
        return finished

    def _told(self, row: Mapping[str, Any]) -> bool:
        """Whether a row says all that is asked for."""
        if row.get("status") != DONE or not self.measured:
            return row.get("status") == DONE
        scale = None if self.scale is None else f"{self.scale:.6g}"
        ranged = self.calibration is not None
        return (
            "network_scale" in row
            and row.get("micrometres_per_pixel") == scale
            and ("calibre_mean_low" in row) == ranged
        )

    def outcomes(self, photographs: Sequence[Photograph], batch: int) -> Iterator[_Outcome]:
        """What comes of each, in their order; a few are read ahead and a few are still being written."""
        reading, writing = ThreadPoolExecutor(2), ThreadPoolExecutor(2)
        pending: deque[_Outcome | Future[_Outcome]] = deque()
        try:
            loaded: list[_Loaded | _Outcome] = []
            for number, each in enumerate(_ahead(reading, self.load, photographs, batch + 2), start=1):
                loaded.append(each)
                if len(loaded) < batch and number < len(photographs):
                    continue
                pending.extend(self._through_the_network(loaded, writing))
                loaded = []
                while len(pending) > batch + 2:
                    yield _result(pending.popleft())
            while pending:
                yield _result(pending.popleft())
        finally:
            reading.shutdown(cancel_futures=True)
            writing.shutdown()  # what is in writing is finished

    def _through_the_network(
        self, loaded: Sequence[_Loaded | _Outcome], writing: ThreadPoolExecutor
    ) -> list[_Outcome | Future[_Outcome]]:
        ready = [each for each in loaded if isinstance(each, _Loaded)]
        maps: dict[str, Tensor | _Outcome] = {}
        try:
            results = self._maps(ready)
            maps = {each.photograph.name: result for each, result in zip(ready, results, strict=True)}
        except Exception:  # too large together, or one of them broke it: each for itself
            for each in ready:
                result = _attempt(each.photograph, lambda each=each: self._maps([each])[0])
                maps[each.photograph.name] = result
        steps: list[_Outcome | Future[_Outcome]] = []
        for part in loaded:
            if isinstance(part, _Outcome):
                steps.append(part)
            elif isinstance(result := maps[part.photograph.name], _Outcome):
                steps.append(result)
            else:
                steps.append(writing.submit(_attempt, part.photograph, self.write, part, result))
        return steps

    def _maps(self, ready: Sequence[_Loaded]) -> list[Tensor]:
        """The map (1, h, w) of each; of a measurement with intervals the maps (4, h, w) of its flips."""
        photographs = [each.prepared for each in ready]
        try:
            if self.calibration is None:
                return [probability[None] for probability in self.segmenter.maps(photographs)]
            return [
                believed(self.segmenter.flips([each])[:, 0], each, self.segmenter.threshold)
                for each in photographs
            ]
        except FloatingPointError as error:
            raise FloatingPointError(f"with the weights {self.weights} {error}") from error

    def load(self, photograph: Photograph) -> _Loaded | _Outcome:
        """Read a photograph and prepare it."""
        return _attempt(photograph, self._load, photograph)

    def _load(self, photograph: Photograph) -> _Loaded:
        path = photograph.path
        made_of = self.made_of(photograph)
        self.outputs.check(self.names(photograph), made_of)
        picture = decode(path)
        image, pages = as_photograph(path, picture), picture.pages
        height, width = image.shape[:2]
        if min(height, width) < SMALLEST:
            raise DataError(f"{path} is {width}x{height} px, too small for a photograph of an eye")
        if is_drawn(image):
            raise _Drawn("drawn in a few colours as labels are, no photograph")
        if is_outlined(image):
            raise _Drawn("drawn on as overlays of this command are, no photograph")
        fov, fov_from = _fov(self.masks.get(photograph), image, self.mask_given)
        try:
            fov = detect_fov(image) if fov is None else fov
        except DataError as error:
            if is_map(image, np.ones((height, width), bool)):
                raise _Drawn(_MAP) from error
            raise DataError(f"{path}: {error} (quality: {assess(image)})") from error
        if is_map(image, fov):
            raise _Drawn(_MAP)
        prepared = self.segmenter.prepare(image, fov)
        quality = assess(image, fov)
        learned = None if self.learned is None else checksum(image.transpose(2, 0, 1)) in self.learned
        drawn_on = image if self.overlay else None
        rest = f"the first of {pages} pictures in its file" if pages > 1 else ""
        return _Loaded(photograph, prepared, drawn_on, fov_from, quality, made_of, learned, rest)

    def write(self, loaded: _Loaded, maps: Tensor) -> _Outcome:
        """Write what was asked for of a photograph."""
        photograph, result = loaded.photograph, self.segmenter.finish(loaded.prepared, maps.mean(dim=0))
        for kind, name in zip(self.kinds, self.names(photograph), strict=True):
            picture = _DRAW[kind](result, loaded.image)
            try:
                # Whoever scores the probabilities is to cut them where the vessels were cut, and to know
                # whether the network knew the photograph.
                facts = {"threshold": self.segmenter.threshold, "learned_from": loaded.learned}
                self.outputs.save(name, loaded.made_of, _png(picture), facts)
            except OSError as error:
                if error.errno in _FULL or not os.access(self.outputs.folder, os.W_OK):
                    raise _CannotGoOn(
                        f"{self.outputs.folder} cannot be written ({error.strerror}): make room, or name "
                        "another --out"
                    ) from error
                raise DataError(
                    f"{self.outputs.folder / name} cannot be written ({error.strerror or error}): move what "
                    "is there, or name another --out"
                ) from error
        height, width = result.fov.shape
        share = result.vessels.sum() / max(result.fov.sum(), 1)
        row = {
            "photograph": str(photograph.path),
            "status": DONE,
            "reason": loaded.rest,
            "quality": "good" if loaded.quality.good else "poor",
            "quality_reasons": "; ".join(loaded.quality.reasons),
            "width": width,
            "height": height,
            "fov_width": width_of(result.fov),
            "fov_from": loaded.fov_from or "photograph",
            "vessel_share": round(float(share), 5),
        }
        scale = loaded.prepared.image.shape[-1] / width
        if self.measured:
            row |= {"network_scale": f"{scale:.4g}"} | self._measure(loaded.prepared, result, maps)
        self.outputs.tell(photograph.name, row)  # here, so that an interruption loses no row
        self.written += 1
        words = f" ({loaded.fov_from})" if loaded.fov_from else ""
        written = self.outputs.folder / self.names(photograph)[0]
        words = f"{photograph.path}: {share:.1%} of the field of view{words} is vessel, {written}"
        words += f" ({loaded.rest})" if loaded.rest else ""
        poor = "" if loaded.quality.good else f"{photograph.path}: {loaded.quality}"
        coarse = ""
        finest = getattr(self.segmenter.preprocessing, "finest", None) or 0
        if self.measured and scale < COARSE and finest < FINE:
            coarse = (
                f"{photograph.path} and others like it are measured at {scale:.2g} of their size, the scale "
                "of these weights: vessels come out one to two pixels of that too wide, and intervals do not "
                "hold it; --weights default or open see finer, network_scale in the table tells the scale"
            )
        return _Outcome(photograph, words, poor=poor, coarse=coarse)

    def _measure(self, prepared: Prepared, result: Segmentation, maps: Tensor) -> dict[str, Any]:
        """The measurements of a photograph, for its row; empty where there was nothing to measure."""
        from drive_unet.measurement import measure, measure_flips  # here: they load scikit-image

        threshold, fov = self.segmenter.threshold, result.fov
        if self.calibration is None:
            measured = measure(result.vessels, fov, result.probability, threshold=threshold, scale=self.scale)
        else:
            flips = prepared.restore(maps)
            measured = measure_flips(flips, threshold, fov, scale=self.scale, calibration=self.calibration)
        return {
            key: f"{value:.6g}" if value == value else ""
            for key, value in measured.as_dict().items()
            if key != "fov_width"
        }


def _calibration(options: argparse.Namespace) -> Calibration | None:
    """What intervals of measurements are made with: of four flips, by weights for which it is packaged."""
    if not (options.measure and options.tta):
        return None
    from drive_unet.measurement import calibrated_weights, packaged_calibration

    weights = options.weights or "default"
    return packaged_calibration(weights) if weights in calibrated_weights() else None


def _attempt(photograph: Photograph, step: Callable, *arguments: Any) -> Any:
    """The result of a step; or what went wrong with this photograph, beside which the others go on."""
    try:
        return step(*arguments)
    except _CannotGoOn:
        raise
    except _Drawn as drawn:
        return _Outcome(photograph, left_out=f"{photograph.path} left out, {drawn}", reason=str(drawn))
    except Exception as error:
        fault = in_a_line(error)
        fault = fault if photograph.path.name in fault else f"{photograph.path}: {fault}"
        return _Outcome(photograph, fault=fault, error=error)


def _ahead(pool: ThreadPoolExecutor, function: Callable, items: Sequence[Any], most: int) -> Iterator[Any]:
    """The function of each item, in their order, `most` of them computed before they are asked for."""
    coming: deque[Future] = deque()
    for item in items:
        coming.append(pool.submit(function, item))
        if len(coming) > most:
            yield coming.popleft().result()
    while coming:
        yield coming.popleft().result()


def _result(outcome: _Outcome | Future[_Outcome]) -> _Outcome:
    return outcome.result() if isinstance(outcome, Future) else outcome


def _fov(path: Path | None, image: np.ndarray, given: bool) -> tuple[np.ndarray | None, str]:
    """A photograph's field of view, (H, W) bool, None where it is to be found; and its source in words.

    What was given must be one; what lies beside it need not, see `fov_beside`.
    """
    if path is None:
        return None, ""
    try:
        mask = read_fov(path, image)
    except DataError:
        if given:
            raise
        return None, f"found in it, for {path} shows none"
    return mask, f"of {path}"


# ------------------------------------------------------------------------------------------------ pictures


def _vessels(result: Segmentation, image: np.ndarray | None) -> np.ndarray:
    return result.vessels.astype(np.uint8) * 255


def _probability(result: Segmentation, image: np.ndarray | None) -> np.ndarray:
    return (result.probability * 65535).round().astype(np.uint16)


def _overlay(result: Segmentation, image: np.ndarray | None) -> np.ndarray:
    """The photograph with a line around every vessel, on the pixels next to it: none of its own is hidden."""
    line = ndimage.binary_dilation(result.vessels, np.ones((3, 3))) & ~result.vessels
    drawn = image.copy()
    drawn[line] = OUTLINE
    return drawn


def _field(result: Segmentation, image: np.ndarray | None) -> np.ndarray:
    return result.fov.astype(np.uint8) * 255


def _centreline(result: Segmentation, image: np.ndarray | None) -> np.ndarray:
    from skimage.morphology import skeletonize  # here: it loads for half a second

    return skeletonize(result.vessels).astype(np.uint8) * 255


_DRAW: dict[str, Callable[[Segmentation, np.ndarray | None], np.ndarray]] = {
    "vessels": _vessels,
    "probability": _probability,
    "overlay": _overlay,
    "fov": _field,
    "centreline": _centreline,
}


def _png(picture: np.ndarray) -> Callable[[BinaryIO], None]:
    # Runs of equal bytes alone: a third of the time of Pillow's default, and hardly larger.
    return lambda file: Image.fromarray(picture).save(file, "PNG", compress_type=3)


# ------------------------------------------------------------------------------------- the table, the screen


def _tell(outputs: Outputs, key: str, path: Path, status: str, reason: str) -> None:
    """Record a file that was not predicted."""
    try:
        outputs.tell(key, {"photograph": str(path), "status": status, "reason": reason})
    except OSError:  # the folder cannot be written, which is told where a photograph is written
        pass


def _summarise(outputs: Outputs) -> None:
    """Write the table of all files that runs met; what was left out or absent may be there since."""
    read = {row["photograph"] for row in outputs.rows.values() if row["status"] != LEFT_OUT}
    done = {row["photograph"] for row in outputs.rows.values() if row["status"] == DONE}
    rows = []
    for name, row in sorted(outputs.rows.items()):
        unnamed = (
            row["status"] == FAILED and name == row["photograph"]
        )  # told by its path, before it was read
        if row["photograph"] not in (read if row["status"] == LEFT_OUT else done if unnamed else ()):
            rows.append(row)
    columns = [*COLUMNS, *dict.fromkeys(key for row in rows for key in row if key not in COLUMNS)]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    content = text.getvalue().encode(errors="backslashreplace")  # as names are printed that are no UTF-8
    try:
        if rows:
            outputs.save(SUMMARY, {"command": "predict"}, lambda file: file.write(content))
    except OSError as error:
        complain(f"{outputs.folder / SUMMARY} cannot be written ({error.strerror or error})")


def _quiet(photographs: Sequence[Photograph]) -> bool:
    """Whether a terminal shows a bar alone, and faults: of more photographs than a screen has lines."""
    return len(photographs) > 20 and sys.stdout.isatty() and sys.stderr.isatty()


def _say(words: str, stream: Any) -> None:
    """Print a line, above the bar where there is one."""
    if sys.stderr.isatty():
        tqdm.write(words, stream)
    else:
        print(words, file=stream, flush=True)


def _say_fault(fault: str, error: BaseException | None, debug: bool) -> None:
    if debug or not sys.stderr.isatty():
        complain(fault, error, debug)
    else:
        _say(f"drive-unet: {fault}", sys.stderr)


# ------------------------------------------------------------------------------------------------ processes


def _rank() -> tuple[int, int]:
    """The number of this process among those that a launcher started together, and how many they are."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def _own_gpu() -> str | None:
    """The GPU of this process where a launcher started one for each."""
    import torch

    local = os.environ.get("LOCAL_RANK")
    return None if local is None or not torch.cuda.is_available() else f"cuda:{local}"


def _join(processes: int, ending: ExitStack) -> Callable[[list[int]], list[int]]:
    """Join the processes of a launcher: a function that adds numbers up over them, and waits for all.

    They part at the ending: a group that lives on while Python ends may abort the process.
    """
    if processes == 1 or "MASTER_ADDR" not in os.environ:
        return lambda numbers: numbers
    import torch
    from torch import distributed

    distributed.init_process_group("gloo", timeout=timedelta(days=30))
    ending.callback(distributed.destroy_process_group)

    def together(numbers: list[int]) -> list[int]:
        total = torch.tensor(numbers)
        distributed.all_reduce(total)
        return total.tolist()

    return together
