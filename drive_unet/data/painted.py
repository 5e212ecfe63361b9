"""Painted eyes without end for training: painted while the network learns, and forgotten after use."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from drive_unet.data.dataset import DRIVEDataset, painted_photograph
from drive_unet.data.reading import Photograph
from drive_unet.painter import painting as synthetic
from drive_unet.painter import store as embedded
from drive_unet.painter.eye import AS_USUAL, Ingredients


class PaintedStream(DRIVEDataset):
    """A dataset of any number of painted eyes, of which only a few are in memory at a time.

    It goes where a `DRIVEDataset` goes, above all into `drive_unet.fit`, which takes patches from `at_once`
    eyes in turn until each has given `reuse` of them; meanwhile threads paint the next ones. Nothing is
    written to disk. Items and their order depend on the seed alone, however many threads there are. Worker
    processes of a data loader would each paint for themselves, so leave `num_workers` at 0.

    Args:
        eyes: how many different ones; after the last the first comes again.
        seed: of all of them; none is an eye of the embedded set.
        transform: called with a Sample, returns a Sample.
        at_once: eyes among which the patches of one stretch of training are mixed.
        reuse: patches taken from each.
        mix: strengths of the ingredients.
        threads: that paint; None takes the number of cores, at most 8.

    Raises:
        ValueError: if one of the numbers is less than 1, the seed negative, or a strength none.
    """

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
        self._fill(names, _Eyes(names, mix, self.at_once, threads or embedded.cores()), transform)

    @property
    def has_labels(self) -> bool:
        return True

    @property
    def fingerprints(self) -> list[str]:
        """16 hexadecimal digits an eye, of its name and the painter's version: it is not painted yet."""
        painter = f"{synthetic.VERSION} {self._photographs.mix}"
        return [hashlib.sha256(f"{painter} {name}".encode()).hexdigest()[:16] for name in self.names]

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

    def subset(self, which: Iterable[str | int], transform: Callable | None = None) -> DRIVEDataset:
        which = list(which)
        if which != self.names:  # a part of them is painted here and now, and stays in memory
            return super().subset(which, transform)
        view = object.__new__(PaintedStream)
        view.__dict__.update(self.__dict__)
        view.transform = transform
        return view


class _Eyes(Sequence):
    """The photographs of a stream by index, painted when they are needed or shortly before."""

    def __init__(self, names: Sequence[str], mix: Ingredients, at_once: int, threads: int) -> None:
        self.names, self.mix, self.at_once, self.threads = names, mix, at_once, threads
        self._start()

    def __reduce__(self) -> tuple:  # threads do not go to another process, but can be started there
        return _Eyes, (self.names, self.mix, self.at_once, self.threads)

    def _start(self) -> None:
        self.process = os.getpid()
        self.pool = ThreadPoolExecutor(self.threads)
        self.ready: dict[int, Future[Photograph]] = {}

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Photograph:
        if self.process != os.getpid():  # a fork has the memory of its parent, but not its threads
            self._start()
        if index not in self.ready:
            self.ready[index] = self.pool.submit(self._paint, index)
        stretch = index // self.at_once
        following = (stretch + 1) % -(-len(self) // self.at_once)
        ahead = following * self.at_once + index % self.at_once  # takes its place in the next stretch
        busy = sum(not eye.done() for eye in self.ready.values())
        if ahead < len(self) and ahead not in self.ready and busy < self.threads:
            self.ready[ahead] = self.pool.submit(self._paint, ahead)
        for eye in [eye for eye in self.ready if eye // self.at_once not in (stretch, following)]:
            self.ready.pop(eye).cancel()
        return self.ready[index].result()

    def _paint(self, eye: int) -> Photograph:
        stream, number = self.names[eye].split("-")[1:]
        seed = embedded.image_seed(int(stream), 1_000_000 + int(number))
        return painted_photograph(synthetic.paint(seed, mix=self.mix))
