"""Where the photographs of a dataset are: in memory, in their files, or prepared in the cache and mapped.

Small sets are decoded once and stay in memory. Of large ones only the files' headers are read at first; what
is needed is decoded when it is needed, and what training needs again and again is kept in the cache folder as
it will be used, so that any number of processes map the same pages of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from drive_unet import __version__
from drive_unet.data.cache import cache_folder
from drive_unet.data.known import checksum
from drive_unet.data.pairing import Pair
from drive_unet.data.reading import Decoded, as_tensors, read_image, read_photograph
from drive_unet.errors import DataError
from drive_unet.files import sweep, write_atomically
from drive_unet.preprocessing.prepare import Preprocessing, rescale, rescale_mask
from drive_unet.progress import bar

if TYPE_CHECKING:
    from drive_unet.preprocessing.levels import Levels

IN_MEMORY = 512 * 2**20  # bytes; a set that is larger when decoded stays in its files
_FORMAT = 1  # of the prepared files: raise it whenever other bytes are written for the same photograph

Item = TypeVar("Item")
Result = TypeVar("Result")


def each(
    function: Callable[[Item], Result], items: Iterable[Item], doing: str, *, shown: bool = True
) -> list[Result]:
    """`function` of each item, in their order, in threads; a progress bar, if it is to be shown, where it
    takes longer than 2 s.
    """
    items = list(items)
    settings: dict[str, Any] = {
        "total": len(items),
        "desc": doing,
        "unit": "image",
        "delay": 2,
        "shown": shown,
    }
    threads = min(os.cpu_count() or 1, 8, len(items))
    if threads < 2:
        return list(bar(map(function, items), **settings))
    with ThreadPoolExecutor(threads) as pool:
        return list(bar(pool.map(function, items), **settings))


def open_photographs(pairs: Iterable[Pair], *, smooth: bool = False) -> Sequence[Stored]:
    """The photographs of these files: decoded if all of them together take up to 512 MB, else on demand.

    Args:
        pairs: the files.
        smooth: accept labels with smoothed edges, see `read_mask`.

    Raises:
        DataError: see `read_photograph`; of a large set only what the files' headers tell. The rest is raised
            when the photograph is first decoded.
    """
    files = [InFiles(pair, smooth) for pair in pairs]
    if sum(each(InFiles.check, files, "looking at files")) > IN_MEMORY:
        return files
    return each(lambda file: InMemory(read_photograph(file.pair, smooth=smooth)), files, "decoding")


def pixel_fingerprint(image: Tensor) -> str:
    """16 hexadecimal digits of the pixels of an image (3, H, W) uint8 and of its shape."""
    return checksum(image.numpy())


def rescaled(decoded: Decoded, preprocessing: Preprocessing) -> Decoded:
    """A photograph at the scale that a network works at; itself where nothing needs resampling."""
    image, vessels, fov, second = decoded
    scale = preprocessing.scale(fov[0].numpy() > 0)
    if scale == 1:
        return decoded
    masks = (
        None if mask is None else rescale_mask(np.asarray(mask).reshape(fov.shape[1:]) > 0, scale)
        for mask in (vessels, fov, second)
    )
    return as_tensors(rescale(np.ascontiguousarray(image.numpy().transpose(1, 2, 0)), scale), *masks)


# ------------------------------------------------------------------------------------------- photographs


class _once:
    """A property computed once. `functools.cached_property` has a lock in Python 3.11, for which the threads
    that compute it for other photographs wait, and which a forked process inherits closed.
    """

    def __init__(self, compute: Callable) -> None:
        self.compute = compute

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, photograph: Stored, owner: type) -> Any:
        value = photograph.__dict__[self.name] = self.compute(photograph)
        return value


class Stored:
    """One photograph of a dataset, wherever it is.

    Attributes:
        has_labels: whether there are vessel labels, which is known without decoding.
        fingerprint: see `pixel_fingerprint`; always of the photograph as it was taken.
        levels: its grey levels inside the field of view, as it is read here.
    """

    has_labels: bool

    def read(self) -> Decoded:
        """The photograph; nobody may write into it."""
        raise NotImplementedError

    def prepared(self, preprocessing: Preprocessing) -> Stored:
        """The photograph at a network's scale, ready to be read fast; itself where that is so already."""
        raise NotImplementedError

    @_once
    def fingerprint(self) -> str:
        return pixel_fingerprint(self.read().image)

    @_once
    def levels(self) -> Levels:
        from drive_unet.preprocessing.levels import (
            levels,
        )  # here: it loads torchvision, which scoring does not need

        image, _, fov, _ = self.read()
        return levels(image.numpy().transpose(1, 2, 0), fov[0].numpy() > 0)


class InMemory(Stored):
    """A photograph that is decoded and stays so; where it was rescaled, with what it was made of and how."""

    def __init__(
        self, decoded: Decoded, source: Stored | None = None, preprocessing: Preprocessing | None = None
    ) -> None:
        self.decoded, self.source, self.preprocessing = decoded, source, preprocessing
        self.has_labels = decoded.vessels is not None

    def read(self) -> Decoded:
        return self.decoded

    def prepared(self, preprocessing: Preprocessing) -> Stored:
        if preprocessing == self.preprocessing:
            return self
        own = self.source or self
        decoded = rescaled(own.read(), preprocessing)
        return own if decoded is own.read() else InMemory(decoded, own, preprocessing)

    @_once
    def fingerprint(self) -> str:
        return self.source.fingerprint if self.source else pixel_fingerprint(self.decoded.image)


class InFiles(Stored):
    """A photograph that is decoded again whenever it is read, but for the few that were read last."""

    def __init__(self, pair: Pair, smooth: bool) -> None:
        self.pair, self.smooth = pair, smooth
        self.has_labels = pair.vessels is not None

    @property
    def files(self) -> list[Path]:
        return [
            path for path in (self.pair.image, self.pair.vessels, self.pair.fov, self.pair.second) if path
        ]

    def read(self) -> Decoded:
        return _read_lately(self.pair, self.smooth)

    def check(self) -> int:
        """The bytes that it takes when decoded; DataError if its files cannot be opened or differ in size."""
        sizes = [_size(path) for path in self.files]
        width, height = sizes[0]
        # A camera's note of orientation may turn a photograph: which way is seen when it is decoded.
        if any(sorted(size) != sorted(sizes[0]) for size in sizes[1:]):
            read_photograph(self.pair, smooth=self.smooth)  # raises, and says it better
        masks = len(self.files) - 1 + (self.pair.fov is None)  # a field of view that is not given is found
        return width * height * (3 + masks)

    def prepared(self, preprocessing: Preprocessing) -> Stored:
        mapped = Mapped(self, preprocessing)
        mapped.fill()
        return mapped

    @_once
    def key(self) -> str:
        """What the cache knows these files by: their paths, sizes and times."""
        known = [[str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns] for path in self.files]
        return _hashed([_FORMAT, __version__, self.smooth, self.pair.coloured, known])

    @_once
    def fingerprint(self) -> str:
        try:
            known = (_folder() / f"{self.key}.txt").read_text(encoding="ascii")
        except (OSError, ValueError):
            known = ""
        return known if re.fullmatch("[0-9a-f]{16}", known) else self.remember(self.read().image)

    def remember(self, image: Tensor) -> str:
        """The fingerprint of this decoded photograph, which need not be decoded for it another time."""
        mark = pixel_fingerprint(image)
        try:
            write_atomically(_folder() / f"{self.key}.txt", lambda file: file.write(mark.encode()))
        except OSError:
            pass  # costs time only
        return mark


class Mapped(Stored):
    """A photograph as a network is to get it, in one file of the cache, of which the pages needed are mapped.

    Whatever happens to the file (cut off, deleted), it is made again from the photograph.
    """

    def __init__(self, source: InFiles, preprocessing: Preprocessing) -> None:
        self.source, self.preprocessing = source, preprocessing
        self.has_labels = source.has_labels
        try:
            self.path = _folder() / f"{_hashed([source.key, asdict(preprocessing)])}.npy"
        except OSError as error:
            raise DataError(
                f"{error.filename} cannot be read ({error.strerror}): copy it there again"
            ) from error

    def read(self) -> Decoded:
        record = self._record()
        if record is None:
            self.fill()
            record = self._record()
        planes = {name: torch.from_numpy(np.asarray(record[name][0])) for name in record.dtype.names[1:]}
        second = planes.get("second")
        return Decoded(
            planes["image"],
            planes.get("vessels"),
            planes["fov"],
            None if second is None else second[0].numpy().view(bool),
        )

    def prepared(self, preprocessing: Preprocessing) -> Stored:
        return self if preprocessing == self.preprocessing else self.source.prepared(preprocessing)

    @property
    def fingerprint(self) -> str:
        return self.source.fingerprint

    @_once
    def levels(self) -> Levels:
        from drive_unet.preprocessing.levels import Levels  # here, as above

        self.read()  # so that it is there
        return Levels(torch.from_numpy(np.array(self._record()["levels"][0])))

    def fill(self) -> None:
        """Write the file where it is missing; any number of processes may do so at once.

        Raises:
            DataError: if the photograph is not as it should be, or the cache folder cannot be written.
        """
        if self._record() is not None:
            return
        decoded = read_photograph(self.source.pair, smooth=self.source.smooth)
        self.source.remember(decoded.image)
        decoded = rescaled(decoded, self.preprocessing)
        arrays = {"levels": InMemory(decoded).levels, "image": decoded.image, "fov": decoded.fov}
        if decoded.vessels is not None:
            arrays["vessels"] = decoded.vessels
        if decoded.second is not None:
            arrays["second"] = torch.from_numpy(decoded.second[None].view(np.uint8))
        arrays = {name: array.as_subclass(Tensor).numpy() for name, array in arrays.items()}
        record = np.zeros(1, [(name, array.dtype, array.shape) for name, array in arrays.items()])
        for name, array in arrays.items():
            record[name][0] = array
        try:
            write_atomically(self.path, lambda file: np.save(file, record))
        except OSError as error:
            raise DataError(
                f"the prepared photograph {self.source.pair.name} cannot be written into the cache folder "
                f"{self.path.parent} ({error.strerror or error}): make room there, or set the environment "
                "variable DRIVE_UNET_CACHE to a folder that can be written"
            ) from error

    def _record(self) -> np.ndarray | None:
        """The file, mapped: (1,) with the fields levels, image, fov and what else there is; None if damaged.

        It is opened anew each time, so that no more of it counts as this process's memory than is in use.
        What somebody writes into the arrays stays with him alone (copy on write).
        """
        try:
            record = np.load(self.path, mmap_mode="c", allow_pickle=False)
        except (OSError, ValueError, EOFError, SyntaxError):
            return None
        return record if record.dtype.names and record.dtype.names[0] == "levels" else None


# ------------------------------------------------------------------------------------------------- files


@lru_cache(maxsize=4)
def _read_lately(pair: Pair, smooth: bool) -> Decoded:
    return read_photograph(pair, smooth=smooth)


def _size(path: Path) -> tuple[int, int]:
    """The width and height that a file's header tells."""
    try:
        with Image.open(path) as picture:
            return picture.size
    except Exception:  # what is wrong with it, `read_image` says
        height, width = read_image(path).shape[:2]
        return width, height


def _folder() -> Path:
    return cache_folder() / "prepared"


def _hashed(known: object) -> str:
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:32]


def prepare_all(photographs: Sequence[Stored], preprocessing: Preprocessing) -> list[Stored]:
    """All photographs at a network's scale, see `Stored.prepared`."""
    sweep(_folder())
    return each(lambda photograph: photograph.prepared(preprocessing), photographs, "preparing")
