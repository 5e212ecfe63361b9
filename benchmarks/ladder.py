"""The ladder: from a well-known article's recipe to ours, one change a row, each on top of those above it.

    python benchmarks/ladder.py --data DRIVE --folds 1 3 --seeds 0 1 --threads 1

Row 1 is the article as it stands: its network at its true width, the masks of the field of view as labels,
everything squashed to 256x256, ImageNet's constants for the photograph, BCE on the whole frame, Adam at 1e-3,
batches of eight, 30 updates. Two things had to be mended for it to run at all: the label is not normalised,
and it is 0 or 1. Every later row repairs one thing. Two repairs change several things at once: the network of
row 4 is deeper, narrower and has batch normalisation; row 11 changes optimiser, peak rate and schedule.
Row 6 also cuts its patches at random, and from row 8 on maps pass through `Rim`.

A run is a fold and a seed. It takes fourteen trainings of eight 256x256 pictures a step: rows 14 and 15 cost
none, because they read the network of row 13 in another way. A ladder that was stopped goes on where it was;
several processes started with the same line share the trainings. Every call ends with the table of what is
finished. Row 3 costs about a quarter of it all: `--rungs` leaves it out.

Protocol: every photograph of DRIVE's training set that a fold holds out is scored by networks that learned
from the 16 others: inside the FOV, at native size, pixels pooled over the fold; clDice is the mean over its
photographs. A threshold is one half, or the best one for the 16. The last weights count: nothing is chosen on
what is scored. A cell is the mean over runs and half of its 95 % interval (Student's t). Scores of two folds
differ because their photographs do, so the gain over the row above is taken run by run, before the mean.

Row 13 starts from painted eyes, which the embedded set consists of too: it means something on real
photographs only, and its budget does not count the 4,500 steps behind those weights.
"""

from __future__ import annotations

import argparse
import json
import re
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
from records import RUNS, interval, labelled, once, parsed
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, RandomSampler
from torchvision import tv_tensors
from torchvision.transforms import v2

from drive_unet import PRESETS, ArticleNet, UNet, fit
from drive_unet.augmentation import training_transform
from drive_unet.data import DRIVEDataset, Sample, folds
from drive_unet.inference import predict_all
from drive_unet.losses import Loss, combine
from drive_unet.metrics import choose_threshold, scores
from drive_unet.models import SegmentationModel
from drive_unet.preprocessing import Preprocessing, standardise

UPDATES = 30  # the article's: ten epochs of 20 photographs in batches of eight
PRESET = PRESETS["laptop"]
BATCH, SIZE = 8, 256
SHOWN = ("AUC", "Dice", "MCC", "clDice")
SQUASH = v2.Resize((SIZE, SIZE))  # the image bilinearly, masks by nearest neighbour
IMAGENET = v2.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])


class Cut(v2.Transform):
    """A square patch centred anywhere in the FOV: the photograph's own pixels, black beyond its edge."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, int]:
        fov = [part for part in flat_inputs if isinstance(part, tv_tensors.Mask)][-1]
        inside = fov.nonzero()  # (N, 3): channel, row, column
        _, row, column = inside[torch.randint(len(inside), ())].tolist()
        return {"top": row - SIZE // 2, "left": column - SIZE // 2, "height": SIZE, "width": SIZE}

    def transform(self, inpt: Any, params: dict[str, int]) -> Any:
        pictures = tv_tensors.Image | tv_tensors.Mask  # what else a sample holds is of the whole photograph
        return v2.functional.crop(inpt, **params) if isinstance(inpt, pictures) else inpt


def skipless() -> UNet:
    """`UNet(stem=1)` whose decoder gets zeros for every skip: the same layers and as many weights."""
    model = UNet(stem=1)
    for block in model.decoder:
        block.register_forward_pre_hook(_silence)
    return model


def _silence(block: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    up, skip = inputs[0].chunk(2, dim=1)
    return torch.cat([up, torch.zeros_like(skip)], dim=1)


@dataclass(frozen=True)
class Rung:
    """A recipe, and how its network is read. What is not given is the article's.

    Attributes:
        repair: what the row is called.
        steps: updates.
        transform: from a photograph to what the network learns from; with `SQUASH` it also predicts so.
        labels: the part of a `Sample` that the network learns to draw.
        network: makes the network with its first weights.
        inside: whether the loss counts only pixels inside the FOV.
        standardised: whether each photograph is standardised inside its FOV, rather than by ImageNet's
            constants.
        loss: weights by name, as for `drive_unet.combine`.
        one_cycle: AdamW with one cycle up to 1e-2 (`drive_unet.fit`), rather than Adam at a constant 1e-3.
        chosen: whether the threshold is the best one for the photographs learned from, rather than one half.
        flips: whether the predictions of four flips are averaged.
    """

    repair: str
    steps: int
    transform: Callable
    labels: str = "fov"
    network: Callable[[], SegmentationModel] = ArticleNet
    inside: bool = False
    standardised: bool = False
    loss: tuple[tuple[str, float], ...] = (("bce", 1.0),)
    one_cycle: bool = False
    chosen: bool = False
    flips: bool = False

    @property
    def training(self) -> Rung:
        """What the rungs that share a training have in common."""
        return replace(self, repair="", chosen=False, flips=False)


def rungs(steps: int = 300) -> tuple[Rung, ...]:
    """The ladder, with this budget in all rows but the first two and the last."""
    repairs: tuple[dict[str, Any], ...] = (
        {"repair": "right labels: vessels", "labels": "vessels"},
        {"repair": f"budget: {steps} updates rather than {UPDATES}", "steps": steps},
        {"repair": "a deep network with batch normalisation, no skips yet", "network": skipless},
        {"repair": "skip connections: `UNet(stem=1)`", "network": partial(UNet, stem=1)},
        {"repair": "native size: patches, no squash", "transform": Cut()},
        {"repair": "loss inside the FOV only", "inside": True},
        {"repair": "standardised by photograph, inside the FOV", "standardised": True},
        {"repair": "augmentation", "transform": training_transform(SIZE)},
        {"repair": "loss: BCE and half soft Dice", "loss": PRESET.loss},
        {"repair": "AdamW and one cycle to 1e-2, together", "one_cycle": True},
        {"repair": "half resolution inside: `UNet()`, stem 2", "network": UNet},
        {"repair": "first weights from painted eyes", "network": partial(UNet.from_pretrained, PRESET.start)},
        {"repair": "threshold chosen on the training photographs", "chosen": True},
        {"repair": "four flips averaged", "flips": True},
        {"repair": f"budget: {PRESET.steps:,} updates, the preset `laptop`", "steps": PRESET.steps},
    )
    article = Rung("the article: FOV masks as labels, squashed, no skips", UPDATES, SQUASH)
    return tuple(accumulate(repairs, lambda rung, repair: replace(rung, **repair), initial=article))


def learn(rung: Rung, photographs: DRIVEDataset, seed: int, precision: str = "no") -> SegmentationModel:
    """A network trained by the rung's recipe, with convolutions in that precision."""
    torch.manual_seed(seed)
    model, loss = rung.network(), combine(**dict(rung.loss))
    model.preprocessing = Preprocessing()  # of this training: the packaged weights were taught another one
    train = photographs.subset(photographs.names, rung.transform)
    if rung.one_cycle:
        budget = {"steps": rung.steps, "batch_size": BATCH, "lr": PRESET.lr, "seed": seed}
        fit(model, train, loss=loss, mixed_precision=precision, progress=False, **budget)
    else:
        plain_fit(model, train, loss, rung, precision)
    return model


def plain_fit(model: SegmentationModel, train: DRIVEDataset, loss: Loss, rung: Rung, precision: str) -> None:
    """The article's loop: Adam, one learning rate, the last weights."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    order = RandomSampler(train, num_samples=rung.steps * BATCH)  # round after round of all photographs
    for batch in DataLoader(train, BATCH, sampler=order):
        fov = batch.fov if rung.inside else None
        image = network_input(rung, batch).to(device, memory_format=torch.channels_last)
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            logits = model(image)
        optimizer.zero_grad()
        loss(logits.float(), getattr(batch, rung.labels).to(device), fov).backward()
        optimizer.step()
    model.eval()


def network_input(rung: Rung, batch: Sample) -> Tensor:
    """What the rung's network gets of a batch of photographs in 0..1, (B, 3, H, W)."""
    if rung.standardised:
        return standardise(batch.image, batch.fov, getattr(batch, "levels", None))
    return IMAGENET(batch.image)


def predictions(rung: Rung, model: SegmentationModel, photographs: DRIVEDataset) -> list[np.ndarray]:
    """Probability maps at native size, (H, W) each; from the squashed photograph where the rung squashes."""
    if rung.standardised:
        return predict_all(model, photographs, tta=rung.flips)
    device = next(model.parameters()).device
    seen = photographs.subset(photographs.names, SQUASH if rung.transform is SQUASH else None)
    maps = []
    for sample, fov in zip(seen, photographs.fovs, strict=True):
        with torch.inference_mode():
            small = torch.sigmoid(model(IMAGENET(sample.image)[None].to(device))).cpu()
        back = F.interpolate(small, fov.shape, mode="bilinear", align_corners=False)
        maps.append(back[0, 0].clamp(0, 1).numpy())  # rounding may exceed 1
    return maps


def run(
    numbers: list[int],
    ladder: tuple[Rung, ...],
    everything: DRIVEDataset,
    seed: int,
    fold: int,
    precision: str = "no",
) -> dict:
    """Train once and score every rung that shares the training: the record."""
    train, held_out = (everything.subset(names) for names in folds(everything.names)[fold])
    start = time.perf_counter()
    model = learn(ladder[numbers[0] - 1], train, seed, precision)
    seconds = time.perf_counter() - start
    about = {"seed": seed, "fold": fold, "held out": held_out.names, "precision": precision}
    record: dict = about | {"seconds": seconds, "rungs": {}}
    for number in numbers:
        rung, threshold = ladder[number - 1], 0.5
        if rung.chosen:
            threshold = choose_threshold(predictions(rung, model, train), train.vessels, train.fovs)
        maps = predictions(rung, model, held_out)
        scored = scores(maps, held_out.vessels, held_out.fovs, threshold)
        row = {"repair": rung.repair, "steps": rung.steps, "threshold": threshold, **scored}
        if rung.labels == "fov":  # how well it does what it is asked for
            row["own labels"] = whole_frame(maps, held_out.fovs)
        record["rungs"][str(number)] = row
        print(f"rung {number}, seed {seed}, fold {fold}: Dice {scored['Dice']:.4f}", flush=True)
    return record


def whole_frame(maps: list[np.ndarray], labels: list[np.ndarray]) -> dict[str, float]:
    """Accuracy and Dice over all pixels of all frames, at one half."""
    drawn, label = (np.concatenate([part.ravel() for part in parts]) for parts in (maps, labels))
    drawn = drawn >= 0.5
    dice = 2 * (drawn & label).sum() / max(drawn.sum() + label.sum(), 1)
    return {"accuracy": float((drawn == label).mean()), "Dice": float(dice)}


def table(ladder: tuple[Rung, ...], records: list[dict]) -> str:
    """The finished rungs in Markdown: means over runs with their intervals, median seconds."""
    head = ("", "recipe", *SHOWN, "Dice gained", "threshold", "updates", "training, s", "runs")
    lines = [f"| {' | '.join(head)} |", "|--:|:--|" + "--:|" * (len(head) - 2)]
    rows = [
        {(r["fold"], r["seed"]): r["rungs"][str(n)] for r in records if str(n) in r["rungs"]}
        for n in range(1, len(ladder) + 1)
    ]
    for number, (rung, row) in enumerate(zip(ladder, rows, strict=True), start=1):
        if not row:
            continue
        above = rows[number - 2] if number > 1 else {}
        gained = [row[key]["Dice"] - above[key]["Dice"] for key in row if key in above]
        cells = [interval([scored[key] for scored in row.values()]) for key in SHOWN]
        cells.append(interval(gained, sign=True) if gained else "")
        cells.append(interval([scored["threshold"] for scored in row.values()]).split(" ")[0])
        seconds = median(r["seconds"] for r in records if str(number) in r["rungs"])
        cells += [f"{rung.steps:,}", f"{seconds:.0f}", str(len(row))]
        lines.append(f"| {number} | {rung.repair} | {' | '.join(cells)} |")
    for number, row in enumerate(rows, start=1):
        own = [scored["own labels"] for scored in row.values() if "own labels" in scored]
        if own:
            accuracy, dice = (interval([values[key] for values in own]) for key in ("accuracy", "Dice"))
            lines += [
                "",
                f"Row {number} against its own labels, whole frame: accuracy {accuracy}, Dice {dice}.",
            ]
    precise = {"no": "float32", "bf16": "bf16"}
    where = {
        f"{r['hardware']}, torch {r['versions']['torch']}, convolutions in {precise[r['precision']]}"
        for r in records
    }
    return "\n".join([*lines, "", *sorted(where)])


def main(arguments: list[str] | None = None) -> None:
    everyone = range(1, len(rungs()) + 1)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300, help="updates, but for rows 1, 2 and the last")
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--rungs", type=int, nargs="+", default=[*everyone], choices=everyone, metavar="RUNG")
    parser.add_argument("--precision", choices=["no", "bf16"], default="no", help="of the convolutions")
    parser.add_argument("--out", type=Path, default=RUNS / "ladder")
    options = parsed(parser, arguments)
    everything, ladder = labelled(options.data), rungs(options.steps)
    shared: dict[Rung, list[int]] = {}  # rungs, counted from 1, by training
    for number, rung in enumerate(ladder, start=1):
        shared.setdefault(rung.training, []).append(number)
    todo = [numbers for numbers in shared.values() if set(numbers) & set(options.rungs)]
    targets = []
    own = everything.fingerprints[0][:6]  # keeps records of other photographs apart
    kept = options.out / f"{own}-{options.steps}-steps-{options.precision}"
    # Run by run, so that a ladder cut short compares like with like.
    for seed, fold, numbers in product(options.seeds, options.folds, todo):
        name = "-".join(re.findall(r"[a-z0-9]+", ladder[numbers[0] - 1].repair.lower()))
        folder = kept / f"seed-{seed}" / f"fold-{fold}"
        targets.append(folder / f"{numbers[0]:02}-{name}.json")
        once(targets[-1], partial(run, numbers, ladder, everything, seed, fold, options.precision))
    print(table(ladder, [json.loads(target.read_text()) for target in targets if target.is_file()]))


if __name__ == "__main__":
    main()
