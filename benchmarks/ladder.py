"""The ladder: from a well-known article's recipe to ours, one repair a row, each on top of those above it.

    python benchmarks/ladder.py --data DRIVE --threads 1

Budget: ten trainings a fold, 50 in all, each of 300 steps of eight 256x256 pictures; about half an hour a
fold on one CPU thread. Rows 9 and 12 cost no training: they read the network of the row before in another
way. A ladder that was stopped goes on where it was; several processes started with the same line share the
trainings. Every call ends with the table of what is finished.

Protocol: every photograph of DRIVE's training set is scored by the networks that learned from the 16 of the
other folds: inside the FOV, at native size, pixels pooled over the fold; clDice is the mean over its
photographs. A threshold is one half, or the best one for the 16. The last weights count: nothing is chosen on
what is scored. Mean and standard deviation are over folds and seeds.

The article's network has 16 channels here rather than 64, so that no row costs over twice another. Row 10
starts from painted eyes, which the embedded set consists of too: it means something on real photographs only,
and its budget does not count the 4,500 steps behind those weights.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from records import RUNS, labelled, once, parsed, spread
from torch.nn import functional as F
from torch.utils.data import DataLoader, RandomSampler
from torchvision.transforms import v2

from drive_unet import ArticleNet, UNet, fit
from drive_unet.augmentation import training_transform
from drive_unet.data import DRIVEDataset, folds
from drive_unet.inference import predict, predict_all
from drive_unet.losses import Loss, combine
from drive_unet.metrics import choose_threshold, scores
from drive_unet.models import SegmentationModel

FIRST_WEIGHTS = "synthetic-2"  # packaged weights that learned from painted eyes alone
BATCH, SIZE = 8, 256
SHOWN = ("AUC", "Dice", "MCC", "clDice")


class Cut(v2.Transform):
    """A square patch centred anywhere in the FOV: the photograph's own pixels, black beyond its edge."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, int]:
        inside = flat_inputs[-1].nonzero()  # a Sample's last part is its FOV, (1, H, W)
        _, row, column = inside[torch.randint(len(inside), ())].tolist()
        return {"top": row - SIZE // 2, "left": column - SIZE // 2, "height": SIZE, "width": SIZE}

    def transform(self, inpt: Any, params: dict[str, int]) -> Any:
        return v2.functional.crop(inpt, **params)


SQUASH = v2.Resize((SIZE, SIZE))  # the image bilinearly, masks by nearest neighbour


@dataclass(frozen=True)
class Rung:
    """A recipe, and how its network is read. What is not given is the article's.

    Attributes:
        repair: what the row is called.
        labels: the part of a `Sample` that the network learns to draw.
        inside: whether the loss counts only pixels inside the FOV.
        network: makes the network with its first weights.
        transform: from a photograph to what the network learns from; with `SQUASH` it also predicts so.
        loss: weights by name, as for `drive_unet.combine`.
        one_cycle: AdamW with one cycle up to 1e-2 (`drive_unet.fit`), rather than Adam at a constant 1e-3.
        average: decay of the moving average of the weights.
        chosen: whether the threshold is the best one for the photographs learned from, rather than one half.
        flips: whether the predictions of four flips are averaged.
    """

    repair: str
    labels: str = "fov"
    inside: bool = False
    network: Callable[[], SegmentationModel] = ArticleNet
    transform: Callable = SQUASH
    loss: tuple[tuple[str, float], ...] = (("bce", 1.0),)
    one_cycle: bool = False
    average: float = 0.0
    chosen: bool = False
    flips: bool = False

    @property
    def training(self) -> Rung:
        """What the rungs that share a training have in common."""
        return replace(self, repair="", chosen=False, flips=False)


REPAIRS: tuple[dict[str, Any], ...] = (
    {"repair": "right labels: vessels", "labels": "vessels"},
    {"repair": "loss inside the FOV only", "inside": True},
    {"repair": "skip connections: `UNet()`", "network": UNet},
    {"repair": "native size: patches, no squash", "transform": Cut()},
    {"repair": "augmentation", "transform": training_transform(SIZE)},
    {"repair": "loss: BCE and half soft Dice", "loss": (("bce", 1.0), ("dice", 0.5))},
    {"repair": "AdamW, one cycle to 1e-2", "one_cycle": True},
    {"repair": "threshold chosen on the training photographs", "chosen": True},
    {"repair": "first weights from painted eyes", "network": partial(UNet.from_pretrained, FIRST_WEIGHTS)},
    {"repair": "moving average of the weights, .98 (in no preset)", "average": 0.98},
    {"repair": "four flips averaged", "flips": True},
)
ARTICLE = Rung("the article: FOV masks as labels, squashed, no skips")
RUNGS = tuple(accumulate(REPAIRS, lambda rung, repair: replace(rung, **repair), initial=ARTICLE))


def learn(rung: Rung, photographs: DRIVEDataset, steps: int, seed: int) -> SegmentationModel:
    """A network trained by the rung's recipe."""
    torch.manual_seed(seed)
    model, loss = rung.network(), combine(**dict(rung.loss))
    train = photographs.subset(photographs.names, rung.transform)
    if rung.one_cycle:
        budget = {"steps": steps, "batch_size": BATCH, "lr": 1e-2, "average": rung.average, "seed": seed}
        fit(model, train, loss=loss, mixed_precision="no", progress=False, **budget)
    else:
        plain_fit(model, train, loss, rung, steps)
    return model


def plain_fit(model: SegmentationModel, train: DRIVEDataset, loss: Loss, rung: Rung, steps: int) -> None:
    """The article's loop: Adam, one learning rate, the last weights."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    optimizer = torch.optim.Adam(model.to(device).train().parameters(), lr=1e-3)
    order = RandomSampler(train, num_samples=steps * BATCH)  # round after round of all photographs
    for batch in DataLoader(train, BATCH, sampler=order):
        fov = batch.fov if rung.inside else None
        optimizer.zero_grad()
        loss(model(batch.image.to(device)), getattr(batch, rung.labels).to(device), fov).backward()
        optimizer.step()
    model.eval()


def predictions(rung: Rung, model: SegmentationModel, photographs: DRIVEDataset) -> list[np.ndarray]:
    """Probability maps at native size, (H, W) each; from the squashed photograph where the rung squashes."""
    if rung.transform is not SQUASH:
        return predict_all(model, photographs, tta=rung.flips)
    maps = []
    for native, squashed in zip(photographs, photographs.subset(photographs.names, SQUASH), strict=True):
        small = torch.from_numpy(predict(model, squashed, tta=rung.flips))[None, None]
        back = F.interpolate(small, native.fov.shape[-2:], mode="bilinear", align_corners=False)
        maps.append(back[0, 0].clamp(0, 1).numpy())  # rounding may exceed 1
    return maps


def run(numbers: list[int], everything: DRIVEDataset, steps: int, seed: int, fold: int) -> dict:
    """Train once and score every rung that shares the training: the record."""
    train, held_out = (everything.subset(names) for names in folds(everything.names)[fold])
    start = time.perf_counter()
    model = learn(RUNGS[numbers[0] - 1], train, steps, seed)
    seconds = time.perf_counter() - start
    record = {"steps": steps, "seed": seed, "fold": fold, "held out": held_out.names}
    record |= {"seconds": seconds, "rungs": {}}
    for number in numbers:
        rung, threshold = RUNGS[number - 1], 0.5
        if rung.chosen:
            threshold = choose_threshold(predictions(rung, model, train), train.vessels, train.fovs)
        maps = predictions(rung, model, held_out)
        scored = scores(maps, held_out.vessels, held_out.fovs, threshold)
        record["rungs"][str(number)] = {"repair": rung.repair, "threshold": threshold, **scored}
        print(f"rung {number}, seed {seed}, fold {fold}: Dice {scored['Dice']:.4f}", flush=True)
    return record


def table(records: list[dict]) -> str:
    """The finished rungs in Markdown: mean and standard deviation over trainings, median seconds."""
    lines = [f"| | {' | '.join(('recipe', *SHOWN, 'threshold', 'training, s', 'trainings'))} |"]
    lines.append("|--:|:--|" + "--:|" * (len(SHOWN) + 3))
    for number, rung in enumerate(RUNGS, start=1):
        done = [record for record in records if str(number) in record["rungs"]]
        if not done:
            continue
        columns = {key: [r["rungs"][str(number)][key] for r in done] for key in (*SHOWN, "threshold")}
        # All called vessel, or nothing, has no MCC.
        cells = ["none" if np.isnan(values).any() else spread(values) for values in columns.values()]
        cells += [f"{median(record['seconds'] for record in done):.0f}", str(len(done))]
        lines.append(f"| {number} | {rung.repair} | {' | '.join(cells)} |")
    where = {f"{record['hardware']}, torch {record['versions']['torch']}" for record in records}
    return "\n".join([*lines, "", *sorted(where)])


def main(arguments: list[str] | None = None) -> None:
    everyone = range(1, len(RUNGS) + 1)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--rungs", type=int, nargs="+", default=[*everyone], choices=everyone, metavar="RUNG")
    parser.add_argument("--out", type=Path, default=RUNS / "ladder")
    options = parsed(parser, arguments)
    everything = labelled(options.data)
    shared: dict[Rung, list[int]] = {}  # rungs, counted from 1, by training
    for number, rung in enumerate(RUNGS, start=1):
        shared.setdefault(rung.training, []).append(number)
    todo = [numbers for numbers in shared.values() if set(numbers) & set(options.rungs)]
    targets = []
    own = everything.fingerprints[0][:6]  # keeps records of other photographs apart
    # Fold by fold, so that a ladder cut short compares like with like.
    for seed, fold, numbers in product(options.seeds, options.folds, todo):
        folder = options.out / f"{own}-{options.steps}-steps" / f"seed-{seed}" / f"fold-{fold}"
        targets.append(folder / f"rung-{numbers[0]}.json")
        once(targets[-1], partial(run, numbers, everything, options.steps, seed, fold))
    print(table([json.loads(target.read_text()) for target in targets if target.is_file()]))


if __name__ == "__main__":
    main()
