"""Train the weights that come with the package, each by one line, from a clean checkout:

    python scripts/train_weights.py synthetic
    python scripts/train_weights.py default --data DRIVE --threshold .455 --threshold-single .444
    python scripts/train_weights.py fast --data DRIVE --threshold .455 --threshold-single .444

The first learns from 375 eyes while they are painted, and takes its thresholds from ten others; no genuine
pixel has a part in it. The others start from the former ones, `synthetic-2`, and learn by the presets
"best" and "laptop" from the 20 labelled photographs of DRIVE. Their thresholds come from cross-validation,
in which every photograph is predicted by a network that never saw it:

    python benchmarks/cross_validate.py --data DRIVE --preset laptop

`drive_unet/weights/README.md` is the model card.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from torchvision.transforms import v2

import drive_unet
from drive_unet import (
    PRESETS,
    DRIVEDataset,
    PaintedStream,
    UNet,
    evaluate,
    find_drive,
    fit,
    load_drive,
    painter,
    train,
)
from drive_unet.augmentation import RandomColour, RandomPatch
from drive_unet.data.painted import painted_dataset
from drive_unet.presets import choose_thresholds
from drive_unet.training.provenance import versions

WEIGHTS = Path(drive_unet.__file__).parent / "weights"
WAYS = {"one pass": False, "four flips": True}
GENUINE = {"default": "best", "fast": "laptop"}  # weights and the preset that trains them
STEPS, REUSE = 3000, 64  # of the painted training; patches of each painted eye
CHOOSING = range(150, 160)  # seeds of the eyes that the thresholds are chosen on


def from_painted(seed: int, steps: int, run: Path) -> UNet:
    """Train on painted eyes of every colour and sharpness, resuming where a run was stopped."""
    photographs = PaintedStream(
        -(-steps * 8 // REUSE),
        seed=seed,
        reuse=REUSE,
        transform=v2.Compose(
            [RandomPatch(256, exact=0.5, scale=(0.75, 1.35)), RandomColour(gain=0.25, gamma=0.4, noise=0.03)]
        ),
    )
    torch.manual_seed(seed)
    model = UNet()
    result = fit(model, photographs, steps=steps, average=0.98, seed=seed, out=run, resume=True)
    choosing = painted_dataset(CHOOSING)
    choose_thresholds(model, choosing)
    embedded = load_drive("embedded").test
    scored = {way: evaluate(model, embedded, tta=tta).pooled for way, tta in WAYS.items()}
    model.notes |= {
        "data": f"{len(photographs)} painted photographs (painter {painter.VERSION}), no genuine one",
        "threshold": f"best Dice on {len(CHOOSING)} other painted photographs",
        "scores": {"photographs": "the 20 embedded test photographs", **scored},
        "training": {"steps": steps, "seed": seed, "seconds": round(result.seconds)},
        "terms": "MIT, as the package: no dataset's terms apply",
    }
    return model


def from_genuine(name: str, options: argparse.Namespace, run: Path) -> UNet:
    """Train by a preset on all labelled photographs of DRIVE."""
    photographs = DRIVEDataset.from_pairs(find_drive(options.data).training)
    preset = GENUINE[name]
    model, result = train(preset, photographs, steps=options.steps, seed=options.seed, out=run, resume=True)
    model.notes["trained_on"]["source"] = "DRIVE"
    if options.threshold:
        model.threshold, model.threshold_single = options.threshold, options.threshold_single
    model.notes |= {
        "data": f"the {len(photographs)} training photographs of DRIVE: {', '.join(photographs.names)}; "
        f'first weights "{PRESETS[preset].start}", from painted photographs',
        "threshold": "best Dice of cross-validated predictions"
        if options.threshold
        else "best Dice on the photographs learned from",
        "training": {
            "preset": preset,
            "networks averaged": PRESETS[preset].members,
            "steps": len(result.history),
            "seed": options.seed,
            "seconds": round(result.seconds),
        },
        "terms": "DRIVE is for research and education, and so are these weights",
    }
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=["synthetic", *GENUINE])
    parser.add_argument("--data", help="a copy of DRIVE; by default $DRIVE_UNET_DATA")
    parser.add_argument("--steps", type=int, help="another budget than the preset's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="CPU threads; all by default")
    parser.add_argument("--threshold", type=float, help="for four flips, from cross-validation")
    parser.add_argument("--threshold-single", type=float, help="for one pass, from cross-validation")
    parser.add_argument("--run", type=Path, help="folder of checkpoints, to resume a stopped training")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    if (options.threshold is None) != (options.threshold_single is None):
        parser.error("--threshold and --threshold-single come together")
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as temporary:
        run = options.run or Path(temporary)
        if options.name == "synthetic":
            model = from_painted(options.seed, options.steps or STEPS, run)
        else:
            model = from_genuine(options.name, options, run)
    model.notes |= {
        "limits": "Not a medical device. "
        "It knows healthy and mildly diabetic eyes of one camera, or painted ones.",
        "versions": versions(),
    }
    path = model.save_pretrained(options.out / f"{options.name}.safetensors", half=True)
    print(
        f"written to {path}, {path.stat().st_size / 1e6:.2f} MB; "
        f"thresholds {model.threshold:.3f} with flips, {model.threshold_single:.3f} for one pass"
    )


if __name__ == "__main__":
    main()
