"""Training that is killed at random moments, gone on with, and compared with the unbroken run.

`python tests/kills.py --kills 50` does so on one and on two processes, with 0 and with 2 workers, and prints
what came of it and how long a kill took; `--processes 2 --workers 2` does so in that setting alone. With
`--out FOLDER` the same command goes on where it was stopped. `test_nothing_is_lost.py` runs the same with few
kills.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from itertools import product
from pathlib import Path

import numpy as np
import torch
from builders import write_split
from torch import nn

from drive_unet import files
from drive_unet.augmentation import training_transform
from drive_unet.data import DRIVEDataset
from drive_unet.losses import combine
from drive_unet.models import SegmentationModel
from drive_unet.preprocessing import Preprocessing
from drive_unet.training import loop

STEPS, EVERY = 8, 2
STAGES = (
    "in a step",
    "in validation",
    "while a file is written",
    "before a file gets its name",
    "at any time",
)


class Noisy(SegmentationModel):
    """A tiny network with normalisation and dropout, whose every step draws random numbers."""

    def __init__(self) -> None:
        super().__init__(3, 1)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Conv2d(4, 1, 1)
        )

    def network(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Drawing:
    """The usual patches, darkened by NumPy's generator and now and then mirrored by Python's."""

    description = "drawing"

    def __init__(self) -> None:
        self.cut = training_transform(32)

    def __call__(self, sample):
        sample = self.cut(sample)
        image = sample.image * float(np.random.uniform(0.8, 1.0))  # noqa: NPY002 (as users' transforms do)
        if random.random() < 0.5:
            return sample._replace(
                image=image.flip(-1), vessels=sample.vessels.flip(-1), fov=sample.fov.flip(-1)
            )
        return sample._replace(image=image)


def photographs(folder: Path) -> tuple[DRIVEDataset, DRIVEDataset]:
    """Three to learn from and one to validate on."""
    if not folder.exists():
        write_split(folder, "training", range(21, 25))
    everything = DRIVEDataset(folder / "images", folder / "1st_manual")
    return everything.subset([0, 1, 2], Drawing()), everything.subset([3])


def train(data: Path, out: Path, workers: int, processes: int) -> None:
    """One run, resumed where it was killed; what it ends with is written beside it."""
    torch.manual_seed(0)
    model = Noisy()
    model.preprocessing = Preprocessing(tolerance=100)
    training, validation = photographs(data)
    run = loop.fit(
        model,
        training,
        validation,
        steps=STEPS,
        batch_size=4 // processes,
        patch_size=32,
        validate_every=EVERY,
        average=0.5,
        num_workers=workers,
        out=out,
        resume=True,
        mixed_precision="no",
        progress=False,
    )
    if os.environ.get("RANK", "0") == "0":
        result = {"weights": model.state_dict(), "history": run.history, "best": run.best_step}
        torch.save(result | {"thresholds": [model.threshold, model.threshold_single]}, out / "result.pt")


def dies(stage: str, count: int, seconds: float) -> None:
    """Kill this process by SIGKILL at the given moment: the `count`th of its kind, or after some seconds."""
    left = iter(range(count, -10_000, -1))

    def due() -> None:
        if next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    if stage == "at any time":
        threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()
    elif stage == "in a step":
        usual = combine(bce=1.0, dice=0.5)

        def loss(logits, vessels, fov):
            due()
            return usual(logits, vessels, fov)

        loss.description = usual.description
        loop.combine = lambda **names: loss
    elif stage == "in validation":
        choose = loop.best_threshold

        def chosen(*arguments, **options):
            due()
            return choose(*arguments, **options)

        loop.best_threshold = chosen
    elif stage == "while a file is written":
        write = files.write_atomically

        def written(path, fill, **options):
            def half(file):
                fill(file)
                file.truncate(file.tell() // 2)
                file.flush()
                due()
                file.seek(0)
                fill(file)

            write(path, half, **options)

        from drive_unet import models
        from drive_unet.training import checkpoints

        models.write_atomically = checkpoints.write_atomically = written
    else:
        replace = os.replace

        def renamed(*paths):
            due()
            replace(*paths)

        files.os = type("os", (), {**vars(os), "replace": staticmethod(renamed)})


def child(data: Path, out: Path, workers: int, rank: int, processes: int, port: int, moment: tuple) -> None:
    """What a forked process does; the moment is when it dies, or ()."""
    sys.stderr = sys.stdout = open(out.with_name(f"process-{rank}.log"), "w")
    torch.set_num_threads(1)  # more would wait for ever for the threads that a fork leaves behind
    if processes > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": ""}
    if moment:
        dies(*moment)
    train(data, out, workers, processes)


def start(data: Path, out: Path, workers: int, processes: int, moment: tuple = (), dying: int = 0) -> bool:
    """Run until the end, or until one process is killed and the others after it; whether it finished."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    started = [
        fork.Process(
            target=child, args=(data, out, workers, rank, processes, port, moment if rank == dying else ())
        )
        for rank in range(processes)
    ]
    for process in started:
        process.start()
    try:
        while all(process.exitcode is None for process in started):
            time.sleep(0.005)
    except BaseException:  # the campaign is stopped, which is to leave nobody who holds the run's folder
        for process in started:
            process.kill()
            process.join()
        raise
    if moment:
        started[dying].join(1)  # whose end another process may have noticed first
    killed = started[dying].exitcode == -signal.SIGKILL
    if any(process.exitcode not in (None, 0) for process in started):
        for process in started:
            process.kill()
    for process in started:
        process.join()
    codes = [process.exitcode for process in started]
    fine = (0, -signal.SIGKILL, *([1] if killed else []))  # 1: lost the connection to the one that was killed
    if any(code not in fine for code in codes):
        raise RuntimeError(f"a process ended with {codes}, neither done nor killed: {moment}")
    return codes == [0] * processes


def same(first: dict, second: dict) -> bool:
    """Whether two runs ended alike, bit for bit."""
    weights = first.pop("weights"), second.pop("weights")
    alike = weights[0].keys() == weights[1].keys() and first == second
    return alike and all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def campaign(folder: Path, kills: int, workers: int, processes: int, seed: int = 0) -> dict[str, int]:
    """Kill so many times; by stage how often, and how many runs were finished and ended identically.

    The folder keeps the counts, so that a campaign that was stopped goes on there.
    """
    data, unbroken, kept = folder / "data", folder / "unbroken", folder / "counts.json"
    if kept.exists():
        counts, seconds = json.loads(kept.read_text())
    else:
        for left in (data, unbroken):
            shutil.rmtree(left, ignore_errors=True)
        photographs(data)
        begun = time.perf_counter()
        if not start(data, unbroken, workers, processes):
            raise RuntimeError("the unbroken run was killed")
        counts, seconds = (
            dict.fromkeys((*STAGES, "kills", "runs", "identical"), 0),
            time.perf_counter() - begun,
        )
        keep(kept, counts, seconds)
    out = folder / "killed"
    while counts["kills"] < kills or out.exists():
        draw = random.Random(f"{seed} {workers} {processes} {counts['kills'] + counts['runs']}")
        stage = STAGES[counts["kills"] % len(STAGES)]
        most = {"in a step": STEPS, "in validation": 4}.get(stage, 6)
        moment = (stage, draw.randrange(most), draw.uniform(0, seconds))
        dying = draw.randrange(processes) if stage in ("in a step", "at any time") else 0
        if start(data, out, workers, processes, moment if counts["kills"] < kills else (), dying):
            results = [torch.load(place / "result.pt", weights_only=True) for place in (unbroken, out)]
            counts["runs"] += 1
            counts["identical"] += same(*results)
            shutil.rmtree(out)
        else:
            counts[stage] += 1
            counts["kills"] += 1
            out.mkdir(exist_ok=True)
        keep(kept, counts, seconds)
    return counts


def keep(file: Path, counts: dict[str, int], seconds: float) -> None:
    """Write what a campaign counted so far, whole or not at all."""
    files.write_atomically(file, lambda to: to.write(json.dumps([counts, seconds]).encode()))


def main() -> int:
    """The campaigns of the command line; returns 0 if every run that went on ended as the unbroken one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="in each setting, by default of four")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--out", type=Path, help="a folder that keeps what was done, to go on there")
    options = parser.parse_args()
    failed = False
    for processes, workers in product(options.processes, options.workers):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            if options.out:
                folder = options.out / f"{processes} {workers} {options.seed}"
                folder.mkdir(parents=True, exist_ok=True)
            before, begun = done(folder), time.perf_counter()
            counts = campaign(folder, options.kills, workers, processes, options.seed)
            each = (time.perf_counter() - begun) / max(1, counts["kills"] - before)
        failed |= counts["identical"] < counts["runs"]
        print(f"{processes} processes, {workers} workers: {counts}, {each:.1f} s a kill", flush=True)
    return int(failed)


def done(folder: Path) -> int:
    """Kills of a campaign that was stopped."""
    kept = folder / "counts.json"
    return json.loads(kept.read_text())[0]["kills"] if kept.exists() else 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
