"""The best small network of the field in our folds: a W-Net, taught by its own recipe and by ours.

    python benchmarks/rival.py --data DRIVE --folds 1 3 --threads 1

A W-Net is two small U-Nets in a row at full resolution; the second sees the photograph and the first one's
answer (Galdran et al., "The little W-Net that could", arXiv 2009.01907). Written anew after the paper, with
its 68,482 parameters. Its own recipe: whole photographs, the field of view 512 pixels wide, batches of four,
Adam, 20 cycles of 50 epochs in each of which the learning rate falls from .01 to 1e-8 along a cosine,
cross-entropy on both answers; flips, turns up to 45 degrees, magnification of .95 to 1.2, colours. Not its
authors': photographs are standardised as everywhere here, and the last weights are kept. "ours" is the preset
`laptop` but for its start, from random weights.

Budget on two cores: about four hours a fold by its own recipe, half an hour by ours. `--precision bf16`
halves it on processors that have it. So does `--cycles 10`: each cycle ends at the lowest learning rate, so
the network can be read after any. A training that was stopped goes on at its last cycle or checkpoint;
several processes started with the same line share the list. The report is printed at the end of every call,
from whatever is finished.

Protocol: inside the field of view, native size, four flips and one pass, the threshold from the photographs
learned from.
"""

from __future__ import annotations

import argparse
import math
import time
from functools import partial
from pathlib import Path

import torch
from records import RUNS, WAYS, labelled, once, parsed, spread
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from drive_unet.data import DRIVEDataset, collate, folds
from drive_unet.inference import predict_all
from drive_unet.losses import bce_loss
from drive_unet.metrics import pixel_scores, scores
from drive_unet.models import SegmentationModel
from drive_unet.preprocessing import Preprocessing, standardise
from drive_unet.presets import PRESETS, Preset, choose_thresholds, train

SIZE, BATCH, LR, LOWEST = 512, 4, 1e-2, 1e-8
EPOCHS = 50  # of a cycle
RECIPES = ["its own", "ours"]


class Block(nn.Module):
    """Two 3x3 convolutions with ReLU and batch normalisation, and a 1x1 shortcut around both."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*_conv(in_channels, out_channels), *_conv(out_channels, out_channels))
        self.shortcut = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


class LittleUNet(nn.Module):
    """Three levels of 8, 16 and 32 channels; a convolution on every skip; (B, C, H, W) to (B, 1, H, W)."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.first, self.second, self.third = Block(in_channels, 8), Block(8, 16), Block(16, 32)
        self.up = nn.ModuleList(
            [nn.ConvTranspose2d(32, 16, 2, stride=2), nn.ConvTranspose2d(16, 8, 2, stride=2)]
        )
        self.bridge = nn.ModuleList([nn.Sequential(*_conv(16, 16)), nn.Sequential(*_conv(8, 8))])
        self.decoder = nn.ModuleList([Block(32, 16), Block(16, 8)])
        self.head = nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.first(x)
        coarse = self.second(F.max_pool2d(fine, 2))
        x = self.third(F.max_pool2d(coarse, 2))
        for up, bridge, block, skip in zip(self.up, self.bridge, self.decoder, (coarse, fine), strict=True):
            x = block(torch.cat([up(x), bridge(skip)], dim=1))
        return self.head(x)


class WNet(SegmentationModel):
    """Two little U-Nets in a row; `both` gives the two answers, the network itself the second one."""

    multiple = 4

    def __init__(self, in_channels: int = 3, num_classes: int = 1) -> None:
        super().__init__(in_channels, num_classes)
        self.first, self.second = LittleUNet(in_channels), LittleUNet(in_channels + 1)
        self.to(memory_format=torch.channels_last)

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first = self.first(x)
        return first, self.second(torch.cat([x, first], dim=1))

    def network(self, x: Tensor) -> Tensor:
        return self.both(x)[1]


def _conv(in_channels: int, out_channels: int) -> list[nn.Module]:
    return [nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(out_channels)]


def own_recipe(photographs: DRIVEDataset, seed: int, out: Path, precision: str, cycles: int) -> WNet:
    """Train by the W-Net's own recipe; a run that was stopped goes on at the cycle it was in."""
    torch.manual_seed(seed)
    model = WNet()
    model.preprocessing = Preprocessing(fov_width=SIZE, tolerance=0.0)
    frames = photographs.prepared(model.preprocessing)
    frames.transform = v2.Compose(
        [
            v2.CenterCrop(SIZE),
            v2.RandomHorizontalFlip(),
            v2.RandomVerticalFlip(),
            v2.RandomAffine(45, translate=(0.05, 0.05), scale=(0.95, 1.2)),
            v2.ColorJitter(brightness=0.25, contrast=0.25, saturation=0.25, hue=0.01),
        ]
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    out.mkdir(parents=True, exist_ok=True)
    kept, done = out / "cycles.pt", 0
    if kept.is_file():
        state = torch.load(kept, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["cycles"]
    steps = EPOCHS * math.ceil(len(frames) / BATCH)
    model.train()
    for cycle in range(done, cycles):
        torch.manual_seed(1000 * seed + cycle)
        loader = DataLoader(frames, BATCH, shuffle=True, collate_fn=collate)
        batches = (batch for _ in range(EPOCHS) for batch in loader)
        for step, batch in enumerate(batches):
            for group in optimizer.param_groups:
                group["lr"] = LOWEST + (LR - LOWEST) * (1 + math.cos(math.pi * step / steps)) / 2
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                answers = model.both(standardise(batch.image, batch.fov))
            value = sum(bce_loss(answer.float(), batch.vessels, batch.fov) for answer in answers)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        unfinished = kept.with_suffix(".part")
        torch.save(
            {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "cycles": cycle + 1},
            unfinished,
        )
        unfinished.replace(kept)
        print(f"cycle {cycle + 1} of {cycles}, loss {value.item():.4f}", flush=True)
    model.eval()
    choose_thresholds(model, photographs)
    return model


class OurRecipe(Preset):
    """The preset `laptop`, but a W-Net, from random weights."""

    def model(self, seed: int = 0) -> WNet:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return WNet()


def our_recipe(photographs: DRIVEDataset, seed: int, out: Path, precision: str) -> WNet:
    """Train by the preset `laptop`, but from random weights."""
    preset = OurRecipe(**vars(PRESETS["laptop"]) | {"start": None})
    kept = {"seed": seed, "out": out, "resume": True, "progress": False}
    return train(preset, photographs, mixed_precision=precision, **kept)[0]


def run(
    recipe: str, everything: DRIVEDataset, seed: int, fold: int, out: Path, precision: str, cycles: int
) -> dict:
    """Train without one fold, predict it: the record."""
    names, held_out = folds(everything.names)[fold]
    start = time.perf_counter()
    learned = everything.subset(names)
    if recipe == "ours":
        model = our_recipe(learned, seed, out, precision)
    else:
        model, recipe = own_recipe(learned, seed, out, precision, cycles), f"{recipe}, {cycles} cycles"
    seconds = time.perf_counter() - start
    model.save_pretrained(out / "wnet.safetensors")
    scored = everything.subset(held_out)
    record = {"recipe": recipe, "seed": seed, "fold": fold, "held out": held_out, "precision": precision}
    record["seconds"] = round(seconds)
    for way, tta in WAYS.items():
        maps, threshold = predict_all(model, scored, tta=tta), model.threshold_for(tta)
        called = [probability >= threshold for probability in maps]
        record[way] = scores(called, scored.vessels, scored.fovs)  # for clDice; of masks there is no AUC
        record[way] |= pixel_scores(maps, scored.vessels, scored.fovs, threshold)
    return record


def report(records: list[dict]) -> str:
    """One row for each recipe, fold and way: mean and deviation over seeds."""
    columns = ("AUC", "AP", "Dice", "MCC", "clDice")
    lines = [
        "| recipe | fold | way | seeds | " + " | ".join(columns) + " |",
        "|---" * (4 + len(columns)) + "|",
    ]
    for recipe, fold in sorted({(record["recipe"], record["fold"]) for record in records}):
        runs = [record for record in records if (record["recipe"], record["fold"]) == (recipe, fold)]
        for way in WAYS:
            cells = [spread([record[way][column] for record in runs]) for column in columns]
            lines.append("| " + " | ".join([recipe, str(fold), way, str(len(runs)), *cells]) + " |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folds", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=RECIPES)
    parser.add_argument("--cycles", type=int, default=20, help="of its own recipe, which takes 20")
    parser.add_argument("--precision", choices=["no", "bf16"], default="no", help="of the convolutions")
    parser.add_argument("--out", type=Path, default=RUNS / "rival")
    options = parsed(parser, arguments)
    everything, finished = labelled(options.data), []
    for seed in options.seeds:
        for recipe in options.recipes:
            for fold in options.folds:
                kept = f"{recipe.replace(' ', '-')}-{options.precision}"
                out = options.out / kept / f"seed-{seed}" / f"fold-{fold}"
                record = once(
                    out / ("record.json" if recipe == "ours" else f"record-{options.cycles}.json"),
                    partial(run, recipe, everything, seed, fold, out, options.precision, options.cycles),
                )
                if record:
                    finished.append(record)
    print(report(finished))


if __name__ == "__main__":
    main()
