"""The recipe search: one named change at a time, on fold 0 of the DRIVE training photographs.

    python benchmarks/search.py --data DRIVE [--steps 500] [NAME ...]

Each run learns from 16 photographs and is scored once, after its last step, on the four held out (21, 26,
31, 36). Results go to one JSON file a run; a run that has one, or that another process has claimed, is
passed over, so that several processes share the list and a stopped search goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from torchvision.transforms import v2

from drive_unet import UNet, fit
from drive_unet.augmentation import RandomColour, RandomPatch
from drive_unet.data import DRIVEDataset, folds
from drive_unet.inference import predict_all
from drive_unet.locate import find_drive
from drive_unet.losses import combine
from drive_unet.metrics import choose_threshold, pixel_scores

BASE = {
    "widths": (16, 24, 32, 48, 64),
    "lr": 1e-2,
    "average": 0.0,
    "weight_decay": 1e-2,
    "loss": {"bce": 1.0, "dice": 0.5},
    "patch": 256,
    "batch": 8,
    "scale": (0.8, 1.25),
    "rotate": 180.0,
    "colour": (0.15, 0.25, 0.02),
    "init": None,
}
VARIANTS: dict[str, dict] = {
    "base": {},
    "synthetic": {"init": "embedded"},
    "synthetic-lr5": {"init": "embedded", "lr": 5e-3},
    "synthetic-ema": {"init": "embedded", "average": 0.98},
    "synthetic-bce": {"init": "embedded", "loss": {"bce": 1.0}},
    "synthetic-cldice": {"init": "embedded", "loss": {"bce": 1.0, "dice": 0.5, "cldice": 0.2}},
    "synthetic-colour-strong": {"init": "embedded", "colour": (0.3, 0.5, 0.03)},
    "synthetic-colour-off": {"init": "embedded", "colour": (0.0, 0.0, 0.0)},
    "synthetic-scale-off": {"init": "embedded", "scale": (1.0, 1.0)},
    "synthetic-scale-strong": {"init": "embedded", "scale": (0.65, 1.5)},
    "synthetic-patch128": {"init": "embedded", "patch": 128, "batch": 32},
    "ema": {"average": 0.98},
    "bce": {"loss": {"bce": 1.0}},
    "detail": {"detail": 8},
    "two-passes": {"passes": 2},
    "wide": {"widths": (32, 48, 64, 96, 128)},
    "four-levels": {"widths": (16, 32, 48, 64)},
    "flat": {"widths": (24, 24, 24, 24, 24)},
    "cldice": {"loss": {"bce": 1.0, "dice": 0.5, "cldice": 0.2}},
    "colour-strong": {"colour": (0.3, 0.5, 0.03)},
    "colour-off": {"colour": (0.0, 0.0, 0.0)},
    "scale-strong": {"scale": (0.65, 1.5)},
    "scale-off": {"scale": (1.0, 1.0)},
    "lr2": {"lr": 2e-2},
    "lr5": {"lr": 5e-3},
    "patch128": {"patch": 128, "batch": 32},
    "patch384": {"patch": 384, "batch": 4},
    "full-resolution": {"widths": (8, 16, 24, 32, 48), "stem": 1},
}


def run(name: str, seed: int, steps: int, root: str | None, out: Path) -> None:
    target = out / f"{name}-{steps}-{seed}.json"
    claim = target.with_suffix(".claim")
    out.mkdir(parents=True, exist_ok=True)
    try:
        claim.touch(exist_ok=False)
    except FileExistsError:
        return
    settings = BASE | VARIANTS[name]
    everything = DRIVEDataset.from_pairs(find_drive(root).training)
    names, held_out_names = folds(everything.names)[0]
    train, held_out = everything.subset(names), everything.subset(held_out_names)
    gain, gamma, noise = settings["colour"]
    train.transform = v2.Compose(
        [
            RandomPatch(settings["patch"], settings["rotate"], settings["scale"]),
            RandomColour(gain, gamma, noise),
        ]
    )
    torch.manual_seed(seed)
    network = {k: settings[k] for k in ("widths", "stem", "detail", "passes") if k in settings}
    model = UNet.from_pretrained(settings["init"]) if settings["init"] else UNet(**network)
    start = time.perf_counter()
    fit(
        model,
        train,
        steps=steps,
        batch_size=settings["batch"],
        lr=settings["lr"],
        weight_decay=settings["weight_decay"],
        loss=combine(**settings["loss"]),
        average=settings["average"],
        seed=seed,
        progress=False,
    )
    seconds = time.perf_counter() - start
    row = {"name": name, "steps": steps, "seed": seed, "seconds": round(seconds)}
    row["parameters"] = sum(p.numel() for p in model.parameters())
    for key, tta in (("one pass", False), ("four flips", True)):
        row[key] = score(model, held_out, tta)
    target.write_text(json.dumps(row))
    print(json.dumps(row), flush=True)


def score(model: UNet, held_out: DRIVEDataset, tta: bool) -> dict[str, float]:
    """AUC, AP, and Dice at the threshold that is best for it: all runs are flattered alike."""
    maps = predict_all(model, held_out, tta=tta)
    vessels = [sample.vessels[0].numpy() > 0 for sample in held_out]
    fovs = [sample.fov[0].numpy() > 0 for sample in held_out]
    threshold = choose_threshold(maps, vessels, fovs)
    scores = pixel_scores(maps, vessels, fovs, threshold)
    return {name: round(scores[name], 4) for name in ("AUC", "AP", "Dice")} | {
        "threshold": round(threshold, 3)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--data")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/runs/search"))
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    for name in options.names:
        run(name, options.seed, options.steps, options.data, options.out)


if __name__ == "__main__":
    main()
