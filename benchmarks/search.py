"""The recipe search: one named change at a time, on fold 0 of the DRIVE training photographs.

    python benchmarks/search.py --data DRIVE
    python benchmarks/search.py base "average .98" --data DRIVE --seeds 0 1 2

Budget: 400 steps a variant, about two minutes on two cores for the small network, 40 minutes for the list. A
run learns from 16 photographs and is scored once, after its last step, on the four held out (21, 26, 31, 36).
Finished runs are passed over, and so are those that another process has claimed: start the same line
several times (each with ``--threads 1``) to share the list, or again to go on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from records import RUNS, WAYS, labelled, once, parsed
from torchvision.transforms import v2

from drive_unet import UNet, fit
from drive_unet.augmentation import RandomColour, RandomPatch
from drive_unet.data import DRIVEDataset, folds
from drive_unet.inference import predict_all
from drive_unet.losses import combine
from drive_unet.metrics import choose_threshold, pixel_scores

BASE = {
    "start": "synthetic-fast",  # packaged weights, or None for random ones
    "network": {},
    "lr": 1e-2,
    "average": 0.0,
    "loss": {"bce": 1.0, "dice": 0.5},
    "patch": 256,
    "batch": 8,
    "exact": 0.5,  # share of patches that are not resampled
    "scale": (0.8, 1.25),
    "colour": (0.15, 0.25, 0.02),
}
VARIANTS: dict[str, dict] = {
    "base": {},
    "random start": {"start": None},
    "random start, wide": {"start": None, "network": {"widths": (32, 48, 64, 96, 128)}},
    "random start, four levels": {"start": None, "network": {"widths": (16, 32, 48, 64)}},
    "random start, full resolution": {"start": None, "network": {"widths": (8, 16, 24, 32, 48), "stem": 1}},
    "lr 5e-3": {"lr": 5e-3},
    "lr 2e-2": {"lr": 2e-2},
    "average .98": {"average": 0.98},
    "average .995": {"average": 0.995},
    "cross-entropy alone": {"loss": {"bce": 1.0}},
    "with clDice": {"loss": {"bce": 1.0, "dice": 0.5, "cldice": 0.2}},
    "patches of 128": {"patch": 128, "batch": 32},
    "patches of 384": {"patch": 384, "batch": 4},
    "patches of 544": {"patch": 544, "batch": 2},
    "batches of 16": {"batch": 16},
    "all resampled": {"exact": 0.0},
    "three in four exact": {"exact": 0.75},
    "all exact": {"exact": 1.0},
    "no scaling": {"scale": (1.0, 1.0)},
    "more scaling": {"scale": (0.65, 1.5)},
    "no colour": {"colour": (0.0, 0.0, 0.0)},
    "more colour": {"colour": (0.3, 0.5, 0.03)},
}


def run(name: str, seed: int, steps: int, everything: DRIVEDataset, out: Path) -> dict:
    settings = BASE | VARIANTS[name]
    learned, held_out = (everything.subset(names) for names in folds(everything.names)[0])
    gain, gamma, noise = settings["colour"]
    learned.transform = v2.Compose(
        [
            RandomPatch(settings["patch"], exact=settings["exact"], scale=settings["scale"]),
            RandomColour(gain, gamma, noise),
        ]
    )
    torch.manual_seed(seed)
    start = settings["start"]
    model = UNet.from_pretrained(start) if start else UNet(**settings["network"])
    training = fit(
        model,
        learned,
        steps=steps,
        batch_size=settings["batch"],
        lr=settings["lr"],
        loss=combine(**settings["loss"]),
        average=settings["average"],
        seed=seed,
        progress=False,
    )
    model.save_pretrained(out)
    row = {"name": name, "steps": steps, "seed": seed, "seconds": round(training.seconds)}
    row["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    row |= {way: score(model, held_out, tta) for way, tta in WAYS.items()}
    print(row, flush=True)
    return row


def score(model: UNet, held_out: DRIVEDataset, tta: bool) -> dict[str, float]:
    """AUC, AP, and Dice at the threshold that is best for it: all runs are flattered alike."""
    maps = predict_all(model, held_out, tta=tta)
    vessels, fovs = held_out.vessels, held_out.fovs
    threshold = choose_threshold(maps, vessels, fovs)
    scores = pixel_scores(maps, vessels, fovs, threshold)
    return {name: round(scores[name], 4) for name in ("AUC", "AP", "Dice")} | {
        "threshold": round(threshold, 3)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(VARIANTS), metavar="NAME", help="all by default")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--out", type=Path, default=RUNS / "search")
    options = parsed(parser)
    everything = labelled(options.data)
    for seed in options.seeds:
        for name in options.names:
            target = options.out / f"{name}-{options.steps}-{seed}.json"
            weights = target.with_suffix(".safetensors")
            once(target, lambda n=name, s=seed, w=weights: run(n, s, options.steps, everything, w))
    for path in sorted(options.out.glob("*.json")):
        row = json.loads(path.read_text())
        print(f"{row['name']:32} {row['steps']:5} steps, seed {row['seed']}, {row['seconds']:4} s", end="")
        for way in WAYS:
            print(f"  {way}: AUC {row[way]['AUC']:.4f}, Dice {row[way]['Dice']:.4f}", end="")
        print()


if __name__ == "__main__":
    main()
