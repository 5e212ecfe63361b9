"""Painted photographs as datasets and endless streams: the one place that imports the painter.

A stream paints while a network learns from it, and forgets each eye after use.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from drive_unet.data.cache import cache_folder
from drive_unet.data.dataset import DRIVEDataset
from drive_unet.data.reading import Decoded, as_tensors
from drive_unet.data.store import InMemory, Stored, each
from drive_unet.painter import painting, store
from drive_unet.painter.eye import AS_USUAL, Ingredients
from drive_unet.painter.painting import Fundus
from drive_unet.preprocessing.prepare import Preprocessing


def embedded_folder(seed: int = 0, progress: bool = True) -> Path:
    """The painted set in DRIVE's layout that stands in for DRIVE: in the user's cache, made on first use.

    The cache folder is the system's own for user caches, or the one named by the environment variable
    DRIVE_UNET_CACHE. Arguments and errors: see `drive_unet.painter.make_embedded`.
    """
    return painting.make_embedded(cache_folder(), seed=seed, progress=progress)


def painted_photograph(eye: Fundus) -> Decoded:
    """What a dataset keeps of a painted eye."""
    return as_tensors(eye.image, eye.vessels, eye.fov, eye.second_observer)


def painted_dataset(
    seeds: Iterable[int], *, size: tuple[int, int] = (584, 565), mix: Ingredients = AS_USUAL
) -> DRIVEDataset:
    """The painted eyes of these seeds, of (height, width), in memory alone; half a second each at this size.

    The embedded dataset's eyes have other, far larger seeds than any that is written by hand. For more eyes
    than memory holds, see `PaintedStream`.
    """
    seeds = list(seeds)

    def painted(seed: int) -> Decoded:
        return painted_photograph(painting.paint(seed, size, mix=mix))

    photographs = each(painted, seeds, "painting", shown=False)
    return DRIVEDataset.from_decoded([f"painted-{seed}" for seed in seeds], photographs)


class PaintedStream(DRIVEDataset):
    """A dataset of any number of painted eyes, of which only a few are in memory at a time.

    It goes where a `DRIVEDataset` goes, above all into `drive_unet.fit`, which takes patches from `at_once`
    eyes in turn until each has given `reuse` of them; meanwhile threads paint the next ones. Nothing is
    written to disk. Items and their order depend on the seed alone, however many threads there are. Worker
    processes of a data loader would each paint for themselves, so leave `num_workers` at 0.

    Args:
        eyes: how many different ones; after the last the first comes again.
        seed: of all of them; none is an eye of the embedded set.
        transform: called with a Sample of uint8, returns a Sample; see `DRIVEDataset`.
        at_once: eyes among which the patches of one stretch of training are mixed.
        reuse: patches taken from each.
        mix: strengths of the ingredients.
        threads: that paint; None takes the number of cores, at most 8.

    Raises:
        ValueError: if one of the numbers is less than 1, the seed negative, or a strength none.
    """

    _photographs: _Eyes

    def __init__(
        self,
        eyes: int,
        *,
        seed: int = 0,
        transform: Callable | None = None,
        at_once: int = 32,
        reuse: int = 64,
        mix: Ingredients = AS_USUAL,
        threads: int | None = None,
    ) -> None:
        if min(eyes, at_once, reuse) < 1:
            raise ValueError(f"eyes, at_once and reuse must be 1 or more: {eyes, at_once, reuse}")
        if seed < 0:
            raise ValueError(f"seed={seed}: seeds are 0 or more")
        mix.check()
        self.at_once, self.reuse = min(at_once, eyes), reuse
        names = [f"streamed-{seed}-{eye}" for eye in range(eyes)]
        self._fill(names, _Eyes(names, mix, self.at_once, threads or store.cores()), transform)

    @property
    def has_labels(self) -> bool:
        return True

    @property
    def fingerprints(self) -> list[str]:
        """16 hexadecimal digits of each eye's pixels. Those not read yet are painted for it: see `marks`."""
        return each(self._photographs.fingerprint, range(len(self)), "painting")

    @property
    def marks(self) -> dict[str, str]:
        """Fingerprints by name of the eyes that were read so far, in this process or its workers."""
        return {self.names[eye]: mark for eye, mark in self._photographs.marks.items()}

    @property
    def identity(self) -> str:
        """16 hexadecimal digits of what the eyes depend on: names, strengths, the painter's version."""
        painted_by = f"{painting.VERSION} {self._photographs.mix} {len(self)} {self.names[0]}"
        return hashlib.sha256(painted_by.encode()).hexdigest()[:16]

    def state_dict(self) -> dict[str, Tensor]:
        """Which eyes were read, for a checkpoint."""
        return {"read": self._photographs.read}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Add the eyes that were read before a training was interrupted."""
        read = self._photographs.read
        read.copy_(torch.where(read == 0, state["read"], read))

    def prepared(self, preprocessing: Preprocessing) -> PaintedStream:
        """The stream whose eyes come at the scale that a network works at; see `DRIVEDataset.prepared`."""
        if preprocessing == self._photographs.preprocessing:
            return self
        view = object.__new__(PaintedStream)
        view.__dict__.update(self.__dict__)
        view._photographs = self._photographs.at(preprocessing)
        return view

    def order(self, length: int, seed: int) -> Tensor:
        """Indices (length,) int64 of the eyes that `length` patches are taken from, `at_once` eyes mixed."""
        shuffle = torch.Generator().manual_seed(seed)
        parts: list[Tensor] = []
        while sum(map(len, parts)) < length:
            for present in torch.arange(len(self)).split(self.at_once):
                patches = present.repeat(self.reuse)
                parts.append(patches[torch.randperm(len(patches), generator=shuffle)])
        return torch.cat(parts)[:length]

    def __repr__(self) -> str:
        return (
            f"PaintedStream({len(self)} photographs with vessel labels: {self.names[0]} to {self.names[-1]})"
        )

    def subset(self, photographs: Iterable[str | int], transform: Callable | None = None) -> DRIVEDataset:
        photographs = list(photographs)
        if photographs not in (self.names, list(range(len(self)))):
            # A part of them is painted here and now, and stays in memory.
            indices = self._indices(photographs)
            eyes = each(self._photographs.paint, indices, "painting")
            return DRIVEDataset._of([self.names[i] for i in indices], eyes, transform)
        view = object.__new__(PaintedStream)
        view.__dict__.update(self.__dict__)
        view.transform = transform
        return view


class _Eyes(Sequence[Stored]):
    """The photographs of a stream by index, painted when they are needed or shortly before."""

    def __init__(
        self,
        names: Sequence[str],
        mix: Ingredients,
        at_once: int,
        threads: int,
        preprocessing: Preprocessing | None = None,
        read: Tensor | None = None,
    ) -> None:
        self.names, self.mix, self.at_once, self.threads = names, mix, at_once, threads
        self.preprocessing = preprocessing
        # Fingerprints of those that were read, as numbers, 0 for the others; worker processes write here too.
        self.read = torch.zeros(len(names), dtype=torch.int64).share_memory_() if read is None else read
        self._start()

    def __reduce__(self) -> tuple:  # threads do not go to another process, but can be started there
        return _Eyes, (self.names, self.mix, self.at_once, self.threads, self.preprocessing, self.read)

    def at(self, preprocessing: Preprocessing) -> _Eyes:
        """The same eyes at the scale that a network works at; what was read of one counts for both."""
        return _Eyes(self.names, self.mix, self.at_once, self.threads, preprocessing, self.read)

    @property
    def marks(self) -> dict[int, str]:
        """The fingerprints by index of those that were read."""
        eyes = self.read.nonzero()[:, 0].tolist()
        return {eye: f"{int(self.read[eye]) % 2**64:016x}" for eye in eyes}

    def fingerprint(self, eye: int) -> str:
        """The fingerprint of an eye, which is painted for it if it was not read yet."""
        mark = int(self.read[eye])
        return f"{mark % 2**64:016x}" if mark else self.paint(eye).fingerprint

    def _start(self) -> None:
        self.process = os.getpid()
        self.pool = ThreadPoolExecutor(self.threads)
        self.ready: dict[int, Future[Stored]] = {}

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Stored:  # type: ignore[override]  # nobody asks for several
        if self.process != os.getpid():  # a fork has the memory of its parent, but not its threads
            self._start()
        if index not in self.ready:
            self.ready[index] = self.pool.submit(self.paint, index)
        stretch = index // self.at_once
        following = (stretch + 1) % -(-len(self) // self.at_once)
        ahead = following * self.at_once + index % self.at_once  # takes its place in the next stretch
        busy = sum(not eye.done() for eye in self.ready.values())
        if ahead < len(self) and ahead not in self.ready and busy < self.threads:
            self.ready[ahead] = self.pool.submit(self.paint, ahead)
        for past in [past for past in self.ready if past // self.at_once not in (stretch, following)]:
            self.ready.pop(past).cancel()
        eye = self.ready[index].result()
        self.read[index] = int.from_bytes(bytes.fromhex(eye.fingerprint), signed=True)
        return eye

    def paint(self, eye: int) -> Stored:
        stream, number = self.names[eye].split("-")[1:]
        seed = store.image_seed(int(stream), 1_000_000 + int(number))
        painted: Stored = InMemory(painted_photograph(painting.paint(seed, mix=self.mix)))
        _ = painted.fingerprint  # computed in this thread, not in the one that trains
        if self.preprocessing is not None:
            painted = painted.prepared(self.preprocessing)
        _ = painted.levels
        return painted
